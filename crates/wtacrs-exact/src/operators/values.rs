//! Values in 8, 4 or 2 bits whose errors have the mean 0 and are uncorrelated.
//!
//! A row is cut into the groups of [`packing`], and each element rounded on the group's [`Grid`] with a dither,
//! as packed rows are. Two things differ. Values are not rotated: each is read back by itself. And the dithers of a
//! group are u_j = start + j·slope with two random words, so that **any two of them are independent**. So errors of different
//! elements are uncorrelated, and each has the variance step²/12 ([`variance`]). Gradients that are linear in the values are
//! therefore unbiased; those with products of two of them become so by a known term. docs/mathematics.md has the proof.

use crate::packing::{self, Bits, GROUP, Grid, Groups};
use crate::philox;
use crate::random::Randomness;

/// "wv" in ASCII: these dithers are apart from all else that a seed draws.
const VALUE_TAG: u64 = 0x7776;
/// Bits of a dither, as those of packed rows.
const DITHER_BITS: u32 = 15;

/// The grid word of a group that has an element that is not finite, or whose range is not: it is read back as NaNs.
pub const NOT_FINITE: u32 = 0x7fc0_7fc0;

/// The two random words from which the dithers of a group follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dithers {
    /// Of element 0, before its lower bits are cut off.
    pub start: u32,
    /// From one element to the next.
    pub slope: u32,
}

impl Dithers {
    /// Where nothing is drawn.
    pub const NONE: Self = Self { start: 0, slope: 0 };

    /// The dither U of element `j`, below 2¹⁵: u = (U + ½)/2¹⁵.
    #[inline(always)]
    pub const fn at(self, j: u32) -> u32 {
        self.start.wrapping_add(j.wrapping_mul(self.slope)) >> (32 - DITHER_BITS)
    }
}

/// The random bits of one packed array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueBits {
    seed: u64,
    offset: u64,
    field: u32,
}

impl ValueBits {
    /// From a seed's block `offset` on, for array `field` of an operator. n rows use the offsets of n blocks.
    #[inline]
    pub const fn new(randomness: Randomness, field: u32) -> Self {
        Self { seed: randomness.seed, offset: randomness.offset, field }
    }

