//! Which library this is, and what went wrong.

use crate::arguments::enums::wtacrs_log_level;
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{Array, check_disjoint, regions};
use crate::boundary::status::*;
use crate::boundary::{LastError, Outcome, guard, log, with_last_error};
use core::ffi::{CStr, c_char, c_void};

/// Major version of the binary interface: the number in the shared library's SONAME. It changes when a program that was
/// linked against an earlier library could go wrong with this one.
pub const WTACRS_ABI_VERSION: i32 = 0;

/// The library's version that the header belongs to: major, minor, patch. wtacrs_version is that of the loaded library.
pub const WTACRS_VERSION_MAJOR: i32 = 0;
/// See WTACRS_VERSION_MAJOR.
pub const WTACRS_VERSION_MINOR: i32 = 1;
/// See WTACRS_VERSION_MAJOR.
pub const WTACRS_VERSION_PATCH: i32 = 0;

// cbindgen reads numbers only, so they are written twice.
const _: () = {
    const fn is(text: &str, number: i32) -> bool {
        matches!(i32::from_str_radix(text, 10), Ok(found) if found == number)
    }
    assert!(is(env!("CARGO_PKG_VERSION_MAJOR"), WTACRS_VERSION_MAJOR));
    assert!(is(env!("CARGO_PKG_VERSION_MINOR"), WTACRS_VERSION_MINOR));
    assert!(is(env!("CARGO_PKG_VERSION_PATCH"), WTACRS_VERSION_PATCH));
};

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

/// What is known of a call that failed, beside its words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_error_info {
    /// [in] sizeof(wtacrs_error_info). The other fields are outputs.
    pub size: usize,
    /// What the call returned; WTACRS_STATUS_OK if none has failed.
    pub status: wtacrs_status,
    /// The offending row, weight, norm, sum or sample, counted from 0; SIZE_MAX if the failure is not one entry's.
    pub index: usize,
    /// Bytes of the whole text with its NUL.
    pub text_bytes: usize,
}

// SAFETY: repr(C), begins with its size, and has numbers alone; padding is never read.
unsafe impl SizedStruct for wtacrs_error_info {}

/// What was wrong with this thread's last call that failed: a text that names the offending argument, index and value;
/// empty if none has failed. Calls that succeed leave it unchanged, and so does this one.
///
/// buffer    [out] as much of the text (UTF-8) as fits `capacity` bytes, cut between characters, and always a closing NUL
///           if `capacity` > 0. NULL if `capacity` is 0.
/// info      [in, out, optional] with `size` set
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _MISALIGNED, _OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_last_error(
    buffer: *mut c_char,
    capacity: usize,
    info: *mut wtacrs_error_info,
) -> wtacrs_status {
    let copy = |last: &LastError| -> Outcome {
        let buffer = Array::new(buffer.cast::<u8>(), capacity, "buffer")?;
        let room_for_info = Array::optional(info, 1, "info")?;
        check_disjoint(&regions([Some(buffer.region()), room_for_info.as_ref().map(Array::region)]), &[])?;
        if !info.is_null() {
            let found = wtacrs_error_info {
                size: 0,
                status: last.status,
                index: last.index.unwrap_or(usize::MAX),
                text_bytes: last.message.len() + 1,
            };
            // SAFETY: as documented.
            unsafe { options::write(info, "info", found) }?;
        }
        // SAFETY: as this function is documented, `buffer` holds `capacity` bytes.
        let buffer = unsafe { buffer.get_mut() };
        if let Some((_, room)) = buffer.split_last() {
            let length = last.message.floor_char_boundary(room.len());
            buffer[..length].copy_from_slice(&last.message.as_bytes()[..length]);
            buffer[length] = 0;
        }
        Ok(())
    };
    // Not through the guard, which would record a failure of this call as the last error.
    match with_last_error(copy) {
        Ok(()) => WTACRS_STATUS_OK,
        Err(failure) => failure.status,
    }
}

/// A function for the library's messages.
///
/// user      what wtacrs_set_log was given
/// message   [in] NUL-terminated, valid during the call
pub type wtacrs_log_function =
    Option<unsafe extern "C" fn(user: *mut c_void, level: wtacrs_log_level, message: *const c_char)>;

/// Sets the function that gets messages about what no status reports, or NULL. The library never writes to stderr; without a
/// function such messages are lost. When this call returns, the old function is not running and is never called again.
///
/// function  any thread may call it, during any call of the library. It must not call the library, and must return.
/// user      passed on to it
///
/// Errors: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_set_log(function: wtacrs_log_function, user: *mut c_void) -> wtacrs_status {
    guard("wtacrs_set_log", || {
        // SAFETY: as documented.
        unsafe { log::set(function, user) };
        Ok(())
    })
}
