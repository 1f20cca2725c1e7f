//! The kept rows of one trial after another, native or packed, in memory that is used again.

use super::error::MeasureError;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use wtacrs_core::element::Element;
use wtacrs_core::product::{self, Kept, Packing, Precision, Saved, ShapeError, Update};
use wtacrs_core::{Randomness, Selection};
use wtacrs_exact::packing::{Bits, PackingBits};

/// What a trial saves.
pub(crate) enum KeptRows<T> {
    /// Exact copies: the first rows of memory for as many as the budget.
    Native { memory: Array2<T>, selection: Selection },
    /// Packed rows.
    Packed { bits: Bits, saved: Saved<T> },
}

impl<T: Element<Accumulator = f32>> KeptRows<T> {
    /// Memory for at most `budget` rows.
    pub(crate) fn new(packing: Packing, budget: usize, in_features: usize) -> Self {
        match packing.bits() {
            None => Self::Native {
                memory: Array2::from_elem((budget, in_features), T::ZERO),
                selection: Selection::default(),
            },
            Some(bits) => Self::Packed { bits, saved: Saved::default() },
        }
    }

    /// Gathers or packs the rows of H that a selection keeps, or packs all of them without one. Native rows always have a
    /// selection.
    pub(crate) fn fill(
        &mut self,
        h: ArrayView2<'_, T>,
        chosen: Option<Selection>,
        randomness: Randomness,
    ) -> Result<(), MeasureError> {
        match self {
            Self::Native { memory, selection } => {
                *selection = chosen.unwrap_or_default();
                product::gather_into(h, selection, memory.slice_mut(s![..selection.len(), ..]))?;
            }
            Self::Packed { bits, saved } => saved.repack(h, chosen, *bits, PackingBits::new(randomness, 0))?,
        }
        Ok(())
    }

    /// Writes the estimate of dW.
    pub(crate) fn multiply<U: Element<Accumulator = f32>>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, f32>,
    ) -> Result<(), ShapeError> {
        match self {
            Self::Native { memory, selection } => {
                let rows = memory.slice(s![..selection.len(), ..]);
                product::weight_gradient_into(rows, dz, selection, dw, Update::Overwrite, Precision::default())
            }
            Self::Packed { saved, .. } => match saved.rows().packed() {
                Some(rows) => rows.weight_gradient_into(dz, dw, Update::Overwrite, Precision::default()),
                None => Ok(()),
            },
        }
    }

    /// The rows as they are read back, if they are packed.
    pub(crate) fn unpack(&self) -> Option<Array2<f32>> {
        match self {
            Self::Native { .. } => None,
            Self::Packed { saved, .. } => saved.rows().packed().map(|rows| rows.unpack()),
        }
    }

    /// Which rows they are.
    pub(crate) fn kept(&self) -> Kept<'_> {
        match self {
            Self::Native { selection, .. } => Kept::Selected(selection),
            Self::Packed { saved, .. } => saved.kept(),
        }
    }

    /// Bytes that live from the forward to the backward pass: rows, indices and scales.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Native { memory, selection } => selection.len() * memory.ncols() * size_of::<T>() + selection.bytes(),
            Self::Packed { saved, .. } => saved.bytes(),
        }
    }

    /// The kept tokens with their scales.
    pub(crate) fn terms(&self) -> Vec<(usize, f64)> {
        let kept = self.kept();
        (0..kept.len()).map(|at| (kept.index(at), kept.scale(at))).collect()
    }

    /// How many of the rows are kept for certain.
    pub(crate) fn winners(&self) -> usize {
        match self.kept() {
            Kept::All(rows) => rows,
            Kept::Selected(selection) => selection.winners(),
        }
    }
}
