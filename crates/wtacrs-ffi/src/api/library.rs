//! Which library this is, and what went wrong.

use crate::arguments::{Array, check_disjoint, regions};
use crate::boundary::status::*;
use crate::boundary::{Outcome, with_last_error};
use core::ffi::{CStr, c_char};

/// Major version of the binary interface: the number in the shared library's SONAME. It changes when a program that was
/// linked against an earlier library could go wrong with this one.
pub const WTACRS_ABI_VERSION: i32 = 0;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"unknown",
};

/// The library's version, such as "0.1.0": NUL-terminated, valid for ever.
///
/// Any thread may call it at any time.
#[unsafe(no_mangle)]
pub extern "C" fn wtacrs_version() -> *const c_char {
    VERSION.as_ptr()
}

/// WTACRS_ABI_VERSION of the library that is loaded, to be compared with that of the header.
///
/// Any thread may call it at any time.
#[unsafe(no_mangle)]
pub extern "C" fn wtacrs_abi_version() -> i32 {
    WTACRS_ABI_VERSION
}

/// A status in a few words: NUL-terminated, in English, valid for ever. Unknown numbers have words too.
///
/// Any thread may call it at any time.
#[unsafe(no_mangle)]
pub extern "C" fn wtacrs_status_string(status: wtacrs_status) -> *const c_char {
    let words = usize::try_from(status).ok().and_then(|at| STRINGS.get(at));
    words.unwrap_or(&c"unknown status").as_ptr()
}

/// What was wrong with this thread's last call that failed: a text that names the offending argument, index and value;
/// empty if none has failed. Calls that succeed leave it unchanged, and so does this one.
///
/// buffer    [out] as much of the text (UTF-8) as fits `capacity` bytes, cut between characters, and always a closing NUL
///           if `capacity` > 0. NULL if `capacity` is 0.
/// needed    [out, optional] bytes of the whole text with its NUL.
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED, _OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_last_error(buffer: *mut c_char, capacity: usize, needed: *mut usize) -> wtacrs_status {
    let copy = |message: &str| -> Outcome {
        let buffer = Array::new(buffer.cast::<u8>(), capacity, "buffer")?;
        let needed = Array::optional(needed, 1, "needed")?;
        check_disjoint(&regions([Some(buffer.region()), needed.as_ref().map(Array::region)]), &[])?;
        // SAFETY: as this function is documented, `buffer` holds `capacity` bytes, and `needed` one size, or is NULL.
        let (buffer, needed) = unsafe { (buffer.get_mut(), needed.map(|needed| needed.get_mut())) };
        if let Some((_, room)) = buffer.split_last() {
            let length = message.floor_char_boundary(room.len());
            buffer[..length].copy_from_slice(&message.as_bytes()[..length]);
            buffer[length] = 0;
        }
        if let Some([needed]) = needed {
            *needed = message.len() + 1;
        }
        Ok(())
    };
    // Not through the guard, which would record a failure of this call as the last error.
    match with_last_error(copy) {
        Ok(()) => WTACRS_STATUS_OK,
        Err(failure) => failure.status,
    }
}
