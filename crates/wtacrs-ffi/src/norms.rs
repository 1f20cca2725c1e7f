//! Norms of rows or columns alone: what weights are made from, and what the backward pass gives back.

use crate::array::{Array, check_disjoint};
use crate::context::{context, wtacrs_context};
use crate::cuda;
use crate::device::Device;
use crate::dlpack::{tensor, wtacrs_dltensor};
use crate::dtype::{Dtype, with_element};
use crate::guard::{Failure, Outcome, guard};
use crate::heap;
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use wtacrs_core::product;

/// The Euclidean norms of the rows of x (rows x columns of `dtype`, `x_leading` >= columns elements from row to row)
/// into `norms`, `rows` floats. A row that is not finite has a norm that is not finite; that is no error here.
///
/// The same bits for every number of threads, leading dimension and stride. `stream` as in wtacrs_forward. On CUDA the
/// dtype is WTACRS_F32, WTACRS_F16 or WTACRS_BF16: WTACRS_UNSUPPORTED.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
/// WTACRS_SIZE_OVERFLOW, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_row_norms(
    context: *const wtacrs_context,
    dtype: i32,
    rows: usize,
    columns: usize,
    x: *const c_void,
    x_leading: usize,
    norms: *mut f32,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_row_norms", || {
        let context = self::context(context)?;
        let dtype = Dtype::new(dtype)?;
        let x = Tensor::rows(x, dtype, [rows, columns], x_leading, "x")?;
        // SAFETY: as documented.
        unsafe { norms_of(Axis::Rows, &context.device, x, dtype, norms, rows, stream) }
    })
}

/// wtacrs_row_norms of a DLPack tensor of two axes; `norms` has room for `capacity` floats.
///
/// Errors: as for wtacrs_row_norms; also WTACRS_BUFFER_TOO_SMALL, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED,
/// WTACRS_SHAPE_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_row_norms_dl(
    context: *const wtacrs_context,
    x: *const wtacrs_dltensor,
    norms: *mut f32,
    capacity: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_row_norms_dl", || {
        let context = self::context(context)?;
        // SAFETY: as documented.
        let (x, dtype) = unsafe { tensor::<2>(x, &context.device, None, "x") }?;
        // SAFETY: as documented.
        unsafe { norms_of(Axis::Rows, &context.device, x, dtype, norms, capacity, stream) }
    })
}

/// The Euclidean norms of the columns of x, into `columns` floats; otherwise as wtacrs_row_norms. Of a matrix with a row of
/// `tokens` norms for each layer they are the joint norms of layers that share H, on any device: what
/// wtacrs_joint_norms does for norms on the host.
///
/// Errors: as for wtacrs_row_norms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_column_norms(
    context: *const wtacrs_context,
    dtype: i32,
    rows: usize,
    columns: usize,
    x: *const c_void,
    x_leading: usize,
    norms: *mut f32,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_column_norms", || {
        let context = self::context(context)?;
        let dtype = Dtype::new(dtype)?;
        let x = Tensor::rows(x, dtype, [rows, columns], x_leading, "x")?;
        // SAFETY: as documented.
        unsafe { norms_of(Axis::Columns, &context.device, x, dtype, norms, columns, stream) }
    })
}

/// wtacrs_column_norms of a DLPack tensor of two axes; `norms` has room for `capacity` floats.
///
/// Errors: as for wtacrs_row_norms_dl.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_column_norms_dl(
    context: *const wtacrs_context,
    x: *const wtacrs_dltensor,
    norms: *mut f32,
    capacity: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_column_norms_dl", || {
        let context = self::context(context)?;
        // SAFETY: as documented.
        let (x, dtype) = unsafe { tensor::<2>(x, &context.device, None, "x") }?;
        // SAFETY: as documented.
        unsafe { norms_of(Axis::Columns, &context.device, x, dtype, norms, capacity, stream) }
    })
}

/// Whose norms.
#[derive(Clone, Copy)]
enum Axis {
    Rows,
    Columns,
}

/// # Safety
///
/// The contract of `wtacrs_row_norms` or `wtacrs_column_norms`.
unsafe fn norms_of(
    axis: Axis,
    device: &Device,
    x: Tensor<2>,
    dtype: Dtype,
    norms: *mut f32,
    capacity: usize,
    stream: *mut c_void,
) -> Outcome {
    let count = x.shape()[axis as usize];
    if capacity < count {
        let message = format!("room for {capacity} norms where there are {count}");
        return Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message));
    }
    let norms = Array::new(norms, count, "norms")?;
    check_disjoint(&[norms.region()], &[x.region()])?;
    if let Some(gpu) = device.gpu() {
        // SAFETY: the caller has it.
        return unsafe {
            match axis {
                Axis::Rows => cuda::row_norms(gpu, &x, dtype, &norms, stream),
                Axis::Columns => cuda::column_norms(gpu, &x, dtype, &norms, stream),
            }
        };
    }
    with_element!(dtype, T => {
        // SAFETY: checked for NULL, alignment and overlap; the caller has the rest.
        let (x, norms) = unsafe { (x.view::<T>(), norms.get_mut()) };
        let x = match axis {
            Axis::Rows => x,
            Axis::Columns => x.reversed_axes(),
        };
        Ok(product::row_norms_into(x, norms)?)
    })
}

/// One guess for layers that share H: `out[i]` = sqrt(sum over layers of layers[l][i]^2), for `count` layers of `tokens`
/// norms each. Teach a shared predictor, or fill a shared cache, with these. For norms on the host; on a GPU
/// wtacrs_column_norms makes them of one layers x tokens matrix.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED, WTACRS_SIZE_OVERFLOW, WTACRS_OVERLAP (also of `out` with a layer).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_joint_norms(
    layers: *const *const f32,
    count: usize,
    tokens: usize,
    out: *mut f32,
) -> wtacrs_status {
    guard("wtacrs_joint_norms", || {
        let pointers = Array::new(layers, count, "layers")?;
        let out = Array::new(out, tokens, "out")?;
        // SAFETY: checked for NULL and alignment; as documented it holds `count` pointers.
        let pointers_given = unsafe { pointers.get() };
        let layers: Vec<Array<f32>> =
            pointers_given.iter().map(|&layer| Array::new(layer, tokens, "a layer's norms")).collect::<Outcome<_>>()?;
        let mut inputs: Vec<_> = layers.iter().map(Array::region).collect();
        inputs.push(pointers.region());
        check_disjoint(&[out.region()], &inputs)?;
        heap::check("joint norms", &[(tokens, 4)])?;
        // SAFETY: checked for NULL, alignment and overlap; as documented each holds `tokens` norms.
        let layers: Vec<&[f32]> = layers.iter().map(|layer| unsafe { layer.get() }).collect();
        let joint = product::joint_norms(&layers)?;
        // SAFETY: as above. Without layers there is nothing to square: zeros.
        let out = unsafe { out.get_mut() };
        match count {
            0 => out.fill(0.0),
            _ => out.copy_from_slice(&joint),
        }
        Ok(())
    })
}
