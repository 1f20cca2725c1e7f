//! Which library this is.

use core::ffi::{CStr, c_char};

/// Major version of the binary interface: the number in the shared library's SONAME. It changes when a program that was
/// linked against an earlier library could go wrong with this one.
pub const WTACRS_ABI_VERSION: i32 = 0;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"unknown",
};

/// The library's version, such as "0.1.0": NUL-terminated, for ever valid.
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
