//! The message of the last call that failed, for each thread.

use core::cell::RefCell;

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the message for `wtacrs_last_error` of this thread.
pub(super) fn record(message: String) {
    // A thread that is ending has no last error.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = message);
}

/// Hands this thread's message to `read`; an empty one if nothing has failed.
pub(crate) fn with_last_error<T>(read: impl Fn(&str) -> T) -> T {
    LAST_ERROR.try_with(|last| read(&last.borrow())).unwrap_or_else(|_| read(""))
}
