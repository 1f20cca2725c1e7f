//! `dW (+)= 2 D H Σ_s partials[s]`: adds the partial products of rotated rows in order, and undoes their rotation.
//!
//! ```text
//! turn_back_down    groups of rows of dw        partials  splits × batch × padded × out_features
//! turn_back_along   groups of columns of dw     partials  splits × batch × in_features × padded
//! ```
//!
//! The left factor of dW = Hᵀ dZ has rotated rows, so each group of dw's rows is turned back; of dA = G·Bᵀ it is the right
//! one. In the same launch [`column_sums`](super::column_sums) end, if there are some, as in [`split_reduce`]. Reads the
//! partial products once and writes dw once; bound by memory.

use super::column_sums::FinishArgs;
use super::packed_rows::{GroupShares, THREADS};
use super::split_reduce;
use crate::launch::Shape;
use wtacrs_exact::packing::{GROUP, Groups};
use wtacrs_simt::WARP;

/// The random bits of the rotation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Seed and offset, as [`PackedRows`](super::packed_rows::PackedRows) has them.
    pub origin: *const u64,
    /// Stream of the first matrix.
    pub first_stream: u32,
    /// From the stream of one matrix to that of the next.
    pub stream_step: u32,
}

/// The arguments of `turn_back_down`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DownArgs {
    /// Partial products, with rows in groups, and dw. Each matrix of partial products has as many rows as the groups have
    /// elements.
    pub reduce: split_reduce::Args,
    /// The rotation.
    pub rotation: Rotation,
    /// The column sums, if `sums_y` is not 0.
    pub sums: FinishArgs,
    /// How many grid.y are for the column sums; those for dw follow.
    pub sums_y: u32,
}

/// The arguments of `turn_back_along`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AlongArgs {
    /// Partial products, with columns in groups, and dw. From one row of partial products to the next are as many numbers as
    /// the groups have elements.
    pub reduce: split_reduce::Args,
    /// The rotation.
    pub rotation: Rotation,
    /// Rows and columns of dw.
    pub shares: GroupShares,
}

/// Bytes of shared memory of `turn_back_down`: a tile of a group's rows and a warp's columns, and the signs. The sums use
/// them as well.
const DOWN_SHARED_BYTES: u32 = 4 * GROUP as u32 * WARP + 16;
/// The signs.
const ALONG_SHARED_BYTES: u32 = 16;
/// The largest grid.y that drivers accept.
const MOST_GRID_Y: u32 = 65_535;

impl DownArgs {
    /// The arguments and their launch, for a batch of matrices.
    pub fn launch(
        reduce: split_reduce::Args,
        rotation: Rotation,
        sums: Option<FinishArgs>,
        batch: u32,
    ) -> (Self, Shape) {
        let tiles = reduce.out_features.div_ceil(WARP).max(1);
        let groups = Groups::new(reduce.in_features as usize).count() as u32;
        let sums_y = sums.map_or(0, |sums| sums.blocks().div_ceil(tiles));
        let shape = Shape {
            // Any number of grid.y turns all groups.
            grid: [tiles, sums_y + groups.clamp(1, MOST_GRID_Y - sums_y), batch],
            block: THREADS,
            shared_bytes: DOWN_SHARED_BYTES,
            cooperative: false,
        };
        let nothing = FinishArgs {
            partials: core::ptr::null(),
            ranges: 0,
            columns: 0,
            accumulate: 0,
            sums: core::ptr::null_mut(),
        };
        (Self { reduce, rotation, sums: sums.unwrap_or(nothing), sums_y }, shape)
    }
}

impl AlongArgs {
    /// The arguments and their launch, for a batch of matrices.
    pub fn launch(reduce: split_reduce::Args, rotation: Rotation, batch: u32) -> (Self, Shape) {
        let shares = GroupShares::new(reduce.in_features, reduce.out_features, batch);
        (Self { reduce, rotation, shares }, shares.shape(batch, ALONG_SHARED_BYTES))
    }
}
