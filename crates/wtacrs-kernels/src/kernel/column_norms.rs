//! ‖column‖₂ of a matrix, for products that sum over columns: attention's dQ.
//!
//! `norms[j] = √(Σ_i x[i,j]²)`. Sums are in f32, and once more in f64 where they leave the range in which f32 is precise. A
//! column with an infinity or a NaN has a norm that is not finite.

use super::matrix::Spacing;
use crate::launch::Shape;
use wtacrs_simt::WARP;

/// The arguments of a launch. One grid.z for each matrix of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × columns elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Where the matrices of the batch begin.
    pub spacing: Spacing,
    /// Rows of each matrix.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// batch × columns norms.
    pub norms: *mut f32,
}

/// Warps of a block, which has a lane of each for every one of its 32 columns.
pub(super) const WARPS: u32 = 8;

/// The launch for matrices of so many columns.
pub fn shape(columns: u32, batch: u32) -> Shape {
    Shape {
        grid: [columns.div_ceil(WARP), 1, batch],
        block: WARPS * WARP,
        shared_bytes: WARPS * WARP * size_of::<f64>() as u32,
        cooperative: false,
    }
}
