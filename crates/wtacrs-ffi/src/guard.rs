//! The one boundary between C and Rust: failures become statuses, and so does any panic.

use crate::status::*;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wtacrs_core::guesses::NormCacheError;
use wtacrs_core::guesses::PredictorError;
use wtacrs_core::layers::ForwardError;
use wtacrs_core::product::ShapeError;
use wtacrs_core::sampling::{BudgetError, SelectionError, WeightsError};

/// Why a call is refused.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: wtacrs_status,
    message: String,
}

/// What comes of a call, or of a part of it.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: wtacrs_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs the body of the entry point of this name. Whatever fails in it is kept for `wtacrs_last_error`.
pub(crate) fn guard(entry: &'static str, body: impl FnOnce() -> Outcome) -> wtacrs_status {
    // Unwind safety: bodies reach shared state only through locks, which a panic poisons.
    let done = catch_unwind(AssertUnwindSafe(|| {
        panic_if_asked(entry);
        body()
    }));
    match done {
        Ok(Ok(())) => WTACRS_OK,
        Ok(Err(failure)) => {
            record(format!("{entry}: {}", failure.message));
            failure.status
        }
        Err(payload) => {
            record(format!("{entry}: panicked: {}", words(&*payload)));
            // What a payload does when it is dropped is unknown: it may even panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            WTACRS_PANIC
        }
    }
}

fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
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

impl From<BudgetError> for Failure {
    fn from(error: BudgetError) -> Self {
        Self::new(WTACRS_INVALID_BUDGET, error.to_string())
    }
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::new(WTACRS_SHAPE_MISMATCH, error.to_string())
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Self {
        let status = match error {
            WeightsError::Invalid { .. } => WTACRS_INVALID_WEIGHTS,
            WeightsError::LengthMismatch { .. } => WTACRS_SHAPE_MISMATCH,
            WeightsError::TooManyPairs { .. } => WTACRS_SIZE_OVERFLOW,
            _ => WTACRS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<SelectionError> for Failure {
    fn from(error: SelectionError) -> Self {
        Self::new(WTACRS_INVALID_ARGUMENT, error.to_string())
    }
}

impl From<PredictorError> for Failure {
    fn from(error: PredictorError) -> Self {
        let status = match error {
            PredictorError::WrongColumns { .. } | PredictorError::LengthMismatch { .. } => WTACRS_SHAPE_MISMATCH,
            PredictorError::InvalidNorm { .. } | PredictorError::InvalidScale { .. } => WTACRS_INVALID_WEIGHTS,
            PredictorError::Version { .. } => WTACRS_VERSION_MISMATCH,
            PredictorError::Corrupted { .. } => WTACRS_CORRUPTED,
            _ => WTACRS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ForwardError> for Failure {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Weights(error) => error.into(),
            ForwardError::Budget(error) => error.into(),
            ForwardError::Shape(error) => error.into(),
            ForwardError::Predictor(error) => error.into(),
            other => Self::new(WTACRS_INVALID_ARGUMENT, other.to_string()),
        }
    }
}

impl From<NormCacheError> for Failure {
    fn from(error: NormCacheError) -> Self {
        let status = match error {
            NormCacheError::TokenMismatch { .. } | NormCacheError::LengthChanged { .. } => WTACRS_SHAPE_MISMATCH,
            NormCacheError::InvalidNorm { .. } => WTACRS_INVALID_WEIGHTS,
            NormCacheError::Version { .. } => WTACRS_VERSION_MISMATCH,
            NormCacheError::Corrupted { .. } => WTACRS_CORRUPTED,
            _ => WTACRS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}

/// A lock that a panic has left behind: what it guards may be half changed.
pub(crate) fn poisoned<T>(_: std::sync::PoisonError<T>) -> Failure {
    Failure::new(WTACRS_PANIC, "an earlier call panicked while it changed this object: destroy it")
}

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
        assert_eq!(guard("test", || std::panic::panic_any(Bomb)), WTACRS_PANIC);
        assert_eq!(guard("test", || Err(Failure::new(WTACRS_OVERLAP, "both"))), WTACRS_OVERLAP);
        assert_eq!(guard("test", || Ok(())), WTACRS_OK);
    }
}
