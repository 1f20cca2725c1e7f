//! The figure of an allocation: the layers' root mean square error against the bytes that they save together, a line for
//! each way to divide them.

use super::ways::{Way, native_bytes, total};
use crate::figure::{Axis, CIRCLE, Figure, LegendEntry, Line, LineStyle, Panel, Row, SQUARE, TRIANGLE};
use crate::labels::{MemoryShare, WeightSource};
use crate::text::{counted, significant};
use wtacrs_core::allocation::Layer;

/// Shares of the layers' bytes.
const SHARES: [f64; 12] = [0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0];
/// The width of a label on the x axis, with space around it, as a share of the panel.
const X_LABEL_SHARE: f64 = 0.09;

/// One panel.
pub(super) fn figure(layers: &[Layer], weights: WeightSource) -> Figure {
    let lines: Vec<(Way, Vec<(f64, f64)>)> = Way::ALL.into_iter().map(|way| (way, points(way, layers))).collect();
    let (shares, errors): (Vec<f64>, Vec<f64>) = lines.iter().flat_map(|(_, points)| points).copied().unzip();
    let line = |(way, points): &(Way, Vec<(f64, f64)>)| Line {
        style: style(*way),
        markers: points.clone(),
        points: points.clone(),
        mean: None,
    };
    Figure {
        rows: vec![Row {
            title: format!("{}, {weights} weights", counted(layers.len(), "layer")),
            panels: vec![Panel { title: String::new(), lines: lines.iter().map(line).collect() }],
            x_axis: Axis::with_ticks_at(&SHARES, &shares, X_LABEL_SHARE),
            x_label: |share| significant(share, 2),
            averaged: None,
        }],
        y_axis: Axis::with_round_ticks(&errors),
        x_label: "saved bytes / bytes of H, all layers",
        y_label: "root mean square of the layers' errors",
        legend: Way::ALL
            .into_iter()
            .map(|way| LegendEntry { name: way.title().to_owned(), style: style(way) })
            .collect(),
        legend_notes: &[],
    }
}

/// Saved shares and errors, where all layers keep a row and there is an error.
fn points(way: Way, layers: &[Layer]) -> Vec<(f64, f64)> {
    let h_bytes: u64 = layers.iter().map(native_bytes).sum();
    let at = |share: MemoryShare| {
        let total = total(layers, &way.budgets(layers, share).ok()?)?;
        (total.error > 0.0).then_some((total.bytes as f64 / h_bytes as f64, total.error))
    };
    SHARES.into_iter().filter_map(MemoryShare::new).filter_map(at).collect()
}

/// Colours are those of the same rows in the figure of `wtacrs compare`; markers differ without colours.
fn style(way: Way) -> LineStyle {
    match way {
        Way::FractionNative => LineStyle::new((0, 90, 160), CIRCLE),
        Way::Fraction4Bits => LineStyle::new((213, 94, 0), SQUARE),
        Way::SharedOut => LineStyle::new((0, 158, 115), TRIANGLE),
    }
}
