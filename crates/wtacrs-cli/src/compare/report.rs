//! The report of a comparison: as JSON, CSV and tables.
//!
//! The JSON is an array of [`LayerReport`]s. It is stable: fields may be added; none is renamed or removed, or changes
//! its meaning. Numbers that do not exist, such as the bias of an estimate without error, are null.

use crate::labels::{BudgetReport, WeightSource};
use crate::text::{self, csv_field, csv_optional, significant};
use comfy_table::{Cell, Table};
use serde::{Serialize, Serializer};
use std::fmt::Write;
use wtacrs_core::sampling::design::BuiltIn;

const CSV_HEADER: &str = "file,tokens,in_features,out_features,weights,design,fraction,budget,budget_share,\
                          winners,kept,trials,rel_error,rel_error_sd,bias_ratio,variance_vs_crs,norms_ms,select_ms,\
                          gather_ms,product_ms,exact_ms,bits,memory,saved_bytes,saved_share,pack_ms,unpack_ms\n";

const HEADER: [&str; 14] = [
    "budget",
    "design",
    "bits",
    "error\nof dW",
    "error²\n/ crs",
    "bias\nratio",
    "rows\nkept",
    "saved\nKiB",
    "saved\nshare",
    "select\nms",
    "gather/\npack",
    "unpack\nms",
    "product\nms",
    "time /\nexact",
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
    /// Milliseconds of the row norms of H and of dZ.
    #[serde(skip)]
    pub norms_ms: f64,
    /// Milliseconds of the exact dW.
    #[serde(skip)]
    pub exact_ms: f64,
    /// For each source of weights, budget, number of bits and design, in the order of the plan.
    pub results: Vec<DesignReport>,
}

/// One design at one budget with one source of weights, and one way to save rows.
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
    /// The share of H's bytes that was asked for; null where a budget was.
    pub memory: Option<f64>,
    /// Bits of an element of a kept row: 16 or 32, those of H's type, for exact copies; 8, 4 or 2 if rows are packed.
    pub bits: u32,
    /// How many of the budget's tokens are kept for certain, |C|.
    pub winners: usize,
    /// Distinct rows kept, the mean over the trials.
    pub kept: f64,
    /// Bytes that live from the forward to the backward pass (kept rows with their indices and scales), the mean over the
    /// trials.
    pub saved_bytes: f64,
    /// The same as a share of the bytes of H.
    pub saved_share: f64,
    /// How many estimates were made: as many as the plan has, or a few where all are equal because nothing is drawn.
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
    /// Row norms of H and of dZ; 0 if all rows are packed, for which they are not needed.
    pub norms: f64,
    /// Weights from the norms, threshold and draws; 0 if all rows are packed.
    pub select: f64,
    /// Copying the kept rows of H; null if they are packed.
    pub gather: Option<f64>,
    /// Packing the kept rows of H, in the place of copying them; null if they are native.
    pub pack: Option<f64>,
    /// Reading all packed rows back, which no step of training does: the product reads them itself. Null if they are native.
    pub unpack: Option<f64>,
    /// The estimate of dW from them.
    pub product: f64,
    /// The exact dW, for comparison.
    pub exact: f64,
}

impl StepTimes {
    /// The time to save the chosen rows: gather or pack.
    pub fn save(&self) -> f64 {
        self.gather.or(self.pack).unwrap_or(0.0)
    }

    /// The time of an estimate, all steps together, as a share of the exact product's.
    pub fn total_vs_exact(&self) -> f64 {
        (self.norms + self.select + self.save() + self.product) / self.exact
    }
}

impl DesignReport {
    /// Whether no error remains on average. All rows are packed without a choice, whatever the design is.
    fn is_unbiased(&self) -> bool {
        self.design.is_unbiased() || (self.is_packed() && self.budget.share == 1.0)
    }

    /// Whether rows are packed.
    pub fn is_packed(&self) -> bool {
        self.time_ms.pack.is_some()
    }

