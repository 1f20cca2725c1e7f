//! The way from a dtype to a Rust type.

use super::enums::Dtype;
use crate::boundary::status::WTACRS_STATUS_UNSUPPORTED;
use crate::boundary::{Failure, Outcome};
use half::{bf16, f16};
use wtacrs_core::element::Element;

/// Refuses dtypes that no product is made for.
pub(crate) fn check_dtypes(h: Dtype, dz: Dtype, dw: Dtype) -> Outcome {
    if h.accumulator() == dz.accumulator() && dw == h.accumulator() {
        return Ok(());
    }
    let message =
        format!("no product of {h:?} and {dz:?} in {dw:?}: f32, f16 and bf16 give F32, and F64 goes with F64 alone");
    Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message))
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
            $crate::arguments::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::arguments::Dtype::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::arguments::Dtype::Bf16 => {
                type $T = half::bf16;
                $body
            }
            $crate::arguments::Dtype::F64 => {
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
            ($crate::arguments::Dtype::F64, _) => { type $T = f64; type $U = f64; $body }
            (_, $crate::arguments::Dtype::F16) => { type $U = half::f16; with_elements!(@narrow $h, $T => $body) }
            (_, $crate::arguments::Dtype::Bf16) => { type $U = half::bf16; with_elements!(@narrow $h, $T => $body) }
            _ => { type $U = f32; with_elements!(@narrow $h, $T => $body) }
        }
    };
    (@narrow $h:expr, $T:ident => $body:expr) => {
        match $h {
            $crate::arguments::Dtype::F16 => { type $T = half::f16; $body }
            $crate::arguments::Dtype::Bf16 => { type $T = half::bf16; $body }
            _ => { type $T = f32; $body }
        }
    };
}

pub(crate) use {with_element, with_elements};
