//! The statuses that calls return. A number once published keeps its meaning.

use core::ffi::CStr;

/// What a call returns: 0 (WTACRS_STATUS_OK) or the reason why it was refused. A number once published keeps its meaning.
pub type wtacrs_status = i32;

/// Done.
pub const WTACRS_STATUS_OK: wtacrs_status = 0;
/// A pointer that must not be NULL is NULL.
pub const WTACRS_STATUS_NULL_POINTER: wtacrs_status = 1;
/// A handle that was never returned, was destroyed, or belongs to an object of another kind.
pub const WTACRS_STATUS_INVALID_HANDLE: wtacrs_status = 2;
/// A number that the enumeration does not contain.
pub const WTACRS_STATUS_INVALID_ENUM: wtacrs_status = 3;
/// An argument out of its range, or one that contradicts another.
pub const WTACRS_STATUS_INVALID_ARGUMENT: wtacrs_status = 4;
/// Shapes, lengths or dtypes that do not fit one another.
pub const WTACRS_STATUS_SHAPE_MISMATCH: wtacrs_status = 5;
/// Sizes whose product is beyond what can be addressed.
pub const WTACRS_STATUS_SIZE_OVERFLOW: wtacrs_status = 6;
/// Memory smaller than the call requires.
pub const WTACRS_STATUS_BUFFER_TOO_SMALL: wtacrs_status = 7;
/// A pointer that is not aligned as its type or its function needs.
pub const WTACRS_STATUS_MISALIGNED: wtacrs_status = 8;
/// An output that shares memory with another argument, or with itself.
pub const WTACRS_STATUS_OVERLAP: wtacrs_status = 9;
/// A norm or weight that is negative, infinite or not a number; the last error names it.
pub const WTACRS_STATUS_INVALID_WEIGHTS: wtacrs_status = 10;
/// A budget of nothing, of more than all, or a share outside (0, 1].
pub const WTACRS_STATUS_INVALID_BUDGET: wtacrs_status = 11;
/// A combination that this version does not serve.
pub const WTACRS_STATUS_UNSUPPORTED: wtacrs_status = 12;
/// Memory of another device than the plan's.
pub const WTACRS_STATUS_DEVICE_MISMATCH: wtacrs_status = 13;
/// The device, or its driver, is missing.
pub const WTACRS_STATUS_NO_DEVICE: wtacrs_status = 14;
/// The CUDA driver refused; the last error quotes it.
pub const WTACRS_STATUS_CUDA_ERROR: wtacrs_status = 15;
/// Bytes that were changed since they were saved, or that this library never wrote.
pub const WTACRS_STATUS_CORRUPTED: wtacrs_status = 16;
/// Bytes saved by another version of their format.
pub const WTACRS_STATUS_VERSION_MISMATCH: wtacrs_status = 17;
/// A defect of this library, contained. Outputs of the call may be partly written; the object that it changed, if
/// any, must be destroyed. The last error has the place of the defect.
pub const WTACRS_STATUS_PANIC: wtacrs_status = 18;
/// The process cannot have the memory that the call would take from its heap. Nothing was changed.
pub const WTACRS_STATUS_OUT_OF_MEMORY: wtacrs_status = 19;

/// A status in a few words, by its number.
pub(crate) const STRINGS: [&CStr; 20] = [
    c"ok",
    c"a pointer is NULL",
    c"the handle is not valid",
    c"the enumeration does not contain the number",
    c"an argument is out of range",
    c"shapes do not fit",
    c"a size overflows",
    c"a buffer is too small",
    c"a pointer is misaligned",
    c"an output overlaps another argument",
    c"a weight is negative or not finite",
    c"the budget does not fit",
    c"not supported",
    c"memory of another device",
    c"there is no such device",
    c"the CUDA driver refused",
    c"the bytes are corrupted",
    c"the bytes are of another version",
    c"the library panicked",
    c"out of memory",
];
