//! Norms of a matrix's rows or columns: what weights are made from, and what predictors and caches learn from.

use super::context::{device, wtacrs_context};
use crate::arguments::enums::{self, wtacrs_axis, wtacrs_dtype};
use crate::arguments::{Array, Stream, Tensor, check_disjoint, tensor, wtacrs_dltensor};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, guard};
use crate::device::Device;
use core::ffi::c_void;

/// The Euclidean norms of the rows or columns of a matrix. A row or column that is not finite has a norm that is not finite;
/// that is not an error here.
///
/// For layers that share H, write the norms of their dZ into one layers x tokens matrix: its column norms are the joint
/// norms, which a shared predictor learns from and a shared cache stores.
///
/// axis      of which there is a norm for each: rows or columns
/// x         [in] rows x columns of `dtype`, `x_leading` >= columns elements from row to row
/// norms     [out] one float for each row or column
/// stream    as in wtacrs_plan_forward
///
/// The same bits for every number of threads, leading dimension and stride. On CUDA the dtype is WTACRS_DTYPE_F32, _F16 or
/// _BF16: WTACRS_STATUS_UNSUPPORTED otherwise.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT, _UNSUPPORTED, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER,
/// _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_norms(
    context: *const wtacrs_context,
    axis: wtacrs_axis,
    dtype: wtacrs_dtype,
    rows: usize,
    columns: usize,
    x: *const c_void,
    x_leading: usize,
    norms: *mut f32,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_context_norms", || {
        let device = device(context)?;
        let x = Tensor::rows(x, enums::dtype(dtype)?, [rows, columns], x_leading, "x")?;
        // SAFETY: as documented.
        unsafe { norms_of(&*device, axis, &x, norms, usize::MAX, stream) }
    })
}

/// wtacrs_context_norms of a DLPack tensor of two axes; `norms` has room for `capacity` floats.
///
/// Errors: as for wtacrs_context_norms; also WTACRS_STATUS_BUFFER_TOO_SMALL, _SHAPE_MISMATCH, _DEVICE_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_norms_dl(
    context: *const wtacrs_context,
    axis: wtacrs_axis,
    x: *const wtacrs_dltensor,
    norms: *mut f32,
    capacity: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_context_norms_dl", || {
        let device = device(context)?;
        // SAFETY: as documented.
        unsafe {
            let (x, _) = tensor::<2>(x, device.place(), None, "x")?;
            norms_of(&*device, axis, &x, norms, capacity, stream)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_context_norms`.
unsafe fn norms_of(
    device: &dyn Device,
    axis: wtacrs_axis,
    x: &Tensor<2>,
    norms: *mut f32,
    capacity: usize,
    stream: Stream,
) -> Outcome {
    let axis = enums::axis(axis)?;
    let count = x.shape()[axis as usize];
    if capacity < count {
        let message = format!("room for {capacity} norms where there are {count}");
        return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
    }
    let norms = Array::new(norms.cast_const(), count, "norms")?;
    check_disjoint(&[norms.region()], &[x.region()])?;
    // SAFETY: checked; the caller has the rest.
    unsafe { device.norms(axis, x, &norms, stream) }
}