    /// The dithers of groups 2·`pair` and 2·`pair` + 1 of a row. After 2¹⁶ pairs a row's dithers repeat.
    #[inline]
    pub const fn dithers(&self, row: u64, pair: u32) -> [Dithers; 2] {
        let low = self.offset.wrapping_add(row);
        let tag = (VALUE_TAG << 16 | (pair & 0xffff) as u64) as u32;
        let counter = [low as u32, (low >> 32) as u32, self.field, tag];
        let words = philox::block(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        [Dithers { start: words[0], slope: words[1] }, Dithers { start: words[2], slope: words[3] }]
    }

    /// The dithers of one group.
    #[inline]
    pub const fn of_group(&self, row: u64, group: usize) -> Dithers {
        self.dithers(row, (group / 2) as u32)[group % 2]
    }
}

/// The word of the grid of a group whose smallest and largest elements these are; [`NOT_FINITE`] if their difference is not
/// finite or an element is not.
#[inline(always)]
pub const fn grid_word(smallest: f32, largest: f32, all_finite: bool, bits: Bits) -> u32 {
    if all_finite && (largest - smallest).is_finite() { Grid::new(smallest, largest, bits).word() } else { NOT_FINITE }
}

/// The code of `y`; 0 on the grid of [`NOT_FINITE`]. `density` is that of [`Grid::density`].
#[inline(always)]
pub const fn code(y: f32, grid: Grid, density: f32, dither: u32) -> u32 {
    if grid.lo.is_nan() { 0 } else { packing::code(y, grid.lo, density, dither) }
}

/// The variance of a value on this grid.
#[inline(always)]
pub const fn variance(grid: Grid) -> f32 {
    grid.step * grid.step * (1.0 / 12.0)
}

/// The grid of the slopes of GELU in both of its forms, which lie in [−0.129, 1.129], and of SiLU, in [−0.0999, 1.0999].
#[inline]
pub const fn slope_grid(bits: Bits) -> Grid {
    Grid::new(SLOPES[0], SLOPES[1], bits)
}

/// A probability from its packed root with [`variance`] `variance`: without bias, and so perhaps a little below 0.
///
/// The noise of a square is in proportion to the root, so that small probabilities, of which a row has many, have little.
#[inline(always)]
pub const fn square(root: f32, variance: f32) -> f32 {
    root * root - variance
}

/// The variance of [`square`] on average, from what it returned: 4 p step²/12 + step⁴/180, where an error's fourth moment is
/// step⁴/80.
#[inline(always)]
pub const fn variance_of_square(square: f32, variance: f32) -> f32 {
    (4.0 * square + 0.8 * variance) * variance
}

/// The range of the slopes' grid.
pub const SLOPES: [f32; 2] = [-0.13, 1.13];

/// A slope within [`SLOPES`], in which all slopes lie. A NaN becomes the lower end, since bits of a NaN, of which
/// a code would be made, depend on the device.
#[inline(always)]
pub const fn bounded_slope(slope: f32) -> f32 {
    if slope > SLOPES[0] { if slope < SLOPES[1] { slope } else { SLOPES[1] } } else { SLOPES[0] }
}

/// Packs row `row` of an array: its codes, [`Groups::words`] of them, and the words of its grids, or on `fixed`, which must cover
/// all elements. This is the definition; devices do the same with vectors.
///
/// # Panics
///
/// If an output has another length.
pub fn pack_row(
    x: &[f32],
    bits: Bits,
    random: &ValueBits,
    row: u64,
    codes: &mut [u32],
    grids: Result<&mut [u32], Grid>,
) {
    let groups = Groups::new(x.len());
    assert_eq!(codes.len(), groups.words(bits), "codes have the row's size");
    codes.fill(0);
    let (mut grids, fixed) = match grids {
        Ok(grids) => (grids, None),
        Err(fixed) => (&mut [][..], Some(fixed)),
    };
    assert!(fixed.is_some() || grids.len() == groups.count(), "grids have the row's size");
    for (group, x) in x.chunks(GROUP).enumerate() {
        let size = groups.size(group);
        let grid = fixed.unwrap_or_else(|| {
            // Zeros fill a group up.
            let fill = if x.len() < size { 0.0 } else { x[0] };
            let (least, most) = x.iter().fold((fill, fill), |(a, b), &x| (a.min(x), b.max(x)));
            Grid::from_word(grid_word(least, most, x.iter().all(|x| x.is_finite()), bits))
        });
        let dithers = random.of_group(row, group);
        let words = &mut codes[group * 4 * bits.count() as usize..];
        for j in 0..size {
            let (word, bit) = packing::place(size, bits, j);
            let y = x.get(j).copied().unwrap_or(0.0);
            words[word] |= code(y, grid, grid.density(), dithers.at(j as u32)) << bit;
        }
        if let Some((first, rest)) = core::mem::take(&mut grids).split_first_mut() {
            *first = grid.word();
            grids = rest;
        }
    }
}

/// The values of row `row` from its codes and grids.
///
/// # Panics
///
/// If an input has another length.
pub fn unpack_row(bits: Bits, random: &ValueBits, row: u64, codes: &[u32], grids: Result<&[u32], Grid>, x: &mut [f32]) {
    let groups = Groups::new(x.len());
    assert_eq!(codes.len(), groups.words(bits), "codes have the row's size");
    for (group, x) in x.chunks_mut(GROUP).enumerate() {
        let grid = match grids {
            Ok(grids) => Grid::from_word(grids[group]),
            Err(fixed) => fixed,
        };
        let dithers = random.of_group(row, group);
        let words = &codes[group * 4 * bits.count() as usize..];
        for (j, x) in x.iter_mut().enumerate() {
            let (word, bit) = packing::place(groups.size(group), bits, j);
            let code = words[word] >> bit & bits.steps();
            *x = packing::value(code, dithers.at(j as u32), grid.lo, grid.fine());
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::operators::functions::{gelu, gelu_tanh, silu};
    use std::vec;
    use std::vec::Vec;

    const ALL: [Bits; 3] = [Bits::Bits8, Bits::Bits4, Bits::Bits2];

    fn random(seed: u64) -> ValueBits {
        ValueBits::new(Randomness::new(seed, 100), 1)
    }

    #[test]
    fn values_lie_within_half_a_step() {
        for bits in ALL {
            for columns in [1, 15, 16, 40, 128, 200, 384] {
                let x: Vec<f32> = (0..columns).map(|j| ((j * 37 % 101) as f32 - 40.0) / 7.0).collect();
                let groups = Groups::new(columns);
                let (mut codes, mut grids) = (vec![0; groups.words(bits)], vec![0; groups.count()]);
                pack_row(&x, bits, &random(9), 7, &mut codes, Ok(&mut grids));
                let mut found = vec![0.0; columns];
                unpack_row(bits, &random(9), 7, &codes, Ok(&grids), &mut found);
                for (j, (found, x)) in found.iter().zip(&x).enumerate() {
                    let step = Grid::from_word(grids[j / GROUP]).step;
                    assert!((found - x).abs() <= 0.5001 * step, "{found} {x} {step}");
                }
            }
        }
    }

    /// Over all random words, errors of two elements have no covariance: sums over all starts and some thousand slopes.
    #[test]
    fn errors_are_uncorrelated() {
        let grid = Grid::new(0.0, 1.0, Bits::Bits2);
        let error = |y: f32, j: u32, dithers: Dithers| {
            let u = dithers.at(j);
            f64::from(packing::value(code(y, grid, grid.density(), u), u, grid.lo, grid.fine()) - y)
        };
        for (j, k, a, b) in [(0, 1, 0.3, 0.3), (0, 2, 0.0, 0.0), (3, 67, 0.91, 0.12), (5, 69, 0.5, 0.25)] {
            let (mut sum, mut count) = (0.0, 0.0);
            for slope in (0..1 << 12).map(|i| (i as u32) << 20) {
                for start in (0..1 << 7).map(|i| (i as u32) << 25 | 1 << 24) {
                    let dithers = Dithers { start, slope };
                    sum += error(a, j, dithers) * error(b, k, dithers);
                    count += 1.0;
                }
            }
            let variance = f64::from(variance(grid));
            assert!((sum / count).abs() < 2e-3 * variance, "{j} {k}: {}", sum / count / variance);
        }
    }

    /// Over all dithers: the mean of a square, and of its square, which is the square of the mean plus the variance.
    #[test]
    fn squares_are_unbiased_and_their_variance_is_known() {
        for bits in ALL {
            let grid = Grid::new(0.0, 0.8, bits);
            let variance = variance(grid);
            for root in [0.0_f32, 0.01, 0.2, 0.777, 0.8] {
                let [mut mean, mut second, mut expected] = [0.0_f64; 3];
                for u in 0..1 << 15 {
                    let found = packing::value(code(root, grid, grid.density(), u), u, grid.lo, grid.fine());
                    let p = square(found, variance);
                    mean += f64::from(p) / 32_768.0;
                    second += f64::from(p).powi(2) / 32_768.0;
                    expected += f64::from(variance_of_square(p, variance)) / 32_768.0;
                }
                let (p, step) = (f64::from(root).powi(2), f64::from(grid.step));
                assert!((mean - p).abs() < step * 1e-4, "{root} {mean} {p}");
                assert!((second - mean * mean - expected).abs() < 1e-3 * step.powi(2), "{root} {second} {expected}");
            }
        }
    }

    #[test]
    fn slopes_lie_on_their_grid() {
        let (mut least, mut most) = (0.0_f32, 0.0_f32);
        for x in (-20_000..20_000).map(|i| i as f32 * 1e-3) {
            for slope in [gelu(x).slope, gelu_tanh(x).slope, silu(x).slope] {
                (least, most) = (least.min(slope), most.max(slope));
                assert_eq!(bounded_slope(slope), slope);
            }
        }
        assert!(SLOPES[0] < least && most < SLOPES[1], "{least} {most}");
        assert_eq!([-1.0, 2.0, f32::NAN].map(bounded_slope), [SLOPES[0], SLOPES[1], SLOPES[0]]);
        for bits in ALL {
            let grid = slope_grid(bits);
            for y in SLOPES {
                for dither in [0, 32_767] {
                    assert!(code(y, grid, grid.density(), dither) <= bits.steps());
                }
            }
        }
    }

    #[test]
    fn groups_that_are_not_finite_are_read_back_as_nan() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.5; 300];
            x[130] = bad;
            let groups = Groups::new(300);
            for bits in ALL {
                let (mut codes, mut grids) = (vec![0; groups.words(bits)], vec![0; groups.count()]);
                pack_row(&x, bits, &random(1), 0, &mut codes, Ok(&mut grids));
                assert_eq!(grids[1], NOT_FINITE);
                let mut found = [0.0; 300];
                unpack_row(bits, &random(1), 0, &codes, Ok(&grids), &mut found);
                assert!(found[128..256].iter().all(|x| x.is_nan()));
                assert_eq!(found[..128], [1.5; 128], "a constant is exact");
                assert!(found[256..].iter().all(|x| (x - 1.5).abs() < 0.5), "zeros fill the last group up");
            }
        }
        assert_eq!(grid_word(f32::MIN, f32::MAX, true, Bits::Bits8), NOT_FINITE);
    }

    #[test]
    fn counters_are_apart() {
        let words = philox::block([105, 0, 1, 0x7776_0002], [4, 0]);
        let [first, second] = random(4).dithers(5, 2);
        assert_eq!([first.start, first.slope, second.start, second.slope], words);
        assert_eq!((random(4).of_group(5, 4), random(4).of_group(5, 5)), (first, second));
    }
}
