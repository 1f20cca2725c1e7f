//! Kept rows in a caller's memory, which lives from a forward to its backward pass, as one block of bytes.
//!
//! Its parts lie as [`SavedLayout`] says, with room for `capacity` rows. The header holds what is in the block and a
//! checksum of that, and keeps one plan from reading what another has saved. The layout is private: it may change with any
//! version, and a block is never to be kept beyond the process.

use crate::arguments::{Dtype, Number};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::slice;
use ndarray::{ArrayView2, ArrayViewMut2};
use wtacrs_core::Selection;
use wtacrs_core::product::{Packing, SavedLayout};

const MAGIC: u64 = u64::from_le_bytes(*b"wtacrsSV");
const VERSION: u32 = 1;
const HEADER: usize = SavedLayout::HEADER;

/// A block that holds at most `capacity` of `pairs` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptBlock {
    dtype: Dtype,
    pairs: usize,
    columns: usize,
    capacity: usize,
    layout: SavedLayout,
}

/// Words of the header.
type Header = [u64; HEADER / 8];

impl KeptBlock {
    /// # Errors
    ///
    /// SIZE_OVERFLOW.
    pub(crate) fn new(dtype: Dtype, pairs: usize, columns: usize, capacity: usize) -> Outcome<Self> {
        let message = || format!("{capacity} rows of {columns} elements cannot be addressed");
        let layout = SavedLayout::new(Packing::Native, pairs, capacity, columns, dtype.bytes());
        let layout = layout.ok_or_else(|| Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, message()))?;
        Ok(Self { dtype, pairs, columns, capacity, layout })
    }

    /// Bytes of the block, a multiple of its alignment.
    pub(crate) fn bytes(&self) -> usize {
        self.layout.bytes
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The most rows it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes a selection, the rows by way of `gather`, and zeros between them. If that fails, the block's header is as it
    /// was.
    ///
    /// # Safety
    ///
    /// `block` must be aligned to 64 bytes, and [`Self::bytes`] of it writable and used by nobody else. `T` is the
    /// dtype's.
    pub(crate) unsafe fn write<T: Number>(
        &self,
        block: *mut u8,
        selection: &Selection,
        gather: impl FnOnce(ArrayViewMut2<'_, T>) -> Outcome,
    ) -> Outcome {
        assert_eq!(T::DTYPE, self.dtype, "the rows' type is the block's");
        let kept = selection.len();
        assert!(kept <= self.capacity && selection.pairs() == self.pairs, "the selection fits the block");
        // SAFETY: `new` has laid the parts out one after another within `bytes`, each aligned for its type, as the
        // block begins at a multiple of 64; `kept` is no more than the capacity.
        let (indices, scales, rows) = unsafe {
            (
                slice::from_raw_parts_mut(block.add(HEADER).cast::<u32>(), kept),
                slice::from_raw_parts_mut(block.add(self.layout.scales_at).cast::<f64>(), kept),
                ArrayViewMut2::from_shape_ptr((kept, self.columns), block.add(self.layout.rows_at).cast::<T>()),
            )
        };
        gather(rows)?;
        let row_bytes = self.columns * self.dtype.bytes();
        let ends = [
            (HEADER + kept * size_of::<u32>(), self.layout.scales_at),
            (self.layout.scales_at + kept * size_of::<f64>(), self.layout.rows_at),
            (self.layout.rows_at + kept * row_bytes, self.layout.bytes),
        ];
        for (end, next) in ends {
            // Equal calls leave equal bytes.
            // SAFETY: the rest of a part, as above.
            unsafe { block.add(end).write_bytes(0, next - end) };
        }
        indices.copy_from_slice(selection.indices());
        scales.copy_from_slice(selection.scales());
        let header = self.header(kept as u64, selection.winners() as u64);
        // SAFETY: the header is the block's first 64 bytes, aligned.
        unsafe { block.cast::<Header>().write(header) };
        Ok(())
    }

    /// The selection, without the rows.
    ///
    /// # Errors
    ///
    /// CORRUPTED if no forward pass has written it, VERSION_MISMATCH, SHAPE_MISMATCH if another plan's has.
    ///
    /// # Safety
    ///
    /// `block` must be aligned to 64 bytes, and [`Self::bytes`] of it readable and written by nobody.
    pub(crate) unsafe fn selection(&self, block: *const u8) -> Outcome<Selection> {
        // SAFETY: as in `write`.
        let header = unsafe { block.cast::<Header>().read() };
        let [magic, version_and_dtype, pairs, columns, capacity, kept, winners, sum] = header;
        let corrupted = |what: &str| Err(Failure::new(WTACRS_STATUS_CORRUPTED, format!("the saved memory {what}")));
        if magic != MAGIC {
            return corrupted("was not written by a forward pass");
        }
        if version_and_dtype as u32 != VERSION {
            let message = format!("the saved memory is of version {}, not {VERSION}", version_and_dtype as u32);
            return Err(Failure::new(WTACRS_STATUS_VERSION_MISMATCH, message));
        }
        if sum != checksum(&header) {
            return corrupted("has been changed");
        }
        if self.header(kept, winners) != header {
            let message = format!(
                "the saved memory is another plan's: {pairs} pairs, {columns} columns, budget {capacity}; expected {}, {}, {}, {:?}",
                self.pairs, self.columns, self.capacity, self.dtype
            );
            return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
        }
        let Some(kept) = usize::try_from(kept).ok().filter(|&kept| kept <= self.capacity) else {
            return corrupted("has more rows than its budget");
        };
        // SAFETY: as in `write`.
        let (indices, scales) = unsafe {
            (
                slice::from_raw_parts(block.add(HEADER).cast::<u32>(), kept),
                slice::from_raw_parts(block.add(self.layout.scales_at).cast::<f64>(), kept),
            )
        };
        Selection::new(self.pairs, winners as usize, indices.to_vec(), scales.to_vec())
            .or_else(|error| corrupted(&format!("has been changed: {error}")))
    }

    /// The selection and the rows.
    ///
    /// # Errors
    ///
    /// As for [`Self::selection`].
    ///
    /// # Safety
    ///
    /// As for [`Self::selection`], as long as the rows are used. `T` is the dtype's.
    pub(crate) unsafe fn read<'a, T: Number>(&self, block: *const u8) -> Outcome<(Selection, ArrayView2<'a, T>)> {
        assert_eq!(T::DTYPE, self.dtype, "the rows' type is the block's");
        // SAFETY: the caller has it.
        let selection = unsafe { self.selection(block) }?;
        let shape = (selection.len(), self.columns);
        // SAFETY: as in `write`; the selection is no longer than the capacity.
        let rows = unsafe { ArrayView2::from_shape_ptr(shape, block.add(self.layout.rows_at).cast::<T>()) };
        Ok((selection, rows))
    }

    fn header(&self, kept: u64, winners: u64) -> Header {
        let version_and_dtype = u64::from(VERSION) | (self.dtype as u64) << 32;
        let sizes = [self.pairs, self.columns, self.capacity].map(|size| size as u64);
        let mut header = [MAGIC, version_and_dtype, sizes[0], sizes[1], sizes[2], kept, winners, 0];
        header[7] = checksum(&header);
        header
    }
}

/// FNV-1a over the words but the last.
fn checksum(header: &Header) -> u64 {
    header[..7].iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}
