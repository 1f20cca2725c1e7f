//! What squared error to expect of a plan's design, from matrices and weights: closed forms where there are any.

use crate::array::{Array, Region, Wanted, check_disjoint, regions};
use crate::dlpack::{shaped, wtacrs_dltensor};
use crate::dtype::with_elements;
use crate::guard::{Outcome, guard};
use crate::heap;
use crate::plan::{Plan, plan, wtacrs_plan};
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use ndarray::{Array2, ArrayView2};
use wtacrs_core::Randomness;
use wtacrs_core::element::{Accumulator, Element};
use wtacrs_core::product;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Weights};
use wtacrs_core::theory::{self, Contributions, OuterProducts};

/// The mean of the squared Frobenius error |dW' - dW|^2 over estimates dW' that the plan's design and budget draw with
/// `weights` (`tokens` doubles, as from wtacrs_weights; NULL: the exact ones, norms of H times norms of dZ), for these H and
/// dZ. Dtypes and leading dimensions as in wtacrs_forward and wtacrs_backward. With C_i = H_i^T dZ_i, p_i the weights'
/// shares of their sum, C the winners, T the tail, m the places left to it and q_i the weights' shares of the tail's sum:
///
/// WTACRS_UNIFORM: n^2/k (1 - k/n) (sum |C_i|^2 - |dW|^2/n)/(n - 1).
/// WTACRS_CRS: (sum |C_i|^2/p_i - |sum C_i|^2)/k.
/// WTACRS_TOP_K: |sum of the C_i that are dropped|^2, which is the same in every draw.
/// WTACRS_WTA_IID: (sum over T of |C_i|^2/q_i - |sum over T of C_i|^2)/m.
/// WTACRS_WTA_STRATIFIED: its sum over strata of that.
/// WTACRS_WTA_PIVOTAL: no closed form; WTACRS_WTA_IID's is an upper bound.
///
/// Pairs of weight zero, which every design but WTACRS_UNIFORM leaves out, add their |sum of C_i|^2.
///
/// `*squared_error` is the mean, or the bound; `*exact` is 1 for the mean and 0 for an upper bound; `*squared_norm` is
/// |dW|^2, so that sqrt(*squared_error / *squared_norm) is the relative error. Each may be NULL where it is not wanted. All
/// in doubles, without the rounding of dW's dtype.
///
/// For looking at, not for every step, and for plans of the CPU: it takes copies of H and dZ in doubles from its own heap,
/// and the time of some exact products.
///
/// Errors: WTACRS_INVALID_WEIGHTS for a weight, or a row of H or dZ, that is negative or not finite; WTACRS_NULL_POINTER,
/// WTACRS_INVALID_HANDLE, WTACRS_INVALID_ARGUMENT, WTACRS_SIZE_OVERFLOW, WTACRS_MISALIGNED, WTACRS_OVERLAP,
/// WTACRS_DEVICE_MISMATCH for a plan of a GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_expected_error(
    plan: *const wtacrs_plan,
    h: *const c_void,
    h_leading: usize,
    dz: *const c_void,
    dz_leading: usize,
    weights: *const f64,
    squared_error: *mut f64,
    exact: *mut i32,
    squared_norm: *mut f64,
) -> wtacrs_status {
    guard("wtacrs_expected_error", || {
        let plan = self::plan(plan)?;
        plan.host()?;
        let h = Tensor::rows(h, plan.h, [plan.tokens, plan.in_features], h_leading, "h")?;
        let dz = Tensor::rows(dz, plan.dz, [plan.tokens, plan.out_features], dz_leading, "dz")?;
        // SAFETY: as documented.
        unsafe { report(&plan, h, dz, weights, squared_error, exact, squared_norm) }
    })
}

/// wtacrs_expected_error with DLPack tensors of two axes.
///
/// Errors: as for wtacrs_expected_error; also WTACRS_SHAPE_MISMATCH, WTACRS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_expected_error_dl(
    plan: *const wtacrs_plan,
    h: *const wtacrs_dltensor,
    dz: *const wtacrs_dltensor,
    weights: *const f64,
    squared_error: *mut f64,
    exact: *mut i32,
    squared_norm: *mut f64,
) -> wtacrs_status {
    guard("wtacrs_expected_error_dl", || {
        let plan = self::plan(plan)?;
        plan.host()?;
        // SAFETY: as documented.
        unsafe {
            let h = shaped(h, plan.device(), plan.h, [plan.tokens, plan.in_features], "h")?;
            let dz = shaped(dz, plan.device(), plan.dz, [plan.tokens, plan.out_features], "dz")?;
            report(&plan, h, dz, weights, squared_error, exact, squared_norm)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_expected_error`.
unsafe fn report(
    plan: &Plan,
    h: Tensor<2>,
    dz: Tensor<2>,
    weights: *const f64,
    squared_error: *mut f64,
    exact: *mut i32,
    squared_norm: *mut f64,
) -> Outcome {
    let weights = Array::optional(weights, plan.tokens, "weights")?;
    let numbers = Wanted::new([(squared_error, "squared_error"), (squared_norm, "squared_norm")])?;
    let flags = Wanted::new([(exact, "exact")])?;
    let outputs: Vec<Region> = numbers.regions().chain(flags.regions()).collect();
    let inputs = regions([Some(h.region()), Some(dz.region()), weights.as_ref().map(Array::region)]);
    check_disjoint(&outputs, &inputs)?;
    plan.check_heap()?;
    heap::check("a copy of H and dZ in doubles", &[(plan.tokens * (plan.in_features + plan.out_features), 8)])?;
    let (found, norm) = with_elements!(plan.h, plan.dz, T, U => {
        // SAFETY: checked for NULL, size and alignment; the caller has the rest.
        let (h, dz) = unsafe { (h.view::<T>(), dz.view::<U>()) };
        // Made in any case: this is what names a row that is not finite.
        let own = Weights::from_norms(&product::row_norms(h), &product::row_norms(dz))?;
        let weights = match weights {
            None => own,
            // SAFETY: as above; as documented it holds one number for each token.
            Some(weights) => Weights::new(unsafe { weights.get() })?,
        };
        let (h, dz) = (doubles(h), doubles(dz));
        let contributions = OuterProducts { x: h.view(), y: dz.view() };
        let all: Vec<(usize, f64)> = (0..plan.tokens).map(|i| (i, 1.0)).collect();
        (expected(plan.linear.design, &weights, plan.budget, &contributions), contributions.squared_norm_of_sum(&all))
    });
    // SAFETY: checked for NULL, alignment and overlap; the caller has the rest.
    unsafe {
        numbers.set([found.squared_error, norm]);
        flags.set([i32::from(found.exact)]);
    }
    Ok(())
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
