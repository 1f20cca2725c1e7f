//! What every call crosses on its way in and out: handles, the guard that stops panics, failures, statuses,
//! the last error and the log.

mod failure;
mod guard;
mod last_error;
pub(crate) mod log;
pub(crate) mod panics;
mod registry;
pub(crate) mod status;

pub(crate) use self::failure::{Failure, Outcome, poisoned};
pub(crate) use self::guard::guard;
pub(crate) use self::last_error::{LastError, with_last_error};
pub(crate) use self::registry::Registry;
