//! Layer norm and RMS norm of rows.
//!
//! ```text
//! forward    n = (x − mean)/σ,   y = (n · weight + bias) · mask           saves mean and 1/σ, or n and 1/σ
//! backward   dx = (g − mean g − n · mean(g n) + step²/12 · g / columns)/σ,   g = dy · mask · weight
//!            dweight = Σ dy · mask · n,   dbias = Σ dy · mask              over all rows
//! ```
//!
//! The term with step² makes the gradient unbiased where n was packed. The forward pass takes rows as
//! [`softmax`](super::softmax) does.
//!
//! A block of the backward pass takes a range of rows twice: first row by row, for the two means of each; then group by group of
//! its columns, each warp down the rows of the range, with the sums of the weight's and the bias's gradient in
//! registers. They go to a row of scratch for each range, or several where a row has fewer groups than the block has warps. The end of
//! [`column_sums`] adds these up, so no float is added atomically.
//!
//! # Error
//!
//! No term of a sum over rows takes part in more than n additions ([`sum_terms`]), so with u = 2⁻²⁴ the sum is within nu/(1 − nu)
//! of the exact one, relative to the sum of magnitudes.

use super::column_sums;
use super::operator::{SavedValues, Start, WARP_ROWS, rows_shape};
use crate::launch::Shape;
use wtacrs_exact::packing::Groups;
use wtacrs_simt::WARP;

/// The arguments of a forward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs {
    /// rows × columns elements.
    pub x: *const u8,
    /// A number for each column, or null for 1.
    pub weight: *const f32,
    /// A number for each column, or null for 0.
    pub bias: *const f32,
    /// rows × columns elements; null: the output is not written.
    pub y: *mut u8,
    /// Whether the mean is subtracted.
    pub has_mean: u32,
    /// ε, which is added to the variance.
    pub epsilon: f32,
    /// Receives what is saved.
    pub saved: SavedValues,
    /// The random bits.
    pub start: Start,
}

/// The arguments of a backward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardArgs {
    /// rows × columns elements, if normalised rows were not packed; else null.
    pub x: *const u8,
    /// A number for each column, or null for 1.
    pub weight: *const f32,
    /// rows × columns elements.
    pub dy: *const u8,
    /// As many.
    pub dx: *mut u8,
    /// [`Ranges::count`] rows of [`partial_leading`](column_sums::partial_leading) sums for the gradient of the weight, aligned
    /// to 16; null if it is not wanted.
    pub of_weight: *mut f32,
    /// The same for the gradient of the bias.
    pub of_bias: *mut f32,
    /// Whether there is a mean.
    pub has_mean: u32,
    /// How rows are cut.
    pub ranges: Ranges,
    /// What the forward pass saved.
    pub saved: SavedValues,
}

/// Threads of a block of the backward pass: few, since each holds the elements of a group twice beside as many sums.
const THREADS: u32 = 128;
/// Its warps.
pub(super) const WARPS: u32 = THREADS / WARP;
/// Fewest and most rows of a range.
const FEWEST_ROWS: u32 = 32;
const MOST_ROWS: u32 = 256;
/// Between the two, about so many ranges.
const BLOCKS: u32 = 1024;

/// How the rows of a backward pass are cut. It follows from rows and columns alone, so no launch changes a sum.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Rows of a block.
    pub rows: u32,
    /// log₂ of the warps that share the rows of a block's group of columns.
    pub split_shift: u32,
}

impl Ranges {
    /// For so many rows and columns.
    pub const fn new(rows: u32, columns: u32) -> Self {
        let mut of_block = rows.div_ceil(BLOCKS).next_multiple_of(FEWEST_ROWS);
        if of_block < FEWEST_ROWS {
            of_block = FEWEST_ROWS;
        }
        if of_block > MOST_ROWS {
            of_block = MOST_ROWS;
        }
        let groups = Groups::new(columns as usize).count() as u32;
        let mut split_shift = 0;
        while groups << (split_shift + 1) <= WARPS && split_shift < WARPS.trailing_zeros() {
            split_shift += 1;
        }
        Self { rows: of_block, split_shift }
    }

    /// Blocks of a launch.
    pub const fn blocks(self, rows: u32) -> u32 {
        let blocks = rows.div_ceil(self.rows);
        if blocks == 0 { 1 } else { blocks }
    }

    /// Partial sums of each column.
    pub const fn count(self, rows: u32) -> u32 {
        self.blocks(rows) << self.split_shift
    }
}

/// The launch of a forward pass.
pub const fn forward_shape(saved: &SavedValues) -> Shape {
    rows_shape(saved.shares.rows)
}

/// The launch of a backward pass: two numbers of shared memory for each row of a range.
pub const fn backward_shape(saved: &SavedValues, ranges: Ranges) -> Shape {
    let blocks = ranges.blocks(saved.shares.rows);
    Shape { grid: [blocks, 1, 1], block: THREADS, shared_bytes: 8 * ranges.rows, cooperative: false }
}

/// The most additions that a term of a sum over rows takes part in.
pub fn sum_terms(rows: u32, columns: u32) -> u32 {
    let ranges = Ranges::new(rows, columns);
    let of_lane = (ranges.rows >> ranges.split_shift) / WARP_ROWS;
    let of_warp = ranges.count(rows).div_ceil(column_sums::WARPS);
    of_lane + WARP_ROWS.trailing_zeros() + of_warp + column_sums::WARPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_warp() {
        for rows in [1, 31, 32, 33, 4096, 40_000, 1 << 20, (1 << 31) - 1] {
            for columns in [1, 128, 129, 384, 512, 1024, 5000] {
                let ranges = Ranges::new(rows, columns);
                let (blocks, each) = (u64::from(ranges.blocks(rows)), u64::from(ranges.rows));
                assert!(blocks * each >= u64::from(rows) && (blocks - 1) * each < u64::from(rows), "{ranges:?}");
                assert!((ranges.rows >> ranges.split_shift).is_multiple_of(WARP_ROWS), "{ranges:?}");
                assert!(ranges.rows.is_multiple_of(FEWEST_ROWS) && ranges.rows <= MOST_ROWS, "{ranges:?}");
            }
        }
        assert_eq!(
            [128, 256, 512, 768, 1024, 4096].map(|columns| Ranges::new(64, columns).split_shift),
            [2, 1, 0, 0, 0, 0]
        );
    }
}
