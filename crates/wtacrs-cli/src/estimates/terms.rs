//! Sums of a layer's terms C_i = `h[i,:]ᵀ dz[i,:]` in f64: the exact dW, and what errors are compared with.
//!
//! Rows are widened to f64 in blocks, so that there is never a copy of H or dZ.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use wtacrs_core::element::Element;
use wtacrs_core::product::{ShapeError, Update, exact_weight_gradient};
use wtacrs_core::theory::Contributions;

/// Rows that are in f64 at once.
pub(crate) const BLOCK: usize = 1024;

/// The terms of dW = Σ_i C_i, never written out.
pub(crate) struct Terms<'a, T, U> {
    h: ArrayView2<'a, T>,
    dz: ArrayView2<'a, U>,
    /// ‖C_i‖² = ‖h_i‖²·‖dz_i‖².
    squared_norms: Vec<f64>,
}

impl<'a, T: Element<Accumulator = f32>, U: Element<Accumulator = f32>> Terms<'a, T, U> {
    pub(crate) fn new(h: ArrayView2<'a, T>, dz: ArrayView2<'a, U>) -> Result<Self, ShapeError> {
        if h.nrows() != dz.nrows() {
            return Err(ShapeError { what: "rows of dz", expected: h.nrows(), found: dz.nrows() });
        }
        let squared_norm = |token: usize| squared_norm(h, token) * squared_norm(dz, token);
        Ok(Self { h, dz, squared_norms: (0..h.nrows()).into_par_iter().map(squared_norm).collect() })
    }

    /// How many there are.
    pub(crate) fn tokens(&self) -> usize {
        self.squared_norms.len()
    }

    /// Σ‖C_i‖, which ‖dW‖ does not exceed.
    pub(crate) fn sum_of_norms(&self) -> f64 {
        self.squared_norms.iter().map(|squared| squared.sqrt()).sum()
    }

    /// The exact dW.
    pub(crate) fn sum(&self) -> Result<Array2<f64>, ShapeError> {
        let all: Vec<(usize, f64)> = (0..self.h.nrows()).map(|token| (token, 1.0)).collect();
        self.weighted_sum(&all)
    }

    /// Σ c_i C_i over (i, c_i).
    pub(crate) fn weighted_sum(&self, terms: &[(usize, f64)]) -> Result<Array2<f64>, ShapeError> {
        let mut sum = Array2::zeros((self.h.ncols(), self.dz.ncols()));
        for block in terms.chunks(BLOCK) {
            let h = widened(self.h, block, |_| 1.0);
            let dz = widened(self.dz, block, |factor| factor);
            exact_weight_gradient(h.view(), dz.view(), sum.view_mut(), Update::Accumulate)?;
        }
        Ok(sum)
    }

    /// The same with other rows of H: one for each term.
    pub(crate) fn weighted_sum_of(
        &self,
        rows: ArrayView2<'_, f32>,
        terms: &[(usize, f64)],
    ) -> Result<Array2<f64>, ShapeError> {
        let mut sum = Array2::zeros((self.h.ncols(), self.dz.ncols()));
        for (rows, block) in rows.axis_chunks_iter(Axis(0), BLOCK).zip(terms.chunks(BLOCK)) {
            let dz = widened(self.dz, block, |factor| factor);
            exact_weight_gradient(rows.mapv(f64::from).view(), dz.view(), sum.view_mut(), Update::Accumulate)?;
        }
        Ok(sum)
    }
}

impl<T: Element<Accumulator = f32>, U: Element<Accumulator = f32>> Contributions for Terms<'_, T, U> {
    fn squared_norm(&self, pair: usize) -> f64 {
        self.squared_norms[pair]
    }

    fn squared_norm_of_sum(&self, terms: &[(usize, f64)]) -> f64 {
        let sum = self.weighted_sum(terms).expect("the shapes were checked");
        sum.iter().map(|value| value * value).sum()
    }
}

fn squared_norm<T: Element<Accumulator = f32>>(matrix: ArrayView2<'_, T>, row: usize) -> f64 {
    matrix.row(row).iter().map(|value| f64::from(value.widen()).powi(2)).sum()
}

/// The terms' rows, times a function of their factors.
fn widened<T: Element<Accumulator = f32>>(
    matrix: ArrayView2<'_, T>,
    terms: &[(usize, f64)],
    times: impl Fn(f64) -> f64 + Sync,
) -> Array2<f64> {
    let mut wide = Array2::zeros((terms.len(), matrix.ncols()));
    wide.axis_iter_mut(Axis(0)).into_par_iter().zip(terms).for_each(|(mut to, &(row, factor))| {
        let factor = times(factor);
        to.zip_mut_with(&matrix.row(row), |to, from| *to = f64::from(from.widen()) * factor);
    });
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use wtacrs_core::theory::OuterProducts;

    #[test]
    fn blocks_add_up_to_the_whole() {
        let tokens = 2 * BLOCK + 77;
        let h = Array2::from_shape_fn((tokens, 5), |(i, j)| bf16::from_f32(((i * 7 + j * 3) % 11) as f32 - 5.0));
        let dz = Array2::from_shape_fn((tokens, 3), |(i, j)| ((i * 5 + j) % 13) as f32 - 6.0);
        let terms = Terms::new(h.view(), dz.view()).expect("equal rows");
        let (wide_h, wide_dz) = (h.mapv(|value| f64::from(value.to_f32())), dz.mapv(f64::from));
        // Whole numbers, so that sums in any order are equal.
        assert_eq!(terms.sum().expect("fits"), wide_h.t().dot(&wide_dz));
        let whole = OuterProducts { x: wide_h.view(), y: wide_dz.view() };
        let some: Vec<(usize, f64)> = (0..tokens).step_by(3).map(|token| (token, 1.0 + (token % 4) as f64)).collect();
        assert_eq!(terms.squared_norm_of_sum(&some), whole.squared_norm_of_sum(&some));
        let rows = Array2::from_shape_fn((some.len(), 5), |(at, j)| h[[some[at].0, j]].to_f32());
        assert_eq!(terms.weighted_sum_of(rows.view(), &some), terms.weighted_sum(&some));
        assert!((0..tokens).all(|token| terms.squared_norm(token) == whole.squared_norm(token)));
        assert!(terms.sum_of_norms() >= terms.squared_norm_of_sum(&[(3, 1.0), (4, 1.0)]).sqrt());
        assert!(Terms::new(h.view(), dz.slice(ndarray::s![1.., ..])).is_err());
    }
}
