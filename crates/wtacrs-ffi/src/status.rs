//! What a call comes back with: a number that never changes its meaning, and the last failure in words.

use crate::array::{Array, check_disjoint, regions};
use crate::guard::Outcome;
use core::cell::RefCell;
use core::ffi::{CStr, c_char};

/// What a call comes back with; `WTACRS_OK` is zero. A number once given keeps its meaning.
pub type wtacrs_status = i32;

/// Done.
pub const WTACRS_OK: wtacrs_status = 0;
/// A pointer that must not be NULL is NULL.
pub const WTACRS_NULL_POINTER: wtacrs_status = 1;
/// A handle that was never given, was destroyed, or is of another kind.
pub const WTACRS_INVALID_HANDLE: wtacrs_status = 2;
/// A number that is none of the enumeration's.
pub const WTACRS_INVALID_ENUM: wtacrs_status = 3;
/// An argument out of its range, or one that contradicts another.
pub const WTACRS_INVALID_ARGUMENT: wtacrs_status = 4;
/// Shapes, lengths or dtypes that do not fit one another.
pub const WTACRS_SHAPE_MISMATCH: wtacrs_status = 5;
/// Sizes whose product is beyond what can be addressed.
pub const WTACRS_SIZE_OVERFLOW: wtacrs_status = 6;
/// Memory smaller than asked for.
pub const WTACRS_BUFFER_TOO_SMALL: wtacrs_status = 7;
/// A pointer that is not aligned as its type or its function needs.
pub const WTACRS_MISALIGNED: wtacrs_status = 8;
/// An output that shares memory with another argument, or with itself.
pub const WTACRS_OVERLAP: wtacrs_status = 9;
/// A norm or weight that is negative, infinite or not a number; the last error names it.
pub const WTACRS_INVALID_WEIGHTS: wtacrs_status = 10;
/// A budget of nothing, of more than all, or a share outside (0, 1].
pub const WTACRS_INVALID_BUDGET: wtacrs_status = 11;
/// A combination that this version does not serve.
pub const WTACRS_UNSUPPORTED: wtacrs_status = 12;
/// Memory of another device than the plan's.
pub const WTACRS_DEVICE_MISMATCH: wtacrs_status = 13;
/// The device, or its driver, is not there.
pub const WTACRS_NO_DEVICE: wtacrs_status = 14;
/// The CUDA driver refused; the last error has its words.
pub const WTACRS_CUDA_ERROR: wtacrs_status = 15;
/// Saved bytes that are not what was saved.
pub const WTACRS_CORRUPTED: wtacrs_status = 16;
/// Bytes saved by another version of their format.
pub const WTACRS_VERSION_MISMATCH: wtacrs_status = 17;
/// A defect of this library, contained. Outputs of the call may be partly written; the object that it changed, if
/// any, must be destroyed. The place of the defect is printed on stderr.
pub const WTACRS_PANIC: wtacrs_status = 18;
/// The process cannot have the memory that the call would take from its heap. Nothing was changed.
pub const WTACRS_OUT_OF_MEMORY: wtacrs_status = 19;

const STRINGS: [&CStr; 20] = [
    c"ok",
    c"a pointer is NULL",
    c"the handle is not valid",
    c"the number is none of the enumeration's",
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

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the message for `wtacrs_last_error` of this thread.
pub(crate) fn record(message: String) {
    // A thread that is ending has no last error.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = message);
}

/// A status in a few words: NUL-terminated, in English, for ever valid. Numbers that are no status have words too.
///
/// Any thread may call it at any time.
#[unsafe(no_mangle)]
pub extern "C" fn wtacrs_status_string(status: wtacrs_status) -> *const c_char {
    let words = usize::try_from(status).ok().and_then(|at| STRINGS.get(at));
    words.unwrap_or(&c"unknown status").as_ptr()
}

/// What was wrong with the last call of this thread that failed, with the offending argument, index and value; empty
/// if none has failed. Calls that succeed leave it as it is, and so does this one.
///
/// Writes as much of the text (UTF-8) as fits `capacity` bytes, cut between characters, and always a closing NUL if
/// `capacity` > 0; `*needed` becomes the bytes of the whole text with its NUL. `buffer` may be NULL if `capacity` is 0,
/// and `needed` may be NULL.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_last_error(buffer: *mut c_char, capacity: usize, needed: *mut usize) -> wtacrs_status {
    let copy = |message: &str| -> Outcome {
        let buffer = Array::new(buffer.cast::<u8>(), capacity, "buffer")?;
        let needed = Array::optional(needed, 1, "needed")?;
        check_disjoint(&regions([Some(buffer.region()), needed.as_ref().map(Array::region)]), &[])?;
        // SAFETY: as this function is documented, `buffer` holds `capacity` bytes, and `needed` one size, or is NULL.
        let (buffer, needed) = unsafe { (buffer.get_mut(), needed.map(|needed| needed.get_mut())) };
        if let Some((_, room)) = buffer.split_last() {
            let length = message.floor_char_boundary_at(room.len());
            buffer[..length].copy_from_slice(&message.as_bytes()[..length]);
            buffer[length] = 0;
        }
        if let Some([needed]) = needed {
            *needed = message.len() + 1;
        }
        Ok(())
    };
    // Not through the guard, which would record a failure of this call as the last error.
    let done = LAST_ERROR.try_with(|last| copy(&last.borrow()));
    match done.unwrap_or_else(|_| copy("")) {
        Ok(()) => WTACRS_OK,
        Err(failure) => failure.status,
    }
}

/// Where a text may be cut.
trait CharBoundary {
    fn floor_char_boundary_at(&self, most: usize) -> usize;
}

impl CharBoundary for str {
    fn floor_char_boundary_at(&self, most: usize) -> usize {
        let mut at = most.min(self.len());
        while !self.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}
