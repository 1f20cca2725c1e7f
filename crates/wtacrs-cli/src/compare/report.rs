//! The report of a comparison: as JSON, CSV and tables.
//!
//! The JSON is an array of [`LayerReport`]s. It is stable: fields may be added; none is renamed or removed, or changes
//! its meaning. Numbers that do not exist, such as the bias of an estimate without error, are null.

use crate::labels::{BudgetReport, WeightSource};
use crate::text::{self, csv_field, csv_optional, significant};
use comfy_table::{Cell, Table};
use serde::{Serialize, Serializer};
use std::fmt::Write;
use wtacrs_core::Selection;
use wtacrs_core::sampling::design::BuiltIn;

const CSV_HEADER: &str = "file,tokens,in_features,out_features,weights,design,fraction,budget,budget_share,\
                          winners,kept,trials,rel_error,rel_error_sd,bias_ratio,variance_vs_crs,norms_ms,select_ms,\
                          gather_ms,product_ms,exact_ms\n";

const HEADER: [&str; 12] = [
    "budget",
    "design",
    "error\nof dW",
    "spread\n ",
    "variance\n/ crs",
    "bias\nratio",
    "rows\nkept",
    "memory\nkept",
    "select\nms",
    "gather\nms",
    "product\nms",
    "time\n/ exact",
];

/// Columns of words, before those of numbers.
const WORDS: usize = 2;

/// One layer's results: an object of the JSON array.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its file, or files.
    pub file: String,
    /// Rows of H and of dZ.
    pub tokens: usize,
    /// Columns of H.
    pub in_features: usize,
    /// Columns of dZ.
    pub out_features: usize,
    /// Bytes of one element of H.
    #[serde(skip)]
    pub element_bytes: usize,
    /// For each source of weights, budget and design, in the order of the plan.
    pub results: Vec<DesignReport>,
}

/// One design at one budget with one source of weights.
#[derive(Clone, Debug, Serialize)]
pub struct DesignReport {
    /// "stale", "exact" or "input".
    pub weights: WeightSource,
    /// The design's name.
    #[serde(serialize_with = "as_name")]
    pub design: BuiltIn,
    /// The tokens to keep.
    #[serde(flatten)]
    pub budget: BudgetReport,
    /// How many of the budget's tokens are kept for certain, |C|.
    pub winners: usize,
    /// Distinct rows kept, the mean over the trials.
    pub kept: f64,
    /// How many estimates were made: as many as the plan has, or a few where all are equal because the design draws
    /// nothing.
    pub trials: usize,
    /// √(mean over the trials of ‖ĝ − g‖²_F / ‖g‖²_F). 0 if it could be rounding alone.
    pub rel_error: f64,
    /// Standard deviation over the trials of ‖ĝ − g‖_F / ‖g‖_F.
    pub rel_error_sd: f64,
    /// ‖mean ĝ − g‖² / (mean ‖ĝ − g‖² / trials): about 1 if unbiased, up to `trials` if biased; null if there is no
    /// error.
    pub bias_ratio: Option<f64>,
    /// mean ‖ĝ − g‖² over the variance of plain column-row sampling, in closed form; null if that is 0.
    pub variance_vs_crs: Option<f64>,
    /// Times of the steps.
    pub time_ms: StepTimes,
}

/// Medians, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepTimes {
    /// Row norms of H and of dZ.
    pub norms: f64,
    /// Weights from the norms, threshold and draws.
    pub select: f64,
    /// Copying the kept rows of H.
    pub gather: f64,
    /// The estimate of dW from them.
    pub product: f64,
    /// The exact dW, for comparison.
    pub exact: f64,
}

impl StepTimes {
    /// The time of an estimate, all steps together, as a share of the exact product's.
    pub fn total_vs_exact(&self) -> f64 {
        (self.norms + self.select + self.gather + self.product) / self.exact
    }
}

impl DesignReport {
    /// Bytes that live from the forward to the backward pass (kept rows with their indices and scales), as a share of H's.
    pub fn memory_share(&self, layer: &LayerReport) -> f64 {
        let row = (layer.in_features * layer.element_bytes) as f64;
        let kept_row = row + Selection::BYTES_PER_PAIR as f64;
        self.kept * kept_row / (layer.tokens as f64 * row)
    }
}

fn as_name<S: Serializer>(design: &BuiltIn, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(design)
}

/// A header, and a line for each result; what is null in JSON is empty here.
pub fn csv(layers: &[LayerReport]) -> String {
    let mut text = CSV_HEADER.to_owned();
    for layer in layers {
        let LayerReport { file, tokens, in_features, out_features, .. } = layer;
        let file = csv_field(file);
        for result in &layer.results {
            let DesignReport { weights, design, budget, winners, kept, trials, .. } = result;
            let DesignReport { rel_error, rel_error_sd, bias_ratio, variance_vs_crs, time_ms, .. } = result;
            let BudgetReport { fraction, count, share } = budget;
            let fraction = csv_optional(*fraction);
            let (bias_ratio, variance_vs_crs) = (csv_optional(*bias_ratio), csv_optional(*variance_vs_crs));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{file},{tokens},{in_features},{out_features},{weights},{design},{fraction},{count},{share},{winners},\
                 {kept},{trials},{rel_error},{rel_error_sd},{bias_ratio},{variance_vs_crs},{},{},{},{},{}",
                time_ms.norms, time_ms.select, time_ms.gather, time_ms.product, time_ms.exact
            );
        }
    }
    text
}

