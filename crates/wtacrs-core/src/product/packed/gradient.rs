//! dW = Hᵀ dZ from packed rows of H.
//!
//! The product is taken in rotated space: rows are unpacked where the product packs its panels, so that the unpacked rows are
//! never in memory as a whole, and the rotation is turned back once, on dW.

use super::unpack::Unpack;
use super::view::PackedView;
use crate::element::{Accumulator, Element};
use crate::lanes::on_widest_vectors;
use crate::product::multiply::{Factor, Precision, Scaled, multiply};
use crate::product::{ShapeError, Update, check_size};
use core::ops::Range;
use ndarray::{ArrayView2, ArrayViewMut2};
use wtacrs_exact::packing::{Bits, Groups};

impl PackedView<'_> {
    /// The estimate of dW = Hᵀ dZ (in_features × out_features) from these rows of H; `dz` is pairs × out_features.
    ///
    /// # Errors
    ///
    /// If a shape does not fit; `dw` is then untouched.
    pub fn weight_gradient_into<U: Element>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, U::Accumulator>,
        update: Update,
        precision: Precision,
    ) -> Result<(), ShapeError> {
        check_size("rows of dz", dz.nrows(), self.kept.pairs())?;
        check_size("rows of dw (in_features)", dw.nrows(), self.columns)?;
        check_size("columns of dw (out_features)", dw.ncols(), dz.ncols())?;
        multiply(self, &Scaled { x: dz, kept: self.kept }, dw, update, precision);
        Ok(())
    }
}

/// Its rows as they are multiplied: unscaled, rotated, and padded to whole groups.
impl<A: Accumulator> Factor<A> for PackedView<'_> {
    fn rows(&self) -> usize {
        self.kept.len()
    }

    fn columns(&self) -> usize {
        Groups::new(self.columns).padded()
    }

    fn row<'a>(&'a self, at: usize, columns: Range<usize>, buffer: &'a mut [A]) -> &'a [A] {
        on_widest_vectors(Unpack { packed: self, at, first: columns.start, values: buffer });
        buffer
    }

    fn fits_bf16(&self) -> bool {
        // Rounding 8-bit rows to bf16 would add as much noise as packing did.
        self.bits != Bits::Bits8
    }

    fn rotation(&self) -> Option<[u32; 4]> {
        Some(self.random.signs())
    }
}
