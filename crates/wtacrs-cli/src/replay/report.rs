//! What a replay finds, in types that are also the JSON that the command writes: an array of [`RecordingReport`]s.
//!
//! The JSON is stable: fields may be added, but none is renamed, removed or given another meaning.

use crate::statistics::mean;
use crate::text::{self, budget_label, counted, csv_field, significant};
use comfy_table::Table;
use serde::Serialize;
use std::fmt::{self, Write};
use std::str::FromStr;
use wtacrs_core::sampling::{Budget, Keep};

const CSV_HEADER: &str = "file,tokens,in_features,source,fraction,features,step,error\n";

const HEADER: [&str; 5] =
    ["budget", "weights\nfrom", "error,\nfirst half", "error,\nsecond half", "second half\n/ exact"];
/// Columns of words, before those of numbers.
const WORDS: usize = 2;

const LEGEND: &str = "\
error          √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖ of a step's estimate of dW, averaged over the steps of each half
exact          weights ‖h_i‖·‖dz_i‖, which are known only after the backward pass: the best that weights can do
predictor      ‖dz_i‖ guessed from h_i, learned online from the rows that earlier steps kept; it starts knowing nothing
input          weights ‖h_i‖ alone
";

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

/// A header, and a line for each step of each result; what is null in JSON is empty here.
pub fn csv(recordings: &[RecordingReport]) -> String {
    let mut text = CSV_HEADER.to_owned();
    for recording in recordings {
        let RecordingReport { file, tokens, in_features, .. } = recording;
        let file = csv_field(file);
        for result in &recording.results {
            let SourceReport { source, fraction, features, .. } = result;
            let features = features.map_or_else(String::new, |features| features.to_string());
            for (step, error) in result.errors.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{file},{tokens},{in_features},{source},{fraction},{features},{step},{error}");
            }
        }
    }
    text
}

/// All recordings' tables, and the legend.
pub fn tables(recordings: &[RecordingReport]) -> String {
    let mut text = String::new();
    for recording in recordings {
        let RecordingReport { file, steps, tokens, in_features, results } = recording;
        let [steps, tokens, in_features] =
            [(steps, "step"), (tokens, "token"), (in_features, "feature")].map(|(count, thing)| counted(*count, thing));
        let _ = write!(text, "{file}: {steps} of {tokens}, {in_features}");
        if let Some(features) = results.iter().find_map(|result| result.features) {
            let _ = write!(text, "; the predictor has {features}");
        }
        let _ = writeln!(text, "\n\n{}\n", table(results).trim_fmt());
    }
    text + LEGEND
}

fn table(results: &[SourceReport]) -> Table {
    let mut table = text::table(HEADER, WORDS);
    for (at, group) in results.chunk_by(|a, b| a.budget == b.budget).enumerate() {
        if at > 0 {
            table.add_row([""]);
        }
        let exact = group.iter().find(|result| result.source == Source::Exact);
        for (line, result) in group.iter().enumerate() {
            let budget = if line == 0 { budget_label(result.fraction, result.budget) } else { String::new() };
            table.add_row(row(result, exact, budget));
        }
    }
    table
}

fn row(result: &SourceReport, exact: Option<&SourceReport>, budget: String) -> [String; 5] {
    let none = || "–".to_owned();
    let ratio = exact
        .filter(|exact| exact.mean_error_second_half > 0.0)
        .map(|exact| significant(result.mean_error_second_half / exact.mean_error_second_half, 3));
    [
        budget,
        result.source.to_string(),
        result.mean_error_first_half().map_or_else(none, error),
        error(result.mean_error_second_half),
        ratio.unwrap_or_else(none),
    ]
}

fn error(value: f64) -> String {
    format!("{value:.3}")
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
