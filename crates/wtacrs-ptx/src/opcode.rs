//! Opcodes: the operation that each of them names.

use crate::arithmetic::is_conversion;
use crate::error::Reason;
use crate::instruction::{Access, Atomic, Compare, Compute, Multiply, Operation, Reduce, Shuffle, Space, Type, Vote};

/// The meaning of an opcode, given as its parts between the points. Some forms differ in their operands only: a `mov` of
/// parts, and constants.
pub(crate) fn operation(parts: &[&str], groups: &[Vec<&str>]) -> Result<Operation, Reason> {
    let last = parts[parts.len() - 1];
    let compute = |operation| Ok(Operation::Compute(operation, read_type(last)?));
    let carry = |subtract, carry_in| {
        let bits = read_type(last)?.bits();
        Ok(Operation::Carry { subtract, carry_in, carry_out: parts[1] == "cc", bits })
    };
    match parts {
        ["mov", kind] => {
            let bits = read_type(kind)?.bits();
            let vector = |group: usize| groups.get(group).map_or(0, Vec::len) as u32;
            match (vector(0), vector(1)) {
                (1, 1) => Ok(Operation::Move),
                (parts @ 2..=4, 1) => Ok(Operation::Cut(bits / parts)),
                (1, parts @ 2..=4) => Ok(Operation::Join(bits / parts)),
                _ => Err(Reason::Unknown),
            }
        }
        ["add" | "sub", "cc", _] => carry(parts[0] == "sub", false),
        ["addc" | "subc", "cc", _] | ["addc" | "subc", _] => carry(parts[0] == "subc", true),
        ["add", "rn", "f32" | "f64"] => compute(Compute::Add),
        ["sub", "rn", "f32" | "f64"] => compute(Compute::Subtract),
        ["mul", "rn", "f32" | "f64"] => compute(Compute::Multiply),
        ["div", "rn", "f32" | "f64"] => compute(Compute::Divide),
        ["fma", "rn", "f32" | "f64"] => compute(Compute::MultiplyAdd),
        ["sqrt", "rn", "f32" | "f64"] => compute(Compute::Root),
        ["rcp", "rn", "f32" | "f64"] => compute(Compute::Reciprocal),
        ["add", _] if is_integer(last)? => compute(Compute::Add),
        ["sub", _] if is_integer(last)? => compute(Compute::Subtract),
        ["mul", "lo", _] => compute(Compute::Multiply),
        ["mul", "hi", _] => compute(Compute::MultiplyHigh),
        ["mul", "wide", _] => compute(Compute::MultiplyWide),
        ["mad", "lo", _] => compute(Compute::MultiplyAdd),
        ["mad", "wide", _] => compute(Compute::MultiplyAddWide),
        ["div", _] if is_integer(last)? => compute(Compute::Divide),
        ["rem", _] if is_integer(last)? => compute(Compute::Remainder),
        ["min", _] => compute(Compute::Least),
        ["max", _] => compute(Compute::Greatest),
        ["abs", _] => compute(Compute::Absolute),
        ["neg", _] => compute(Compute::Negative),
        ["and", _] => compute(Compute::And),
        ["or", _] => compute(Compute::Or),
        ["xor", _] => compute(Compute::Xor),
        ["not", _] => compute(Compute::Not),
        ["shl", _] => compute(Compute::Left),
        ["shr", _] => compute(Compute::Right),
        ["popc", _] => compute(Compute::Ones),
        ["clz", _] => compute(Compute::LeadingZeros),
        ["bfe", "u32" | "u64"] => compute(Compute::Field),
        ["setp", comparison, kind] => Ok(Operation::Compare(read_comparison(comparison)?, read_type(kind)?)),
        ["selp", kind] => Ok(Operation::Select(read_type(kind)?.bits())),
        ["cvt", "rn", "bf16x2", "f32"] => Ok(Operation::ConvertPair(Type::Bf16)),
        ["cvt", "rn", "f16x2", "f32"] => Ok(Operation::ConvertPair(Type::F16)),
        ["cvt", mode @ .., to, from] => {
            let (to, from) = (read_type(to)?, read_type(from)?);
            let towards_zero = match mode {
                [] | ["rn" | "rni"] => false,
                ["rzi"] => true,
                // To the nearest, ties away from zero, which only this type has.
                ["rna"] if to == Type::Tf32 => false,
                _ => return Err(Reason::Unknown),
            };
            if !is_conversion(to, from) {
                return Err(Reason::Unknown);
            }
            Ok(Operation::Convert { to, from, towards_zero })
        }
        ["ld", "param", kind] => Ok(Operation::Parameter { bytes: read_type(kind)?.bits() / 8 }),
        ["ld", "relaxed", "gpu", "global", kind] => Ok(Operation::LoadRelaxed(read_type(kind)?.bits())),
        ["st", "relaxed", "gpu", "global", kind] => Ok(Operation::StoreRelaxed(read_type(kind)?.bits())),
        ["ld", "acquire", "gpu", "global", kind] => Ok(Operation::LoadAcquire(read_type(kind)?.bits())),
        ["st", "release", "gpu", "global", kind] => Ok(Operation::StoreRelease(read_type(kind)?.bits())),
        ["ld", "global", "nc", rest @ ..] => Ok(Operation::Load(Space::Constant, access(rest)?)),
        ["ld", "global", rest @ ..] => Ok(Operation::Load(Space::Global, access(rest)?)),
        ["ld", "shared", rest @ ..] => Ok(Operation::Load(Space::Shared, access(rest)?)),
        ["st", "global", rest @ ..] => Ok(Operation::Store(Space::Global, access(rest)?)),
        ["st", "shared", rest @ ..] => Ok(Operation::Store(Space::Shared, access(rest)?)),
        ["atom", "relaxed", "gpu", "global", name, kind] => {
            Ok(Operation::Atomic(Space::Global, atomic(name, kind)?, read_type(kind)?.bits()))
        }
        ["atom", "relaxed", "cta", "shared", name, kind] => {
            Ok(Operation::Atomic(Space::Shared, atomic(name, kind)?, read_type(kind)?.bits()))
        }
        ["fence", "acq_rel", "gpu"] => Ok(Operation::Fence),
        ["nanosleep", "u32"] => Ok(Operation::Nap),
        ["bra"] | ["bra", "uni"] => Ok(Operation::Branch(u32::MAX)),
        ["ret"] => Ok(Operation::Return),
        ["trap"] => Ok(Operation::Trap),
        ["bar", "sync"] if groups == [["0"]] => Ok(Operation::Barrier),
        ["bar", "warp", "sync"] => Ok(Operation::WarpBarrier),
        ["shfl", "sync", mode, "b32"] => {
            let (shuffle, bounds) = match *mode {
                "bfly" => (Shuffle::Butterfly, "31"),
                "up" => (Shuffle::Up, "0"),
                "down" => (Shuffle::Down, "31"),
                "idx" => (Shuffle::Index, "31"),
                _ => return Err(Reason::Unknown),
            };
            // Other bounds would cut the warp into segments.
            let is_whole_warp = groups.get(3).is_some_and(|group| *group == [bounds]);
            if is_whole_warp { Ok(Operation::Shuffle(shuffle)) } else { Err(Reason::Unknown) }
        }
        ["vote", "sync", "ballot", "b32"] => Ok(Operation::Vote(Vote::Ballot)),
        ["vote", "sync", "any", "pred"] => Ok(Operation::Vote(Vote::Any)),
        ["vote", "sync", "all", "pred"] => Ok(Operation::Vote(Vote::All)),
        ["redux", "sync", "add", "u32" | "s32"] => Ok(Operation::Reduce(Reduce::Add)),
        ["redux", "sync", "min", "u32"] => Ok(Operation::Reduce(Reduce::Least)),
        ["redux", "sync", "max", "u32"] => Ok(Operation::Reduce(Reduce::Greatest)),
        ["redux", "sync", "or", "b32"] => Ok(Operation::Reduce(Reduce::Or)),
        ["cp", "async", "ca" | "cg", "shared", "global"] => {
            let bytes = groups.get(2).and_then(|group| group[0].parse().ok()).ok_or(Reason::Unknown)?;
            match (parts[2], bytes) {
                ("ca", 4 | 8 | 16) | ("cg", 16) => Ok(Operation::Copy { bytes }),
                _ => Err(Reason::Unknown),
            }
        }
        ["cp", "async", "commit_group"] => Ok(Operation::CommitCopies),
        ["cp", "async", "wait_group"] => {
            let pending = groups.first().and_then(|group| group[0].parse().ok()).ok_or(Reason::Unknown)?;
            if pending < 8 { Ok(Operation::WaitForCopies { pending }) } else { Err(Reason::Unknown) }
        }
        ["ldmatrix", "sync", "aligned", "m8n8", count @ ("x2" | "x4"), rest @ .., "shared", "b16"] => {
            let transposed = match rest {
                [] => false,
                ["trans"] => true,
                _ => return Err(Reason::Unknown),
            };
            Ok(Operation::LoadMatrix { matrices: if *count == "x2" { 2 } else { 4 }, transposed })
        }
        ["mma", "sync", "aligned", shape, "row", "col", "f32", a, b, "f32"] if a == b => match (*shape, *a) {
            ("m16n8k16", "bf16") => Ok(Operation::Multiply(Multiply::Bf16)),
            ("m16n8k16", "f16") => Ok(Operation::Multiply(Multiply::F16)),
            ("m16n8k8", "tf32") => Ok(Operation::Multiply(Multiply::Tf32)),
            _ => Err(Reason::Unknown),
        },
        _ => Err(Reason::Unknown),
    }
}

