//! `dW (+)= Σ_r saved[r,:]ᵀ dZ[index_r,:]`: the estimate, with dZ's rows gathered as they are loaded.
//!
//! ```text
//! dw (in_features × out_features)  (+)=  Σ_{r < count} saved[r, :]ᵀ · dz[indices[r], :]
//! ```
//!
//! With more than one split, blocks sum ranges of rows into `partials`, which [`split_reduce`](super::split_reduce) adds up in order. So the bits
//! depend on shapes and splits alone.

use super::matrix::{RowLayout, Spacing};

/// The arguments of a launch. One grid.z for each (batch, split); grid.x for each tile of dw.
///
/// A row's bytes, `leading` times the element's, fit 32 bits; strides of batches and offsets of rows may be larger.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × in_features elements: the scaled, gathered rows.
    pub saved: *const u8,
    /// Elements from one row of `saved` to the next.
    pub saved_leading: u64,
    /// Where the matrices of `saved` begin.
    pub saved_spacing: Spacing,
    /// tokens × out_features elements.
    pub dz: *const u8,
    /// Elements from one row of `dz` to the next.
    pub dz_leading: u64,
    /// Where the matrices of `dz` begin.
    pub dz_spacing: Spacing,
    /// batch × rows indices into the rows of `dz`; null: row r goes with row r.
    pub indices: *const u32,
    /// For each of the batch, how many of the rows are used; null: all.
    pub count: *const u32,
    /// Rows of `saved`: the budget.
    pub rows: u32,
    /// Rows of `dw`.
    pub in_features: u32,
    /// Columns of `dw`.
    pub out_features: u32,
    /// Into how many ranges of rows the sum is cut. Each has its own partial product if there is more than one.
    pub splits: u32,
    /// Whether `dw` is added to.
    pub accumulate: u32,
    /// The element type of `dw`: a [`DataType`](super::matrix::DataType).
    pub output: u32,
    /// in_features × out_features elements.
    pub dw: *mut u8,
    /// Elements from one row of `dw` to the next.
    pub dw_leading: u64,
    /// Where the matrices of `dw` begin.
    pub dw_spacing: Spacing,
    /// splits × batch × in_features rows of [`partial_leading`] sums, aligned to 16, if `splits` > 1.
    pub partials: *mut f32,
}

impl Args {
    /// How the rows of operands with elements of `element_bytes` lie.
    pub fn row_layout(&self, element_bytes: u32) -> RowLayout {
        let bytes = |elements: u64| elements * u64::from(element_bytes);
        let distances = self.saved_leading | self.saved_spacing.bits() | self.dz_leading | self.dz_spacing.bits();
        let addresses = (self.saved.addr() | self.dz.addr()) as u64;
        if !(bytes(distances) | addresses).is_multiple_of(16) {
            RowLayout::Any
        } else if bytes(u64::from(self.in_features | self.out_features)).is_multiple_of(16) {
            RowLayout::Whole
        } else {
            RowLayout::Ragged
        }
    }
}

/// From one row of partial sums to the next: the columns, rounded up to whole 16 bytes.
#[inline(always)]
pub const fn partial_leading(out_features: u32) -> u64 {
    (out_features as u64).next_multiple_of(4)
}

/// The sizes of the tiles that a block multiplies, K rows of both factors at a time.
#[derive(Clone, Copy, Debug)]
pub struct TileSizes {
    /// Threads of a block.
    pub threads: u32,
    /// M: rows of dw in a block's tile.
    pub rows: u32,
    /// N: columns of dw in a block's tile.
    pub columns: u32,
    /// K: rows of the factors in a tile.
    pub depth: u32,
    /// Tiles in flight or in use: 3 or 4.
    pub stages: u32,
    /// Bytes of the factors' elements.
    pub element_bytes: u32,
    /// From one row of sums to the next, in sums, where they leave the registers through shared memory: such that no two
    /// lanes meet in a bank.
    pub pitch: u32,
}

impl TileSizes {
    /// f32 elements by fma.
    pub const FULL: Self =
        Self { threads: 256, rows: 128, columns: 128, depth: 8, stages: 4, element_bytes: 4, pitch: 128 };

    /// f32 elements by tf32. Rows lie 4 banks apart: the 8 lanes that write 16 bytes together write 2 rows, and in each
    /// 4 chunks that are 8 banks apart.
    pub const TF32: Self =
        Self { threads: 256, rows: 128, columns: 128, depth: 16, stages: 3, element_bytes: 4, pitch: 132 };

    /// 16-bit elements. The stages take 96 KiB for 128 × 256 and 48 KiB for smaller tiles: one block, or two, within the
    /// 99 KiB of the smallest GPUs. Rows of sums lie 8 banks apart: the 16 lanes that write 8 bytes together write 4 rows
    /// of 8 banks.
    #[inline(always)]
    pub const fn half(rows: u32, columns: u32, threads: u32) -> Self {
        let stages = if rows + columns == 256 { 3 } else { 4 };
        Self { threads, rows, columns, depth: 32, stages, element_bytes: 2, pitch: columns + 8 }
    }

    /// Rows of sums that leave the registers together, in 4 parts.
    #[inline(always)]
    pub const fn part_rows(self) -> u32 {
        self.rows / 4
    }

    /// Bytes of shared memory: the ring of stages, which later holds a part of the sums.
    #[inline(always)]
    pub const fn shared_bytes(self) -> u32 {
        let stages = self.stages * self.depth * (self.rows + self.columns) * self.element_bytes;
        let part = 4 * self.part_rows() * self.pitch;
        if stages > part { stages } else { part }
    }
}
