//! Enumerations of the interface, as integers that are checked; and the way from a dtype to a Rust type.

use crate::guard::{Failure, Outcome};
use crate::status::{WTACRS_INVALID_ENUM, WTACRS_UNSUPPORTED};
use half::{bf16, f16};
use wtacrs_core::element::Element;
use wtacrs_core::sampling::design::BuiltIn;
use wtacrs_kernels::plan::Precision;

/// The host's cores and memory.
pub const WTACRS_CPU: i32 = 0;
/// An NVIDIA GPU of compute capability 8.0 or later, by the CUDA driver, which is loaded when it is first asked for.
pub const WTACRS_CUDA: i32 = 1;

/// IEEE 754 binary32.
pub const WTACRS_F32: i32 = 0;
/// IEEE 754 binary16.
pub const WTACRS_F16: i32 = 1;
/// The upper half of a binary32.
pub const WTACRS_BF16: i32 = 2;
/// IEEE 754 binary64, for references.
pub const WTACRS_F64: i32 = 3;

/// Equal probabilities, whatever the weights.
pub const WTACRS_UNIFORM: i32 = 0;
/// Column-row sampling: independent draws in proportion to the weights.
pub const WTACRS_CRS: i32 = 1;
/// The heaviest pairs and nothing else: biased.
pub const WTACRS_TOP_K: i32 = 2;
/// Winners, and independent draws from the tail.
pub const WTACRS_WTA_IID: i32 = 3;
/// Winners, and one draw from each stratum of the tail.
pub const WTACRS_WTA_STRATIFIED: i32 = 4;
/// Winners, and distinct pairs of the tail by a tree of duels. The default.
pub const WTACRS_WTA_PIVOTAL: i32 = 5;

/// Weights are the norms of the rows of H alone.
pub const WTACRS_SOURCE_INPUT: i32 = 0;
/// Weights are norms of H times norms of dZ that the caller gives, taken as they are.
pub const WTACRS_SOURCE_NORMS: i32 = 1;
/// Weights from norms of an earlier step, mixed with the input's; a negative norm is an unknown one.
pub const WTACRS_SOURCE_CACHED: i32 = 2;
/// Weights from what a norm predictor makes of H. The default.
pub const WTACRS_SOURCE_PREDICTED: i32 = 3;

/// Products of f32 in f32 throughout. The default.
pub const WTACRS_PRECISION_F32: i32 = 0;
/// Products of f32 may round both factors to tf32, 10 bits behind the point, with sums in f32.
pub const WTACRS_PRECISION_TF32: i32 = 1;

/// The type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
    F64,
}

/// What a forward pass knows of ‖dZ_i‖.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Input,
    Norms,
    Cached,
    Predicted,
}

impl Dtype {
    pub(crate) fn new(number: i32) -> Outcome<Self> {
        one_of("dtype", number, &[Self::F32, Self::F16, Self::Bf16, Self::F64])
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The number by which C knows it.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::F32 => WTACRS_F32,
            Self::F16 => WTACRS_F16,
            Self::Bf16 => WTACRS_BF16,
            Self::F64 => WTACRS_F64,
        }
    }

    /// What sums of products are taken in, and the only dtype that they are written in.
    pub(crate) fn accumulator(self) -> Self {
        if self == Self::F64 { Self::F64 } else { Self::F32 }
    }
}

impl Source {
    pub(crate) fn new(number: i32) -> Outcome<Self> {
        one_of("source", number, &[Self::Input, Self::Norms, Self::Cached, Self::Predicted])
    }
}

pub(crate) fn design(number: i32) -> Outcome<BuiltIn> {
    one_of("design", number, &BuiltIn::ALL)
}

pub(crate) fn precision(number: i32) -> Outcome<Precision> {
    one_of("precision", number, &[Precision::Exact, Precision::Tf32])
}

/// A yes or no.
pub(crate) fn flag(what: &'static str, number: i32) -> Outcome<bool> {
    one_of(what, number, &[false, true])
}

/// The entry that a number from C stands for.
pub(crate) fn one_of<T: Copy>(what: &'static str, number: i32, entries: &[T]) -> Outcome<T> {
    let entry = usize::try_from(number).ok().and_then(|at| entries.get(at));
    entry.copied().ok_or_else(|| {
        let last = entries.len() - 1;
        Failure::new(WTACRS_INVALID_ENUM, format!("{what} is {number}: it must lie between 0 and {last}"))
    })
}

/// Refuses dtypes that no product is made for.
pub(crate) fn check_dtypes(h: Dtype, dz: Dtype, dw: Dtype) -> Outcome {
    if h.accumulator() == dz.accumulator() && dw == h.accumulator() {
        return Ok(());
    }
    let message =
        format!("no product of {h:?} and {dz:?} in {dw:?}: f32, f16 and bf16 give F32, and F64 goes with F64 alone");
    Err(Failure::new(WTACRS_UNSUPPORTED, message))
}

/// An element type with its dtype.
pub(crate) trait Number: Element {
    const DTYPE: Dtype;
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Number for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl Number for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}

impl Number for f64 {
    const DTYPE: Dtype = Dtype::F64;
}

/// `$body` with `$T` the element type of a dtype.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::dtype::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::dtype::Dtype::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::dtype::Dtype::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::dtype::Dtype::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}

/// `$body` with `$T` and `$U` the element types of H and dZ, a pair that `check_dtypes` has let through.
macro_rules! with_elements {
    ($h:expr, $dz:expr, $T:ident, $U:ident => $body:expr) => {
        match ($h.accumulator(), $dz) {
            ($crate::dtype::Dtype::F64, _) => { type $T = f64; type $U = f64; $body }
            (_, $crate::dtype::Dtype::F16) => { type $U = half::f16; with_elements!(@narrow $h, $T => $body) }
            (_, $crate::dtype::Dtype::Bf16) => { type $U = half::bf16; with_elements!(@narrow $h, $T => $body) }
            _ => { type $U = f32; with_elements!(@narrow $h, $T => $body) }
        }
    };
    (@narrow $h:expr, $T:ident => $body:expr) => {
        match $h {
            $crate::dtype::Dtype::F16 => { type $T = half::f16; $body }
            $crate::dtype::Dtype::Bf16 => { type $T = half::bf16; $body }
            _ => { type $T = f32; $body }
        }
    };
}

pub(crate) use {with_element, with_elements};
