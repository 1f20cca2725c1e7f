//! How figures look: their font, and a colour, a marker and a line for each design and each source of weights.
//!
//! Colours are Okabe and Ito's, told apart with any colour vision; markers tell lines apart without colours.

use super::{PlotError, SCALE, drawing_failed};
use crate::replay::report::Source;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::register_font as register;
use std::f64::consts::TAU;
use wtacrs_core::sampling::design::BuiltIn;

/// The family in SVG files, and the name of the embedded font for measuring text and for PNG files.
pub(super) const FONT: &str = "sans-serif";
pub(super) const TEXT: RGBColor = RGBColor(40, 40, 40);
pub(super) const AXIS: RGBColor = RGBColor(110, 110, 110);
pub(super) const GRID: RGBColor = RGBColor(224, 224, 224);
pub(super) const FINE_GRID: RGBColor = RGBColor(241, 241, 241);
pub(super) const SHADE: RGBColor = RGBColor(246, 247, 250);

const LINE_WIDTH: f64 = 1.6;
const RIM_WIDTH: f64 = 1.0;

/// How a line is drawn. Those of biased designs are dashed.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineStyle {
    pub(super) color: RGBColor,
    marker: Marker,
    filled: bool,
    dashed: bool,
}

/// A regular polygon, turned from standing on its base by a share of a full turn; its radius is in points.
#[derive(Clone, Copy, Debug)]
struct Marker {
    corners: u32,
    turn: f64,
    radius: f64,
}

const CIRCLE: Marker = Marker { corners: 48, turn: 0.0, radius: 3.8 };
/// Large enough to be seen around another design's marker.
const RING: Marker = Marker { radius: 5.6, ..CIRCLE };
const SQUARE: Marker = Marker { corners: 4, turn: 0.125, radius: 5.2 };
const DIAMOND: Marker = Marker { corners: 4, turn: 0.0, radius: 5.6 };
const TRIANGLE: Marker = Marker { corners: 3, turn: 0.0, radius: 5.6 };
const INVERTED_TRIANGLE: Marker = Marker { turn: 0.5, ..TRIANGLE };

/// Points of the layout in pixels.
pub(super) fn pixels(points: impl Into<f64>) -> i32 {
    (points.into() * f64::from(SCALE)).round() as i32
}

/// Makes the embedded font known. No font of the system is looked for.
pub(super) fn register_font() -> Result<(), PlotError> {
    let bad_font = |_| PlotError::Draw("the embedded font is damaged".to_owned());
    register(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(bad_font)?;
    register(FONT, FontStyle::Bold, dejavu::sans::bold()).map_err(bad_font)
}

impl LineStyle {
    pub(super) fn of_design(design: BuiltIn) -> Self {
        let (red_green_blue, marker) = match design {
            BuiltIn::Uniform => ((130, 130, 130), SQUARE),
            BuiltIn::Crs => ((230, 159, 0), TRIANGLE),
            BuiltIn::TopK => ((204, 121, 167), INVERTED_TRIANGLE),
            BuiltIn::WtaIid => ((86, 180, 233), DIAMOND),
            BuiltIn::WtaStratified => ((0, 158, 115), RING),
            BuiltIn::WtaPivotal => ((0, 90, 160), CIRCLE),
            // Designs that come later have no look of their own until they get one here.
            _ => ((0, 0, 0), CIRCLE),
        };
        let (red, green, blue) = red_green_blue;
        Self {
            color: RGBColor(red, green, blue),
            marker,
            filled: design != BuiltIn::WtaStratified,
            dashed: !design.is_unbiased(),
        }
    }

    pub(super) fn of_source(source: Source) -> Self {
        let (color, marker) = match source {
            Source::Exact => (RGBColor(0, 90, 160), CIRCLE),
            Source::Predictor => (RGBColor(0, 158, 115), DIAMOND),
            Source::Input => (RGBColor(230, 159, 0), TRIANGLE),
        };
        Self { color, marker, filled: true, dashed: false }
    }

    /// A line through these pixels.
    pub(super) fn draw_line<DB: DrawingBackend>(
        self,
        area: &DrawingArea<DB, Shift>,
        points: Vec<(i32, i32)>,
    ) -> Result<(), PlotError> {
        let stroke = self.color.stroke_width(pixels(LINE_WIDTH) as u32);
        if self.dashed {
            let (dash, gap) = (pixels(4.5), pixels(3.0));
            area.draw(&DashedPathElement::new(points, dash, gap, stroke)).map_err(drawing_failed)
        } else {
            area.draw(&PathElement::new(points, stroke)).map_err(drawing_failed)
        }
    }

    /// The marker at this pixel: filled ones with a white rim, so that neighbours stay apart.
    pub(super) fn draw_marker<DB: DrawingBackend>(
        self,
        area: &DrawingArea<DB, Shift>,
        at: (i32, i32),
    ) -> Result<(), PlotError> {
        if self.filled {
            area.draw(&Polygon::new(self.outline(at, RIM_WIDTH), WHITE.filled())).map_err(drawing_failed)?;
            area.draw(&Polygon::new(self.outline(at, 0.0), self.color.filled())).map_err(drawing_failed)
        } else {
            let stroke = self.color.stroke_width(pixels(LINE_WIDTH) as u32);
            area.draw(&PathElement::new(self.outline(at, 0.0), stroke)).map_err(drawing_failed)
        }
    }

    /// The marker's outline, closed, and so much larger.
    fn outline(self, (x, y): (i32, i32), rim: f64) -> Vec<(i32, i32)> {
        let Marker { corners, turn, radius } = self.marker;
        let corner = |at: u32| {
            let (sin, cos) = (TAU * (f64::from(at) / f64::from(corners) + turn)).sin_cos();
            (x + pixels((radius + rim) * sin), y - pixels((radius + rim) * cos))
        };
        (0..=corners).map(corner).collect()
    }
}
