//! What a replay finds, in types that are also the JSON that the command writes: an array of [`RecordingReport`]s.
//!
//! The JSON is stable: fields may be added, but none is renamed, removed or given another meaning.

use crate::statistics::mean;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use wtacrs_core::sampling::{Budget, Keep};

/// One recording's results: an object of the JSON array.
#[derive(Clone, Debug, Serialize)]
pub struct RecordingReport {
    /// The file that it is from.
    pub file: String,
    /// Steps recorded.
    pub steps: usize,
    /// Tokens of each step.
    pub tokens: usize,
    /// Columns of H.
    pub in_features: usize,
    /// For each budget and source of weights, in the order of the plan.
    pub results: Vec<SourceReport>,
}

/// One source of weights at one budget.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// "exact", "input" or "predictor".
    pub source: Source,
    /// The fraction of a step's tokens to keep, as it was asked for; of a number of tokens, what it is of a step's.
    pub fraction: f64,
    /// The number of tokens to keep, k.
    #[serde(skip)]
    pub budget: usize,
    /// r: how many features the predictor has; null for the other sources.
    pub features: Option<usize>,
    /// The mean of the errors from step ⌊steps/2⌋ on.
    pub mean_error_second_half: f64,
    /// √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖_F of every step.
    pub errors: Vec<f64>,
}

/// Where the weights of a step come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The norms themselves: w_i = ‖h_i‖ · ‖dz_i‖.
    Exact,
    /// A norm predictor's guess of ‖dz_i‖, learned from the rows kept at earlier steps.
    Predictor,
    /// Nothing but w_i = ‖h_i‖.
    Input,
}

/// A name that no source of weights has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no source '{name}': choose from exact, input, predictor, or all")]
pub struct UnknownSource {
    /// The offending name.
    pub name: String,
}

impl SourceReport {
    /// From the errors of all steps, of which there is at least one.
    pub fn new(source: Source, keep: Keep, budget: Budget, features: Option<usize>, errors: Vec<f64>) -> Self {
        Self {
            source,
            fraction: match keep {
                Keep::Fraction(fraction) => fraction,
                _ => budget.get() as f64 / budget.pairs() as f64,
            },
            budget: budget.get(),
            features,
            mean_error_second_half: mean(&errors[errors.len() / 2..]),
            errors,
        }
    }

    /// The mean of the errors of the steps before ⌊steps/2⌋; none if there is but one step.
    pub fn mean_error_first_half(&self) -> Option<f64> {
        let first_half = &self.errors[..self.errors.len() / 2];
        (!first_half.is_empty()).then(|| mean(first_half))
    }
}

impl Source {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Predictor, Self::Input];

    /// The name in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Predictor => "predictor",
            Self::Input => "input",
        }
    }
}

impl FromStr for Source {
    type Err = UnknownSource;

    fn from_str(name: &str) -> Result<Self, UnknownSource> {
        let unknown = || UnknownSource { name: name.to_owned() };
        Self::ALL.into_iter().find(|source| source.name() == name).ok_or_else(unknown)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves() {
        let report = |errors: &[f64]| {
            let keep = Keep::Fraction(0.3);
            SourceReport::new(Source::Exact, keep, keep.budget(11).expect("fits"), None, errors.to_vec())
        };
        let means = |errors: &[f64]| {
            let report = report(errors);
            (report.mean_error_first_half(), report.mean_error_second_half)
        };
        assert_eq!(means(&[4.0]), (None, 4.0));
        assert_eq!(means(&[4.0, 2.0]), (Some(4.0), 2.0));
        assert_eq!(means(&[4.0, 2.0, 1.0]), (Some(4.0), 1.5));
        assert_eq!((report(&[1.0]).fraction, report(&[1.0]).budget), (0.3, 3));
    }

    #[test]
    fn names() {
        for source in Source::ALL {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        assert!("Exact".parse::<Source>().is_err());
    }
}
