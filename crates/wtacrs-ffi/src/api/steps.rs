//! A layer's steps one by one, for frameworks that fuse their own: weights, selection, kept rows, product.

use super::plan::{Plan, plan, wtacrs_plan};
use super::selection::{given, wtacrs_selection};
use crate::arguments::{Array, Region, Stream, Tensor, check_disjoint, regions, shaped, update, wtacrs_dltensor};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, guard};
use crate::device::{Gather, GivenNorms, Select, SelectionArrays, WeightGradient};
use core::ffi::c_void;
use wtacrs_core::Randomness;

/// Refuses a step with rows in the caller's memory, which are native, for a plan that packs its own.
fn check_native(plan: &Plan, function: &str) -> Outcome {
    let packing = plan.layer.linear.packing;
    if !packing.is_packed() {
        return Ok(());
    }
    let message = format!(
        "{function} works on native rows, and wtacrs_layer_set_packing has set {packing} bits: use wtacrs_plan_forward and \
         wtacrs_plan_backward"
    );
    Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message))
}

impl GivenNorms {
    fn new(plan: &Plan, input_norms: *const f32, guess: *const f32) -> Outcome<Self> {
        let input = Array::new(input_norms, plan.layer.tokens, "input_norms")?;
        Ok(Self { input, guess: plan.guess_without_predictor(guess)? })
    }

    fn regions(&self) -> Vec<Region> {
        regions([Some(self.input.region()), self.guess.as_ref().map(Array::region)])
    }
}

impl SelectionArrays {
    /// A selection that is read: `kept` entries, or on a GPU as many as the budget.
    ///
    /// # Safety
    ///
    /// The selection is NULL or as documented.
    unsafe fn read(plan: &Plan, selection: *const wtacrs_selection, with_scales: bool) -> Outcome<(Self, usize)> {
        // SAFETY: the caller has it.
        let wtacrs_selection { indices, scales, kept, .. } = unsafe { given(selection) }?;
        let kept = Array::new(kept.cast_const(), 1, "kept")?;
        // SAFETY: checked for NULL and alignment; the caller has the rest.
        let rows = unsafe { plan.calls.selected_rows(&kept) }?;
        let indices = Array::new(indices.cast_const(), rows, "indices")?;
        let scales = with_scales.then(|| Array::new(scales.cast_const(), rows, "scales")).transpose()?;
        Ok((Self { indices, scales, kept: Some(kept), winners: None }, rows))
    }

    /// A selection that is written: room for the budget.
    ///
    /// # Safety
    ///
    /// The selection is NULL or as documented.
    unsafe fn written(plan: &Plan, selection: *const wtacrs_selection) -> Outcome<Self> {
        // SAFETY: the caller has it.
        let wtacrs_selection { indices, scales, capacity, kept, winners, .. } = unsafe { given(selection) }?;
        let budget = plan.layer.budget.get();
        if capacity < budget {
            let message = format!("room for {capacity} pairs where the budget is {budget}");
            return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
        }
        Ok(Self {
            indices: Array::new(indices.cast_const(), budget, "indices")?,
            scales: Some(Array::new(scales.cast_const(), budget, "scales")?),
            kept: Array::optional(kept.cast_const(), 1, "kept")?,
            winners: Array::optional(winners.cast_const(), 1, "winners")?,
        })
    }

    fn regions(&self) -> Vec<Region> {
        regions([
            Some(self.indices.region()),
            self.scales.as_ref().map(Array::region),
            self.kept.as_ref().map(Array::region),
            self.winners.as_ref().map(Array::region),
        ])
    }
}

/// The weights of a plan's tokens from the norms of H and, by the plan's source, a guess of the norms of dZ. For
/// wtacrs_plan_theory and for inspection: wtacrs_plan_select computes its own, which are equal.
///
/// input_norms  [in] norms of the rows of H, one for each token
/// guess     [in] norms of dZ for WTACRS_SOURCE_NORMS and WTACRS_SOURCE_CACHED; NULL for other sources, whose weights are
///           then the norms of H
/// weights   [out] one number for each token: what the selection's integers stand for (rounded by at most 2^-29 of the
///           largest). If all weights are zero, every token is equally likely, and all weights are 1.
/// stream    as in wtacrs_plan_forward
///
/// On CUDA all arrays are the GPU's, and one block of one kernel computes them; if a norm is negative or not finite, all
/// weights are NaN.
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS names the first norm that is negative or not finite; _INVALID_ARGUMENT, _OVERLAP,
/// _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_weights(
    plan: *const wtacrs_plan,
    input_norms: *const f32,
    guess: *const f32,
    weights: *mut f64,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_weights", || {
        let plan = self::plan(plan)?;
        let output = Array::new(weights.cast_const(), plan.layer.tokens, "weights")?;
        let norms = GivenNorms::new(&plan, input_norms, guess)?;
        check_disjoint(&[output.region()], &norms.regions())?;
        // SAFETY: checked; as documented for the rest.
        unsafe { plan.calls.weights(norms, &output, stream) }
    })
}

