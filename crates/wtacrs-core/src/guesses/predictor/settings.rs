//! How a predictor learns, which settings make sense, and why it refuses.

/// How a predictor learns.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct PredictorSettings {
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

impl Default for PredictorSettings {
    fn default() -> Self {
        Self { features: 256, forgetting: 0.97, ridge: 0.1, clamp: 6.0, rows_per_update: 192, seed: 0 }
    }
}

impl PredictorSettings {
    /// The settings with another number of features.
    #[must_use]
    pub fn with_features(self, features: usize) -> Self {
        Self { features, ..self }
    }

    /// The settings with another forgetting.
    #[must_use]
    pub fn with_forgetting(self, forgetting: f64) -> Self {
        Self { forgetting, ..self }
    }

    /// The settings with another ridge.
    #[must_use]
    pub fn with_ridge(self, ridge: f64) -> Self {
        Self { ridge, ..self }
    }

    /// The settings with another clamp.
    #[must_use]
    pub fn with_clamp(self, clamp: f64) -> Self {
        Self { clamp, ..self }
    }

    /// The settings with another number of rows for each step.
    #[must_use]
    pub fn with_rows_per_update(self, rows_per_update: usize) -> Self {
        Self { rows_per_update, ..self }
    }

    /// The settings with another seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

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

/// Why a predictor refuses; its state is then as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictorError {
    /// A setting is out of range.
    #[error("{name} is {value}: it must be {allowed}")]
    InvalidSetting {
        /// Which.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// A matrix has another number of columns than the layer has input features.
    #[error("{found} columns, but the layer has {expected} input features")]
    WrongColumns {
        /// in_features.
        expected: usize,
        /// Columns given.
        found: usize,
    },
    /// Not one entry for each row.
    #[error("{what} has {found} entries where {expected} are needed")]
    LengthMismatch {
        /// Which of the inputs is off.
        what: &'static str,
        /// How many are needed.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A norm is negative, infinite or not a number.
    #[error("{what} {index} is {value}: it must be finite and not negative")]
    InvalidNorm {
        /// Which of the inputs it is in: ‖dZ‖, the cached norms, or the norms of H's rows.
        what: &'static str,
        /// The offending row.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A scale is negative, beyond 2^64, or not a number.
    #[error("the scale of row {index} is {value}: it must lie between 0 and 2^64")]
    InvalidScale {
        /// The offending row.
        index: usize,
        /// Its scale.
        value: f64,
    },
    /// A step's sum is not a number, beyond 2^53, or does not fit the others: no rows have such sums.
    #[error("sum {index} of the step's statistics is {value}: rows cannot have such a sum")]
    InvalidStatistics {
        /// Its place in [`StepStatistics::sums`](super::StepStatistics::sums).
        index: usize,
        /// Its value.
        value: f64,
    },
    /// Saved bytes of another version of the format.
    #[error("saved by format version {found}, but this is version {expected}")]
    Version {
        /// The version read here.
        expected: u32,
        /// The version found.
        found: u32,
    },
    /// Saved bytes, or a state, that no predictor has written.
    #[error("not a saved predictor: {what}")]
    Corrupted {
        /// What is wrong.
        what: &'static str,
    },
}

pub(super) fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), PredictorError> {
    if found == expected { Ok(()) } else { Err(PredictorError::LengthMismatch { what, expected, found }) }
}

pub(super) fn check_norms(what: &'static str, norms: &[f32]) -> Result<(), PredictorError> {
    match norms.iter().enumerate().find(|(_, norm)| !(**norm >= 0.0 && norm.is_finite())) {
        Some((index, &value)) => Err(PredictorError::InvalidNorm { what, index, value }),
        None => Ok(()),
    }
}

pub(super) fn check_cached(cached: &[Option<f32>], rows: usize) -> Result<(), PredictorError> {
    check_len("the cached norms", cached.len(), rows)?;
    match cached.iter().enumerate().find_map(|(i, norm)| norm.filter(|n| !(*n >= 0.0 && n.is_finite())).map(|n| (i, n)))
    {
        Some((index, value)) => Err(PredictorError::InvalidNorm { what: "the cached norm", index, value }),
        None => Ok(()),
    }
}
