//! What the library has to say beyond a call's status: to the caller's function, or to nobody.

use core::ffi::{c_char, c_void};
use std::ffi::CString;
use std::sync::{PoisonError, RwLock};

/// How much a message matters.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum LogLevelInC {
    /// A call succeeded, but not as it was to.
    WTACRS_LOG_LEVEL_WARNING = 1,
    /// A defect of the library: the call returns WTACRS_STATUS_PANIC.
    WTACRS_LOG_LEVEL_ERROR = 2,
    /// Reserved: makes the enumeration 32 bits wide.
    WTACRS_LOG_LEVEL_FORCE_32_BITS = 0x7fff_ffff,
}

/// A caller's function for messages.
pub(crate) type LogFunction = unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char);

#[derive(Clone, Copy)]
struct Log {
    function: LogFunction,
    user: *mut c_void,
}

// SAFETY: `set` requires that any thread may call the function with its pointer.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

static LOG: RwLock<Option<Log>> = RwLock::new(None);

/// Replaces the function, once no message is under way.
///
/// # Safety
///
/// Any thread may call the function with `user`, until another is set.
pub(crate) unsafe fn set(function: Option<LogFunction>, user: *mut c_void) {
    *LOG.write().unwrap_or_else(PoisonError::into_inner) = function.map(|function| Log { function, user });
}

pub(crate) fn write(level: LogLevelInC, message: &str) {
    // The lock is held meanwhile: after `set` has returned, nobody calls the function before.
    let log = LOG.read().unwrap_or_else(PoisonError::into_inner);
    let Some(Log { function, user }) = *log else { return };
    let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: as `set` requires; the text ends with a NUL.
    unsafe { function(user, level as i32, text.as_ptr()) };
}