/// Chooses rows from norms alone: weights as in wtacrs_plan_weights, then the plan's design at (seed, offset). For weights
/// of your own, pass them as `input_norms` to a plan of WTACRS_SOURCE_INPUT.
///
/// input_norms, guess  [in] as in wtacrs_plan_weights
/// item      the item of a batch that shares one offset; 0 if there is no batch
/// selection [out] with `capacity` >= budget_rows; entries after `*kept` are left unchanged; `kept` and `winners` may be
///           NULL on the CPU
/// scratch   [scratch] `scratch_bytes` >= forward_scratch_bytes
/// stream    as in wtacrs_plan_forward
///
/// The same bits on every machine.
///
/// A plan that packs all rows chooses nothing: WTACRS_STATUS_UNSUPPORTED.
///
/// On CUDA all arrays are the GPU's, `winners` too, and `kept` must not be NULL. The upper half of `*kept` is 0, or 1 + the
/// index of the first norm that is negative or not finite; the lower half is then 0.
///
/// Errors: as for wtacrs_plan_weights; also WTACRS_STATUS_BUFFER_TOO_SMALL, _UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_select(
    plan: *const wtacrs_plan,
    input_norms: *const f32,
    guess: *const f32,
    seed: u64,
    offset: u64,
    item: u32,
    selection: *const wtacrs_selection,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_select", || {
        let plan = self::plan(plan)?;
        if plan.layer.keeps_all() && plan.layer.tokens > 0 {
            let message = "wtacrs_plan_select chooses rows, and the plan packs all of them (wtacrs_layer_set_packing)";
            return Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message));
        }
        // SAFETY: as documented.
        let selection = unsafe { SelectionArrays::written(&plan, selection) }?;
        let scratch = plan.scratch(scratch, scratch_bytes, plan.sizes().forward)?;
        let norms = GivenNorms::new(&plan, input_norms, guess)?;
        let mut outputs = selection.regions();
        outputs.push(scratch.region());
        check_disjoint(&outputs, &norms.regions())?;
        let randomness = Randomness::new(seed, offset);
        // SAFETY: checked; as documented for the rest.
        unsafe { plan.calls.select(Select { norms, randomness, item, selection, scratch, stream }) }
    })
}

/// Copies the rows of H that a selection keeps: what wtacrs_plan_weight_gradient takes. Rows are native: a plan with packed
/// rows has wtacrs_plan_forward and wtacrs_plan_backward alone.
///
/// h         [in] as in wtacrs_plan_forward
/// selection [in] `indices` and `kept`
/// rows      [out] kept x in_features, of H's dtype, `rows_leading` >= in_features elements from row to row
/// stream    as in wtacrs_plan_forward
///
/// On CUDA all memory is the GPU's, the indices are not checked, `rows` has as many rows as the plan's budget, and those
/// from `*kept` on become zero.
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT if indices do not ascend, lie beyond the tokens, or are more than the budget;
/// _UNSUPPORTED for a plan with packed rows; _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_gather(
    plan: *const wtacrs_plan,
    h: *const c_void,
    h_leading: usize,
    selection: *const wtacrs_selection,
    rows: *mut c_void,
    rows_leading: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_gather", || {
        let plan = self::plan(plan)?;
        let h = Tensor::rows(h, plan.layer.h, plan.layer.h_shape(), h_leading, "h")?;
        let rows = |shape| Tensor::rows(rows, plan.layer.h, shape, rows_leading, "rows");
        // SAFETY: as documented.
        unsafe { gather(&plan, h, selection, rows, stream) }
    })
}

