//! DLPack's tensors, as every framework hands them out.

use super::array::Array;
use super::enums::Dtype;
use super::tensor::{Tensor, compact_strides};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::ffi::c_void;

/// `DLTensor` of dlpack.h (its layout has not changed since its first version).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_dltensor {
    /// Where the tensor's memory begins; `byte_offset` is still to be added.
    pub data: *mut c_void,
    /// Whose memory it is.
    pub device: wtacrs_dldevice,
    /// Axes.
    pub ndim: i32,
    /// Type of the elements.
    pub dtype: wtacrs_dldatatype,
    /// `ndim` sizes.
    pub shape: *mut i64,
    /// `ndim` strides in elements, or NULL: row by row without gaps.
    pub strides: *mut i64,
    /// From `data` to the element of index 0.
    pub byte_offset: u64,
}

/// `DLDevice` of dlpack.h.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_dldevice {
    /// 1 is the host, 2 CUDA.
    pub device_type: i32,
    /// Which one.
    pub device_id: i32,
}

/// `DLDataType` of dlpack.h.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_dldatatype {
    /// 2 is IEEE floating point, 4 bfloat.
    pub code: u8,
    /// Bits of an element.
    pub bits: u8,
    /// 1.
    pub lanes: u16,
}

const HOST: i32 = 1;
const CUDA: i32 = 2;
const FLOAT: u8 = 2;
const BFLOAT: u8 = 4;

/// Whose memory a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Host,
    /// The GPU of this number.
    Cuda(i32),
}

impl Place {
    fn check(self, found: wtacrs_dldevice, what: &'static str) -> Outcome {
        let wtacrs_dldevice { device_type, device_id } = found;
        let message = match self {
            Self::Host if device_type == HOST => return Ok(()),
            Self::Host => format!("{what} is memory of device type {device_type}, not of the host"),
            Self::Cuda(ordinal) if (device_type, device_id) == (CUDA, ordinal) => return Ok(()),
            Self::Cuda(ordinal) => format!(
                "{what} is memory of device type {device_type} and number {device_id}, not of CUDA ({CUDA}) and {ordinal}"
            ),
        };
        Err(Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, message))
    }
}

/// Reads a tensor of a given dtype and of N axes.
///
/// # Errors
///
/// NULL_POINTER, MISALIGNED, DEVICE_MISMATCH, UNSUPPORTED for a dtype outside wtacrs_dtype, SHAPE_MISMATCH
/// for another dtype or number of axes than expected, INVALID_ARGUMENT for a negative size, SIZE_OVERFLOW.
///
/// # Safety
///
/// `tensor` must be NULL or point to a tensor whose `shape` and `strides` are NULL or hold `ndim` entries.
pub(crate) unsafe fn tensor<const N: usize>(
    tensor: *const wtacrs_dltensor,
    place: Place,
    dtype: Option<Dtype>,
    what: &'static str,
) -> Outcome<(Tensor<N>, Dtype)> {
    let found = Array::new(tensor, 1, what)?;
    // SAFETY: not NULL, and the caller has the rest.
    let [found] = (unsafe { found.get() }) else { unreachable!("one entry") };
    place.check(found.device, what)?;
    let found_dtype = match (found.dtype.code, found.dtype.bits, found.dtype.lanes) {
        (FLOAT, 32, 1) => Dtype::F32,
        (FLOAT, 16, 1) => Dtype::F16,
        (BFLOAT, 16, 1) => Dtype::Bf16,
        (FLOAT, 64, 1) => Dtype::F64,
        (code, bits, lanes) => {
            let message = format!("{what} has DLPack's dtype {code} of {bits} bits in {lanes} lanes");
            return Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message));
        }
    };
    if let Some(dtype) = dtype.filter(|&dtype| dtype != found_dtype) {
        let message = format!("{what} is {found_dtype:?} where {dtype:?} is needed");
        return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
    }
    if usize::try_from(found.ndim) != Ok(N) {
        let message = format!("{what} has {} axes where {N} are needed", found.ndim);
        return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
    }
    let overflow = || Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("{what} cannot be addressed"));
    let sizes = Array::new(found.shape, N, "the tensor's shape")?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    let sizes = unsafe { sizes.get() };
    let mut shape = [0; N];
    for (to, &size) in shape.iter_mut().zip(sizes) {
        if size < 0 {
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, format!("{what} has a size of {size}")));
        }
        *to = usize::try_from(size).map_err(|_| overflow())?;
    }
    let strides = match Array::optional(found.strides, N, "the tensor's strides")? {
        None => compact_strides(shape).ok_or_else(overflow)?,
        Some(steps) => {
            // SAFETY: as for the sizes.
            let steps = unsafe { steps.get() };
            let mut strides = [0; N];
            for (to, &step) in strides.iter_mut().zip(steps) {
                *to = isize::try_from(step).map_err(|_| overflow())?;
            }
            strides
        }
    };
    let empty = shape.contains(&0);
    if found.data.is_null() && !empty {
        return Err(Failure::new(WTACRS_STATUS_NULL_POINTER, format!("the data of {what} is NULL")));
    }
    let offset = usize::try_from(found.byte_offset).map_err(|_| overflow())?;
    found.data.addr().checked_add(offset).ok_or_else(overflow)?;
    let first = found.data.cast::<u8>().wrapping_add(offset);
    Ok((Tensor::new(first.cast(), found_dtype, shape, strides, what)?, found_dtype))
}

/// [`tensor`] of a given shape.
///
/// # Safety
///
/// As for [`tensor`].
pub(crate) unsafe fn shaped<const N: usize>(
    pointer: *const wtacrs_dltensor,
    place: Place,
    dtype: Dtype,
    shape: [usize; N],
    what: &'static str,
) -> Outcome<Tensor<N>> {
    // SAFETY: the caller has it.
    let (found, _) = unsafe { tensor::<N>(pointer, place, Some(dtype), what) }?;
    if found.shape() == shape {
        return Ok(found);
    }
    let message = format!("{what} has the shape {:?} where {shape:?} is needed", found.shape());
    Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message))
}
