//! The one boundary between C and Rust: failures become statuses, and so does any panic.

use super::failure::{Failure, Outcome};
use super::last_error;
use super::panics::{self, Code};
use super::status::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of the entry point of this name. Whatever fails in it is kept for `wtacrs_last_error`.
pub(crate) fn guard(entry: &'static str, body: impl FnOnce() -> Outcome) -> wtacrs_status {
    // Unwind safety: bodies reach shared state only through locks, which a panic poisons.
    let done = panics::within(Code::Call, || {
        catch_unwind(AssertUnwindSafe(|| {
            panic_if_asked(entry);
            body()
        }))
    });
    match done {
        Ok(Ok(())) => WTACRS_STATUS_OK,
        Ok(Err(failure)) => {
            last_error::record(entry, &failure);
            failure.status
        }
        Err(payload) => {
            let message = panics::take().unwrap_or_else(|| "panicked".to_owned());
            last_error::record(entry, &Failure::new(WTACRS_STATUS_PANIC, message));
            // What a payload does when it is dropped is unknown: it may even panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            WTACRS_STATUS_PANIC
        }
    }
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