    /// Whether both were made at the same limit on tokens or bytes.
    fn has_limit_of(&self, other: &Self) -> bool {
        self.memory == other.memory && (self.memory.is_some() || self.budget == other.budget)
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
            let DesignReport { bits, saved_bytes, saved_share, .. } = result;
            let (memory, gather) = (csv_optional(result.memory), csv_optional(time_ms.gather));
            let (pack, unpack) = (csv_optional(time_ms.pack), csv_optional(time_ms.unpack));
            let BudgetReport { fraction, count, share } = budget;
            let fraction = csv_optional(*fraction);
            let (bias_ratio, variance_vs_crs) = (csv_optional(*bias_ratio), csv_optional(*variance_vs_crs));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{file},{tokens},{in_features},{out_features},{weights},{design},{fraction},{count},{share},{winners},\
                 {kept},{trials},{rel_error},{rel_error_sd},{bias_ratio},{variance_vs_crs},{},{},{gather},{},{},{bits},\
                 {memory},{saved_bytes},{saved_share},{pack},{unpack}",
                time_ms.norms, time_ms.select, time_ms.product, time_ms.exact
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
    let (exact, norms) = (milliseconds(layer.exact_ms), milliseconds(layer.norms_ms));
    let _ = writeln!(text, "exact dW: {exact} ms, row norms of H and dZ: {norms} ms, on {cores}; {}", trials(results));
    for group in results.chunk_by(|a, b| a.weights == b.weights) {
        let _ = writeln!(text, "\n{}", describe(group[0].weights));
        let _ = writeln!(text, "{}", table(group).trim_fmt());
    }
    text.push('\n');
}

/// How many estimates each line's numbers come from, and the designs that made fewer.
fn trials(results: &[DesignReport]) -> String {
    let most = results.iter().map(|result| result.trials).max().unwrap_or(0);
    let mut text = format!("{most} trials for each line");
    let mut named = Vec::new();
    let native = if results.iter().any(DesignReport::is_packed) { "native " } else { "" };
    for DesignReport { design, trials, .. } in results {
        if *trials < most && !named.contains(design) {
            named.push(*design);
            let _ = write!(text, ", {trials} for {native}{design}");
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

fn table(results: &[DesignReport]) -> Table {
    let mut table = text::table(HEADER, WORDS);
    for (at, group) in results.chunk_by(|a, b| a.has_limit_of(b)).enumerate() {
        if at > 0 {
            table.add_row([""]);
        }
        let mut before = None;
        for result in group {
            let is_new = before.replace(result.budget) != Some(result.budget);
            table.add_row(row(result, if is_new { result.budget.to_string() } else { String::new() }));
        }
    }
    table
}

fn row(result: &DesignReport, budget: String) -> Vec<Cell> {
    let ratio = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| significant(value, 3));
    let bias = match result.bias_ratio {
        Some(bias) if !result.is_unbiased() => format!("({bias:.0})"),
        Some(bias) => format!("{bias:.2}"),
        None => "–".to_owned(),
    };
    let times = result.time_ms;
    let cells = [
        budget,
        result.design.to_string(),
        result.bits.to_string(),
        percent(result.rel_error),
        ratio(result.variance_vs_crs),
        bias,
        format!("{:.0}", result.kept),
        significant(result.saved_bytes / 1024.0, 3),
        percent(result.saved_share),
        milliseconds(times.select),
        milliseconds(times.save()),
        times.unpack.map_or_else(String::new, milliseconds),
        milliseconds(times.product),
        format!("{:.2}", times.total_vs_exact()),
    ];
    cells.into_iter().map(Cell::new).collect()
}

fn legend() -> String {
    let biased = BuiltIn::ALL.into_iter().filter(|design| !design.is_unbiased()).map(|design| design.to_string());
    format!(
        "budget         share of the tokens to keep, and their number\n\
         bits           of an element of a kept row: H's own for exact copies, fewer for packed rows\n\
         error          ‖ĝ − g‖ / ‖g‖ of one estimate ĝ of the exact g = dW, root mean square over trials\n\
         error² / crs   mean ‖ĝ − g‖² over that of plain column-row sampling (crs) of native rows with the same weights\n\
         bias ratio     about 1 if errors average out over trials, up to their number if they never do ({}: biased by design)\n\
         rows, saved    distinct rows of H kept for the backward pass; their bytes with indices and scales, and the share of H's\n\
         unpack         reading packed rows back, for comparison: the product does it itself, as it reads them\n\
         time / exact   norms + select + gather or pack + product over the exact product's time\n",
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
