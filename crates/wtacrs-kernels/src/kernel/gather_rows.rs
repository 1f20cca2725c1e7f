//! Kept rows, scaled and side by side: what is saved from the forward to the backward pass.
//!
//! ```text
//! out[r,:] = round(x[indices[r],:] · f32(scales[r]))   for r < count,   0 for the other rows        out (rows × columns)
//! ```
//!
//! The scale is rounded to f32, the product taken in f32 and rounded once to the element type, as `product::gather` and
//! `gather_scaled` of wtacrs-core do. Results are equal to the bit, except for the bits of NaNs.

use super::matrix::{Spacing, VECTOR_BYTES, is_aligned};
use super::row_team::{RowTeam, THREADS};
use crate::launch::Shape;

/// The arguments of a launch. One grid.z for each matrix of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// pairs × columns elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Where the matrices of the batch begin.
    pub spacing: Spacing,
    /// Columns.
    pub columns: u32,
    /// Rows of `out`: the budget.
    pub rows: u32,
    /// batch × rows indices into the rows of `x`, of which the first `count` are used.
    pub indices: *const u32,
    /// batch × rows factors, or null for 1.
    pub scales: *const f64,
    /// For each of the batch, how many rows were selected; `out`'s other rows become zero. Null: all.
    pub count: *const u32,
    /// rows × columns elements.
    pub out: *mut u8,
    /// Elements from one row of `out` to the next.
    pub out_leading: u64,
    /// Where the matrices of `out` begin.
    pub out_spacing: Spacing,
}

impl Args {
    /// Whether rows of `x` and of `out`, of elements of so many bytes, are aligned to a vector. If both are, they have a kernel
    /// of their own.
    #[inline(always)]
    pub fn are_aligned(&self, element_bytes: u32) -> [bool; 2] {
        let bytes = u64::from(element_bytes);
        [
            is_aligned(self.x, (self.leading | self.spacing.bits()) * bytes),
            is_aligned(self.out, (self.out_leading | self.out_spacing.bits()) * bytes),
        ]
    }
}

/// Vectors that a lane has in flight.
pub(super) const UNROLL: u32 = 4;

/// The launch for a batch of matrices of elements of so many bytes (2 or 4); at most 65535 matrices.
pub fn shape(rows: u32, columns: u32, batch: u32, bytes: u32) -> Shape {
    let vectors = columns.div_ceil(VECTOR_BYTES / bytes);
    let team = RowTeam::of_lanes(vectors);
    let parts = vectors.div_ceil(UNROLL * team.threads()).clamp(1, 65535);
    Shape {
        grid: [rows.div_ceil(team.rows()).max(1), parts, batch],
        block: THREADS,
        shared_bytes: 0,
        cooperative: false,
    }
}
