//! Arithmetic on registers, after the PTX ISA.

use crate::instruction::{Compare, Compute, Type};
use wtacrs_simt::math::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f32_to_tf32};

/// The lowest bits of a register.
pub(crate) fn lowest(value: u64, bits: u32) -> u64 {
    if bits >= 64 { value } else { value & ((1 << bits) - 1) }
}

/// The same as a number with a sign.
fn signed(value: u64, bits: u32) -> i64 {
    let unused = 64 - bits;
    (value << unused) as i64 >> unused
}

fn float(value: u64) -> f32 {
    f32::from_bits(value as u32)
}

/// The result of an operation.
pub(crate) fn compute(operation: Compute, of: Type, [a, b, c]: [u64; 3]) -> u64 {
    match of {
        Type::F32 => f32_operation(operation, [a, b, c].map(float)).to_bits().into(),
        Type::F64 => f64_operation(operation, [a, b, c].map(f64::from_bits)).to_bits(),
        Type::Signed(bits) => integer(operation, bits, true, [a, b, c]),
        Type::Unsigned(bits) => integer(operation, bits, false, [a, b, c]),
        Type::Predicate => integer(operation, 1, false, [a, b, c]),
        Type::F16 | Type::Bf16 | Type::Tf32 => unreachable!("no arithmetic on numbers that are only stored"),
    }
}

macro_rules! floats {
    ($name:ident, $type:ident) => {
        fn $name(operation: Compute, [a, b, c]: [$type; 3]) -> $type {
            match operation {
                Compute::Add => a + b,
                Compute::Subtract => a - b,
                Compute::Multiply => a * b,
                Compute::MultiplyAdd => a.mul_add(b, c),
                Compute::Divide => a / b,
                Compute::Root => a.sqrt(),
                Compute::Reciprocal => 1.0 / a,
                // A NaN loses against a number, and the zeros have an order, as in PTX.
                Compute::Least if a == b => {
                    if a.is_sign_negative() {
                        a
                    } else {
                        b
                    }
                }
                Compute::Greatest if a == b => {
                    if a.is_sign_negative() {
                        b
                    } else {
                        a
                    }
                }
                Compute::Least => a.min(b),
                Compute::Greatest => a.max(b),
                Compute::Absolute => a.abs(),
                Compute::Negative => -a,
                _ => unreachable!("read as an operation on integers"),
            }
        }
    };
}

floats!(f32_operation, f32);
floats!(f64_operation, f64);

fn integer(operation: Compute, bits: u32, is_signed: bool, [a, b, c]: [u64; 3]) -> u64 {
    let wide = |value: u64| {
        if is_signed { i128::from(signed(value, bits)) } else { i128::from(lowest(value, bits)) }
    };
    // A shift counts up to the width: PTX clamps it there.
    let shift = lowest(b, 32).min(bits.into()) as u32;
    let (x, y, z) = (wide(a), wide(b), wide(c));
    let result = match operation {
        Compute::Add => x + y,
        Compute::Subtract => x - y,
        Compute::Multiply => x.wrapping_mul(y),
        Compute::MultiplyHigh => x.wrapping_mul(y) >> bits,
        Compute::MultiplyWide => return lowest(x.wrapping_mul(y) as u64, 2 * bits),
        Compute::MultiplyAdd => x.wrapping_mul(y).wrapping_add(z),
        // The addend has twice the bits.
        Compute::MultiplyAddWide => return lowest((x.wrapping_mul(y) as u64).wrapping_add(c), 2 * bits),
        Compute::Divide => x.checked_div(y).expect("no kernel divides by zero"),
        Compute::Remainder => x.checked_rem(y).expect("no kernel divides by zero"),
        Compute::Least => x.min(y),
        Compute::Greatest => x.max(y),
        Compute::Absolute => x.abs(),
        Compute::Negative => -x,
        Compute::And => x & y,
        Compute::Or => x | y,
        Compute::Xor => x ^ y,
        Compute::Not => !x,
        Compute::Left => x << shift,
        Compute::Right => x >> shift,
        Compute::Ones => i128::from(lowest(a, bits).count_ones()),
        Compute::LeadingZeros => i128::from(lowest(a, bits).leading_zeros() - (64 - bits)),
        Compute::Field => i128::from(lowest(lowest(a, bits) >> (b & 255).min(63), (c & 255) as u32)),
        Compute::Root | Compute::Reciprocal => unreachable!("read as an operation on floats"),
    };
    lowest(result as u64, bits)
}

