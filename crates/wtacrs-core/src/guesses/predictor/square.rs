//! Σωxxᵀ of rows on the grid: products of integers, so that no order of summation matters, and the upper triangle alone.

use crate::lanes::on_widest_vectors;
use crate::parallel;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use wtacrs_exact::predictor::grid::{ROWS_IN_I32, SQUARE_UNIT};

/// Rows of the square that are one tile, and one task.
const HEIGHT: usize = 4;
const TASK: usize = 4 * HEIGHT;

/// Vectors side by side in a tile.
const VECTORS: usize = 2;
/// No tile is wider.
const WIDEST: usize = 32;

/// From one row of features to the next: whole tiles, and some more, so that the rows' equal columns are not all
/// mapped to the same few places of a cache.
pub(super) fn stride(features: usize) -> usize {
    features.next_multiple_of(WIDEST) + 16
}

/// `triangle` ← the upper triangle of Σxxᵀ, row by row, for `x` (rows × [`stride`], zero beyond the features).
pub(super) fn upper_triangle(features: usize, x: &[i32], triangle: &mut [f64]) {
    let mut bands = Vec::with_capacity(features.div_ceil(TASK));
    let mut rest = triangle;
    for first in (0..features).step_by(TASK) {
        let last = (first + TASK).min(features);
        let (band, after) = rest.split_at_mut((first..last).map(|i| features - i).sum());
        bands.push((first, band));
        rest = after;
    }
    parallel::for_each(bands.into_par_iter(), |(first, band)| on_widest_vectors(Band { features, x, first, band }));
}

/// Some rows of the triangle, from row `first` on.
struct Band<'a> {
    features: usize,
    x: &'a [i32],
    first: usize,
    band: &'a mut [f64],
}

impl WithSimd for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { features, x, first, mut band } = self;
        let (stride, width) = (stride(features), VECTORS * S::I32_LANES);
        let last = (first + TASK).min(features);
        for top in (first..last).step_by(HEIGHT) {
            let rows = HEIGHT.min(last - top);
            let (tiles, after) = std::mem::take(&mut band).split_at_mut((top..top + rows).map(|i| features - i).sum());
            band = after;
            for left in (top / width * width..features).step_by(width) {
                let mut sums = [[0.0; WIDEST]; HEIGHT];
                for x in x.chunks(ROWS_IN_I32 * stride) {
                    add_tile(simd, x, stride, top, left, &mut sums);
                }
                let mut begin = 0;
                for (i, sums) in (top..top + rows).zip(&sums) {
                    let columns = left.max(i)..(left + width).min(features);
                    if columns.start < columns.end {
                        let to = &mut tiles[begin + columns.start - i..begin + columns.end - i];
                        to.copy_from_slice(&sums[columns.start - left..columns.end - left]);
                    }
                    begin += features - i;
                }
            }
        }
    }
}

/// Adds products of rows that do not overflow.
#[inline(always)]
fn add_tile<S: Simd>(simd: S, x: &[i32], stride: usize, top: usize, left: usize, sums: &mut [[f64; WIDEST]; HEIGHT]) {
    let width = VECTORS * S::I32_LANES;
    let mut held = [[simd.splat_i32s(0); VECTORS]; HEIGHT];
    for x in x.chunks_exact(stride) {
        let right = &S::as_simd_i32s(&x[left..left + width]).0[..VECTORS];
        let factors = &x[top..top + HEIGHT];
        for i in 0..HEIGHT {
            let factor = simd.splat_i32s(factors[i]);
            for j in 0..VECTORS {
                held[i][j] = simd.add_i32s(held[i][j], simd.mul_i32s(factor, right[j]));
            }
        }
    }
    let mut units = [0; WIDEST];
    for i in 0..HEIGHT {
        S::as_mut_simd_i32s(&mut units).0[..VECTORS].copy_from_slice(&held[i]);
        for (sum, &units) in sums[i].iter_mut().zip(&units) {
            *sum += f64::from(units) * SQUARE_UNIT;
        }
    }
}

/// The lower triangle of a symmetric matrix, from its upper one.
pub(super) fn mirror(features: usize, matrix: &mut [f64]) {
    /// Columns mirrored at a time, so that those read stay in cache.
    const TILE: usize = 8;
    for first in (0..features).step_by(TILE) {
        for i in first..features {
            for j in first..(first + TILE).min(i) {
                matrix[i * features + j] = matrix[j * features + i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_for_every_size_and_width() {
        for (rows, features) in [(0, 3), (1, 1), (5, 7), (130, 33), (200, 64), (64, 100)] {
            let stride = stride(features);
            // As large as the grid has them.
            let entry = |i: usize, j: usize| match (i * 37 + j * 91) % 8191 {
                _ if (i + j).is_multiple_of(5) => 4096,
                unit => unit as i32 - 4095,
            };
            let mut x = vec![0; rows * stride];
            for i in 0..rows {
                (0..features).for_each(|j| x[i * stride + j] = entry(i, j));
            }
            let product = |a, b| (0..rows).map(|i| i64::from(entry(i, a)) * i64::from(entry(i, b))).sum::<i64>() as f64;
            let pairs = (0..features).flat_map(|a| (a..features).map(move |b| (a, b)));
            let expected: Vec<f64> = pairs.map(|(a, b)| product(a, b) / 4096.0).collect();
            let mut found = vec![f64::NAN; expected.len()];
            upper_triangle(features, &x, &mut found);
            assert_eq!(found, expected, "{rows} {features}");
            if features <= TASK {
                found.fill(f64::NAN);
                Band { features, x: &x, first: 0, band: &mut found }.with_simd(pulp::Scalar128b);
                assert_eq!(found, expected, "{rows} {features}");
            }
        }
    }

    #[test]
    fn mirrors() {
        let n = 19;
        let mut matrix: Vec<f64> = (0..n * n).map(|i| i as f64).collect();
        mirror(n, &mut matrix);
        assert!((0..n * n).all(|i| matrix[i] == matrix[i % n * n + i / n]));
        assert_eq!(matrix[n + 2], (n + 2) as f64);
    }
}
