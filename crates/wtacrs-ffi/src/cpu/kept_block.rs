//! Kept rows in a caller's memory, which lives from a forward to its backward pass, as one block of bytes.
//!
//! Its parts lie as [`SavedLayout`] says, with room for `capacity` rows. The header holds what is in the block and a
//! checksum of that, and keeps one plan from reading what another has saved. The layout is private: it may change with any
//! version, and a block is never to be kept beyond the process.

use super::header::{self, Header, corrupted};
use crate::arguments::{Dtype, Number};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::fmt;
use core::slice;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;
use wtacrs_core::element::Element;
use wtacrs_core::parallel;
use wtacrs_core::product::{self, Kept, PackError, PackedView, Packing, Rows, SavedLayout};
use wtacrs_core::{Randomness, Selection};
use wtacrs_exact::packing::{Bits, PackingBits};

const MAGIC: u64 = u64::from_le_bytes(*b"wtacrsSV");
const VERSION: u16 = 2;
const HEADER: usize = SavedLayout::HEADER;

const _: () = assert!(HEADER == header::BYTES);

/// A block that holds at most `capacity` of `pairs` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptBlock {
    packing: Packing,
    dtype: Dtype,
    /// It and the capacity are below 2^32.
    pairs: usize,
    columns: usize,
    capacity: usize,
    layout: SavedLayout,
}

/// What a forward pass found out about its rows, besides the rows.
#[derive(Clone, Copy, Debug)]
struct Contents {
    kept: usize,
    winners: usize,
    randomness: Randomness,
    stream: u32,
}

/// The rows of a block, and which they are.
#[derive(Debug)]
pub(crate) struct KeptRows<'a, T> {
    pairs: usize,
    /// None if all rows are kept.
    selection: Option<Selection>,
    rows: Parts<'a, T>,
}

#[derive(Debug)]
enum Parts<'a, T> {
    Native(ArrayView2<'a, T>),
    Packed { columns: usize, bits: Bits, random: PackingBits, codes: &'a [u32], grids: &'a [u32] },
}

impl<T> KeptRows<'_, T> {
    /// Which rows they are.
    pub(crate) fn kept(&self) -> Kept<'_> {
        self.selection.as_ref().map_or(Kept::All(self.pairs), Kept::Selected)
    }

    /// The rows as they are saved.
    pub(crate) fn rows(&self) -> Outcome<Rows<'_, T>> {
        Ok(match self.rows {
            Parts::Native(rows) => Rows::Native(rows),
            Parts::Packed { columns, bits, random, codes, grids } => {
                Rows::Packed(PackedView::new(columns, self.kept(), bits, random, codes, grids)?)
            }
        })
    }
}

impl KeptBlock {
    /// # Errors
    ///
    /// SIZE_OVERFLOW.
    pub(crate) fn new(packing: Packing, dtype: Dtype, pairs: usize, columns: usize, capacity: usize) -> Outcome<Self> {
        let message = || format!("{capacity} rows of {columns} elements cannot be addressed");
        let layout = SavedLayout::new(packing, pairs, capacity, columns, dtype.bytes());
        let layout = layout.filter(|_| u32::try_from(pairs.max(capacity)).is_ok());
        let layout = layout.ok_or_else(|| Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, message()))?;
        Ok(Self { packing, dtype, pairs, columns, capacity, layout })
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

    /// Whether it holds all rows, without indices and scales.
    pub(crate) fn keeps_all(&self) -> bool {
        self.packing.keeps_all(self.capacity, self.pairs)
    }