/// wtacrs_plan_gather with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the budget).
///
/// Errors: as for wtacrs_plan_gather; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH, _UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_gather_dl(
    plan: *const wtacrs_plan,
    h: *const wtacrs_dltensor,
    selection: *const wtacrs_selection,
    rows: *const wtacrs_dltensor,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_gather_dl", || {
        let plan = self::plan(plan)?;
        // SAFETY: as documented.
        unsafe {
            let h = shaped(h, plan.place(), plan.layer.h, plan.layer.h_shape(), "h")?;
            gather(&plan, h, selection, |shape| shaped(rows, plan.place(), plan.layer.h, shape, "rows"), stream)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_plan_gather`.
unsafe fn gather(
    plan: &Plan,
    h: Tensor<2>,
    selection: *const wtacrs_selection,
    rows: impl FnOnce([usize; 2]) -> Outcome<Tensor<2>>,
    stream: Stream,
) -> Outcome {
    check_native(plan, "wtacrs_plan_gather")?;
    // SAFETY: the caller has it.
    let (selection, kept) = unsafe { SelectionArrays::read(plan, selection, false) }?;
    let rows = rows([kept, plan.layer.in_features])?.writable()?;
    let mut inputs = selection.regions();
    inputs.push(h.region());
    check_disjoint(&[rows.region()], &inputs)?;
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.gather(Gather { h, selection, rows, stream }) }
}

/// dW from rows that the caller keeps: wtacrs_plan_backward with rows and a selection in the place of saved memory.
///
/// rows      [in] kept x in_features, of H's dtype, `rows_leading` >= in_features elements from row to row
/// selection [in] `indices`, `scales` and `kept`
/// dz, dw    as in wtacrs_plan_backward
/// accumulate  0 to write dW, 1 to add to it
/// scratch   [scratch] `scratch_bytes` >= weight_gradient_scratch_bytes
/// stream    as in wtacrs_plan_forward
///
/// On CUDA all memory is the GPU's, and `rows`, `indices` and `scales` have as many rows and entries as the plan's budget.
/// The rows of dZ are gathered and scaled first, rounded to their dtype.
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT also for a scale that is negative or not finite; as for wtacrs_plan_gather and
/// wtacrs_plan_backward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_weight_gradient(
    plan: *const wtacrs_plan,
    rows: *const c_void,
    rows_leading: usize,
    selection: *const wtacrs_selection,
    dz: *const c_void,
    dz_leading: usize,
    dw: *mut c_void,
    dw_leading: usize,
    accumulate: i32,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_weight_gradient", || {
        let plan = self::plan(plan)?;
        let dz = Tensor::rows(dz, plan.layer.dz, plan.layer.dz_shape(), dz_leading, "dz")?;
        let dw = Tensor::rows(dw, plan.layer.dw, plan.layer.dw_shape(), dw_leading, "dw")?;
        let rows = |shape| Tensor::rows(rows, plan.layer.h, shape, rows_leading, "rows");
        // SAFETY: as documented.
        unsafe { weight_gradient(&plan, rows, selection, [dz, dw], accumulate, (scratch, scratch_bytes), stream) }
    })
}

/// wtacrs_plan_weight_gradient with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the
/// budget).
///
/// Errors: as for wtacrs_plan_weight_gradient; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH, _UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_weight_gradient_dl(
    plan: *const wtacrs_plan,
    rows: *const wtacrs_dltensor,
    selection: *const wtacrs_selection,
    dz: *const wtacrs_dltensor,
    dw: *const wtacrs_dltensor,
    accumulate: i32,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_weight_gradient_dl", || {
        let plan = self::plan(plan)?;
        // SAFETY: as documented.
        unsafe {
            let dz = shaped(dz, plan.place(), plan.layer.dz, plan.layer.dz_shape(), "dz")?;
            let dw = shaped(dw, plan.place(), plan.layer.dw, plan.layer.dw_shape(), "dw")?;
            let rows = |shape| shaped(rows, plan.place(), plan.layer.h, shape, "rows");
            weight_gradient(&plan, rows, selection, [dz, dw], accumulate, (scratch, scratch_bytes), stream)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_plan_weight_gradient`.
unsafe fn weight_gradient(
    plan: &Plan,
    rows: impl FnOnce([usize; 2]) -> Outcome<Tensor<2>>,
    selection: *const wtacrs_selection,
    [dz, dw]: [Tensor<2>; 2],
    accumulate: i32,
    (scratch, scratch_bytes): (*mut c_void, usize),
    stream: Stream,
) -> Outcome {
    check_native(plan, "wtacrs_plan_weight_gradient")?;
    let scratch = plan.scratch(scratch, scratch_bytes, plan.sizes().weight_gradient)?;
    let (dw, update) = (dw.writable()?, update(accumulate)?);
    // SAFETY: the caller has it.
    let (selection, kept) = unsafe { SelectionArrays::read(plan, selection, true) }?;
    let rows = rows([kept, plan.layer.in_features])?;
    let mut inputs = selection.regions();
    inputs.extend([rows.region(), dz.region()]);
    check_disjoint(&[dw.region(), scratch.region()], &inputs)?;
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.weight_gradient(WeightGradient { rows, selection, dz, dw, update, scratch, stream }) }
}
