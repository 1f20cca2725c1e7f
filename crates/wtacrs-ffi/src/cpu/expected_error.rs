//! What squared error to expect of a design, from matrices and weights: closed forms where there are any.

use crate::arguments::{Array, Tensor, heap, with_elements};
use crate::boundary::Outcome;
use crate::device::{ExpectedError, LinearDescription};
use ndarray::{Array2, ArrayView2};
use wtacrs_core::Randomness;
use wtacrs_core::element::{Accumulator, Element};
use wtacrs_core::product;
use wtacrs_core::sampling::{Budget, BuiltIn, Design, Weights};
use wtacrs_core::theory::{self, Contributions, OuterProducts};
use wtacrs_exact::packing::PackingBits;

/// # Safety
///
/// The caller's arrays, as for every call.
pub(super) unsafe fn expected_error(
    layer: &LinearDescription,
    h: &Tensor<2>,
    dz: &Tensor<2>,
    weights: Option<Array<f64>>,
) -> Outcome<ExpectedError> {
    heap::check("a copy of H and dZ in doubles", &[(layer.tokens * (layer.in_features + layer.out_features), 8)])?;
    let (expected, squared_norm) = with_elements!(layer.h, layer.dz, T, U => {
        // SAFETY: the caller has it.
        let (h, dz) = unsafe { (h.view::<T>(), dz.view::<U>()) };
        // Made in any case: this is what names a row that is not finite.
        let own = Weights::from_norms(&product::row_norms(h), &product::row_norms(dz))?;
        let weights = match weights {
            None => own,
            // SAFETY: as above.
            Some(weights) => Weights::new(unsafe { weights.get() })?,
        };
        let packing = noise(layer, h, dz)?;
        let (h, dz) = (doubles(h), doubles(dz));
        let contributions = OuterProducts { x: h.view(), y: dz.view() };
        let all: Vec<(usize, f64)> = (0..layer.tokens).map(|i| (i, 1.0)).collect();
        let sampling = match layer.keeps_all() {
            true => Expected { squared_error: 0.0, exact: true },
            false => expected(layer.linear.design, &weights, layer.budget, &contributions),
        };
        let expected = match packing {
            None => sampling,
            Some(noise) => Expected {
                squared_error: sampling.squared_error + packing_error(layer, &weights, &noise),
                // The noise is that of one pass's signs.
                exact: false,
            },
        };
        (expected, contributions.squared_norm_of_sum(&all))
    });
    Ok(ExpectedError { squared_error: expected.squared_error, is_exact: expected.exact, squared_norm })
}

/// |dZ_i|^2 times the variance of row i of H as it is read back, for every row; none of native rows.
fn noise<T: Element, U: Element>(
    layer: &LinearDescription,
    h: ArrayView2<'_, T>,
    dz: ArrayView2<'_, U>,
) -> Outcome<Option<Vec<f64>>> {
    let Some(bits) = layer.linear.packing.bits() else { return Ok(None) };
    let bytes = layer.linear.packing.row_bytes(layer.in_features, layer.h.bytes());
    heap::check("all rows packed", &[(layer.tokens, usize::try_from(bytes).unwrap_or(usize::MAX))])?;
    let rows = theory::packing_noise(h, bits, PackingBits::new(Randomness::default(), 0))?;
    let scaled = rows.iter().zip(product::row_norms(dz)).map(|(row, norm)| row * f64::from(norm).powi(2));
    Ok(Some(scaled.collect()))
}

/// What packing adds to the squared error: each row's noise times the mean square of its scale, or a little more.
fn packing_error(layer: &LinearDescription, weights: &Weights, noise: &[f64]) -> f64 {
    let LinearDescription { budget, tokens, .. } = *layer;
    let all = || noise.iter().sum::<f64>();
    if layer.keeps_all() {
        return all();
    }
    match layer.linear.design {
        BuiltIn::Uniform => tokens as f64 / budget.get() as f64 * all(),
        BuiltIn::TopK => {
            let kept = layer.linear.design.select_seeded(weights, budget, Randomness::default());
            kept.indices().iter().map(|&token| noise[token as usize]).sum()
        }
        BuiltIn::Crs => {
            let fixed = weights.fixed();
            let (sum, draws) = (fixed.iter().map(|&weight| weight as f64).sum::<f64>(), budget.get() as f64);
            let drawn = fixed.iter().zip(noise).filter(|(weight, _)| **weight > 0);
            drawn.map(|(&weight, noise)| (1.0 + (sum / weight as f64 - 1.0) / draws) * noise).sum()
        }
        BuiltIn::WtaPivotal => theory::packing_variance(weights, budget, |token| noise[token]),
        // A row of the tail may be drawn more than once: at most this is added.
        _ => theory::packing_variance(weights, budget, |token| noise[token]) + all(),
    }
}

fn doubles<T: Element>(matrix: ArrayView2<'_, T>) -> Array2<f64> {
    matrix.mapv(|value| value.widen().to_f64())
}

/// A mean squared error, or an upper bound of it.
struct Expected {
    squared_error: f64,
    exact: bool,
}

fn expected(design: BuiltIn, weights: &Weights, budget: Budget, contributions: &impl Contributions) -> Expected {
    let sum_of = |pairs: Vec<usize>| {
        let terms: Vec<(usize, f64)> = pairs.into_iter().map(|pair| (pair, 1.0)).collect();
        if terms.is_empty() { 0.0 } else { contributions.squared_norm_of_sum(&terms) }
    };
    let variance = match design {
        BuiltIn::Uniform => {
            return Expected { squared_error: theory::uniform_variance(budget, contributions).max(0.0), exact: true };
        }
        BuiltIn::TopK => {
            // Nothing is drawn, so any seed gives the selection.
            let kept = design.select_seeded(weights, budget, Randomness::default());
            let is_dropped = |&pair: &usize| kept.indices().binary_search(&(pair as u32)).is_err();
            return Expected { squared_error: sum_of((0..weights.len()).filter(is_dropped).collect()), exact: true };
        }
        BuiltIn::Crs => theory::crs_variance(weights, budget, contributions),
        BuiltIn::WtaStratified => theory::wta_stratified_variance(weights, budget, contributions),
        // Pivotal's bound too.
        _ => theory::wta_iid_variance(weights, budget, contributions),
    };
    let left_out = sum_of((0..weights.len()).filter(|&pair| weights.fixed()[pair] == 0).collect());
    // Differences of sums may come out a rounding below zero.
    let squared_error = variance.max(0.0) + left_out;
    let exact = matches!(design, BuiltIn::Crs | BuiltIn::WtaIid | BuiltIn::WtaStratified);
    Expected { squared_error, exact }
}
