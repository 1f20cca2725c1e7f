//! cvt and fused operations.

use core::arch::asm;

#[inline(always)]
pub(crate) fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    core::f32::math::mul_add(a, b, c)
}

#[inline(always)]
pub(crate) fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    core::f64::math::mul_add(a, b, c)
}

#[inline(always)]
pub(crate) fn multiply_wide(a: u32, b: u32) -> u64 {
    let product;
    // SAFETY: arithmetic.
    unsafe {
        asm!(
            "mul.wide.u32 {0}, {1}, {2};",
            out(reg64) product,
            in(reg32) a,
            in(reg32) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    product
}

#[inline(always)]
pub(crate) fn sqrt_f32(x: f32) -> f32 {
    core::f32::math::sqrt(x)
}

#[inline(always)]
pub(crate) fn sqrt_f64(x: f64) -> f64 {
    core::f64::math::sqrt(x)
}

/// One conversion between registers.
macro_rules! convert {
    ($instruction:literal, $to:ident, $from:ident, $value:expr) => {{
        let result;
        // SAFETY: arithmetic.
        unsafe {
            asm!(
                concat!($instruction, " {0}, {1};"),
                out($to) result,
                in($from) $value,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }};
}

#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    f32::from_bits(convert!("cvt.f32.f16", reg32, reg16, bits))
}

#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    convert!("cvt.rn.f16.f32", reg16, reg32, x.to_bits())
}

#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    convert!("cvt.rn.bf16.f32", reg16, reg32, x.to_bits())
}

/// One conversion of two registers to one. The instruction takes the upper half first.
macro_rules! convert_pair {
    ($instruction:literal, $low:expr, $high:expr) => {{
        let result;
        // SAFETY: arithmetic.
        unsafe {
            asm!(
                concat!($instruction, " {0}, {1}, {2};"),
                out(reg32) result,
                in(reg32) $high.to_bits(),
                in(reg32) $low.to_bits(),
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }};
}

#[inline(always)]
pub(crate) fn f32_pair_to_f16(low: f32, high: f32) -> u32 {
    convert_pair!("cvt.rn.f16x2.f32", low, high)
}

#[inline(always)]
pub(crate) fn f32_pair_to_bf16(low: f32, high: f32) -> u32 {
    convert_pair!("cvt.rn.bf16x2.f32", low, high)
}

#[inline(always)]
pub(crate) fn f32_to_tf32(x: f32) -> u32 {
    convert!("cvt.rna.tf32.f32", reg32, reg32, x.to_bits())
}
