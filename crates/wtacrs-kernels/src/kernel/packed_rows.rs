//! Packed rows in device memory, and how the groups of a matrix are shared out among warps.
//!
//! ```text
//! codes   batch × rows × row_words words      Groups::words of each row, then zeros up to 16 bytes
//! grids   batch × rows × Groups::count words  Grid::word of each group
//! origin  seed, offset                        of the random bits; the offset is the one at which the kernel ran
//! ```
//!
//! They are those of [`pack_row`](wtacrs_exact::packing::pack_row), to the bit. A group belongs to as many lanes as it has
//! sixteenths: eight lanes for a whole one. Of rows of several groups the last may be smaller, and leaves some of its eight
//! lanes idle; rows of one small group have few lanes each. Nothing that is computed depends on which lanes have a group.

use crate::launch::Shape;
use wtacrs_exact::packing::{Bits, Groups};
use wtacrs_simt::WARP;

/// Threads of a block.
pub(super) const THREADS: u32 = 256;
/// Warps of a block.
pub(super) const WARPS: u32 = THREADS / WARP;
/// Elements of a group in each of its lanes.
pub(super) const LANE_ELEMENTS: u32 = 16;
/// Most blocks of a matrix. Each block of a kernel that reads the faults of all blocks reads 8 KiB then.
const MOST_BLOCKS: u32 = 2048;
/// A warp has more groups at a time only where this many warps have some. It draws the dithers of up to 32 groups together.
const ENOUGH_WARPS: u64 = 2048;

/// The groups of a matrix, and how many of them a block takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupShares {
    /// Rows of the matrix.
    pub rows: u32,
    /// Columns of the matrix. `rows` times the groups of a row fit 31 bits.
    pub columns: u32,
    /// Groups of a block, in row-major order: see [`Self::new`].
    pub groups_of_block: u32,
}

/// The packed rows of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PackedRows {
    /// Rows and columns of each matrix.
    pub shares: GroupShares,
    /// Bits of an element: 8, 4 or 2.
    pub bits: u32,
    /// The codes, aligned to 16.
    pub codes: *mut u32,
    /// Words from one row of codes to the next: a multiple of 4.
    pub row_words: u64,
    /// The grids.
    pub grids: *mut u32,
    /// Two numbers.
    pub origin: *mut u64,
    /// Stream of the first matrix.
    pub first_stream: u32,
    /// From the stream of one matrix to that of the next.
    pub stream_step: u32,
}

impl GroupShares {
    /// The shares of each of `batch` matrices.
    pub const fn new(rows: u32, columns: u32, batch: u32) -> Self {
        let of_row = Groups::new(columns as usize).count() as u64;
        let all = rows as u64 * of_row;
        let mut of_warp = WARP / Self::lanes_of(columns);
        while of_warp < WARP && all * batch as u64 >= 2 * of_warp as u64 * ENOUGH_WARPS {
            of_warp *= 2;
        }
        let mut groups_of_block = (WARPS * of_warp) as u64;
        if all > groups_of_block * MOST_BLOCKS as u64 {
            // Only possible where warps have 32 groups at a time.
            groups_of_block = all.div_ceil(MOST_BLOCKS as u64).next_multiple_of(groups_of_block);
        }
        Self { rows, columns, groups_of_block: groups_of_block as u32 }
    }

    /// Lanes of a whole group of a row.
    #[inline(always)]
    const fn lanes_of(columns: u32) -> u32 {
        Groups::new(columns as usize).size(0) as u32 / LANE_ELEMENTS
    }

    /// Lanes of each group: those of the largest.
    #[inline(always)]
    pub const fn lanes(&self) -> u32 {
        Self::lanes_of(self.columns)
    }

    /// How a row is cut.
    #[inline(always)]
    pub(super) const fn groups(&self) -> Groups {
        Groups::new(self.columns as usize)
    }

    /// Groups of the matrix.
    #[inline(always)]
    pub(super) const fn all(&self) -> u32 {
        self.rows * self.groups().count() as u32
    }

    /// Groups that a warp takes at a time.
    #[inline(always)]
    pub const fn of_warp(&self) -> u32 {
        if self.groups_of_block < WARPS * WARP { self.groups_of_block / WARPS } else { WARP }
    }

    /// Blocks of each matrix.
    pub const fn blocks(&self) -> u32 {
        let blocks = self.all().div_ceil(self.groups_of_block);
        if blocks == 0 { 1 } else { blocks }
    }

    /// The launch for a batch of matrices, with so much shared memory.
    pub(super) const fn shape(&self, batch: u32, shared_bytes: u32) -> Shape {
        Shape { grid: [self.blocks(), 1, batch], block: THREADS, shared_bytes, cooperative: false }
    }
}

/// Words from one row of codes to the next: whole vectors of 16 bytes.
pub const fn row_words(columns: u32, bits: Bits) -> u64 {
    (Groups::new(columns as usize).words(bits) as u64).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_a_block() {
        for rows in [1, 7, 300, 4096, 16_384, 1 << 20] {
            for columns in [1, 16, 17, 64, 65, 128, 300, 1536, 4096] {
                for batch in [1, 192] {
                    let shares = GroupShares::new(rows, columns, batch);
                    let (blocks, each) = (u64::from(shares.blocks()), u64::from(shares.groups_of_block));
                    let all = u64::from(shares.all());
                    assert!(blocks <= 2048 && blocks * each >= all && (blocks - 1) * each < all, "{shares:?}");
                    let of_warp = shares.of_warp();
                    assert!(of_warp.is_power_of_two() && of_warp * shares.lanes() >= WARP, "{shares:?}");
                    assert!(shares.groups_of_block.is_multiple_of(WARPS * of_warp), "{shares:?}");
                }
            }
        }
    }
}
