//! How figures look: their scale, font and colours, and how lines and markers are drawn.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::register_font as register;
use std::f64::consts::TAU;
use std::fmt::Display;

/// Pixels drawn for each point of the layout.
pub(super) const SCALE: u32 = 4;

/// The family in SVG files, and the name of the embedded font for measuring text and for PNG files.
pub(super) const FONT: &str = "sans-serif";
pub(super) const TEXT: RGBColor = RGBColor(40, 40, 40);
pub(super) const AXIS: RGBColor = RGBColor(110, 110, 110);
pub(super) const GRID: RGBColor = RGBColor(224, 224, 224);
pub(super) const FINE_GRID: RGBColor = RGBColor(241, 241, 241);
pub(super) const SHADE: RGBColor = RGBColor(246, 247, 250);

const LINE_WIDTH: f64 = 1.6;
const RIM_WIDTH: f64 = 1.0;

/// Why drawing failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw the figure: {0}")]
pub struct DrawError(String);

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineStyle {
    pub(super) color: RGBColor,
    marker: Marker,
    filled: bool,
    dashed: bool,
}

/// A regular polygon, turned from standing on its base by a share of a full turn; its radius is in points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker {
    corners: u32,
    turn: f64,
    radius: f64,
}

pub(crate) const CIRCLE: Marker = Marker { corners: 48, turn: 0.0, radius: 3.8 };
/// Large enough to be seen around another line's marker.
pub(crate) const RING: Marker = Marker { radius: 5.6, ..CIRCLE };
pub(crate) const SQUARE: Marker = Marker { corners: 4, turn: 0.125, radius: 5.2 };
pub(crate) const DIAMOND: Marker = Marker { corners: 4, turn: 0.0, radius: 5.6 };
pub(crate) const TRIANGLE: Marker = Marker { corners: 3, turn: 0.0, radius: 5.6 };
pub(crate) const INVERTED_TRIANGLE: Marker = Marker { turn: 0.5, ..TRIANGLE };

/// Wraps an error of a drawing library, of which there are several types.
pub(super) fn drawing_failed(error: impl Display) -> DrawError {
    DrawError(error.to_string())
}

/// Points of the layout in pixels.
pub(super) fn pixels(points: impl Into<f64>) -> i32 {
    (points.into() * f64::from(SCALE)).round() as i32
}

/// Registers the embedded font under [`FONT`]. Fonts of the system are not used.
pub(super) fn register_font() -> Result<(), DrawError> {
    let bad_font = |_| DrawError("the embedded font is damaged".to_owned());
    register(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(bad_font)?;
    register(FONT, FontStyle::Bold, dejavu::sans::bold()).map_err(bad_font)
}

impl LineStyle {
    /// A solid line of this red, green and blue, with filled markers.
    pub(crate) fn new((red, green, blue): (u8, u8, u8), marker: Marker) -> Self {
        Self { color: RGBColor(red, green, blue), marker, filled: true, dashed: false }
    }

    /// Outlines of markers only, so that a marker below shows.
    pub(crate) fn hollow(self) -> Self {
        Self { filled: false, ..self }
    }

    /// A dashed line.
    pub(crate) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }

    /// A line through these pixels.
    pub(super) fn draw_line<DB: DrawingBackend>(
        self,
        area: &DrawingArea<DB, Shift>,
        points: Vec<(i32, i32)>,
    ) -> Result<(), DrawError> {
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
    ) -> Result<(), DrawError> {
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
