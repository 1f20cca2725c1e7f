//! Not written yet.
use super::block::vector::Packed;
use crate::kernel::pointwise::{BackwardArgs, ForwardArgs};
pub unsafe fn pointwise_forward<E: Packed>(_: &ForwardArgs) {
    wtacrs_simt::sync::trap()
}
pub unsafe fn pointwise_backward<E: Packed>(_: &BackwardArgs) {
    wtacrs_simt::sync::trap()
}
