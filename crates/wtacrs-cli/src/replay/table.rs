//! The results as tables that fit a terminal: one for each recording, with a heading and a legend.

use super::report::{RecordingReport, Source, SourceReport};
use crate::columns::{self, budget_label};
use crate::numbers::significant;
use comfy_table::Table;
use std::fmt::Write;

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

/// All recordings' tables, and the legend.
pub fn render(recordings: &[RecordingReport]) -> String {
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
    let mut table = columns::table(HEADER, WORDS);
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

fn counted(count: usize, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}
