//! Guesses of ‖dZ_i‖: what a forward pass uses in place of norms that only the backward pass will know.
//!
//! | guess | knows | costs |
//! |---|---|---|
//! | [`NormPredictor`] | from the first steps on, for any token | one dot product for each token, a small solve a step |
//! | [`NormCache`] | from the second epoch on, for samples seen before | four bytes for each token of the data set |
//! | both | what the predictor has learned to trust of the cache | both |
//!
//! A guess sets inclusion probabilities only. A bad one costs variance, and never brings bias.

mod cache;
mod predictor;

pub use self::cache::{NormCache, NormCacheError};
pub use self::predictor::{
    Guess, NormPredictor, Placement, PredictorError, PredictorSettings, StepOutcome, StepStatistics,
};

/// What a forward pass knows of ‖dZ_i‖.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum NormGuess<'a> {
    /// A norm for every token, taken as it is; with true norms the weights are exact. For layers that share H, the
    /// [joint norms](crate::product::joint_norms).
    Norms(&'a [f32]),
    /// What a norm predictor makes of H, in the same pass as H's norms: the guess to use unless there is a better one.
    /// [`NormPredictor::learn`] then learns from the step.
    Predicted(&'a NormPredictor),
    /// The same, moved towards what a [`NormCache`] remembers (`None` for a token that it does not know) as far as the
    /// predictor has learned to trust it.
    PredictedAndCached(&'a NormPredictor, &'a [Option<f32>]),
    /// What a [`NormCache`] remembers.
    Cached(&'a [Option<f32>]),
    /// Nothing: weights are ‖H_i‖.
    Unknown,
}
