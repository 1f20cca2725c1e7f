//! How a predictor learns, and which settings make sense.

use super::PredictorError;

/// How a predictor learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// r, the number of random projections; at most in_features rounded up to a power of two are used.
    pub features: usize,
    /// φ in (0, 1]: what is left of a step's statistics after the next.
    pub forgetting: f64,
    /// λ, as a share of the mean diagonal of C.
    pub ridge: f64,
    /// Guesses stay within e^±clamp of the last step's geometric mean, and what is fainter counts as that; in (0, 20].
    pub clamp: f64,
    /// At most so many rows are learned from in a step, evenly spaced over those given.
    pub rows_per_update: usize,
    /// Of the projection's random signs.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { features: 256, forgetting: 0.97, ridge: 0.1, clamp: 6.0, rows_per_update: 192, seed: 0 }
    }
}

impl Settings {
    pub(super) fn check(&self, in_features: usize) -> Result<(), PredictorError> {
        let refused = |name, value, allowed| Err(PredictorError::InvalidSetting { name, value, allowed });
        if !(1..=MOST_INPUTS).contains(&in_features) {
            return refused("in_features", in_features as f64, "between 1 and 2^24");
        }
        if !(1..=MOST_FEATURES).contains(&self.features) {
            return refused("features", self.features as f64, "between 1 and 2^14");
        }
        if !(self.forgetting > 0.0 && self.forgetting <= 1.0) {
            return refused("forgetting", self.forgetting, "above 0 and at most 1");
        }
        if !(self.ridge > 0.0 && self.ridge.is_finite()) {
            return refused("ridge", self.ridge, "positive and finite");
        }
        if !(self.clamp > 0.0 && self.clamp <= 20.0) {
            return refused("clamp", self.clamp, "above 0 and at most 20");
        }
        if self.rows_per_update == 0 {
            return refused("rows_per_update", 0.0, "at least 1");
        }
        Ok(())
    }
}

/// Beyond this the r × r statistics (2 GiB) are of no use to anyone.
const MOST_FEATURES: usize = 1 << 14;
/// Beyond this a number of columns is a mistake.
const MOST_INPUTS: usize = 1 << 24;
