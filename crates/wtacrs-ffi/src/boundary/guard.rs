//! The one boundary between C and Rust: failures become statuses, and so does any panic.

use super::failure::Outcome;
use super::last_error;
use super::status::*;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of the entry point of this name. Whatever fails in it is kept for `wtacrs_last_error`.
pub(crate) fn guard(entry: &'static str, body: impl FnOnce() -> Outcome) -> wtacrs_status {
    // Unwind safety: bodies reach shared state only through locks, which a panic poisons.
    let done = catch_unwind(AssertUnwindSafe(|| {
        panic_if_asked(entry);
        body()
    }));
    match done {
        Ok(Ok(())) => WTACRS_STATUS_OK,
        Ok(Err(failure)) => {
            last_error::record(format!("{entry}: {}", failure.message));
            failure.status
        }
        Err(payload) => {
            last_error::record(format!("{entry}: panicked: {}", message(&*payload)));
            // What a payload does when it is dropped is unknown: it may even panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            WTACRS_STATUS_PANIC
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Panics if the environment asks for it: how tests see every entry point contain a panic. Not in release builds.
#[cfg(debug_assertions)]
fn panic_if_asked(entry: &str) {
    if std::env::var_os("WTACRS_TEST_PANIC").is_some_and(|asked| asked == entry) {
        panic!("asked for by WTACRS_TEST_PANIC");
    }
}

#[cfg(not(debug_assertions))]
fn panic_if_asked(_entry: &str) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::Failure;

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        assert_eq!(guard("test", || std::panic::panic_any(Bomb)), WTACRS_STATUS_PANIC);
        assert_eq!(guard("test", || Err(Failure::new(WTACRS_STATUS_OVERLAP, "both"))), WTACRS_STATUS_OVERLAP);
        assert_eq!(guard("test", || Ok(())), WTACRS_STATUS_OK);
    }
}
