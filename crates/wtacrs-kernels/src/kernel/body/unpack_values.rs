//! Not written yet.
use super::block::vector::Packed;
use crate::kernel::unpack_values::Args;
pub unsafe fn unpack_values<E: Packed>(_: &Args) {
    wtacrs_simt::sync::trap()
}
