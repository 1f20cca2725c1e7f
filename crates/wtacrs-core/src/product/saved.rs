//! What lives from the forward to the backward pass of a linear layer, and the weight gradient from it.

use super::gather::gather_into;
use super::kept::Kept;
use super::multiply::{Precision, Update};
use super::norms::row_norms;
use super::packed::{PackError, PackedRows, Rows};
use super::weight_gradient::weight_gradient_into;
use super::{ShapeError, check_size};
use crate::element::Element;
use crate::parallel;
use crate::sampling::Selection;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use wtacrs_exact::packing::{Bits, PackingBits};

/// Kept rows of H, unscaled, and the selection they are.
///
/// Rows are exact copies in H's own type, or [packed](super::Packing). The scales are applied to dZ, in the accumulator's
/// type, so that no scale rounds a bf16 row twice or overflows an f16 one, and a norm predictor learns from the rows as
/// they were saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<T>(Contents<T>);

#[derive(Clone, Debug, PartialEq)]
enum Contents<T> {
    Native {
        rows: Array2<T>,
        selection: Selection,
    },
    /// Without a selection, all of `pairs` rows.
    Packed {
        rows: PackedRows,
        pairs: usize,
        selection: Option<Selection>,
    },
}

impl<T: Element> Default for Saved<T> {
    /// Nothing of nothing: memory for a later [`Saved::refill`] or [`Saved::repack`].
    fn default() -> Self {
        Self(Contents::Native { rows: Array2::from_elem((0, 0), T::ZERO), selection: Selection::default() })
    }
}

impl<T: Element> Saved<T> {
    /// Copies the rows of H (tokens × in_features) that a selection keeps.
    ///
    /// # Errors
    ///
    /// If H does not have one row for each pair of the selection.
    pub fn gather(h: ArrayView2<'_, T>, selection: Selection) -> Result<Self, ShapeError> {
        let mut saved = Self::default();
        saved.refill(h, selection)?;
        Ok(saved)
    }

    /// [`Self::gather`] into the memory of an earlier step.
    ///
    /// # Errors
    ///
    /// As for [`Self::gather`]; what was saved is then unchanged.
    pub fn refill(&mut self, h: ArrayView2<'_, T>, selection: Selection) -> Result<(), ShapeError> {
        check_size("rows to gather from", h.nrows(), selection.pairs())?;
        let shape = (selection.len(), h.ncols());
        let mut rows = match core::mem::take(self).0 {
            Contents::Native { rows, .. } if rows.dim() == shape => rows,
            _ => Array2::from_elem(shape, T::ZERO),
        };
        gather_into(h, &selection, rows.view_mut())?;
        self.0 = Contents::Native { rows, selection };
        Ok(())
    }

    /// Packs the rows of H (tokens × in_features) that a selection keeps, or all of them without one.
    ///
    /// # Errors
    ///
    /// If H does not have one row for each pair of the selection, or a kept row has an element that is not finite, or, of
    /// an f64, beyond f32's range.
    pub fn pack(
        h: ArrayView2<'_, T>,
        selection: Option<Selection>,
        bits: Bits,
        random: PackingBits,
    ) -> Result<Self, PackError> {
        let mut saved = Self::default();
        saved.repack(h, selection, bits, random)?;
        Ok(saved)
    }

    /// [`Self::pack`] into the memory of an earlier step.
    ///
    /// # Errors
    ///
    /// As for [`Self::pack`]; nothing is saved then.
    pub fn repack(
        &mut self,
        h: ArrayView2<'_, T>,
        selection: Option<Selection>,
        bits: Bits,
        random: PackingBits,
    ) -> Result<(), PackError> {
        let kept = selection.as_ref().map_or(Kept::All(h.nrows()), Kept::Selected);
        check_size("rows to pack from", h.nrows(), kept.pairs())?;
        let mut rows = match core::mem::take(self).0 {
            Contents::Packed { rows, .. } => rows,
            Contents::Native { .. } => PackedRows::empty(bits),
        };
        rows.refill(h, kept, bits, random)?;
        self.0 = Contents::Packed { rows, pairs: h.nrows(), selection };
        Ok(())
    }

    /// Writes or adds the estimate of dW = Hᵀ dZ (in_features × out_features), and returns ‖dZ_i‖ of all tokens, from
    /// which a predictor learns or a cache is refreshed. Several layers that share H call this on the same `Saved`.
    ///
    /// # Errors
    ///
    /// If a shape does not fit; `dw` is then untouched.
    pub fn backward<U>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, T::Accumulator>,
        update: Update,
    ) -> Result<Vec<f32>, ShapeError>
    where
        U: Element<Accumulator = T::Accumulator>,
    {
        self.backward_with(dz, dw, update, Precision::default())
    }

    /// [`Self::backward`] at a precision.
    ///
    /// # Errors
    ///
    /// As for [`Self::backward`].
    pub fn backward_with<U>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, T::Accumulator>,
        update: Update,
        precision: Precision,
    ) -> Result<Vec<f32>, ShapeError>
    where
        U: Element<Accumulator = T::Accumulator>,
    {
        // The product waits for the cores, the norms for memory: side by side they take less time than in turn.
        let (written, norms) = parallel::join(|| self.product(dz, dw, update, precision), || row_norms(dz));
        written.map(|()| norms)
    }

    /// The estimate of dW alone.
    pub(crate) fn product<U>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, T::Accumulator>,
        update: Update,
        precision: Precision,
    ) -> Result<(), ShapeError>
    where
        U: Element<Accumulator = T::Accumulator>,
    {
        match &self.0 {
            Contents::Native { rows, selection } => {
                weight_gradient_into(rows.view(), dz, selection, dw, update, precision)
            }
            Contents::Packed { rows, .. } => rows.view(self.kept()).weight_gradient_into(dz, dw, update, precision),
        }
    }
}

impl<T> Saved<T> {
    /// The kept rows of H, kept × in_features.
    pub fn rows(&self) -> Rows<'_, T> {
        match &self.0 {
            Contents::Native { rows, .. } => Rows::Native(rows.view()),
            Contents::Packed { rows, .. } => Rows::Packed(rows.view(self.kept())),
        }
    }

    /// Which tokens they are, with their scales.
    pub fn kept(&self) -> Kept<'_> {
        match &self.0 {
            Contents::Native { selection, .. } | Contents::Packed { selection: Some(selection), .. } => {
                Kept::Selected(selection)
            }
            &Contents::Packed { pairs, selection: None, .. } => Kept::All(pairs),
        }
    }

    /// The selection; none if all rows were packed without one.
    pub fn selection(&self) -> Option<&Selection> {
        self.kept().selection()
    }

    /// Bytes that live until the backward pass: rows, indices and scales.
    pub fn bytes(&self) -> usize {
        let rows = match &self.0 {
            Contents::Native { rows, .. } => rows.len() * size_of::<T>(),
            Contents::Packed { rows, .. } => rows.bytes(),
        };
        rows + self.kept().bytes()
    }
}
