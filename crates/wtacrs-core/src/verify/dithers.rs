//! The exact law of one element's rounding: its moments over every dither.

use wtacrs_exact::packing::Grid;

/// Dithers that an element can have.
pub const DITHERS: u32 = 1 << 15;

/// Mean and variance over all dithers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DitherMoments {
    /// The mean of what is read back.
    pub mean: f64,
    /// Its variance about the mean.
    pub variance: f64,
}

impl DitherMoments {
    /// The moments of `read_back`, which returns what an element is read back as with a dither: by
    /// [`code`](wtacrs_exact::packing::code) and [`value`](wtacrs_exact::packing::value), or by a rounding under test.
    pub fn of(read_back: impl Fn(u32) -> f32) -> Self {
        let values = || (0..DITHERS).map(|dither| f64::from(read_back(dither)));
        let mean = values().sum::<f64>() / f64::from(DITHERS);
        let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / f64::from(DITHERS);
        Self { mean, variance }
    }

    /// Whether this is a rounding of `y` on a grid without bias, and no noisier than step²/12: up to the rounding of y to
    /// a multiple of step/2¹⁵, and to f32.
    pub fn fits(&self, y: f32, grid: Grid) -> bool {
        let step = f64::from(grid.step);
        let size = f64::from(y).abs().max(f64::from(grid.lo).abs()) + 256.0 * step;
        let rounding = step / 65_536.0 + size * f64::from(f32::EPSILON);
        (self.mean - f64::from(y)).abs() <= rounding && self.variance.sqrt() <= step / 12_f64.sqrt() + rounding
    }
}
