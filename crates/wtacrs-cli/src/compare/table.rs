//! The results as tables that fit a terminal: one for each source of weights, with a heading and a legend.

use super::report::{DesignReport, LayerReport, WeightSource};
use crate::columns::{self, budget_label};
use crate::numbers::significant;
use comfy_table::{Cell, Table};
use std::fmt::Write;
use wtacrs_core::sampling::design::BuiltIn;

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

/// All layers' tables, and the legend. `threads` is what the times were taken on.
pub fn render(layers: &[LayerReport], threads: usize) -> String {
    let mut text = String::new();
    for layer in layers {
        write_layer(&mut text, layer, threads);
    }
    text + &legend(layers)
}

fn write_layer(text: &mut String, layer: &LayerReport, threads: usize) {
    let LayerReport { file, tokens, in_features, out_features, results, .. } = layer;
    let cores = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    let _ = writeln!(text, "{file}: {tokens} tokens, {in_features} → {out_features} features");
    if let Some(first) = results.first() {
        let (exact, norms) = (milliseconds(first.time_ms.exact), milliseconds(first.time_ms.norms));
        let _ = writeln!(
            text,
            "exact dW: {exact} ms, row norms of H and dZ: {norms} ms, on {cores}; {} draws for each line",
            first.trials
        );
    }
    for group in results.chunk_by(|a, b| a.weights == b.weights) {
        let _ = writeln!(text, "\n{}", describe(group[0].weights));
        let _ = writeln!(text, "{}", table(layer, group).trim_fmt());
    }
    text.push('\n');
}

fn describe(source: WeightSource) -> &'static str {
    match source {
        WeightSource::Exact => "exact weights, ‖H_i‖·‖dZ_i‖",
        WeightSource::Stale => "stale weights, ‖H_i‖ times ‖dZ_i‖ of the sample's last visit",
        WeightSource::Input => "input weights, ‖H_i‖ alone",
    }
}

fn table(layer: &LayerReport, results: &[DesignReport]) -> Table {
    let mut table = columns::table(HEADER, WORDS);
    for (at, group) in results.chunk_by(|a, b| a.budget == b.budget).enumerate() {
        if at > 0 {
            table.add_row([""]);
        }
        for (line, result) in group.iter().enumerate() {
            let budget = if line == 0 { budget_label(result.fraction, result.budget) } else { String::new() };
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

fn legend(layers: &[LayerReport]) -> String {
    let trials = layers.iter().flat_map(|layer| &layer.results).map(|result| result.trials).max().unwrap_or(0);
    let biased = BuiltIn::ALL.into_iter().filter(|design| !design.is_unbiased()).map(|design| design.to_string());
    format!(
        "error          ‖ĝ − g‖ / ‖g‖ of one estimate ĝ of the exact g = dW: root mean square, spread between draws\n\
         variance       mean ‖ĝ − g‖² over that of plain column-row sampling (crs) with the same weights\n\
         bias ratio     about 1 if errors average out over draws, up to {trials} if they never do ({}: biased by design)\n\
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
