//! Why a predictor refuses, and the checks of what it is given.

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
    /// A step's sum is beyond 1e100, or not a number: no rows have such sums.
    #[error("sum {index} of the step's statistics is {value}: it must lie between -1e100 and 1e100")]
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
    /// Saved bytes that no predictor has written.
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
