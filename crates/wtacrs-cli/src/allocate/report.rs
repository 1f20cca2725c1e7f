//! The report of an allocation: as JSON, CSV and tables.
//!
//! The JSON is an [`AllocationReport`]. It is stable: fields may be added; none is renamed or removed, or changes its
//! meaning. Numbers that do not exist, such as measured errors without trials, are null.

use super::ways::Way;
use crate::figure::short_name;
use crate::labels::WeightSource;
use crate::text::{self, counted, csv_field, csv_optional, significant, to_digits};
use comfy_table::Table;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt::Write;

const CSV_HEADER: &str = "file,tokens,in_features,out_features,weights,memory,way,budget,budget_share,bits,saved_bytes,\
                          saved_share,expected_error,trials,measured_error\n";

const LAYER_HEADER: [&str; 10] = [
    "layer",
    "tokens",
    "in → out",
    "k/n",
    "rows\nkept",
    "bits",
    "saved\nKiB",
    "share\nof H",
    "error\nbefore",
    "error\nafter",
];
const MEASURED_LAYER_HEADER: [&str; 2] = ["measured\nbefore", "measured\nafter"];

const ALL_HEADER: [&str; 4] = ["all layers", "saved\nKiB", "share\nof H", "error"];
const MEASURED_ALL_HEADER: &str = "measured";

const LEGEND: &str = "\
k/n, rows, bits   what a layer keeps of H if memory is shared out; a layer of all rows in H's own bits is exact
saved, share      bytes of the rows, with an index (4) and a scale (8) each unless all rows are kept, and their share of H's
error             of an estimate of dW relative to ‖dW‖: √(Σ ‖h_i‖² ‖dz_i‖² ((1 + q)/π_i − 1)) / ‖dW‖, q the noise of packing
before, after     with one fraction of every layer's rows in 4 bits, and shared out
all layers        the root mean square of the layers' errors
";
const MEASURED_LEGEND: &str = "\
measured          of real estimates by wta-pivotal, root mean square over trials
";

/// Memory shared out among layers, and what the other ways to divide it come to.
#[derive(Clone, Debug, Serialize)]
pub struct AllocationReport {
    /// The share of all layers' H that was asked for.
    pub memory: f64,
    /// What rows are drawn by: "stale", "exact" or "input".
    pub weights: WeightSource,
    /// Estimates made for each measured error; null if there are none.
    pub trials: Option<u32>,
    /// Bytes of all layers' H.
    pub h_bytes: u64,
    /// Every layer.
    pub layers: Vec<LayerReport>,
    /// For each way, what all layers together come to.
    pub all: Vec<TotalReport>,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its file.
    pub file: String,
    /// Rows of H and of dZ.
    pub tokens: usize,
    /// Columns of H.
    pub in_features: usize,
    /// Columns of dZ.
    pub out_features: usize,
    /// Bytes of H.
    pub h_bytes: u64,
    /// What it keeps, for each way; a way is missing if not even one row fits.
    pub results: Vec<KeptReport>,
}

/// What one layer keeps.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KeptReport {
    /// "fraction_native", "fraction_4_bits" or "shared_out".
    pub way: Way,
    /// The number of tokens to keep, k.
    pub budget: usize,
    /// k/n.
    pub budget_share: f64,
    /// Bits of an element of a kept row: 16 or 32, those of H's type, for exact copies; 8, 4 or 2 if rows are packed.
    pub bits: u32,
    /// Bytes that live from the forward to the backward pass.
    pub saved_bytes: u64,
    /// The same as a share of the bytes of H.
    pub saved_share: f64,
    /// √(Σ ‖h_i‖² ‖dz_i‖² ((1 + q)/π_i − 1)) / ‖dW‖_F.
    pub expected_error: f64,
    /// √(mean over the trials of ‖ĝ − g‖²_F / ‖g‖²_F); null without trials.
    pub measured_error: Option<f64>,
}

/// What all layers together come to. Numbers are null if not even one row fits a layer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TotalReport {
    /// The way to divide memory.
    pub way: Way,
    /// Bytes of all layers.
    pub saved_bytes: Option<u64>,
    /// The same as a share of the bytes of all layers' H.
    pub saved_share: Option<f64>,
    /// The root mean square of the layers' expected errors.
    pub expected_error: Option<f64>,
    /// That of the measured ones.
    pub measured_error: Option<f64>,
}

