//! What a plan saves from the forward to the backward pass: where kept rows lie, native or packed, and what was selected.

use super::error::PlanError;
use super::memory::{Layout, Memory, Part};
use super::settings::Matrices;
use crate::kernel::matrix::DataType;
use crate::kernel::packed_rows::{GroupShares, PackedRows, row_words};
use wtacrs_exact::packing::{Bits, Groups};

/// The parts of the memory that lives from forward to backward, each for all problems of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedParts {
    /// batch × kept rows of [`Self::row_elements`] elements of the input's type: first the row, times its scale. Empty if rows
    /// are packed.
    pub rows: Part,
    /// From one saved row to the next: the row's length rounded up to 16 bytes.
    pub row_elements: u64,
    /// batch × kept rows of [`Self::row_words`] words (u32): first the codes of a packed row, unscaled. Only the first `count`
    /// rows are written. Empty if rows are native, as all parts of packed rows are.
    pub codes: Part,
    /// From one row of codes to the next: the words of a row, rounded up to 16 bytes.
    pub row_words: u64,
    /// batch × kept × groups words (u32): the grid of each group of a packed row, as above.
    pub grids: Part,
    /// Seed and offset (u64) of the random bits that packed rows were packed with.
    pub origin: Part,
    /// batch × kept indices (u32), ascending; only the first `count` are written. Empty if all rows are packed, as scales,
    /// counts and winners are.
    pub indices: Part,
    /// batch × kept scales 1/π (f64), as above.
    pub scales: Part,
    /// How many rows each problem kept (u32): the budget, or fewer if a design draws with replacement or weights are zero.
    pub count: Part,
    /// For each problem (u32) 0, or 1 + the index of the first row with an invalid norm or guess (negative or not finite):
    /// then nothing is kept and the gradient is zero. If all rows are packed, it is of the first row with an element that is
    /// not finite, and each problem has [`Self::status_words`] words: its status is the first word that is not 0, and a
    /// backward pass copies that to the first.
    pub status: Part,
    /// Words of the status of each problem; 1 unless all rows are packed.
    pub status_words: u32,
    /// How many rows of each problem were certain (u64).
    pub winners: Part,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// Problem b of a batch draws from stream `first` + b · `step`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub(super) first: u32,
    pub(super) step: u32,
}

/// How the kept rows of a plan are packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedPlan {
    pub(super) shares: GroupShares,
    bits: Bits,
    pub(super) streams: Streams,
    pub(super) keeps_all: bool,
}

impl SavedParts {
    pub(super) fn new(
        [batch, kept, columns]: [usize; 3],
        data_type: DataType,
        packed: Option<&PackedPlan>,
    ) -> Result<Self, PlanError> {
        let (batch, kept, element) = (batch as u64, kept as u64, data_type.bytes());
        // Every row can then be loaded in the widest accesses, whatever the input's width.
        let row_elements = (columns as u64).next_multiple_of(16 / element);
        let groups = Groups::new(columns).count() as u64;
        let (is_native, is_packed) = (u64::from(packed.is_none()), u64::from(packed.is_some()));
        let row_words = packed.map_or(0, |packed| row_words(columns as u32, packed.bits));
        // Words of an empty row are not written by blocks.
        let all = packed.filter(|packed| packed.keeps_all);
        let status_words = all.map_or(1, |all| if columns == 0 { 1 } else { all.shares.blocks() });
        let selected = u64::from(all.is_none());
        let mut layout = Layout::default();
        Ok(Self {
            rows: layout.part("the saved rows", &[is_native, batch, kept, row_elements, element])?,
            row_elements,
            codes: layout.part("the saved codes", &[batch, kept, row_words, 4])?,
            row_words,
            grids: layout.part("the saved grids", &[is_packed, batch, kept, groups, 4])?,
            origin: layout.part("the origin", &[is_packed, 2, 8])?,
            indices: layout.part("the saved indices", &[selected, batch, kept, 4])?,
            scales: layout.part("the saved scales", &[selected, batch, kept, 8])?,
            count: layout.part("the counts", &[selected, batch, 4])?,
            status: layout.part("the status", &[batch, u64::from(status_words), 4])?,
            status_words,
            winners: layout.part("the winners", &[selected, batch, 8])?,
            bytes: layout.bytes(),
        })
    }

    /// The status of each problem, from the words of [`Self::status`].
    pub fn statuses(&self, words: &[u32]) -> Vec<u32> {
        let of_each = words.chunks_exact(self.status_words as usize);
        of_each.map(|words| words.iter().copied().find(|&word| word != 0).unwrap_or(0)).collect()
    }

    /// Where the saved rows lie.
    pub(super) fn matrices(&self, kept: usize) -> Matrices {
        Matrices::even(self.row_elements, self.row_elements * kept as u64)
    }
}

impl PackedPlan {
    pub(super) fn new(
        bits: Bits,
        [batch, pairs, kept, columns]: [usize; 4],
        streams: Streams,
        keeps_all: bool,
    ) -> Result<Self, PlanError> {
        debug_assert!(!keeps_all || kept == pairs, "a row is packed for each pair");
        check_groups(kept, columns)?;
        Ok(Self { shares: GroupShares::new(kept as u32, columns as u32, batch as u32), bits, streams, keeps_all })
    }

    /// Where the rows lie in saved memory.
    pub(super) fn rows(&self, saved: Memory, parts: &SavedParts) -> PackedRows {
        PackedRows {
            shares: self.shares,
            bits: self.bits.count(),
            codes: saved.of(parts.codes),
            row_words: parts.row_words,
            grids: saved.of(parts.grids),
            origin: saved.of(parts.origin),
            first_stream: self.streams.first,
            stream_step: self.streams.step,
        }
    }

    pub(super) fn groups(&self) -> Groups {
        Groups::new(self.shares.columns as usize)
    }
}

/// Refuses more groups than kernels count.
pub(super) fn check_groups(rows: usize, columns: usize) -> Result<(), PlanError> {
    let what = "the number of groups of all packed rows";
    let (most, found) = ((1 << 31) - 1, rows.saturating_mul(Groups::new(columns).count()));
    if found > most { Err(PlanError::TooLarge { what, found, most }) } else { Ok(()) }
}
