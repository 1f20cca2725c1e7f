//! Kept columns of a matrix, scaled, as rows: the factor of a product that sums over columns.
//!
//! `out[r,i] = scale_r · x[i, index_r]`. A sum over columns of `x` is then a sum over rows of `out`, so `gather_gemm` serves
//! both. Scales are rounded to f32, products once to the element's type.

use super::matrix::Spacing;
use crate::launch::Shape;
use wtacrs_simt::WARP;

/// The arguments of a launch. One grid.z for each matrix of a batch; grid.x for each 32 rows of `x`, any number of grid.y.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × pairs elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Where the matrices of the batch begin.
    pub spacing: Spacing,
    /// Rows of `x`: columns of `out`.
    pub rows: u32,
    /// Rows of `out`: the budget.
    pub kept: u32,
    /// batch × kept indices into the columns of `x`, of which the first `count` are used; null: column r is row r of `out`.
    pub indices: *const u32,
    /// batch × kept factors, or null for 1.
    pub scales: *const f64,
    /// For each of the batch, how many columns were selected; `out`'s other rows become zero. Null: all.
    pub count: *const u32,
    /// kept × rows elements.
    pub out: *mut u8,
    /// Elements from one row of `out` to the next.
    pub out_leading: u64,
    /// Where the matrices of `out` begin.
    pub out_spacing: Spacing,
}

/// Edge of a tile.
pub(super) const TILE: u32 = WARP;
/// Warps of a block: each has four rows of a tile.
pub(super) const WARPS: u32 = TILE / 4;
/// One element more than a tile's row has, so that a column's elements lie in banks of their own.
pub(super) const PITCH: u32 = TILE + 1;

/// The launch for so many kept columns of matrices of so many rows.
pub fn shape(kept: u32, rows: u32, batch: u32) -> Shape {
    Shape {
        // Any number of grid.y goes through the kept columns.
        grid: [rows.div_ceil(TILE), kept.div_ceil(TILE).clamp(1, 65_535), batch],
        block: WARPS * WARP,
        shared_bytes: TILE * PITCH * size_of::<f32>() as u32,
        cooperative: false,
    }
}
