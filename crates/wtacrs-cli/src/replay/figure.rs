//! The figure of a replay: error against step, a line for each source of weights.

use super::measure::SOURCES;
use super::report::{RecordingReport, SourceReport};
use crate::figure::{
    Axis, CIRCLE, DIAMOND, Figure, LegendEntry, Line, LineStyle, Panel, Row, SQUARE, TRIANGLE, short_name,
};
use crate::labels::WeightSource;
use crate::text::significant;

/// How many markers a line of many steps has.
const MARKERS: usize = 10;

/// A row for each recording, a panel for each budget.
pub(super) fn figure(recordings: &[RecordingReport]) -> Figure {
    let results = recordings.iter().flat_map(|recording| &recording.results);
    let is_drawn = |source: &WeightSource| results.clone().any(|result| result.weights == *source);
    let sources = SOURCES.into_iter().filter(is_drawn);
    let errors: Vec<f64> =
        results.clone().flat_map(|result| result.errors.iter().copied()).filter(|&error| error > 0.0).collect();
    Figure {
        rows: recordings.iter().map(row).collect(),
        y_axis: Axis::with_round_ticks(&errors),
        x_label: "training step",
        y_label: "error of dW, as a share of ‖dW‖",
        legend: sources.map(legend_entry).collect(),
        legend_notes: &["numbers: mean over", "the shaded half"],
    }
}

fn row(recording: &RecordingReport) -> Row {
    let RecordingReport { file, steps, tokens, in_features, results, .. } = recording;
    let last = steps.saturating_sub(1) as f64;
    Row {
        title: format!("{}: {tokens} tokens, {in_features} features", short_name(file)),
        panels: results.chunk_by(|a, b| a.budget == b.budget).map(panel).collect(),
        x_axis: Axis::counting(*steps),
        x_label: |step| format!("{step:.0}"),
        averaged: Some((steps / 2) as f64..last),
    }
}

fn panel(results: &[SourceReport]) -> Panel {
    Panel {
        title: results
            .first()
            .map(|result| format!("budget {}", significant(result.budget.shown(), 2)))
            .unwrap_or_default(),
        // The best line last, on top of the others.
        lines: results.iter().rev().map(line).collect(),
    }
}

fn line(result: &SourceReport) -> Line {
    let points: Vec<(f64, f64)> = result.errors.iter().enumerate().map(|(step, &error)| (step as f64, error)).collect();
    let apart = points.len().div_ceil(MARKERS).max(1);
    // Each source has its markers at other steps, so that lines close to each other do not hide them.
    let place = SOURCES.iter().position(|source| *source == result.weights).unwrap_or(0);
    let first = (place * apart).div_ceil(SOURCES.len()).min(points.len().saturating_sub(1));
    let seen = |points: &(f64, f64)| points.1 > 0.0;
    Line {
        style: style(result.weights),
        markers: points.iter().copied().skip(first).step_by(apart).filter(seen).collect(),
        mean: Some(result.mean_error_second_half).filter(|&mean| mean > 0.0),
        points: points.into_iter().filter(seen).collect(),
    }
}

fn legend_entry(source: WeightSource) -> LegendEntry {
    let name = match source {
        WeightSource::Exact => "exact norms",
        WeightSource::Predictor => "predictor",
        WeightSource::Stale => "stale norms",
        WeightSource::Input => "input alone",
    };
    LegendEntry { name: name.to_owned(), style: style(source) }
}

/// Colours are Okabe and Ito's, which differ with any colour vision; markers differ without colours.
fn style(source: WeightSource) -> LineStyle {
    match source {
        WeightSource::Exact => LineStyle::new((0, 90, 160), CIRCLE),
        WeightSource::Predictor => LineStyle::new((0, 158, 115), DIAMOND),
        WeightSource::Stale => LineStyle::new((204, 121, 167), SQUARE),
        WeightSource::Input => LineStyle::new((230, 159, 0), TRIANGLE),
    }
}