/// All layers' tables, and the legend. `threads` is the number of threads that the times were taken on.
pub fn tables(layers: &[LayerReport], threads: usize) -> String {
    let mut text = String::new();
    for layer in layers {
        write_layer(&mut text, layer, threads);
    }
    text + &legend()
}

fn write_layer(text: &mut String, layer: &LayerReport, threads: usize) {
    let LayerReport { file, tokens, in_features, out_features, results, .. } = layer;
    let cores = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let _ = writeln!(text, "{file}: {tokens} tokens, {in_features} → {out_features} features");
    if let Some(first) = results.first() {
        let (exact, norms) = (milliseconds(first.time_ms.exact), milliseconds(first.time_ms.norms));
        let _ =
            writeln!(text, "exact dW: {exact} ms, row norms of H and dZ: {norms} ms, on {cores}; {}", trials(results));
    }
    for group in results.chunk_by(|a, b| a.weights == b.weights) {
        let _ = writeln!(text, "\n{}", describe(group[0].weights));
        let _ = writeln!(text, "{}", table(layer, group).trim_fmt());
    }
    text.push('\n');
}

/// How many estimates each line's numbers come from, and the designs that made fewer.
fn trials(results: &[DesignReport]) -> String {
    let most = results.iter().map(|result| result.trials).max().unwrap_or(0);
    let mut text = format!("{most} trials for each line");
    let mut named = Vec::new();
    for DesignReport { design, trials, .. } in results {
        if *trials < most && !named.contains(design) {
            named.push(*design);
            let _ = write!(text, ", {trials} for {design}");
        }
    }
    text
}

fn describe(source: WeightSource) -> &'static str {
    match source {
        WeightSource::Exact => "exact weights, ‖H_i‖·‖dZ_i‖, which are known only after the backward pass",
        WeightSource::Predictor => "predictor weights, ‖H_i‖ times a guess of ‖dZ_i‖",
        WeightSource::Stale => "stale weights, ‖H_i‖ times ‖dZ_i‖ of the sample's last visit",
        WeightSource::Input => "input weights, ‖H_i‖ alone",
    }
}

fn table(layer: &LayerReport, results: &[DesignReport]) -> Table {
    let mut table = text::table(HEADER, WORDS);
    for (at, group) in results.chunk_by(|a, b| a.budget == b.budget).enumerate() {
        if at > 0 {
            table.add_row([""]);
        }
        for (line, result) in group.iter().enumerate() {
            let budget = if line == 0 { result.budget.to_string() } else { String::new() };
            table.add_row(row(layer, result, budget));
        }
    }
    table
}

fn row(layer: &LayerReport, result: &DesignReport, budget: String) -> Vec<Cell> {
    let ratio = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| significant(value, 3));
    let bias = match result.bias_ratio {
        Some(bias) if !result.design.is_unbiased() => format!("biased {bias:.0}"),
        Some(bias) => format!("{bias:.2}"),
        None => "–".to_owned(),
    };
    let times = result.time_ms;
    let cells = [
        budget,
        result.design.to_string(),
        percent(result.rel_error),
        percent(result.rel_error_sd),
        ratio(result.variance_vs_crs),
        bias,
        format!("{:.0}", result.kept),
        percent(result.memory_share(layer)),
        milliseconds(times.select),
        milliseconds(times.gather),
        milliseconds(times.product),
        format!("{:.2}", times.total_vs_exact()),
    ];
    cells.into_iter().map(Cell::new).collect()
}

fn legend() -> String {
    let biased = BuiltIn::ALL.into_iter().filter(|design| !design.is_unbiased()).map(|design| design.to_string());
    format!(
        "error          ‖ĝ − g‖ / ‖g‖ of one estimate ĝ of the exact g = dW: root mean square, spread over trials\n\
         variance       mean ‖ĝ − g‖² over that of plain column-row sampling (crs) with the same weights\n\
         bias ratio     about 1 if errors average out over trials, up to their number if they never do ({}: biased by design)\n\
         rows, memory   distinct rows of H kept for the backward pass; their bytes, with indices and scales, over H's\n\
         time / exact   norms + select + gather + product over the exact product's time\n",
        biased.collect::<Vec<_>>().join(", ")
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn milliseconds(value: f64) -> String {
    let decimals = if value < 1.0 { 3 } else { 2 };
    format!("{value:.decimals$}")
}
