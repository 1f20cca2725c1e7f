//! The figure's layout, in points, and its panels.

use super::axis::LogAxis;
use super::style::{AXIS, DesignStyle, FINE_GRID, FONT, GRID, TEXT, pixels};
use super::{PlotError, drawing_failed};
use crate::numbers::significant;
use crate::report::{DesignReport, LayerReport};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ffi::OsStr;
use std::path::Path;
use wtacrs_core::design::BuiltIn;

const PANEL_WIDTH: u32 = 300;
const PANEL_HEIGHT: u32 = 290;
const PANEL_GAP: u32 = 18;
const OUTER_MARGIN: u32 = 14;
const ROW_GAP: u32 = 18;
const TITLE_HEIGHT: u32 = 30;
const PANEL_TITLE_HEIGHT: u32 = 22;
const X_LABELS_HEIGHT: u32 = 40;
const Y_LABELS_WIDTH: u32 = 56;
const LEGEND_WIDTH: u32 = 140;
const LEGEND_LINE: u32 = 22;
const LEGEND_SAMPLE: u32 = 30;
/// Centred text is drawn too high by this much in PNG files, and a little less in SVG files.
const TEXT_SHIFT: u32 = 1;
/// The width of a label on the x axis, with space around it, as a share of the panel.
const X_LABEL_SHARE: f64 = 0.09;

/// All layers' results, arranged.
pub(super) struct Figure<'a> {
    rows: Vec<Row<'a>>,
    designs: Vec<BuiltIn>,
    y_axis: LogAxis,
}

struct Row<'a> {
    layer: &'a LayerReport,
    panels: Vec<&'a [DesignReport]>,
    x_axis: LogAxis,
}

impl<'a> Row<'a> {
    fn new(layer: &'a LayerReport) -> Self {
        let fractions: Vec<f64> = layer.results.iter().map(|result| result.fraction).collect();
        Self {
            layer,
            panels: layer.results.chunk_by(|a, b| a.weights == b.weights).collect(),
            x_axis: LogAxis::with_ticks_at(&fractions, X_LABEL_SHARE),
        }
    }
}

impl<'a> Figure<'a> {
    pub(super) fn new(layers: &'a [LayerReport]) -> Self {
        let results = layers.iter().flat_map(|layer| &layer.results);
        let designs = BuiltIn::ALL.into_iter().filter(|&design| results.clone().any(|r| r.design == design)).collect();
        let errors: Vec<f64> = results.map(|result| result.rel_error).filter(|&error| error > 0.0).collect();
        Self { rows: layers.iter().map(Row::new).collect(), designs, y_axis: LogAxis::with_round_ticks(&errors) }
    }

    /// Width and height in points.
    pub(super) fn size(&self) -> (u32, u32) {
        let columns = self.rows.iter().map(|row| row.panels.len()).max().unwrap_or(0) as u32;
        let width = 2 * OUTER_MARGIN + Y_LABELS_WIDTH + columns * (PANEL_WIDTH + PANEL_GAP) + LEGEND_WIDTH;
        let rows = self.rows.len() as u32;
        (width, 2 * OUTER_MARGIN + rows * row_height() + rows.saturating_sub(1) * ROW_GAP)
    }

    /// Draws onto an area of that size times `SCALE`.
    pub(super) fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Result<(), PlotError> {
        root.fill(&WHITE).map_err(drawing_failed)?;
        let mut top = OUTER_MARGIN;
        for row in &self.rows {
            self.draw_row(root, row, top)?;
            top += row_height() + ROW_GAP;
        }
        self.draw_legend(root)
    }

