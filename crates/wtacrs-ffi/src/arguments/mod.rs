//! What callers pass, checked before anything is read or written: arrays, tensors, enumerations, option structs.

mod array;
mod dlpack;
mod elements;
pub(crate) mod enums;
pub(crate) mod heap;
pub(crate) mod options;
mod tensor;

pub(crate) use self::array::{Array, Block, PassMemory, Region, Wanted, check_disjoint, known_norms, regions};
pub(crate) use self::dlpack::{Place, shaped, tensor};
pub use self::dlpack::{wtacrs_dldatatype, wtacrs_dldevice, wtacrs_dltensor};
pub(crate) use self::elements::{Number, check_dtypes, with_element, with_elements};
pub(crate) use self::enums::{Axis, Dtype, Precision, Source, update};
pub(crate) use self::tensor::Tensor;

/// A CUDA stream of the caller's; the CPU ignores it.
pub(crate) type Stream = *mut core::ffi::c_void;
