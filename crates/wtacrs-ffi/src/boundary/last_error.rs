//! The last call that failed, for each thread.

use super::failure::Failure;
use super::status::{WTACRS_STATUS_OK, wtacrs_status};
use core::cell::RefCell;

/// What is known of a failed call.
#[derive(Debug)]
pub(crate) struct LastError {
    pub(crate) status: wtacrs_status,
    /// The offending row, weight, sample or other entry.
    pub(crate) index: Option<usize>,
    pub(crate) message: String,
}

impl LastError {
    const NONE: Self = Self { status: WTACRS_STATUS_OK, index: None, message: String::new() };
}

thread_local! {
    static LAST_ERROR: RefCell<LastError> = const { RefCell::new(LastError::NONE) };
}

/// Keeps the failure of an entry point for `wtacrs_last_error` of this thread.
pub(super) fn record(entry: &str, failure: &Failure) {
    let message = format!("{entry}: {failure}");
    // A thread that is ending has no last error.
    let _ = LAST_ERROR.try_with(|last| {
        *last.borrow_mut() = LastError { status: failure.status, index: failure.index, message };
    });
}

/// Hands this thread's last error to `read`; one without words if nothing has failed.
pub(crate) fn with_last_error<T>(read: impl Fn(&LastError) -> T) -> T {
    LAST_ERROR.try_with(|last| read(&last.borrow())).unwrap_or_else(|_| read(&LastError::NONE))
}