/// A type by its name in the text.
pub(crate) fn read_type(name: &str) -> Result<Type, Reason> {
    let bits = |digits: &str| {
        digits.parse::<u32>().ok().filter(|bits| matches!(bits, 8 | 16 | 32 | 64)).ok_or(Reason::Unknown)
    };
    match name {
        "pred" => Ok(Type::Predicate),
        "f16" => Ok(Type::F16),
        "bf16" => Ok(Type::Bf16),
        "tf32" => Ok(Type::Tf32),
        "f32" => Ok(Type::F32),
        "f64" => Ok(Type::F64),
        _ => match name.split_at_checked(1) {
            Some(("u" | "b", digits)) => Ok(Type::Unsigned(bits(digits)?)),
            Some(("s", digits)) => Ok(Type::Signed(bits(digits)?)),
            _ => Err(Reason::Unknown),
        },
    }
}

/// Floats have `rn` in their opcode; without it they may be fused.
fn is_integer(kind: &str) -> Result<bool, Reason> {
    Ok(matches!(read_type(kind)?, Type::Signed(_) | Type::Unsigned(_)))
}

fn access(parts: &[&str]) -> Result<Access, Reason> {
    let (elements, kind) = match parts {
        [kind] => (1, kind),
        ["v2", kind] => (2, kind),
        ["v4", kind] => (4, kind),
        _ => return Err(Reason::Unknown),
    };
    let access = Access { elements, bytes: read_type(kind)?.bits() / 8 };
    if access.elements * access.bytes <= 16 { Ok(access) } else { Err(Reason::Unknown) }
}

