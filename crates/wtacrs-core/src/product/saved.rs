//! What lives from the forward to the backward pass of a linear layer, and the weight gradient from it.

use super::gather::gather_into;
use super::norms::row_norms;
use super::weight_gradient::{Scratch, Update, weight_gradient_into};
use super::{ShapeError, check_size};
use crate::element::Element;
use crate::parallel;
use crate::sampling::Selection;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// Kept rows of H, unscaled, and the selection they are.
///
/// Rows are exact copies in H's own type. The scales are applied to dZ, in the accumulator's type, so that no scale
/// rounds a bf16 row twice or overflows an f16 one, and a norm predictor learns from the rows as they were.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved<T> {
    rows: Array2<T>,
    selection: Selection,
}

impl<T: Element> Default for Saved<T> {
    /// Nothing of nothing: memory for a later [`Saved::refill`].
    fn default() -> Self {
        Self { rows: Array2::from_elem((0, 0), T::ZERO), selection: Selection::default() }
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
        if self.rows.dim() != (selection.len(), h.ncols()) {
            self.rows = Array2::from_elem((selection.len(), h.ncols()), T::ZERO);
        }
        gather_into(h, &selection, self.rows.view_mut())?;
        self.selection = selection;
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
        self.backward_with(dz, dw, update, &mut Scratch::new())
    }

    /// [`Self::backward`] with scratch memory that lives from step to step.
    ///
    /// # Errors
    ///
    /// As for [`Self::backward`].
    pub fn backward_with<U>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, T::Accumulator>,
        update: Update,
        scratch: &mut Scratch<T::Accumulator>,
    ) -> Result<Vec<f32>, ShapeError>
    where
        U: Element<Accumulator = T::Accumulator>,
    {
        // The product waits for the cores, the norms for memory: side by side they take less time than in turn.
        let (written, norms) = parallel::join(
            || weight_gradient_into(self.rows.view(), dz, &self.selection, dw, update, scratch),
            || row_norms(dz),
        );
        written.map(|()| norms)
    }
}

impl<T> Saved<T> {
    /// The kept rows of H, kept × in_features.
    pub fn rows(&self) -> ArrayView2<'_, T> {
        self.rows.view()
    }

    /// Which tokens they are, and their scales.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Bytes that live until the backward pass: rows, indices and scales.
    pub fn bytes(&self) -> usize {
        self.rows.len() * size_of::<T>() + self.selection.bytes()
    }
}
