//! Not written yet.
use super::block::vector::Packed;
use crate::kernel::softmax::{BackwardArgs, ForwardArgs};
pub unsafe fn softmax_forward<E: Packed>(_: &ForwardArgs) {
    wtacrs_simt::sync::trap()
}
pub unsafe fn softmax_backward<E: Packed>(_: &BackwardArgs) {
    wtacrs_simt::sync::trap()
}
