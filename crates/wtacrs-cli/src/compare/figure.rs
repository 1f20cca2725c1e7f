//! The figure of a comparison: relative error against budget, one line for each design.

use super::report::{DesignReport, LayerReport};
use crate::figure::{
    Axis, CIRCLE, DIAMOND, Figure, INVERTED_TRIANGLE, LegendEntry, Line, LineStyle, Panel, RING, Row, SQUARE, TRIANGLE,
    short_name,
};
use crate::text::significant;
use wtacrs_core::sampling::design::BuiltIn;

/// The width of a label on the x axis, with space around it, as a share of the panel.
const X_LABEL_SHARE: f64 = 0.09;

/// A row for each layer, a panel for each source of weights.
pub(super) fn figure(layers: &[LayerReport]) -> Figure {
    let results = layers.iter().flat_map(|layer| &layer.results);
    let is_drawn = |design: &BuiltIn| results.clone().any(|result| result.design == *design);
    let designs: Vec<BuiltIn> = BuiltIn::ALL.into_iter().filter(is_drawn).collect();
    let errors: Vec<f64> = results.clone().map(|result| result.rel_error).filter(|&error| error > 0.0).collect();
    Figure {
        rows: layers.iter().map(|layer| row(layer, &designs)).collect(),
        y_axis: Axis::with_round_ticks(&errors),
        x_label: "budget k/n",
        y_label: "relative error of dW, ‖ĝ − g‖ / ‖g‖",
        legend: designs.into_iter().map(legend_entry).collect(),
        legend_notes: &[],
    }
}

fn row(layer: &LayerReport, designs: &[BuiltIn]) -> Row {
    let LayerReport { file, tokens, in_features, out_features, results, .. } = layer;
    let shares: Vec<f64> = results.iter().map(|result| result.budget.share).collect();
    Row {
        title: format!("{}: {tokens} tokens, {in_features} → {out_features}", short_name(file)),
        panels: results.chunk_by(|a, b| a.weights == b.weights).map(|results| panel(results, designs)).collect(),
        x_axis: Axis::with_ticks_at(&shares, X_LABEL_SHARE),
        x_label: |share| significant(share, 2),
        averaged: None,
    }
}

fn panel(results: &[DesignReport], designs: &[BuiltIn]) -> Panel {
    let line = |&design: &BuiltIn| {
        let mut line: Vec<&DesignReport> =
            results.iter().filter(|result| result.design == design && result.rel_error > 0.0).collect();
        line.sort_by_key(|result| result.budget.count);
        let points: Vec<(f64, f64)> = line.iter().map(|result| (result.budget.share, result.rel_error)).collect();
        Line { style: style(design), markers: points.clone(), points, mean: None }
    };
    Panel {
        title: results.first().map(|result| format!("{} weights", result.weights)).unwrap_or_default(),
        lines: designs.iter().map(line).collect(),
    }
}

fn legend_entry(design: BuiltIn) -> LegendEntry {
    let name = if design.is_unbiased() { design.to_string() } else { format!("{design} (biased)") };
    LegendEntry { name, style: style(design) }
}

/// Colours are Okabe and Ito's, which differ with any colour vision; markers differ without colours. Biased designs have
/// dashed lines.
fn style(design: BuiltIn) -> LineStyle {
    let style = match design {
        BuiltIn::Uniform => LineStyle::new((130, 130, 130), SQUARE),
        BuiltIn::Crs => LineStyle::new((230, 159, 0), TRIANGLE),
        BuiltIn::TopK => LineStyle::new((204, 121, 167), INVERTED_TRIANGLE),
        BuiltIn::WtaIid => LineStyle::new((86, 180, 233), DIAMOND),
        BuiltIn::WtaStratified => LineStyle::new((0, 158, 115), RING).hollow(),
        BuiltIn::WtaPivotal => LineStyle::new((0, 90, 160), CIRCLE),
        // A later design is black until it has a line of its own here.
        _ => LineStyle::new((0, 0, 0), CIRCLE),
    };
    if design.is_unbiased() { style } else { style.dashed() }
}