    /// Writes the kept rows of `x`, packed at the randomness of an item's stream or as they are, and zeros between the parts.
    /// If that fails, the block's header is as it was. No row is refused whose norm is finite, or which
    /// [`check_finite`] has found to be.
    ///
    /// # Safety
    ///
    /// `block` must be aligned to 64 bytes, and [`Self::bytes`] of it writable and used by nobody else. `T` is the
    /// dtype's.
    pub(crate) unsafe fn write<T: Number>(
        &self,
        block: *mut u8,
        x: ArrayView2<'_, T>,
        kept: Kept<'_>,
        (randomness, stream): (Randomness, u32),
    ) -> Outcome {
        assert_eq!(T::DTYPE, self.dtype, "the rows' type is the block's");
        let count = kept.len();
        assert!(count <= self.capacity && kept.pairs() == self.pairs, "the rows fit the block");
        assert_eq!(kept.selection().is_none(), self.keeps_all(), "there is a selection if and only if it has a place");
        let selected = kept.selection().map_or(0, Selection::len);
        // SAFETY: `new` has laid the parts out one after another within `bytes`, each aligned for its type, as the
        // block begins at a multiple of 64; `selected` is no more than the capacity, and 0 where these parts are empty.
        let (indices, scales) = unsafe {
            (
                slice::from_raw_parts_mut(block.add(HEADER).cast::<u32>(), selected),
                slice::from_raw_parts_mut(block.add(self.layout.scales_at).cast::<f64>(), selected),
            )
        };
        let (grids_end, rows_end, contents) = match (self.packing.bits(), kept) {
            (None, Kept::Selected(selection)) => {
                // SAFETY: as above.
                let rows = unsafe {
                    ArrayViewMut2::from_shape_ptr((count, self.columns), block.add(self.layout.rows_at).cast::<T>())
                };
                product::gather_into(x, selection, rows)?;
                let none = Contents {
                    kept: count,
                    winners: selection.winners(),
                    randomness: Randomness::new(0, 0),
                    stream: 0,
                };
                (self.layout.grids_at, self.layout.rows_at + count * self.columns * self.dtype.bytes(), none)
            }
            (None, Kept::All(_)) => unreachable!("native rows have a selection"),
            (Some(bits), _) => {
                let (words, grids) = PackedView::sizes(count, self.columns, bits);
                // SAFETY: as above; any bits are a code or a grid, and both are written before they are read.
                let (codes, grids) = unsafe {
                    (
                        slice::from_raw_parts_mut(block.add(self.layout.rows_at).cast::<u32>(), words),
                        slice::from_raw_parts_mut(block.add(self.layout.grids_at).cast::<u32>(), grids),
                    )
                };
                let ends = (self.layout.grids_at + size_of_val(grids), self.layout.rows_at + size_of_val(codes));
                PackedView::pack(x, kept, bits, PackingBits::new(randomness, stream), codes, grids)?;
                let winners = kept.selection().map_or(count, Selection::winners);
                (ends.0, ends.1, Contents { kept: count, winners, randomness, stream })
            }
        };
        let ends = [
            (HEADER + size_of_val(indices), self.layout.scales_at),
            (self.layout.scales_at + size_of_val(scales), self.layout.grids_at),
            (grids_end, self.layout.rows_at),
            (rows_end, self.layout.bytes),
        ];
        for (end, next) in ends {
            // Equal calls leave equal bytes.
            // SAFETY: the rest of a part, as above.
            unsafe { block.add(end).write_bytes(0, next - end) };
        }
        if let Some(selection) = kept.selection() {
            indices.copy_from_slice(selection.indices());
            scales.copy_from_slice(selection.scales());
        }
        // SAFETY: the header is the block's first 64 bytes, aligned.
        unsafe { block.cast::<Header>().write(self.header(&contents)) };
        Ok(())
    }

    /// The selection, without the rows: every row with the scale 1 if all are kept.
    ///
    /// # Errors
    ///
    /// CORRUPTED if no forward pass has written it, VERSION_MISMATCH, SHAPE_MISMATCH if another plan's has.
    ///
    /// # Safety
    ///
    /// `block` must be aligned to 64 bytes, and [`Self::bytes`] of it readable and written by nobody.
    pub(crate) unsafe fn selection(&self, block: *const u8) -> Outcome<Selection> {
        // SAFETY: the caller has it.
        let selection = unsafe { self.saved_selection(block, &self.contents(block)?) }?;
        // The pairs are below 2^32.
        Ok(selection.unwrap_or_else(|| Selection::everything(self.pairs as u32)))
    }

    /// The rows, and which they are.
    ///
    /// # Errors
    ///
    /// As for [`Self::selection`].
    ///
    /// # Safety
    ///
    /// As for [`Self::selection`], as long as the rows are used. `T` is the dtype's.
    pub(crate) unsafe fn read<'a, T: Number>(&self, block: *const u8) -> Outcome<KeptRows<'a, T>> {
        assert_eq!(T::DTYPE, self.dtype, "the rows' type is the block's");
        // SAFETY: the caller has it.
        let contents = unsafe { self.contents(block) }?;
        // SAFETY: as above.
        let selection = unsafe { self.saved_selection(block, &contents) }?;
        let rows = match self.packing.bits() {
            None => {
                let shape = (contents.kept, self.columns);
                // SAFETY: as in `write`; as many rows are kept as the capacity at most.
                Parts::Native(unsafe { ArrayView2::from_shape_ptr(shape, block.add(self.layout.rows_at).cast::<T>()) })
            }
            Some(bits) => {
                let (words, grids) = PackedView::sizes(contents.kept, self.columns, bits);
                // SAFETY: as above.
                let (codes, grids) = unsafe {
                    (
                        slice::from_raw_parts(block.add(self.layout.rows_at).cast::<u32>(), words),
                        slice::from_raw_parts(block.add(self.layout.grids_at).cast::<u32>(), grids),
                    )
                };
                let random = PackingBits::new(contents.randomness, contents.stream);
                Parts::Packed { columns: self.columns, bits, random, codes, grids }
            }
        };
        Ok(KeptRows { pairs: self.pairs, selection, rows })
    }

