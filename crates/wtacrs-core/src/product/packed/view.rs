//! Packed rows, wherever they lie.

use crate::product::{Kept, ShapeError, check_size};
use wtacrs_exact::packing::{self, Bits, Groups, PackingBits};

/// Packed rows that lie in borrowed memory.
#[derive(Clone, Copy, Debug)]
pub struct PackedView<'a> {
    pub(super) columns: usize,
    pub(super) bits: Bits,
    pub(super) random: PackingBits,
    pub(super) kept: Kept<'a>,
    /// kept × [`Groups::words`].
    pub(super) codes: &'a [u32],
    /// kept × [`Groups::count`].
    pub(super) grids: &'a [u32],
}

impl<'a> PackedView<'a> {
    /// Rows that were packed before, from their parts.
    ///
    /// # Errors
    ///
    /// If the parts do not have [`Self::sizes`].
    pub fn new(
        columns: usize,
        kept: Kept<'a>,
        bits: Bits,
        random: PackingBits,
        codes: &'a [u32],
        grids: &'a [u32],
    ) -> Result<Self, ShapeError> {
        let (words, groups) = Self::sizes(kept.len(), columns, bits);
        check_size("words of codes", codes.len(), words)?;
        check_size("words of grids", grids.len(), groups)?;
        Ok(Self { columns, bits, random, kept, codes, grids })
    }

    /// Words (u32) of the codes and of the grids of so many rows.
    pub const fn sizes(kept: usize, columns: usize, bits: Bits) -> (usize, usize) {
        let groups = Groups::new(columns);
        (kept * groups.words(bits), kept * groups.count())
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bits of a code.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Which rows they are.
    pub fn kept(&self) -> Kept<'a> {
        self.kept
    }

    /// The codes, kept × [`Groups::words`].
    pub fn codes(&self) -> &'a [u32] {
        self.codes
    }

    /// A [grid's word](wtacrs_exact::packing::Grid::word) for each group of each row.
    pub fn grids(&self) -> &'a [u32] {
        self.grids
    }

    /// The kept row `at` as it is read back, unscaled.
    ///
    /// # Panics
    ///
    /// If fewer rows are kept.
    pub fn unpack_row(&self, at: usize) -> Vec<f32> {
        let groups = Groups::new(self.columns);
        let mut row = vec![0.0; groups.padded()];
        let (codes, grids) = self.row(at);
        packing::unpack_row(self.columns, self.bits, &self.random, self.kept.index(at) as u64, codes, grids, &mut row);
        packing::turn_back(&mut row, &self.random.signs());
        row.truncate(self.columns);
        row
    }

    /// The variance that packing adds to the kept row `at`, summed over its elements, in their unit squared: 4P² · step²/12 for
    /// a group of P. Zeros that fill up the last group count as elements, so that it is an upper bound for such rows.
    ///
    /// # Panics
    ///
    /// If fewer rows are kept.
    pub fn row_variance(&self, at: usize) -> f64 {
        let groups = Groups::new(self.columns);
        let variance = |(group, &word): (usize, &u32)| {
            // x = 2 D H y lengthens a group of P elements by 2√P.
            let (size, step) = (groups.size(group) as f64, f64::from(packing::Grid::from_word(word).step));
            4.0 * size * size * step * step / 12.0
        };
        self.row(at).1.iter().enumerate().map(variance).sum()
    }

    /// Codes and grids of one row.
    pub(super) fn row(&self, at: usize) -> (&'a [u32], &'a [u32]) {
        let groups = Groups::new(self.columns);
        let (words, count) = (groups.words(self.bits), groups.count());
        (&self.codes[at * words..(at + 1) * words], &self.grids[at * count..(at + 1) * count])
    }
}
