//! Packed rows → rows for a product.
//!
//! ```text
//! out[r,:] = round(y[r,:] · f32(scales[r]))   for r < count,   0 for the other rows     out (rows × Groups::padded)
//! ```
//!
//! with y the rotated values of [`unpack_row`](wtacrs_exact::packing::unpack_row). The scale is rounded to f32, the product
//! taken in f32 and rounded once to the element type. The rotation is undone once, on the product
//! ([`turn_back`](super::turn_back)).

use super::packed_rows::{PackedRows, WARPS};
use crate::launch::Shape;

/// The arguments of a launch. One grid.z for each matrix of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The packed rows.
    pub packed: PackedRows,
    /// batch × rows indices, by which dithers are drawn; null: the number of the row.
    pub indices: *const u32,
    /// batch × rows factors, or null for 1.
    pub scales: *const f64,
    /// For each of the batch, how many rows were selected; `out`'s other rows become zero. Null: all.
    pub count: *const u32,
    /// For each of the batch `fault_words` words, as [`gather_pack`](super::gather_pack) writes them, or null. If one is not 0,
    /// no row counts. The first word of each then becomes the first that is not 0.
    pub faults: *mut u32,
    /// Words of each of the batch.
    pub fault_words: u32,
    /// Receives for each of the batch how many rows count, or null.
    pub counted: *mut u32,
    /// rows × `Groups::padded` elements, aligned to 16.
    pub out: *mut u8,
    /// Elements from one row of `out` to the next: whole vectors of 16 bytes.
    pub out_leading: u64,
    /// Elements from one matrix of `out` to the next: the same.
    pub out_matrix: u64,
}

/// Bytes of shared memory: a word for each warp.
const SHARED_BYTES: u32 = 4 * WARPS;

/// The launch for a batch of matrices; at most 65535 of them.
pub fn shape(packed: &PackedRows, batch: u32) -> Shape {
    packed.shares.shape(batch, SHARED_BYTES)
}