fn atomic(name: &str, kind: &str) -> Result<Atomic, Reason> {
    match (name, kind) {
        ("add", "u32" | "u64") => Ok(Atomic::Add),
        ("min", "u32" | "u64") => Ok(Atomic::Least),
        ("max", "u32" | "u64") => Ok(Atomic::Greatest),
        ("or", "b32" | "b64") => Ok(Atomic::Or),
        ("exch", "b32" | "b64") => Ok(Atomic::Exchange),
        ("cas", "b32" | "b64") => Ok(Atomic::CompareExchange),
        _ => Err(Reason::Unknown),
    }
}

fn read_comparison(name: &str) -> Result<Compare, Reason> {
    Ok(match name {
        "eq" => Compare::Equal,
        "ne" => Compare::NotEqual,
        "lt" => Compare::Less,
        "le" => Compare::LessOrEqual,
        "gt" => Compare::Greater,
        "ge" => Compare::GreaterOrEqual,
        "equ" => Compare::EqualOrNan,
        "neu" => Compare::NotEqualOrNan,
        "ltu" => Compare::NotGreaterOrEqual,
        "leu" => Compare::NotGreater,
        "gtu" => Compare::NotLessOrEqual,
        "geu" => Compare::NotLess,
        "nan" => Compare::Nan,
        "num" => Compare::Number,
        _ => return Err(Reason::Unknown),
    })
}
