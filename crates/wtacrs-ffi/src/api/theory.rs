//! What error to expect of a plan, from weights alone or from matrices.

use super::plan::{Plan, plan, wtacrs_plan};
use crate::arguments::heap::{self, PER_TOKEN};
use crate::arguments::{Array, Region, Tensor, Wanted, check_disjoint, regions, shaped, wtacrs_dltensor};
use crate::boundary::status::*;
use crate::boundary::{Outcome, guard};
use core::ffi::c_void;
use wtacrs_core::sampling::BuiltIn;
use wtacrs_core::{Weights, theory};

/// What a plan's design makes of weights, without drawing. All arrays are in the host's memory, whatever the plan's device.
///
/// weights   [in] one number for each token (wtacrs_plan_weights). If all are zero, every token is equally likely.
/// pair_norms  [in, optional] exact products |H_i| |dZ_i|, one for each token; `squared_error` requires them
/// threshold [out, optional] pairs of at least this weight are winners, kept always; 0 if every pair of positive weight is
/// winners   [out, optional] how many those are, by weights, whatever the plan's design
/// expected_rows  [out, optional] how many distinct rows the plan's design keeps on average; all, if all are packed
/// squared_error  [out, optional] the sum over the tail of (1/p_i - 1) pair_norms_i^2, p_i the probabilities with which
///           WTACRS_DESIGN_WTA_PIVOTAL keeps a pair: the expected squared Frobenius error if every pair of the tail were
///           drawn on its own, the yardstick by which sources of weights are compared; without the noise of packed rows
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS, _OVERLAP, _NULL_POINTER (also for `squared_error` without `pair_norms`),
/// _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_theory(
    plan: *const wtacrs_plan,
    weights: *const f64,
    pair_norms: *const f64,
    threshold: *mut f64,
    winners: *mut u64,
    expected_rows: *mut f64,
    squared_error: *mut f64,
) -> wtacrs_status {
    guard("wtacrs_plan_theory", || {
        let plan = self::plan(plan)?;
        let (tokens, budget) = (plan.layer.tokens, plan.layer.budget);
        let weights = Array::new(weights, tokens, "weights")?;
        let norms = match squared_error.is_null() {
            true => None,
            false => Some(Array::new(pair_norms, tokens, "pair_norms")?),
        };
        let numbers = [(threshold, "threshold"), (expected_rows, "expected_rows"), (squared_error, "squared_error")];
        let (numbers, counts) = (Wanted::new(numbers)?, Wanted::new([(winners, "winners")])?);
        let outputs: Vec<Region> = numbers.regions().chain(counts.regions()).collect();
        check_disjoint(&outputs, &regions([Some(weights.region()), norms.as_ref().map(Array::region)]))?;
        heap::check("weights of all tokens", &[(tokens, PER_TOKEN)])?;
        // SAFETY: checked for NULL, alignment and overlap; as documented they hold one number for each token.
        let (weights, norms) = unsafe { (Weights::new(weights.get())?, norms.map(|norms| norms.get())) };
        let settled = weights.threshold(budget);
        let cut = match (0..weights.len()).find(|&i| weights.fixed()[i] > 0) {
            Some(i) if settled.tail_places > 0 => {
                let unit = weights.value(i) / weights.fixed()[i] as f64;
                unit * settled.tail_mass as f64 / settled.tail_places as f64
            }
            _ => 0.0,
        };
        let rows = expected_rows_of(&plan, &weights);
        let error = norms.map_or(0.0, |norms| theory::poisson_variance(&weights, budget, |i| norms[i] * norms[i]));
        // SAFETY: as above.
        unsafe {
            numbers.set([cut, rows, error]);
            counts.set([settled.winners as u64]);
        }
        Ok(())
    })
}

fn expected_rows_of(plan: &Plan, weights: &Weights) -> f64 {
    let budget = plan.layer.budget;
    let settled = weights.threshold(budget);
    if plan.layer.keeps_all() {
        return budget.get() as f64;
    }
    match plan.layer.linear.design {
        BuiltIn::Uniform => budget.get() as f64,
        BuiltIn::Crs if weights.is_empty() => 0.0,
        BuiltIn::Crs => theory::crs_expected_distinct(weights, budget),
        BuiltIn::WtaIid => theory::wta_iid_expected_distinct(weights, budget),
        BuiltIn::WtaStratified => theory::wta_stratified_expected_distinct(weights, budget),
        // As many as there are places, or pairs of positive weight.
        _ => (settled.winners + settled.tail_places) as f64,
    }
}

