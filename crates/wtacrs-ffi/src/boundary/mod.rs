//! What every call crosses on its way in and out: handles, the guard that stops panics, failures, statuses.

mod failure;
mod guard;
mod last_error;
mod registry;
pub(crate) mod status;

pub(crate) use self::failure::{Failure, Outcome, poisoned};
pub(crate) use self::guard::guard;
pub(crate) use self::last_error::with_last_error;
pub(crate) use self::registry::Registry;
