//! The report for programs: JSON, and CSV with one line for each input and budget.

use super::report::{InputReport, MemoryReport};
use crate::columns::csv_field;
use std::fmt::Write;

const CSV_HEADER: &str = "name,input,layers,count,tokens,in_features,element_bytes,fraction,budget,exact_bytes,saved_bytes,predictor_bytes\n";

/// One object, indented.
///
/// # Errors
///
/// None in practice: all keys are strings.
pub fn json(report: &MemoryReport) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

/// A header and the lines.
pub fn csv(report: &MemoryReport) -> String {
    let mut text = CSV_HEADER.to_owned();
    let (name, element_bytes) = (csv_field(&report.name), report.element_bytes);
    for input in &report.inputs {
        let InputReport { layers, count, tokens, in_features, exact_bytes, predictor_bytes, .. } = input;
        let what = csv_field(&input.name);
        for saved in &input.saved {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name},{what},{layers},{count},{tokens},{in_features},{element_bytes},{},{},{exact_bytes},{},\
                 {predictor_bytes}",
                saved.fraction, saved.budget, saved.bytes
            );
        }
    }
    text
}