/// The result of a comparison.
pub(crate) fn compare(comparison: Compare, of: Type, a: u64, b: u64) -> bool {
    let order = match of {
        Type::F32 => float(a).partial_cmp(&float(b)),
        Type::F64 => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Type::Signed(bits) => Some(signed(a, bits).cmp(&signed(b, bits))),
        Type::Unsigned(bits) => Some(lowest(a, bits).cmp(&lowest(b, bits))),
        Type::Predicate => Some((a & 1).cmp(&(b & 1))),
        Type::F16 | Type::Bf16 | Type::Tf32 => unreachable!("no arithmetic on numbers that are only stored"),
    };
    let is = |holds: fn(std::cmp::Ordering) -> bool| order.is_some_and(holds);
    match comparison {
        Compare::Equal => is(std::cmp::Ordering::is_eq),
        Compare::NotEqual => is(std::cmp::Ordering::is_ne),
        Compare::Less => is(std::cmp::Ordering::is_lt),
        Compare::LessOrEqual => is(std::cmp::Ordering::is_le),
        Compare::Greater => is(std::cmp::Ordering::is_gt),
        Compare::GreaterOrEqual => is(std::cmp::Ordering::is_ge),
        Compare::EqualOrNan => !is(std::cmp::Ordering::is_ne),
        Compare::NotEqualOrNan => !is(std::cmp::Ordering::is_eq),
        Compare::NotLess => !is(std::cmp::Ordering::is_lt),
        Compare::NotLessOrEqual => !is(std::cmp::Ordering::is_le),
        Compare::NotGreater => !is(std::cmp::Ordering::is_gt),
        Compare::NotGreaterOrEqual => !is(std::cmp::Ordering::is_ge),
        Compare::Nan => order.is_none(),
        Compare::Number => order.is_some(),
    }
}

/// The result of a conversion: rounded to the nearest, ties to even, or towards zero.
pub(crate) fn convert(to: Type, from: Type, towards_zero: bool, value: u64) -> u64 {
    match (from, to) {
        (Type::F16, Type::F32) => f16_to_f32(value as u16).to_bits().into(),
        (Type::Bf16, Type::F32) => bf16_to_f32(value as u16).to_bits().into(),
        (Type::F32, Type::F16) => f32_to_f16(float(value)).into(),
        (Type::F32, Type::Bf16) => f32_to_bf16(float(value)).into(),
        (Type::F32, Type::Tf32) => f32_to_tf32(float(value)).into(),
        (Type::F32, Type::F64) => f64::from(float(value)).to_bits(),
        (Type::F64, Type::F32) => (f64::from_bits(value) as f32).to_bits().into(),
        (Type::F32, Type::Signed(_) | Type::Unsigned(_)) => {
            to_integer(f64::from(float(value)), to, towards_zero, matches!(to.bits(), 64))
        }
        (Type::F64, Type::Signed(_) | Type::Unsigned(_)) => to_integer(f64::from_bits(value), to, towards_zero, true),
        (Type::Signed(bits), Type::F32) => (signed(value, bits) as f32).to_bits().into(),
        (Type::Signed(bits), Type::F64) => (signed(value, bits) as f64).to_bits(),
        (Type::Unsigned(bits), Type::F32) => (lowest(value, bits) as f32).to_bits().into(),
        (Type::Unsigned(bits), Type::F64) => (lowest(value, bits) as f64).to_bits(),
        (Type::Signed(bits), Type::Signed(width) | Type::Unsigned(width)) => lowest(signed(value, bits) as u64, width),
        (Type::Unsigned(bits), Type::Signed(width) | Type::Unsigned(width)) => lowest(lowest(value, bits), width),
        _ => unreachable!("a conversion that reading refuses"),
    }
}

/// Whether [`convert`] knows it.
pub(crate) fn is_conversion(to: Type, from: Type) -> bool {
    use Type::{Bf16, F16, F32, F64, Signed, Unsigned};
    matches!(
        (from, to),
        (F16 | Bf16, F32)
            | (F32, F16 | Bf16 | Type::Tf32 | F64)
            | (F64, F32)
            | (F32 | F64, Signed(_) | Unsigned(_))
            | (Signed(_) | Unsigned(_), F32 | F64)
            | (Signed(_) | Unsigned(_), Signed(_) | Unsigned(_))
    )
}

/// Clamped to the type's range. A NaN becomes zero, or the highest bit if one of the types has 64 bits.
fn to_integer(value: f64, to: Type, towards_zero: bool, is_wide: bool) -> u64 {
    let bits = to.bits();
    if value.is_nan() {
        return if is_wide { 1 << (bits - 1) } else { 0 };
    }
    let whole = if towards_zero { value.trunc() } else { value.round_ties_even() };
    let result = match to {
        Type::Signed(_) => {
            (whole as i64).clamp(signed(1 << (bits - 1), bits), (1_u64 << (bits - 1)).wrapping_sub(1) as i64) as u64
        }
        _ => (whole as u64).min(lowest(u64::MAX, bits)),
    };
    lowest(result, bits)
}
