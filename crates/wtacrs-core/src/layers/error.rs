//! Why a forward pass is refused.

use crate::guesses::PredictorError;
use crate::product::{PackError, ShapeError};
use crate::sampling::{BudgetError, WeightsError};

/// Why a forward pass is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// H or the guess has a row whose norm cannot be a weight, or their lengths differ.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The budget does not fit the number of tokens.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A shape does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A batch has more matrices than there are streams of randomness.
    #[error("{items} matrices in a batch are more than the {} that have draws of their own", 1_u32 << 31)]
    TooManyItems {
        /// Batch times heads.
        items: usize,
    },
    /// The predictor is another layer's.
    #[error(transparent)]
    Predictor(#[from] PredictorError),
    /// A row cannot be packed.
    #[error(transparent)]
    Pack(PackError),
}

impl From<PackError> for ForwardError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Shape(error) => Self::Shape(error),
            error => Self::Pack(error),
        }
    }
}
