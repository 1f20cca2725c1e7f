//! Kept rows, native or packed, and packed rows with memory of their own.

use super::pack::PackError;
use super::view::PackedView;
use crate::element::Element;
use crate::product::Kept;
use crate::sampling::Randomness;
use ndarray::ArrayView2;
use wtacrs_exact::packing::{Bits, PackingBits};

/// Packed rows with memory of their own, but without what says which rows they are.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::product) struct PackedRows {
    columns: usize,
    bits: Bits,
    random: PackingBits,
    codes: Vec<u32>,
    grids: Vec<u32>,
}

impl PackedRows {
    pub(in crate::product) fn empty(bits: Bits) -> Self {
        let random = PackingBits::new(Randomness::default(), 0);
        Self { columns: 0, bits, random, codes: Vec::new(), grids: Vec::new() }
    }

    /// Packs into the memory of earlier rows, which are lost.
    pub(in crate::product) fn refill<T: Element>(
        &mut self,
        x: ArrayView2<'_, T>,
        kept: Kept<'_>,
        bits: Bits,
        random: PackingBits,
    ) -> Result<(), PackError> {
        let (words, groups) = PackedView::sizes(kept.len(), x.ncols(), bits);
        self.codes.resize(words, 0);
        self.grids.resize(groups, 0);
        PackedView::pack(x, kept, bits, random, &mut self.codes, &mut self.grids)?;
        (self.columns, self.bits, self.random) = (x.ncols(), bits, random);
        Ok(())
    }

    pub(in crate::product) fn view<'a>(&'a self, kept: Kept<'a>) -> PackedView<'a> {
        let &Self { columns, bits, random, ref codes, ref grids } = self;
        PackedView { columns, bits, random, kept, codes, grids }
    }

    pub(in crate::product) fn bytes(&self) -> usize {
        4 * (self.codes.len() + self.grids.len())
    }
}

/// Kept rows of a matrix whose elements are `T`, native or packed.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a, T> {
    /// Exact copies, kept × columns.
    Native(ArrayView2<'a, T>),
    /// Codes.
    Packed(PackedView<'a>),
}

impl<'a, T> Rows<'a, T> {
    /// How many rows there are.
    pub fn nrows(&self) -> usize {
        match self {
            Self::Native(rows) => rows.nrows(),
            Self::Packed(rows) => rows.kept.len(),
        }
    }

    /// Elements of a row.
    pub fn ncols(&self) -> usize {
        match self {
            Self::Native(rows) => rows.ncols(),
            Self::Packed(rows) => rows.columns,
        }
    }

    /// The exact copies, if the rows are native.
    pub fn native(&self) -> Option<ArrayView2<'a, T>> {
        match self {
            Self::Native(rows) => Some(*rows),
            Self::Packed(_) => None,
        }
    }

    /// The codes, if the rows are packed.
    pub fn packed(&self) -> Option<PackedView<'a>> {
        match self {
            Self::Native(_) => None,
            Self::Packed(rows) => Some(*rows),
        }
    }
}

impl<'a, T> From<ArrayView2<'a, T>> for Rows<'a, T> {
    fn from(rows: ArrayView2<'a, T>) -> Self {
        Self::Native(rows)
    }
}
