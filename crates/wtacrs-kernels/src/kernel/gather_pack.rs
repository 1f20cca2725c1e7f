//! Kept rows in few bits, side by side: what is saved from the forward to the backward pass in place of
//! [`gather_rows`](super::gather_rows).
//!
//! ```text
//! codes[r,:], grids[r,:] = pack_row(x[indices[r],:], index indices[r])   for r < count        (other rows are not written)
//! ```
//!
//! Codes and grids are those of [`pack_row`](wtacrs_exact::packing::pack_row), to the bit. They are of the rows as they are:
//! scales are applied when rows are unpacked, and nothing is rounded twice.

use super::matrix::Spacing;
use super::packed_rows::{PackedRows, WARPS};
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
    /// batch × rows indices into the rows of `x`, of which the first `count` are used; null: row r is row r of `x`.
    pub indices: *const u32,
    /// For each of the batch, how many rows were selected. Null: all.
    pub count: *const u32,
    /// Receives the packed rows, and their origin.
    pub packed: PackedRows,
    /// Seed of the random bits.
    pub seed: u64,
    /// Their first block.
    pub offset: u64,
    /// A number that is added to the offset when the kernel runs; null for none.
    pub further_offset: *const u64,
    /// For each of the batch a word of each block ([`GroupShares::blocks`](super::packed_rows::GroupShares::blocks)): 0, or
    /// 1 + the first row of the block's groups that has an element that is not finite. So the first word that is not 0 has the
    /// first such row. Null: rows are known to be finite.
    pub faults: *mut u32,
}

/// Bytes of shared memory: the signs, and a row for each warp.
const SHARED_BYTES: u32 = 16 + 4 * WARPS;

/// The launch for a batch of matrices; at most 65535 of them.
pub fn shape(packed: &PackedRows, batch: u32) -> Shape {
    packed.shares.shape(batch, SHARED_BYTES)
}
