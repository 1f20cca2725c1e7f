//! The figure of a comparison: relative error against budget, or against saved bytes, one line for each design and each
//! way to save rows.

use super::report::{DesignReport, LayerReport};
use crate::figure::{
    Axis, CIRCLE, DIAMOND, Figure, INVERTED_TRIANGLE, LegendEntry, Line, LineStyle, Panel, RING, Row, SQUARE, TRIANGLE,
    short_name,
};
use crate::text::significant;
use wtacrs_core::sampling::design::BuiltIn;

/// The width of a label on the x axis, with space around it, as a share of the panel.
const X_LABEL_SHARE: f64 = 0.09;

/// What one line shows.
#[derive(Clone, Copy, PartialEq)]
struct Series {
    design: BuiltIn,
    /// None for exact copies.
    packed_bits: Option<u32>,
}

/// A row for each layer, a panel for each source of weights.
pub(super) fn figure(layers: &[LayerReport]) -> Figure {
    let results = || layers.iter().flat_map(|layer| &layer.results);
    let mut series: Vec<Series> = Vec::new();
    for result in results() {
        if !series.contains(&series_of(result)) {
            series.push(series_of(result));
        }
    }
    let place = |design| BuiltIn::ALL.into_iter().position(|known| known == design);
    // Native rows first, then fewer and fewer bits.
    series.sort_by_key(|series| (series.packed_bits.map_or(0, |bits| 9 - bits), place(series.design)));
    let errors: Vec<f64> = results().map(|result| result.rel_error).filter(|&error| error > 0.0).collect();
    let by_bytes = results().any(|result| result.memory.is_some());
    let some_packed = series.iter().any(|series| series.packed_bits.is_some());
    Figure {
        rows: layers.iter().map(|layer| row(layer, &series)).collect(),
        y_axis: Axis::with_round_ticks(&errors),
        x_label: if by_bytes { "saved bytes / bytes of H" } else { "budget k/n" },
        y_label: "relative error of dW, ‖ĝ − g‖ / ‖g‖",
        legend: series.into_iter().map(|series| legend_entry(series, some_packed)).collect(),
        legend_notes: &[],
    }
}

fn series_of(result: &DesignReport) -> Series {
    Series { design: result.design, packed_bits: result.is_packed().then_some(result.bits) }
}

/// Where a result is on the x axis.
fn x(result: &DesignReport) -> f64 {
    if result.memory.is_some() { result.saved_share } else { result.budget.share }
}

fn row(layer: &LayerReport, series: &[Series]) -> Row {
    let LayerReport { file, tokens, in_features, out_features, results, .. } = layer;
    let places: Vec<f64> = results.iter().map(x).collect();
    let limits: Vec<f64> = results.iter().map(|result| result.memory.unwrap_or(result.budget.share)).collect();
    Row {
        title: format!("{}: {tokens} tokens, {in_features} → {out_features}", short_name(file)),
        panels: results.chunk_by(|a, b| a.weights == b.weights).map(|results| panel(results, series)).collect(),
        x_axis: Axis::with_ticks_at(&limits, &places, X_LABEL_SHARE),
        x_label: |share| significant(share, 2),
        averaged: None,
    }
}

fn panel(results: &[DesignReport], series: &[Series]) -> Panel {
    let line = |&series: &Series| {
        let shown = results.iter().filter(|result| series_of(result) == series && result.rel_error > 0.0);
        let mut points: Vec<(f64, f64)> = shown.map(|result| (x(result), result.rel_error)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { style: style(series), markers: points.clone(), points, mean: None }
    };
    Panel {
        title: results.first().map(|result| format!("{} weights", result.weights)).unwrap_or_default(),
        lines: series.iter().map(line).collect(),
    }
}

fn legend_entry(series: Series, some_packed: bool) -> LegendEntry {
    let Series { design, packed_bits } = series;
    let mut name = if design.is_unbiased() { design.to_string() } else { format!("{design} (biased)") };
    match packed_bits {
        Some(bits) => name += &format!(", {bits} bits"),
        None if some_packed => name += ", native",
        None => (),
    }
    LegendEntry { name, style: style(series) }
}

/// Markers are the design's, and colours the design's for native rows and the bits' for packed ones. Colours of designs
/// are Okabe and Ito's, which differ with any colour vision; those of bits differ from them and in lightness. Biased designs
/// have dashed lines.
fn style(series: Series) -> LineStyle {
    let (design_color, marker) = match series.design {
        BuiltIn::Uniform => ((130, 130, 130), SQUARE),
        BuiltIn::Crs => ((230, 159, 0), TRIANGLE),
        BuiltIn::TopK => ((204, 121, 167), INVERTED_TRIANGLE),
        BuiltIn::WtaIid => ((86, 180, 233), DIAMOND),
        BuiltIn::WtaStratified => ((0, 158, 115), RING),
        BuiltIn::WtaPivotal => ((0, 90, 160), CIRCLE),
        // A later design is black until it has a line of its own here.
        _ => ((0, 0, 0), CIRCLE),
    };
    let color = match series.packed_bits {
        None => design_color,
        Some(8) => (170, 130, 210),
        Some(4) => (213, 94, 0),
        Some(_) => (110, 50, 20),
    };
    let style = LineStyle::new(color, marker);
    let style = if series.design == BuiltIn::WtaStratified { style.hollow() } else { style };
    if series.design.is_unbiased() { style } else { style.dashed() }
}
