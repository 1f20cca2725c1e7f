//! The layout of figures, in points: rows of panels that share a y axis, and a legend to their right.

use super::axis::Axis;
use super::style::{AXIS, DrawError, FINE_GRID, FONT, GRID, LineStyle, SHADE, TEXT, drawing_failed, pixels};
use crate::text::{significant, to_digits};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;

const PANEL_WIDTH: u32 = 300;
const PANEL_HEIGHT: u32 = 290;
const PANEL_GAP: u32 = 18;
const OUTER_MARGIN: u32 = 14;
const ROW_GAP: u32 = 18;
const TITLE_HEIGHT: u32 = 30;
const PANEL_TITLE_HEIGHT: u32 = 22;
const X_LABELS_HEIGHT: u32 = 40;
const Y_LABELS_WIDTH: u32 = 56;
/// At the right of a panel, for the means of its lines.
const MEANS_WIDTH: u32 = 34;
const MEAN_LINE: u32 = 13;
/// Of a legend with names of [`LEGEND_NAME`] characters; longer ones widen it by `LEGEND_CHARACTER` for each character.
const LEGEND_WIDTH: u32 = 140;
const LEGEND_NAME: usize = 15;
const LEGEND_CHARACTER: u32 = 7;
const LEGEND_LINE: u32 = 22;
const LEGEND_NOTE_LINE: u32 = 15;
const LEGEND_SAMPLE: u32 = 30;
/// Centred text is drawn too high by this much in PNG files, and a little less in SVG files.
const TEXT_SHIFT: u32 = 1;

/// A figure's content, arranged.
pub(crate) struct Figure {
    pub(crate) rows: Vec<Row>,
    pub(crate) y_axis: Axis,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) legend: Vec<LegendEntry>,
    pub(crate) legend_notes: &'static [&'static str],
}

/// Panels side by side, with a title above them all.
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
    pub(crate) x_axis: Axis,
    /// How a tick on the x axis is labelled.
    pub(crate) x_label: fn(f64) -> String,
    /// The range that the lines' means are taken over; it is shaded.
    pub(crate) averaged: Option<Range<f64>>,
}

/// Lines over one pair of axes; later ones are drawn over earlier ones.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// A line through points of positive y, with markers.
pub(crate) struct Line {
    pub(crate) style: LineStyle,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) markers: Vec<(f64, f64)>,
    /// Written to the right of the panel, at the mean's height.
    pub(crate) mean: Option<f64>,
}

pub(crate) struct LegendEntry {
    pub(crate) name: String,
    pub(crate) style: LineStyle,
}

/// The place of a panel with its title and its axes.
struct Place {
    left: u32,
    top: u32,
    y_labels: u32,
}

impl Figure {
    /// Width and height in points.
    pub(super) fn size(&self) -> (u32, u32) {
        let columns = self.rows.iter().map(|row| row.panels.len()).max().unwrap_or(0) as u32;
        let width = 2 * OUTER_MARGIN + Y_LABELS_WIDTH + columns * self.column_width() + self.legend_width();
        let rows = self.rows.len() as u32;
        (width, 2 * OUTER_MARGIN + rows * row_height() + rows.saturating_sub(1) * ROW_GAP)
    }

