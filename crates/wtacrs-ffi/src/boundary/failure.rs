//! Why a call is refused: a status, and words that name the offending argument.

use super::status::*;
use wtacrs_core::allocation::{AllocationError, PlannerError};
use wtacrs_core::guesses::{NormCacheError, PredictorError};
use wtacrs_core::layers::ForwardError;
use wtacrs_core::operators::OperatorError;
use wtacrs_core::product::{PackError, ShapeError};
use wtacrs_core::sampling::{BudgetError, SelectionError, WeightsError};

/// Why a call is refused.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: wtacrs_status,
    pub(super) message: String,
    /// The offending row, weight, sample or other entry, if it is one.
    pub(super) index: Option<usize>,
}

/// The result of a call, or of a part of it.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: wtacrs_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), index: None }
    }

    /// The same failure, of one entry.
    pub(crate) fn at(self, index: Option<usize>) -> Self {
        Self { index, ..self }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<BudgetError> for Failure {
    fn from(error: BudgetError) -> Self {
        Self::new(WTACRS_STATUS_INVALID_BUDGET, error.to_string())
    }
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::new(WTACRS_STATUS_SHAPE_MISMATCH, error.to_string())
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Self {
        let status = match error {
            WeightsError::Invalid { .. } => WTACRS_STATUS_INVALID_WEIGHTS,
            WeightsError::LengthMismatch { .. } => WTACRS_STATUS_SHAPE_MISMATCH,
            WeightsError::TooManyPairs { .. } => WTACRS_STATUS_SIZE_OVERFLOW,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        let index = match error {
            WeightsError::Invalid { index, .. } => Some(index),
            _ => None,
        };
        Self::new(status, error.to_string()).at(index)
    }
}

impl From<SelectionError> for Failure {
    fn from(error: SelectionError) -> Self {
        Self::new(WTACRS_STATUS_INVALID_ARGUMENT, error.to_string())
    }
}

impl From<PredictorError> for Failure {
    fn from(error: PredictorError) -> Self {
        let status = match error {
            PredictorError::WrongColumns { .. } | PredictorError::LengthMismatch { .. } => WTACRS_STATUS_SHAPE_MISMATCH,
            PredictorError::InvalidNorm { .. } | PredictorError::InvalidScale { .. } => WTACRS_STATUS_INVALID_WEIGHTS,
            PredictorError::Version { .. } => WTACRS_STATUS_VERSION_MISMATCH,
            PredictorError::Corrupted { .. } => WTACRS_STATUS_CORRUPTED,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        let index = match error {
            PredictorError::InvalidNorm { index, .. }
            | PredictorError::InvalidScale { index, .. }
            | PredictorError::InvalidStatistics { index, .. } => Some(index),
            _ => None,
        };
        Self::new(status, error.to_string()).at(index)
    }
}

impl From<ForwardError> for Failure {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Weights(error) => error.into(),
            ForwardError::Budget(error) => error.into(),
            ForwardError::Shape(error) => error.into(),
            ForwardError::Predictor(error) => error.into(),
            ForwardError::Pack(error) => error.into(),
            ForwardError::TooManyItems { .. } => Self::new(WTACRS_STATUS_SIZE_OVERFLOW, error.to_string()),
            other => Self::new(WTACRS_STATUS_INVALID_ARGUMENT, other.to_string()),
        }
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Shape(error) => error.into(),
            PackError::NotFinite { row } => Self::new(WTACRS_STATUS_INVALID_WEIGHTS, error.to_string()).at(Some(row)),
            other => Self::new(WTACRS_STATUS_INVALID_ARGUMENT, other.to_string()),
        }
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        let status = match error {
            OperatorError::SoftmaxDropout | OperatorError::NotRestored => WTACRS_STATUS_UNSUPPORTED,
            OperatorError::Size { .. } => WTACRS_STATUS_SHAPE_MISMATCH,
            OperatorError::Missing { .. } => WTACRS_STATUS_NULL_POINTER,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<NormCacheError> for Failure {
    fn from(error: NormCacheError) -> Self {
        let status = match error {
            NormCacheError::TokenMismatch { .. } | NormCacheError::LengthChanged { .. } => WTACRS_STATUS_SHAPE_MISMATCH,
            NormCacheError::TooManyTokens => WTACRS_STATUS_SIZE_OVERFLOW,
            NormCacheError::InvalidNorm { .. } => WTACRS_STATUS_INVALID_WEIGHTS,
            NormCacheError::Version { .. } => WTACRS_STATUS_VERSION_MISMATCH,
            NormCacheError::Corrupted { .. } => WTACRS_STATUS_CORRUPTED,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        let index = match error {
            NormCacheError::LengthChanged { sample, .. } | NormCacheError::InvalidNorm { sample, .. } => {
                usize::try_from(sample).ok()
            }
            _ => None,
        };
        Self::new(status, error.to_string()).at(index)
    }
}

impl From<PlannerError> for Failure {
    fn from(error: PlannerError) -> Self {
        let status = match error {
            PlannerError::Allocation(AllocationError::TooFewBytes { .. }) => WTACRS_STATUS_INVALID_BUDGET,
            PlannerError::Version { .. } => WTACRS_STATUS_VERSION_MISMATCH,
            PlannerError::Corrupted { .. } => WTACRS_STATUS_CORRUPTED,
            PlannerError::OtherSums { .. } | PlannerError::OtherRows { .. } => WTACRS_STATUS_SHAPE_MISMATCH,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}

/// A lock that a panic has left behind: what it guards may be half changed.
pub(crate) fn poisoned<T>(_: std::sync::PoisonError<T>) -> Failure {
    Failure::new(WTACRS_STATUS_PANIC, "an earlier call panicked while it changed this object: destroy it")
}
