//! Tiles: parts of a matrix that are copied from global to shared memory ahead of their use.
//!
//! A tile lies in shared memory row by row, and a row is cut into chunks of 16 bytes, the widest access there is. Chunk c
//! of row r lies where chunk c ⊕ flip(r) would lie, so that the chunks that a warp reads together (the same columns of
//! consecutive rows) and those that it writes together (consecutive columns of a row) spread over all 32 banks.
//!
//! ```text
//! offset(r, c) = r · ROW_BYTES + 16 · (c ⊕ flip(r))
//! ```
//!
//! Cost: ROWS · ROW_BYTES / (16 · THREADS) copies per thread; no registers for data on their way, if aligned to 16.

use super::repeat;
use crate::kernel::matrix::RowLayout;
use core::marker::PhantomData;
use wtacrs_simt::cp_async;
use wtacrs_simt::index::thread;
use wtacrs_simt::math::multiply_wide;
use wtacrs_simt::memory::{U32x4, load};
use wtacrs_simt::shared::{Address, Shared};

/// Bytes of a chunk.
pub const CHUNK: u32 = 16;

/// How a tile lies in shared memory.
pub trait Layout {
    /// Bytes of a row: a power of two, at least 128.
    const ROW_BYTES: u32;
    /// Rows.
    const ROWS: u32;
    /// Threads of the block that loads it.
    const THREADS: u32;

    /// A row's chunk numbers are xored with this: less than 8, and equal for rows that differ by a multiple of 8.
    fn flip(row: u32) -> u32;

    /// Chunks of a row.
    const CHUNKS: u32 = Self::ROW_BYTES / CHUNK;
    /// Bytes of the tile.
    const BYTES: u32 = Self::ROW_BYTES * Self::ROWS;
    /// Rows that a block loads at once: a multiple of 8, so that `flip` is the same in every pass.
    const ROWS_PER_PASS: u32 = Self::THREADS / Self::CHUNKS;
    /// Loads of each thread.
    const PASSES: u32 = Self::ROWS / Self::ROWS_PER_PASS;

    /// Where chunk `chunk` of row `row` lies, in bytes from the tile's first.
    #[inline(always)]
    fn offset(row: u32, chunk: u32) -> u32 {
        row * Self::ROW_BYTES + (chunk ^ Self::flip(row)) * CHUNK
    }

    /// The row, in the first pass, and the chunk that a thread loads.
    #[inline(always)]
    fn share(thread: u32) -> (u32, u32) {
        (thread / Self::CHUNKS, thread % Self::CHUNKS)
    }
}

/// [`RowLayout::Whole`] as a constant of a kernel.
pub const WHOLE: u32 = RowLayout::Whole as u32;
/// [`RowLayout::Ragged`] as a constant of a kernel.
pub const RAGGED: u32 = RowLayout::Ragged as u32;
/// [`RowLayout::Any`] as a constant of a kernel.
pub const ANY: u32 = RowLayout::Any as u32;

/// Most passes of a layout.
pub const MAX_PASSES: usize = 4;

/// A thread's part in loading tiles of a matrix into a ring of stages: one chunk of some of the rows.
#[derive(Debug)]
pub struct Loader<L> {
    /// This thread's columns in the matrix's first row.
    from: *const u8,
    /// Bytes from one row to the next.
    leading: u32,
    /// Bytes of the chunk that lie within the matrix.
    valid: u32,
    /// This thread's row of the tile, in the first pass.
    row: u32,
    /// The stages' first byte, and how far from it this thread's chunk of the first pass goes in the stage at hand.
    stages: Shared<U32x4>,
    to: Address,
    layout: PhantomData<L>,
}

