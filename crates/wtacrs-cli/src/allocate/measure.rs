//! The measurement: the error that each layer is to expect for its rows and bits, and that of real estimates.
//!
//! With u_i = ‖h_i‖ ‖dz_i‖, inclusion probabilities π_i of Poisson sampling, and the relative noise q of a packed row (0 for
//! native ones):
//!
//! error² = Σ u_i² ((1 + q)/π_i − 1) / ‖dW‖²

use crate::estimates::{self, KeptRows, MeasureError, Norms, Terms};
use crate::input::{self, with_values};
use crate::labels::WeightSource;
use crate::statistics::{Errors, Reference};
use ndarray::{Array2, ArrayView2};
use wtacrs_core::Randomness;
use wtacrs_core::allocation::{Curve, Layer, LayerBudget, row_noise};
use wtacrs_core::element::Element;
use wtacrs_core::product::{self, Packing, Update};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Weights};
use wtacrs_core::theory::Contributions;

/// The design whose estimates are made.
const DESIGN: BuiltIn = BuiltIn::WtaPivotal;

/// A layer, and the errors that it is to expect.
pub(super) struct MeasuredLayer {
    pub(super) file: String,
    pub(super) tokens: usize,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    /// What memory is shared out by.
    pub(super) layer: Layer,
}

/// What estimates of a layer's gradient need beside a budget.
pub(super) struct Estimates {
    values: input::Layer,
    weights: Weights,
    reference: Reference,
}

/// How many estimates to make for each budget, and the seed of their draws.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trials {
    pub(super) count: u32,
    pub(super) seed: u64,
}

/// Measures on the current rayon pool; rows are drawn by the weights of `source`.
///
/// # Errors
///
/// See [`MeasureError`].
pub(super) fn measure(
    file: String,
    values: input::Layer,
    source: WeightSource,
) -> Result<(MeasuredLayer, Estimates), MeasureError> {
    let (weights, reference, layer) = with_values!(&values.h, h => with_values!(&values.dz, dz => {
        estimates::check_memory(h, dz, &[])?;
        measure_values(h.view(), dz.view(), values.dz_norm_prev.as_deref(), source)?
    }));
    let ((tokens, in_features), (_, out_features)) = (values.h.dim(), values.dz.dim());
    let measured = MeasuredLayer { file, tokens, in_features, out_features, layer };
    Ok((measured, Estimates { values, weights, reference }))
}

impl Estimates {
    /// √(mean ‖ĝ − g‖² / ‖g‖²) of estimates ĝ of g = dW, made in the layer's own types.
    ///
    /// # Errors
    ///
    /// See [`MeasureError`].
    pub(super) fn error(&self, budget: LayerBudget, trials: Trials) -> Result<f64, MeasureError> {
        with_values!(&self.values.h, h => with_values!(&self.values.dz, dz => {
            estimates::check_memory(h, dz, &[(budget.rows, budget.packing)])?;
            self.error_of(h.view(), dz.view(), budget, trials)
        }))
    }

    fn error_of<T, U>(
        &self,
        h: ArrayView2<'_, T>,
        dz: ArrayView2<'_, U>,
        LayerBudget { rows, packing }: LayerBudget,
        trials: Trials,
    ) -> Result<f64, MeasureError>
    where
        T: Element<Accumulator = f32>,
        U: Element<Accumulator = f32>,
    {
        let (tokens, in_features) = h.dim();
        if rows == tokens && packing == Packing::Native {
            // The layer is exact.
            return Ok(0.0);
        }
        let budget = self.weights.budget(Keep::Rows(rows))?;
        let draws = DESIGN.draws(budget).max(if packing.is_packed() { tokens as u64 } else { 0 });
        let mut randomness = Randomness::new(trials.seed, 0);
        let mut kept = KeptRows::new(packing, rows, in_features);
        let mut estimate = Array2::zeros((in_features, dz.ncols()));
        let mut errors = Errors::new(&self.reference);
        for _ in 0..trials.count {
            let choose = || DESIGN.select_seeded(&self.weights, budget, randomness);
            kept.fill(h, (!packing.keeps_all(rows, tokens)).then(choose), randomness)?;
            kept.multiply(dz, estimate.view_mut())?;
            randomness = randomness.next(draws);
            errors.add(estimate.view());
        }
        let error = errors.summary().rel_error;
        if error.is_finite() { Ok(error) } else { Err(MeasureError::Overflow) }
    }
}

/// The weights, the exact gradient and the errors to expect.
fn measure_values<T, U>(
    h: ArrayView2<'_, T>,
    dz: ArrayView2<'_, U>,
    previous_norms: Option<&[f32]>,
    source: WeightSource,
) -> Result<(Weights, Reference, Layer), MeasureError>
where
    T: Element<Accumulator = f32>,
    U: Element<Accumulator = f32>,
{
    let weights = Norms::new(product::row_norms(h), product::row_norms(dz), previous_norms).weights(source)?;
    let terms = Terms::new(h, dz)?;
    let mut rounded = Array2::zeros((h.ncols(), dz.ncols()));
    product::exact_weight_gradient(h, dz, rounded.view_mut(), Update::Overwrite)?;
    let reference = estimates::reference(&terms, rounded.view())?;
    let relative = |token| terms.squared_norm(token) / reference.squared_norm();
    let squares: Vec<f64> = (0..h.nrows()).map(relative).collect();
    let every_number: Vec<usize> = (1..=h.nrows()).collect();
    let curve = Curve::of(&weights, &squares, &every_number)?;
    let layer = Layer { columns: h.ncols(), element_bytes: size_of::<T>(), noise: row_noise(h)?, curve };
    Ok((weights, reference, layer))
}