/// The mean of the squared Frobenius error |dW' - dW|^2 over estimates dW' that the plan's design and budget draw with
/// given weights, for these H and dZ. With C_i = H_i^T dZ_i, p_i the weights' shares of their sum, C the winners, T the
/// tail, m the places left to it and q_i the weights' shares of the tail's sum:
///
/// WTACRS_DESIGN_UNIFORM: n^2/k (1 - k/n) (sum |C_i|^2 - |dW|^2/n)/(n - 1).
/// WTACRS_DESIGN_CRS: (sum |C_i|^2/p_i - |sum C_i|^2)/k.
/// WTACRS_DESIGN_TOP_K: |sum of the C_i that are dropped|^2, which is the same in every draw.
/// WTACRS_DESIGN_WTA_IID: (sum over T of |C_i|^2/q_i - |sum over T of C_i|^2)/m.
/// WTACRS_DESIGN_WTA_STRATIFIED: its sum over strata of that.
/// WTACRS_DESIGN_WTA_PIVOTAL: no closed form; WTACRS_DESIGN_WTA_IID's is an upper bound.
///
/// Pairs of weight zero, which every design but WTACRS_DESIGN_UNIFORM leaves out, add their |sum of C_i|^2.
///
/// Packed rows add the sum of v_i |dZ_i|^2 s_i, with v_i the variance of row i as it is read back and s_i the mean square of
/// its scale: 1/pi_i of a row that is kept once, and at most 1 more of one that is drawn with replacement. v_i counts the
/// zeros that fill a row's last group, and is that of one pass's random signs, which other passes' are near. If all rows are
/// packed, that is the whole error, and weights have no part in it.
///
/// h, dz     [in] as in wtacrs_plan_forward and wtacrs_plan_backward
/// weights   [in, optional] one number for each token, as from wtacrs_plan_weights; without them the exact ones, norms of H
///           times norms of dZ
/// squared_error  [out, optional] the mean, or an upper bound
/// exact     [out, optional] 1 for the mean, 0 for an upper bound or where rows are packed
/// squared_norm  [out, optional] |dW|^2, so that sqrt(*squared_error / *squared_norm) is the relative error
///
/// All in doubles, without the rounding of dW's dtype. For inspection, not for every step, and for plans of the CPU: the
/// call takes copies of H and dZ in doubles from its own heap, and the time of some exact products.
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS for a weight, or a row of H or dZ, that is negative or not finite;
/// _DEVICE_MISMATCH for a plan of a GPU; _INVALID_ARGUMENT, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE,
/// _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_expected_error(
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
    guard("wtacrs_plan_expected_error", || {
        let plan = self::plan(plan)?;
        let h = Tensor::rows(h, plan.layer.h, plan.layer.h_shape(), h_leading, "h")?;
        let dz = Tensor::rows(dz, plan.layer.dz, plan.layer.dz_shape(), dz_leading, "dz")?;
        // SAFETY: as documented.
        unsafe { expected_error(&plan, h, dz, weights, squared_error, exact, squared_norm) }
    })
}

/// wtacrs_plan_expected_error with DLPack tensors of two axes.
///
/// Errors: as for wtacrs_plan_expected_error; also WTACRS_STATUS_SHAPE_MISMATCH, _UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_expected_error_dl(
    plan: *const wtacrs_plan,
    h: *const wtacrs_dltensor,
    dz: *const wtacrs_dltensor,
    weights: *const f64,
    squared_error: *mut f64,
    exact: *mut i32,
    squared_norm: *mut f64,
) -> wtacrs_status {
    guard("wtacrs_plan_expected_error_dl", || {
        let plan = self::plan(plan)?;
        // SAFETY: as documented.
        unsafe {
            let h = shaped(h, plan.place(), plan.layer.h, plan.layer.h_shape(), "h")?;
            let dz = shaped(dz, plan.place(), plan.layer.dz, plan.layer.dz_shape(), "dz")?;
            expected_error(&plan, h, dz, weights, squared_error, exact, squared_norm)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_plan_expected_error`.
unsafe fn expected_error(
    plan: &Plan,
    h: Tensor<2>,
    dz: Tensor<2>,
    weights: *const f64,
    squared_error: *mut f64,
    exact: *mut i32,
    squared_norm: *mut f64,
) -> Outcome {
    let weights = Array::optional(weights, plan.layer.tokens, "weights")?;
    let numbers = Wanted::new([(squared_error, "squared_error"), (squared_norm, "squared_norm")])?;
    let flags = Wanted::new([(exact, "exact")])?;
    let outputs: Vec<Region> = numbers.regions().chain(flags.regions()).collect();
    let inputs = regions([Some(h.region()), Some(dz.region()), weights.as_ref().map(Array::region)]);
    check_disjoint(&outputs, &inputs)?;
    // SAFETY: checked; the caller has the rest.
    unsafe {
        let found = plan.calls.expected_error(&h, &dz, weights)?;
        numbers.set([found.squared_error, found.squared_norm]);
        flags.set([i32::from(found.is_exact)]);
    }
    Ok(())
}