    /// What the header says, if it is this plan's.
    ///
    /// # Safety
    ///
    /// As for [`Self::selection`].
    unsafe fn contents(&self, block: *const u8) -> Outcome<Contents> {
        // SAFETY: the header is the block's first 64 bytes, aligned; the caller has the rest.
        let header = unsafe { header::read(block, MAGIC, VERSION) }?;
        let [_, kinds, sizes, columns, counts, seed, offset, _] = header;
        let [stream, kept, winners] = [kinds >> 32, counts & LOW, counts >> 32];
        let randomness = Randomness::new(seed, offset);
        let contents = Contents { kept: kept as usize, winners: winners as usize, randomness, stream: stream as u32 };
        if self.header(&contents) != header {
            let found = Description {
                pairs: sizes & LOW,
                columns,
                capacity: sizes >> 32,
                dtype: Dtype::ALL.get((kinds >> 16 & 0xff) as usize).copied(),
                packing: Packing::ALL.get((kinds >> 24 & 0xff) as usize).copied(),
            };
            let expected = Description {
                pairs: self.pairs as u64,
                columns: self.columns as u64,
                capacity: self.capacity as u64,
                dtype: Some(self.dtype),
                packing: Some(self.packing),
            };
            let message = format!("the saved memory is another plan's: {found}; expected {expected}");
            return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
        }
        if contents.kept > self.capacity || (self.keeps_all() && contents.kept != self.pairs) {
            return Err(corrupted("has another number of rows than its budget allows"));
        }
        Ok(contents)
    }

    /// Indices and scales, if there are any.
    ///
    /// # Safety
    ///
    /// As for [`Self::selection`]; the contents are the block's.
    unsafe fn saved_selection(&self, block: *const u8, contents: &Contents) -> Outcome<Option<Selection>> {
        if self.keeps_all() {
            return Ok(None);
        }
        // SAFETY: as in `write`.
        let (indices, scales) = unsafe {
            (
                slice::from_raw_parts(block.add(HEADER).cast::<u32>(), contents.kept),
                slice::from_raw_parts(block.add(self.layout.scales_at).cast::<f64>(), contents.kept),
            )
        };
        Selection::new(self.pairs, contents.winners, indices.to_vec(), scales.to_vec())
            .map(Some)
            .map_err(|error| corrupted(&format!("has been changed: {error}")))
    }

    /// Behind mark and version: dtype, packing and stream; pairs and capacity; columns; kept rows and winners; seed; offset. Where
    /// rows are native, seed, offset and stream are zero.
    fn header(&self, contents: &Contents) -> Header {
        let kinds = u64::from(VERSION)
            | (self.dtype as u64) << 16
            | (self.packing as u64) << 24
            | u64::from(contents.stream) << 32;
        let sizes = self.pairs as u64 | (self.capacity as u64) << 32;
        let counts = contents.kept as u64 | (contents.winners as u64) << 32;
        let Randomness { seed, offset, .. } = contents.randomness;
        header::sealed([MAGIC, kinds, sizes, self.columns as u64, counts, seed, offset])
    }
}

/// Refuses rows of which one cannot be packed, before anything is written.
///
/// # Errors
///
/// INVALID_WEIGHTS names the first row with an element that is not finite in f32.
pub(super) fn check_finite<T: Element>(x: ArrayView2<'_, T>) -> Outcome {
    let tasks = (0..x.nrows().div_ceil(ROWS_PER_TASK)).into_par_iter();
    let bad = parallel::map_with(
        tasks,
        || vec![0.0; x.ncols()],
        |buffer, task| {
            let mut rows = task * ROWS_PER_TASK..x.nrows().min((task + 1) * ROWS_PER_TASK);
            rows.find(|&row| match x.row(row).to_slice() {
                // No early end: so the loop is one of vectors.
                Some(row) => !T::single_block(row, buffer).iter().fold(true, |all, value| all & value.is_finite()),
                None => !x.row(row).iter().all(|value| value.single().is_finite()),
            })
        },
    );
    match bad.into_iter().flatten().next() {
        Some(row) => Err(PackError::NotFinite { row }.into()),
        None => Ok(()),
    }
}

/// Rows that a task of [`check_finite`] reads.
const ROWS_PER_TASK: usize = 64;

/// The lower half of a word.
const LOW: u64 = 0xffff_ffff;

/// What must be equal of a block and of the plan that reads it.
struct Description {
    pairs: u64,
    columns: u64,
    capacity: u64,
    dtype: Option<Dtype>,
    packing: Option<Packing>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pairs, columns, capacity, .. } = self;
        write!(f, "{pairs} pairs, {columns} columns, budget {capacity}, ")?;
        match self.dtype {
            Some(dtype) => write!(f, "{dtype:?}, ")?,
            None => f.write_str("an unknown dtype, ")?,
        }
        match self.packing {
            Some(Packing::Native) => f.write_str("native rows"),
            Some(packing) => write!(f, "rows packed in {packing} bits"),
            None => f.write_str("an unknown packing"),
        }
    }
}
