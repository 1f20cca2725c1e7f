//! The report of a replay: as JSON, CSV and tables.
//!
//! The JSON is an array of [`RecordingReport`]s. It is stable: fields may be added; none is renamed or removed, or
//! changes its meaning.

use crate::labels::{BudgetReport, WeightSource};
use crate::statistics::mean;
use crate::text::{self, counted, csv_field, csv_optional, significant};
use comfy_table::Table;
use serde::Serialize;
use std::fmt::Write;

const CSV_HEADER: &str = "file,tokens,in_features,weights,fraction,budget,budget_share,features,step,error,bits\n";

const HEADER: [&str; 5] =
    ["budget", "weights\nfrom", "error,\nfirst half", "error,\nsecond half", "second half\n/ exact"];
/// Columns of words, before those of numbers.
const WORDS: usize = 2;

const LEGEND: &str = "\
error          √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖ of a step's estimate of dW, averaged over the steps of each half
exact          weights ‖h_i‖·‖dz_i‖, which are known only after the backward pass: the best that weights can do
predictor      ‖dz_i‖ guessed from h_i, learned online from the rows that earlier steps kept; it starts untrained
input          weights ‖h_i‖ alone
";

/// One recording's results: an object of the JSON array.
#[derive(Clone, Debug, Serialize)]
pub struct RecordingReport {
    /// Its file.
    pub file: String,
    /// Steps recorded.
    pub steps: usize,
    /// Tokens of each step.
    pub tokens: usize,
    /// Columns of H.
    pub in_features: usize,
    /// Bits of an element of the rows that the predictor learns from: those of H's type for exact copies; 8, 4 or 2 if rows
    /// are packed.
    pub bits: u32,
    /// For each budget and source of weights, in the order of the plan.
    pub results: Vec<SourceReport>,
}

/// One source of weights at one budget.
#[derive(Clone, Debug, Serialize)]
pub struct SourceReport {
    /// "exact", "predictor" or "input".
    pub weights: WeightSource,
    /// The tokens to keep at each step.
    #[serde(flatten)]
    pub budget: BudgetReport,
    /// r: how many features the predictor has; null for the other sources.
    pub features: Option<usize>,
    /// The mean of the errors from step ⌊steps/2⌋ on.
    pub mean_error_second_half: f64,
    /// √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖_F of every step.
    pub errors: Vec<f64>,
}

impl SourceReport {
    /// From the errors of all steps, of which there is at least one.
    pub fn new(weights: WeightSource, budget: BudgetReport, features: Option<usize>, errors: Vec<f64>) -> Self {
        Self { weights, budget, features, mean_error_second_half: mean(&errors[errors.len() / 2..]), errors }
    }

    /// The mean of the errors of the steps before ⌊steps/2⌋; none if there is only one step.
    pub fn mean_error_first_half(&self) -> Option<f64> {
        let first_half = &self.errors[..self.errors.len() / 2];
        (!first_half.is_empty()).then(|| mean(first_half))
    }
}

/// A header, and a line for each step of each result; what is null in JSON is empty here.
pub fn csv(recordings: &[RecordingReport]) -> String {
    let mut text = CSV_HEADER.to_owned();
    for recording in recordings {
        let RecordingReport { file, tokens, in_features, bits, .. } = recording;
        let file = csv_field(file);
        for result in &recording.results {
            let SourceReport { weights, budget: BudgetReport { fraction, count, share }, features, .. } = result;
            let (fraction, features) = (csv_optional(*fraction), csv_optional(*features));
            for (step, error) in result.errors.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "{file},{tokens},{in_features},{weights},{fraction},{count},{share},{features},{step},{error},{bits}"
                );
            }
        }
    }
    text
}

/// All recordings' tables, and the legend.
pub fn tables(recordings: &[RecordingReport]) -> String {
    let mut text = String::new();
    for recording in recordings {
        let RecordingReport { file, steps, tokens, in_features, bits, results } = recording;
        let [steps, tokens, in_features] =
            [(steps, "step"), (tokens, "token"), (in_features, "feature")].map(|(count, thing)| counted(*count, thing));
        let _ = write!(text, "{file}: {steps} of {tokens}, {in_features}");
        if let Some(features) = results.iter().find_map(|result| result.features) {
            let _ = write!(text, "; the predictor has {features}");
            // Fewer than any type of H has.
            if *bits <= 8 {
                let _ = write!(text, ", and learns from rows in {bits} bits");
            }
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
        let exact = group.iter().find(|result| result.weights == WeightSource::Exact);
        for (line, result) in group.iter().enumerate() {
            let budget = if line == 0 { result.budget.to_string() } else { String::new() };
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
        result.weights.to_string(),
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
            let budget = BudgetReport { fraction: None, count: 1, share: 0.5 };
            SourceReport::new(WeightSource::Exact, budget, None, errors.to_vec())
        };
        let means = |errors: &[f64]| {
            let report = report(errors);
            (report.mean_error_first_half(), report.mean_error_second_half)
        };
        assert_eq!(means(&[4.0]), (None, 4.0));
        assert_eq!(means(&[4.0, 2.0]), (Some(4.0), 2.0));
        assert_eq!(means(&[4.0, 2.0, 1.0]), (Some(4.0), 1.5));
    }
}