impl LayerReport {
    fn result(&self, way: Way) -> Option<&KeptReport> {
        self.results.iter().find(|result| result.way == way)
    }
}

/// A header, and a line for each layer and way; what is null in JSON is empty here.
pub fn csv(report: &AllocationReport) -> String {
    let mut text = CSV_HEADER.to_owned();
    let AllocationReport { memory, weights, trials, layers, .. } = report;
    let trials = csv_optional(*trials);
    for layer in layers {
        let LayerReport { file, tokens, in_features, out_features, results, .. } = layer;
        let file = csv_field(file);
        for result in results {
            let KeptReport { way, budget, budget_share, bits, saved_bytes, saved_share, .. } = result;
            let (expected, measured) = (result.expected_error, csv_optional(result.measured_error));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{file},{tokens},{in_features},{out_features},{weights},{memory},{way},{budget},{budget_share},{bits},\
                 {saved_bytes},{saved_share},{expected},{trials},{measured}"
            );
        }
    }
    text
}

/// The layers, all layers together, and the legend.
pub fn tables(report: &AllocationReport) -> String {
    let AllocationReport { memory, weights, trials, h_bytes, layers, .. } = report;
    let layers = counted(layers.len(), "layer");
    let mut text = format!("{layers}, {weights} weights: {memory} of the {} KiB of H", kibibytes(*h_bytes));
    if let Some(trials) = trials {
        let _ = write!(text, "; {} for each measured error", counted(*trials as usize, "trial"));
    }
    let _ = write!(text, "\n\n{}\n\n{}\n\n{LEGEND}", layer_table(report).trim_fmt(), all_table(report).trim_fmt());
    if trials.is_some() {
        text += MEASURED_LEGEND;
    }
    text
}

fn layer_table(report: &AllocationReport) -> Table {
    let measured = report.trials.map(|_| MEASURED_LAYER_HEADER);
    let mut table = text::table(LAYER_HEADER.into_iter().chain(measured.into_iter().flatten()), 1);
    let short: HashSet<String> = report.layers.iter().map(|layer| short_name(&layer.file)).collect();
    let names_differ = short.len() == report.layers.len();
    for layer in &report.layers {
        let name = if names_differ { short_name(&layer.file) } else { layer.file.clone() };
        let cells = layer_row(layer, name);
        table.add_row(cells.into_iter().take(LAYER_HEADER.len() + 2 * usize::from(measured.is_some())));
    }
    table
}

fn layer_row(layer: &LayerReport, name: String) -> Vec<String> {
    let (before, after) = (layer.result(Way::Fraction4Bits), layer.result(Way::SharedOut));
    let of_after = |text: &dyn Fn(&KeptReport) -> String| after.map_or_else(none, text);
    let expected = |result: Option<&KeptReport>| error(result.map(|result| result.expected_error));
    let measured = |result: Option<&KeptReport>| error(result.and_then(|result| result.measured_error));
    vec![
        name,
        layer.tokens.to_string(),
        format!("{} → {}", layer.in_features, layer.out_features),
        of_after(&|kept| to_digits(kept.budget_share, 3)),
        of_after(&|kept| kept.budget.to_string()),
        of_after(&|kept| kept.bits.to_string()),
        of_after(&|kept| kibibytes(kept.saved_bytes)),
        of_after(&|kept| to_digits(kept.saved_share, 3)),
        expected(before),
        expected(after),
        measured(before),
        measured(after),
    ]
}

fn all_table(report: &AllocationReport) -> Table {
    let measured = report.trials.map(|_| MEASURED_ALL_HEADER);
    let mut table = text::table(ALL_HEADER.into_iter().chain(measured), 1);
    for total in &report.all {
        let cells = [
            total.way.title().to_owned(),
            total.saved_bytes.map_or_else(none, kibibytes),
            total.saved_share.map_or_else(none, |share| to_digits(share, 3)),
            error(total.expected_error),
            error(total.measured_error),
        ];
        table.add_row(cells.into_iter().take(ALL_HEADER.len() + usize::from(measured.is_some())));
    }
    table
}

fn kibibytes(bytes: u64) -> String {
    significant(bytes as f64 / 1024.0, 4)
}

fn error(value: Option<f64>) -> String {
    match value {
        None => none(),
        Some(0.0) => "0".to_owned(),
        Some(value) => to_digits(value, 3),
    }
}

fn none() -> String {
    "–".to_owned()
}