impl<L: Layout> Loader<L> {
    /// Loads columns from byte `first` on, of rows of `row_bytes` bytes, `leading` apart, into tiles that lie `offset`
    /// bytes into each stage; at first into the first.
    ///
    /// # Safety
    ///
    /// `matrix` is readable where the tiles' rows will be.
    #[inline(always)]
    pub unsafe fn new(
        matrix: *const u8,
        leading: u32,
        first: u64,
        row_bytes: u64,
        stages: Shared<U32x4>,
        offset: u32,
    ) -> Self {
        let (row, chunk) = L::share(thread());
        let column = first + u64::from(chunk * CHUNK);
        let left = row_bytes.saturating_sub(column);
        Self {
            // A chunk beyond the edge reads nothing, but its pointer stays within the matrix.
            from: matrix.wrapping_add(if left > 0 { column as usize } else { 0 }),
            leading,
            valid: if left < u64::from(CHUNK) { left as u32 } else { CHUNK },
            row,
            stages,
            to: stages.address(0).bytes(offset + L::offset(row, chunk)),
            layout: PhantomData,
        }
    }

    /// The row of the tile that this thread loads in pass `pass`.
    #[inline(always)]
    pub fn row(&self, pass: u32) -> u32 {
        self.row + pass * L::ROWS_PER_PASS
    }

    /// Goes to the stage that begins so many bytes after, or before, the one at hand.
    #[inline(always)]
    pub fn advance(&mut self, bytes: i32) {
        self.to = self.to.moved(bytes);
    }

    /// Starts copying row `source` of the matrix into this thread's row of pass `pass` in the stage at hand; zeros, and
    /// nothing is read, unless `present`.
    ///
    /// Elements have `element` (2 or 4) bytes; ROWS is the matrix's [`RowLayout`].
    ///
    /// # Safety
    ///
    /// If `present`, the matrix has the row. No thread reads the stage before the copy has landed.
    #[inline(always)]
    pub unsafe fn copy<const ROWS: u32>(&self, pass: u32, source: u32, present: bool, element: u32) {
        let from = self.from.wrapping_add(multiply_wide(source, self.leading) as usize);
        let to = self.to.bytes(pass * L::ROWS_PER_PASS * L::ROW_BYTES);
        let valid = if present { self.valid } else { 0 };
        // SAFETY: `valid` bytes from here on lie in the matrix's row, and this block alone writes the stage.
        unsafe {
            if ROWS == WHOLE {
                // Written so that the compiler sees a choice of 16 or 0, which costs a predicate and not an addition.
                let valid = if valid == 0 { 0 } else { CHUNK };
                cp_async::copy::<CHUNK>(to, from, valid);
            } else if ROWS == RAGGED {
                cp_async::copy::<CHUNK>(to, from, valid);
            } else if element == 4 {
                copy_words(to, from, valid);
            } else {
                copy_halves(self.stages, to, from, valid);
            }
        }
    }
}

/// A chunk in copies of 4 bytes.
#[inline(always)]
unsafe fn copy_words(to: Address, from: *const u8, valid: u32) {
    repeat!(WORD in 0 1 2 3 => {
        let present = 4 * WORD < valid;
        // Nothing is read where nothing is present; the pointer stays within the row all the same.
        let from = from.wrapping_add(if present { 4 * WORD as usize } else { 0 });
        // SAFETY: the caller's promise; rows of 4-byte elements are aligned to 4.
        unsafe { cp_async::copy::<4>(to.bytes(4 * WORD), from, if present { 4 } else { 0 }) };
    });
}

/// A chunk of 2-byte elements, through registers, since asynchronous copies have at least 4 bytes.
#[inline(always)]
unsafe fn copy_halves(stages: Shared<U32x4>, to: Address, from: *const u8, valid: u32) {
    let from = from.cast::<u16>();
    let half = |i: u32| -> u32 {
        // SAFETY: the caller's promise.
        if 2 * i < valid { u32::from(unsafe { load(from.wrapping_add(i as usize)) }) } else { 0 }
    };
    let words = [half(0) | half(1) << 16, half(2) | half(3) << 16, half(4) | half(5) << 16, half(6) | half(7) << 16];
    // SAFETY: the caller's promise.
    unsafe { stages.write_at(to, U32x4(words)) };
}