    fn legend_width(&self) -> u32 {
        let longest = self.legend.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0);
        LEGEND_WIDTH + LEGEND_CHARACTER * longest.saturating_sub(LEGEND_NAME) as u32
    }

    fn column_width(&self) -> u32 {
        let has_means = self.rows.iter().any(|row| row.averaged.is_some());
        PANEL_WIDTH + PANEL_GAP + if has_means { MEANS_WIDTH } else { 0 }
    }

    /// Draws onto an area of that size times `SCALE`.
    pub(super) fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Result<(), DrawError> {
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
        row: &Row,
        top: u32,
    ) -> Result<(), DrawError> {
        let mut left = OUTER_MARGIN + Y_LABELS_WIDTH;
        let style = text_style(15.0, FontStyle::Bold);
        let title = fitted(root, row.title.clone(), self.size().0 - OUTER_MARGIN - left, &style)?;
        write_text(root, &title, (left, top), style)?;
        for (column, panel) in row.panels.iter().enumerate() {
            let y_labels = if column == 0 { Y_LABELS_WIDTH } else { 0 };
            let place = Place { left: left - y_labels, top: top + TITLE_HEIGHT, y_labels };
            self.draw_panel(root, &place, panel, row)?;
            left += self.column_width();
        }
        Ok(())
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
        place: &Place,
        panel: &Panel,
        row: &Row,
    ) -> Result<(), DrawError> {
        let Place { left, top, y_labels } = *place;
        write_text(root, &panel.title, (left + y_labels, top), text_style(13.0, FontStyle::Normal))?;

        let top = top + PANEL_TITLE_HEIGHT;
        let (right, bottom) = (left + y_labels + PANEL_WIDTH, top + PANEL_HEIGHT + X_LABELS_HEIGHT);
        let area = root.clone().shrink((pixels(left), pixels(top)), (pixels(right - left), pixels(bottom - top)));
        let mut chart = ChartBuilder::on(&area)
            .set_label_area_size(LabelAreaPosition::Left, pixels(y_labels))
            .set_label_area_size(LabelAreaPosition::Bottom, pixels(X_LABELS_HEIGHT))
            .build_cartesian_2d(row.x_axis.clone(), self.y_axis.clone())
            .map_err(drawing_failed)?;
        if let Some(Range { start, end }) = row.averaged {
            let corners = [(start, self.y_axis.range.start), (end, self.y_axis.range.end)];
            chart.plotting_area().draw(&Rectangle::new(corners, SHADE.filled())).map_err(drawing_failed)?;
        }
        let tick = if y_labels > 0 { pixels(4) } else { 0 };
        chart
            .configure_mesh()
            .axis_style(AXIS.stroke_width(pixels(0.8) as u32))
            .bold_line_style(GRID.stroke_width(pixels(0.8) as u32))
            .light_line_style(FINE_GRID.stroke_width(pixels(0.8) as u32))
            .label_style(text_style(11.5, FontStyle::Normal))
            .axis_desc_style(text_style(12.5, FontStyle::Normal))
            .x_label_formatter(&|value| (row.x_label)(*value))
            .y_label_formatter(&|error| significant(*error, 2))
            .y_label_offset(pixels(TEXT_SHIFT))
            .set_tick_mark_size(LabelAreaPosition::Bottom, pixels(4))
            .set_tick_mark_size(LabelAreaPosition::Left, tick)
            .x_desc(self.x_label)
            .y_desc(if y_labels > 0 { self.y_label } else { "" })
            .draw()
            .map_err(drawing_failed)?;

        for line in &panel.lines {
            let on_screen =
                |points: &[(f64, f64)]| points.iter().map(|point| chart.backend_coord(point)).collect::<Vec<_>>();
            line.style.draw_line(root, on_screen(&line.points))?;
            for marker in on_screen(&line.markers) {
                line.style.draw_marker(root, marker)?;
            }
        }
        let height_of = |mean: f64| chart.backend_coord(&(row.x_axis.range.end, mean)).1;
        draw_means(root, right, &panel.lines, height_of)
    }

    /// One for all panels, to the right of the first row.
    fn draw_legend<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>) -> Result<(), DrawError> {
        let left = self.size().0 - OUTER_MARGIN - self.legend_width();
        let mut middle = OUTER_MARGIN + TITLE_HEIGHT + PANEL_TITLE_HEIGHT + LEGEND_LINE / 2;
        let centred = |size| text_style(size, FontStyle::Normal).pos(Pos::new(HPos::Left, VPos::Center));
        for LegendEntry { name, style } in &self.legend {
            let at = |x: u32| (pixels(x), pixels(middle));
            style.draw_line(root, vec![at(left), at(left + LEGEND_SAMPLE)])?;
            style.draw_marker(root, at(left + LEGEND_SAMPLE / 2))?;
            write_text(root, name, (left + LEGEND_SAMPLE + 8, middle + TEXT_SHIFT), centred(12.5))?;
            middle += LEGEND_LINE;
        }
        for note in self.legend_notes {
            write_text(root, note, (left, middle + TEXT_SHIFT), centred(11.5))?;
            middle += LEGEND_NOTE_LINE;
        }
        Ok(())
    }
}

/// Writes each line's mean beside the panel at the mean's height, moved only as far as other means require.
fn draw_means<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    panel_right: u32,
    lines: &[Line],
    height_of: impl Fn(f64) -> i32,
) -> Result<(), DrawError> {
    let mut means: Vec<(i32, f64, LineStyle)> =
        lines.iter().filter_map(|line| line.mean.map(|mean| (height_of(mean), mean, line.style))).collect();
    means.sort_by_key(|&(height, ..)| height);
    let mut heights: Vec<i32> = means.iter().map(|&(height, ..)| height).collect();
    spread(&mut heights, pixels(MEAN_LINE));
    for ((_, mean, style), height) in means.into_iter().zip(heights) {
        let text = text_style(11.5, FontStyle::Normal).color(&style.color).pos(Pos::new(HPos::Left, VPos::Center));
        let at = (pixels(panel_right + 5), height + pixels(TEXT_SHIFT));
        root.draw(&Text::new(to_digits(mean, 3), at, text)).map_err(drawing_failed)?;
    }
    Ok(())
}

/// Moves ascending places until neighbours are `apart` from each other; groups stay centred.
fn spread(places: &mut [i32], apart: i32) {
    for _ in 0..places.len() {
        for at in 1..places.len() {
            let lacking = apart - (places[at] - places[at - 1]);
            if lacking > 0 {
                places[at - 1] -= lacking / 2;
                places[at] += lacking - lacking / 2;
            }
        }
    }
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
) -> Result<(), DrawError> {
    root.draw(&Text::new(text, (pixels(x), pixels(y)), style)).map_err(drawing_failed)
}

/// File names without directories and endings.
pub(crate) fn short_name(file: &str) -> String {
    let stem = |path| Path::new(path).file_stem().unwrap_or(OsStr::new(path)).to_string_lossy();
    file.split(" + ").map(stem).collect::<Vec<_>>().join(" + ")
}

/// The longest end of a text that fits a width.
fn fitted<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    text: String,
    width: u32,
    style: &TextStyle<'_>,
) -> Result<String, DrawError> {
    let mut rest = text.chars();
    let mut shown = text.clone();
    while root.estimate_text_size(&shown, style).map_err(drawing_failed)?.0 > pixels(width) as u32 {
        rest.next();
        shown = format!("…{}", rest.as_str());
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread() {
        let spread = |mut places: Vec<i32>| {
            super::spread(&mut places, 10);
            places
        };
        assert_eq!(spread(vec![0, 10, 30]), [0, 10, 30]);
        assert_eq!(spread(vec![20, 20]), [15, 25]);
        assert!(spread(vec![0, 3, 6]).is_sorted_by(|a, b| b - a >= 7));
        assert!(spread(vec![]).is_empty());
    }

    #[test]
    fn names_of_files() {
        assert_eq!(short_name("a/b.npy + c/d.npy"), "b + d");
    }
}
