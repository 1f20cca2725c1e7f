//! The grid that a row's contributions lie on, so that f64 adds them without rounding: in any order, over any ranks.
//!
//! A row enters the sums as integers: its root s = √ω in units of 2^−10, its features times s in units of 2^−6, its
//! target times s in units of 2^−10 and the blend's two distances times s in units of 2^−8. Every sum is one of products
//! of two of them. With the bounds below no product exceeds 2^33 of its units, so that 2^20 rows stay below 2^53, where
//! f64 counts exactly. Rounding to the grid changes far less than a row is worth: features have a variance of about one,
//! to which rounding adds 2·10⁻⁵, and the ridge 10⁻¹.

/// s = √ω ≤ 8, as scales count as 4096 at most.
const ROOT: f64 = 1024.0;
/// ω of the least root above zero.
pub(super) const LEAST_WEIGHT: f64 = 1.0 / (ROOT * ROOT);
const LARGEST_ROOT: f64 = 8.0;
/// Features of a row of length one: random signs make them as large as `LARGEST_FEATURE` once in 10¹³ times.
const FEATURE: f64 = 64.0;
const LARGEST_FEATURE: f64 = 8.0;
/// log‖dZ‖ of an f32 is at most 104.
const TARGET: f64 = 1024.0;
pub(super) const LARGEST_TARGET: f64 = 128.0;
/// Differences of logarithms: beyond the bound they are as wrong as can be.
const DISTANCE: f64 = 256.0;
const LARGEST_DISTANCE: f64 = 32.0;

/// Rows whose products of features add up within an i32: a product is at most (8·8·64)² = 2^24 units.
pub const ROWS_IN_I32: usize = 64;

/// What one unit of a product of two features counts.
pub const SQUARE_UNIT: f64 = 1.0 / (FEATURE * FEATURE);

/// The nearest whole number to a number of magnitude below 2^31, even in doubt, as the lowest bits of a sum: this
/// vectorises on every machine.
#[inline(always)]
fn nearest(value: f64) -> i32 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52
    (value + ROUND).to_bits() as i32
}

#[inline(always)]
fn on_grid(value: f64, units: f64, largest: f64) -> f64 {
    f64::from(nearest(value.clamp(-largest, largest) * units)) / units
}

/// s, on the grid; s² is the weight ω that the row counts with.
#[inline(always)]
pub fn root(root: f64) -> f64 {
    on_grid(root, ROOT, LARGEST_ROOT)
}

/// s·feature in units of the grid.
#[inline(always)]
pub fn units(feature: f64, root: f64) -> i32 {
    nearest(feature.clamp(-LARGEST_FEATURE, LARGEST_FEATURE) * (root * FEATURE))
}

/// A feature times s, from its units.
#[inline(always)]
pub fn feature(units: i32) -> f64 {
    f64::from(units) / FEATURE
}

/// s·log‖dZ‖.
#[inline(always)]
pub fn target(log: f64, root: f64) -> f64 {
    on_grid(log.clamp(-LARGEST_TARGET, LARGEST_TARGET) * root, TARGET, LARGEST_TARGET * LARGEST_ROOT)
}

/// s times a difference of logarithms.
#[inline(always)]
pub fn distance(difference: f64, root: f64) -> f64 {
    let bound = LARGEST_DISTANCE;
    on_grid(difference.clamp(-bound, bound) * root, DISTANCE, bound * LARGEST_ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_unit_and_bounds() {
        for (value, expected) in [(0.0, 0), (0.5, 0), (1.5, 2), (-2.5, -2), (-7.6, -8), (4096.4, 4096)] {
            assert_eq!(nearest(value), expected);
        }
        assert_eq!((root(0.0), root(1.0), root(8.0), root(1e4)), (0.0, 1.0, 8.0, 8.0));
        assert_eq!([1.0, -100.0, 0.01].map(|feature| units(feature, 8.0)), [512, -4096, 5]);
        assert_eq!((target(-1e3, 1.0), distance(1e9, 2.0)), (-128.0, 64.0));
    }

    #[test]
    fn the_largest_products_of_2_to_the_20_rows_are_counted_exactly() {
        let rows = f64::from(1 << 20);
        let exact = f64::from(1 << 30) * f64::from(1 << 23);
        let feature = LARGEST_FEATURE * LARGEST_ROOT * FEATURE;
        let (root, target) = (LARGEST_ROOT * ROOT, LARGEST_TARGET * LARGEST_ROOT * TARGET);
        let distance = LARGEST_DISTANCE * LARGEST_ROOT * DISTANCE;
        let factors = [feature, root, target];
        for product in factors.iter().map(|a| a * feature).chain([root * target, root * root, distance * distance]) {
            assert!(rows * product <= exact, "{product}");
        }
        assert!(ROWS_IN_I32 as f64 * feature * feature < 2.0_f64.powi(31));
    }
}
