//! Which rows are kept: those of a selection, or all of them without one.

use crate::sampling::Selection;

/// Which rows of a matrix are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept<'a> {
    /// All of so many, each with scale 1. No index or scale is stored.
    All(usize),
    /// Those of a selection.
    Selected(&'a Selection),
}

impl<'a> Kept<'a> {
    /// How many rows are kept.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::All(rows) => rows,
            Self::Selected(selection) => selection.len(),
        }
    }

    /// Whether no row is kept.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many rows there were to choose from.
    #[inline]
    pub fn pairs(self) -> usize {
        match self {
            Self::All(rows) => rows,
            Self::Selected(selection) => selection.pairs(),
        }
    }

    /// The number of the kept row `at` among all rows.
    ///
    /// # Panics
    ///
    /// If fewer are kept.
    #[inline]
    pub fn index(self, at: usize) -> usize {
        match self {
            Self::All(_) => at,
            Self::Selected(selection) => selection.indices()[at] as usize,
        }
    }

    /// The scale of the kept row `at`.
    ///
    /// # Panics
    ///
    /// If fewer are kept.
    #[inline]
    pub fn scale(self, at: usize) -> f64 {
        match self {
            Self::All(_) => 1.0,
            Self::Selected(selection) => selection.scales()[at],
        }
    }

    /// The selection, if there is one.
    #[inline]
    pub fn selection(self) -> Option<&'a Selection> {
        match self {
            Self::All(_) => None,
            Self::Selected(selection) => Some(selection),
        }
    }

    /// Bytes of indices and scales.
    #[inline]
    pub fn bytes(self) -> usize {
        self.selection().map_or(0, Selection::bytes)
    }
}