    fn draw_row<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        row: &Row<'_>,
        top: u32,
    ) -> Result<(), PlotError> {
        let LayerReport { file, tokens, in_features, out_features, .. } = row.layer;
        let mut left = OUTER_MARGIN + Y_LABELS_WIDTH;
        let title = format!("{}: {tokens} tokens, {in_features} → {out_features}", short_name(file));
        let style = text_style(15.0, FontStyle::Bold);
        let title = fitted(root, title, self.size().0 - OUTER_MARGIN - left, &style)?;
        write_text(root, &title, (left, top), style)?;
        for (column, results) in row.panels.iter().enumerate() {
            let y_labels = if column == 0 { Y_LABELS_WIDTH } else { 0 };
            let area = Panel { left: left - y_labels, top: top + TITLE_HEIGHT, y_labels };
            self.draw_panel(root, &area, results, &row.x_axis)?;
            left += PANEL_WIDTH + PANEL_GAP;
        }
        Ok(())
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        panel: &Panel,
        results: &[DesignReport],
        x_axis: &LogAxis,
    ) -> Result<(), PlotError> {
        let Panel { left, top, y_labels } = *panel;
        let weights = results.first().map(|result| format!("{} weights", result.weights)).unwrap_or_default();
        write_text(root, &weights, (left + y_labels, top), text_style(13.0, FontStyle::Normal))?;

        let top = top + PANEL_TITLE_HEIGHT;
        let (right, bottom) = (left + y_labels + PANEL_WIDTH, top + PANEL_HEIGHT + X_LABELS_HEIGHT);
        let area = root.clone().shrink((pixels(left), pixels(top)), (pixels(right - left), pixels(bottom - top)));
        let mut chart = ChartBuilder::on(&area)
            .set_label_area_size(LabelAreaPosition::Left, pixels(y_labels))
            .set_label_area_size(LabelAreaPosition::Bottom, pixels(X_LABELS_HEIGHT))
            .build_cartesian_2d(x_axis.coordinates(), self.y_axis.coordinates())
            .map_err(drawing_failed)?;
        let tick = if y_labels > 0 { pixels(4) } else { 0 };
        chart
            .configure_mesh()
            .axis_style(AXIS.stroke_width(pixels(0.8) as u32))
            .bold_line_style(GRID.stroke_width(pixels(0.8) as u32))
            .light_line_style(FINE_GRID.stroke_width(pixels(0.8) as u32))
            .label_style(text_style(11.5, FontStyle::Normal))
            .axis_desc_style(text_style(12.5, FontStyle::Normal))
            .x_label_formatter(&|fraction| significant(*fraction, 2))
            .y_label_formatter(&|error| significant(*error, 2))
            .y_label_offset(pixels(TEXT_SHIFT))
            .set_tick_mark_size(LabelAreaPosition::Bottom, pixels(4))
            .set_tick_mark_size(LabelAreaPosition::Left, tick)
            .x_desc("budget k/n")
            .y_desc(if y_labels > 0 { "relative error of dW, ‖ĝ − g‖ / ‖g‖" } else { "" })
            .draw()
            .map_err(drawing_failed)?;

        for &design in &self.designs {
            let style = DesignStyle::of(design);
            let mut line: Vec<&DesignReport> =
                results.iter().filter(|result| result.design == design && result.rel_error > 0.0).collect();
            line.sort_by_key(|result| result.budget);
            let points: Vec<(i32, i32)> =
                line.iter().map(|result| chart.backend_coord(&(result.fraction, result.rel_error))).collect();
            style.draw_line(root, points.clone())?;
            for point in points {
                style.draw_marker(root, point)?;
            }
        }
        Ok(())
    }

    /// One for all panels, to the right of the first row.
    fn draw_legend<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Result<(), PlotError> {
        let left = self.size().0 - OUTER_MARGIN - LEGEND_WIDTH;
        let mut middle = OUTER_MARGIN + TITLE_HEIGHT + PANEL_TITLE_HEIGHT + LEGEND_LINE / 2;
        for &design in &self.designs {
            let style = DesignStyle::of(design);
            let at = |x: u32| (pixels(x), pixels(middle));
            style.draw_line(root, vec![at(left), at(left + LEGEND_SAMPLE)])?;
            style.draw_marker(root, at(left + LEGEND_SAMPLE / 2))?;
            let name = if design.is_unbiased() { design.to_string() } else { format!("{design} (biased)") };
            let text = text_style(12.5, FontStyle::Normal).pos(Pos::new(HPos::Left, VPos::Center));
            write_text(root, &name, (left + LEGEND_SAMPLE + 8, middle + TEXT_SHIFT), text)?;
            middle += LEGEND_LINE;
        }
        Ok(())
    }
}

/// Where a panel's title, labels and axes go.
struct Panel {
    left: u32,
    top: u32,
    y_labels: u32,
}

fn row_height() -> u32 {
    TITLE_HEIGHT + PANEL_TITLE_HEIGHT + PANEL_HEIGHT + X_LABELS_HEIGHT
}

fn text_style(size: f64, style: FontStyle) -> TextStyle<'static> {
    (FONT, f64::from(pixels(size)), style).into_text_style(&(1, 1)).color(&TEXT)
}

fn write_text<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    text: &str,
    (x, y): (u32, u32),
    style: TextStyle<'_>,
) -> Result<(), PlotError> {
    root.draw(&Text::new(text, (pixels(x), pixels(y)), style)).map_err(drawing_failed)
}

/// File names without directories and endings.
fn short_name(file: &str) -> String {
    let stem = |path| Path::new(path).file_stem().unwrap_or(OsStr::new(path)).to_string_lossy();
    file.split(" + ").map(stem).collect::<Vec<_>>().join(" + ")
}

/// As much of the end of a text as fits a width.
fn fitted<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    text: String,
    width: u32,
    style: &TextStyle<'_>,
) -> Result<String, PlotError> {
    let mut rest = text.chars();
    let mut shown = text.clone();
    while root.estimate_text_size(&shown, style).map_err(drawing_failed)?.0 > pixels(width) as u32 {
        rest.next();
        shown = format!("…{}", rest.as_str());
    }
    Ok(shown)
}
