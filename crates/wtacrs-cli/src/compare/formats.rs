//! The results for programs: JSON, as [`super::report`] documents it, and CSV, one line for each result.

use super::report::{DesignReport, LayerReport};
use crate::columns::csv_field;
use std::fmt::Write;

const CSV_HEADER: &str = "file,tokens,in_features,out_features,weights,design,fraction,budget,winners,kept,trials,\
                          rel_error,rel_error_sd,bias_ratio,variance_vs_crs,norms_ms,select_ms,gather_ms,product_ms,\
                          exact_ms\n";

/// The array of all layers, indented.
///
/// # Errors
///
/// None in practice: all keys are strings.
pub fn json(layers: &[LayerReport]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(layers).map(|text| text + "\n")
}

/// A header, and a line for each result; what is null in JSON is empty here.
pub fn csv(layers: &[LayerReport]) -> String {
    let mut text = CSV_HEADER.to_owned();
    for layer in layers {
        let LayerReport { file, tokens, in_features, out_features, .. } = layer;
        let file = csv_field(file);
        for result in &layer.results {
            let DesignReport { weights, design, fraction, budget, winners, kept, trials, .. } = result;
            let DesignReport { rel_error, rel_error_sd, bias_ratio, variance_vs_crs, time_ms, .. } = result;
            let (bias_ratio, variance_vs_crs) = (optional(*bias_ratio), optional(*variance_vs_crs));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{file},{tokens},{in_features},{out_features},{weights},{design},{fraction},{budget},{winners},{kept},\
                 {trials},{rel_error},{rel_error_sd},{bias_ratio},{variance_vs_crs},{},{},{},{},{}",
                time_ms.norms, time_ms.select, time_ms.gather, time_ms.product, time_ms.exact
            );
        }
    }
    text
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
