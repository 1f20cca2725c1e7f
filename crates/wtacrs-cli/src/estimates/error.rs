//! Why a layer cannot be measured on.

use wtacrs_core::allocation::CurveError;
use wtacrs_core::product::{PackError, Packing, ShapeError};
use wtacrs_core::sampling::{BudgetError, WeightsError};

/// Why a layer cannot be measured on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A budget that this layer's tokens do not allow.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A share of memory into which not even one row fits.
    #[error(
        "a share of {share} of H is {bytes} bytes, too few for one {}, which needs {row_bytes} with its index and its scale",
        row(*packing)
    )]
    TooFewBytes {
        /// The share of H's bytes.
        share: f64,
        /// Those bytes.
        bytes: u64,
        /// How rows were to be saved.
        packing: Packing,
        /// Bytes of one row, its index and its scale.
        row_bytes: u64,
    },
    /// A row whose norm cannot be a weight.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A row that cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Numbers beyond f64 in the error to expect.
    #[error(transparent)]
    Curve(#[from] CurveError),
    /// H and dZ have different numbers of tokens.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Stale weights of a layer without previous norms.
    #[error("stale weights need the norms of an earlier step")]
    NoPreviousNorms,
    /// A predictor's weights, which one step cannot teach it.
    #[error("predictor weights need recorded steps: `wtacrs replay` measures them")]
    NeedsSteps,
    /// Nothing to measure an error against.
    #[error("the exact dW is zero, so no error can be relative to it")]
    ZeroGradient,
    /// The exact product does not fit f32.
    #[error("the exact dW overflows f32")]
    Overflow,
    /// f32 has no digits left for the exact product.
    #[error(
        "dW underflows f32, in which estimates are made: its largest element is {largest:.1e}. Multiply dZ by a constant, \
         which changes no relative error"
    )]
    Underflow {
        /// The largest absolute value of dW.
        largest: f64,
    },
    /// The terms of the exact product cancel, so that estimates in f32 consist of rounding.
    #[error(
        "dW cancels to rounding: ‖dW‖ is {norm:.1e}, but its terms' norms ‖h_i‖·‖dz_i‖ add up to {sum_of_norms:.1e}, so f32 \
         has no digits left for it and no error can be relative to it"
    )]
    Cancelled {
        /// ‖dW‖_F in f64.
        norm: f64,
        /// Σ‖h_i‖·‖dz_i‖.
        sum_of_norms: f64,
    },
    /// Too little memory for the measurement.
    #[error("measuring needs {bytes} bytes of memory beside the layer, more than is available")]
    NotEnoughMemory {
        /// Those bytes.
        bytes: usize,
    },
}

/// "native row", "row in 4 bits".
fn row(packing: Packing) -> String {
    if packing.is_packed() { format!("row in {packing} bits") } else { "native row".to_owned() }
}
