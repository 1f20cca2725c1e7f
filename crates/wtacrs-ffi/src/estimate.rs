//! A product in one call, and what error theory expects.

use crate::array::{Array, Region, Wanted, block, check_disjoint, device_block, regions};
use crate::dlpack::{shaped, wtacrs_dltensor};
use crate::dtype::with_elements;
use crate::guard::{Outcome, guard};
use crate::linear::{gradient, workspace};
use crate::plan::{Plan, plan, wtacrs_plan};
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::product::{self, Update};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::{Weights, theory};

/// Estimates the product of X^T (in_features x tokens) and Y (tokens x out_features) in one call: `x` in the place of H
/// and `y` in that of dZ, both whole, so that the weights are exact whatever the plan's source. `out` is in_features x
/// out_features, of dW's dtype. Leading dimensions, seed and offset as in wtacrs_forward and wtacrs_backward; `scratch`
/// is aligned to 64 (on CUDA 256), and wtacrs_plan_estimate_scratch_bytes tells its size. On CUDA a row that is not finite
/// makes a product of zeros.
///
/// Errors: WTACRS_INVALID_WEIGHTS for a row that is not finite; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
/// WTACRS_INVALID_ARGUMENT, WTACRS_SIZE_OVERFLOW, WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_estimate(
    plan: *const wtacrs_plan,
    x: *const c_void,
    x_leading: usize,
    y: *const c_void,
    y_leading: usize,
    seed: u64,
    offset: u64,
    out: *mut c_void,
    out_leading: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_estimate", || {
        let plan = self::plan(plan)?;
        let x = Tensor::rows(x, plan.h, [plan.tokens, plan.in_features], x_leading, "x")?;
        let y = Tensor::rows(y, plan.dz, [plan.tokens, plan.out_features], y_leading, "y")?;
        let out = Tensor::rows(out, plan.dw, [plan.in_features, plan.out_features], out_leading, "out")?;
        let scratch = scratch_of(&plan, scratch, scratch_bytes)?;
        // SAFETY: as documented.
        unsafe { estimate(&plan, [x, y, out], seed, offset, &scratch, stream) }
    })
}

/// wtacrs_estimate with DLPack tensors of two axes.
///
/// Errors: as for wtacrs_estimate; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_estimate_dl(
    plan: *const wtacrs_plan,
    x: *const wtacrs_dltensor,
    y: *const wtacrs_dltensor,
    seed: u64,
    offset: u64,
    out: *const wtacrs_dltensor,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_estimate_dl", || {
        let plan = self::plan(plan)?;
        let scratch = scratch_of(&plan, scratch, scratch_bytes)?;
        // SAFETY: as documented.
        unsafe {
            let x = shaped(x, plan.device(), plan.h, [plan.tokens, plan.in_features], "x")?;
            let y = shaped(y, plan.device(), plan.dz, [plan.tokens, plan.out_features], "y")?;
            let out = shaped(out, plan.device(), plan.dw, [plan.in_features, plan.out_features], "out")?;
            estimate(&plan, [x, y, out], seed, offset, &scratch, stream)
        }
    })
}

fn scratch_of(plan: &Plan, scratch: *const c_void, bytes: usize) -> Outcome<Array<u8>> {
    match plan.on_gpu() {
        Some(_) => device_block(scratch, bytes, plan.sizes.estimate, "scratch"),
        None => block(scratch, bytes, plan.estimate_scratch, "scratch"),
    }
}

/// # Safety
///
/// The contract of `wtacrs_estimate`.
unsafe fn estimate(
    plan: &Plan,
    [x, y, out]: [Tensor<2>; 3],
    seed: u64,
    offset: u64,
    scratch: &Array<u8>,
    stream: *mut c_void,
) -> Outcome {
    if let Some((gpu, layer)) = plan.on_gpu() {
        let randomness = plan.randomness(seed, offset);
        // SAFETY: the caller has it.
        return unsafe { layer.estimate(plan, gpu, [x, y, out], randomness, scratch, stream) };
    }
    // SAFETY: as documented, the number is on the host.
    let offset = unsafe { plan.further_offset.added_to(offset) };
    let out = out.writable()?;
    check_disjoint(&[out.region(), scratch.region()], &[x.region(), y.region()])?;
    plan.check_heap()?;
    // First the kept rows, as if they were saved; then the backward pass's own scratch.
    let Region { bytes, .. } = scratch.region();
    let behind = block(
        scratch.as_ptr().wrapping_add(plan.saved.bytes()).cast(),
        bytes - plan.saved.bytes(),
        plan.backward_scratch,
        "scratch",
    )?;
    with_elements!(plan.h, plan.dz, T, U => {
        // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
        let (x, y) = unsafe { (x.view::<T>(), y.view::<U>()) };
        let weights = Weights::from_norms(&product::row_norms(x), &product::row_norms(y))?;
        let selection = plan.linear.design.select_seeded(&weights, plan.budget, Randomness::new(seed, offset));
        // SAFETY: as above; the scratch begins with room for a kept block, and what is behind it is apart.
        let (rows, out, workspace) = unsafe {
            plan.saved.write::<T>(scratch.as_ptr(), &selection, |rows| Ok(product::gather_into(x, &selection, rows)?))?;
            (
                plan.saved.read::<T>(scratch.as_ptr())?.1,
                out.view_mut::<<T as Element>::Accumulator>(),
                workspace::<<T as Element>::Accumulator>(&behind),
            )
        };
        gradient::<T, U>(rows, y, &selection, out, Update::Overwrite, workspace)
    })
}

/// What a plan's design makes of weights, without drawing: `weights` holds `tokens` doubles (wtacrs_weights), and
/// `pair_norms`, which may be NULL, as many exact products |H_i| |dZ_i|. Outputs may be NULL where they are not wanted.
///
/// `threshold`: pairs of at least this weight are winners, kept always; 0 if every pair of positive weight is.
/// `winners`: how many those are, by weights, whatever the plan's design.
/// `expected_rows`: how many distinct rows the plan's design keeps on average.
/// `squared_error`: the sum over the tail of (1/p_i - 1) pair_norms_i^2, p_i the winner-take-all designs' probabilities
/// of being kept: the expected squared Frobenius error if every pair of the tail were drawn on its own, the yardstick by
/// which sources of weights are compared. Needs `pair_norms`.
///
/// Errors: WTACRS_INVALID_WEIGHTS; WTACRS_NULL_POINTER (also for `squared_error` without `pair_norms`),
/// WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_theory(
    plan: *const wtacrs_plan,
    weights: *const f64,
    pair_norms: *const f64,
    threshold: *mut f64,
    winners: *mut u64,
    expected_rows: *mut f64,
    squared_error: *mut f64,
) -> wtacrs_status {
    guard("wtacrs_theory", || {
        let plan = self::plan(plan)?;
        let weights = Array::new(weights, plan.tokens, "weights")?;
        let norms = match squared_error.is_null() {
            true => None,
            false => Some(Array::new(pair_norms, plan.tokens, "pair_norms")?),
        };
        let numbers = [(threshold, "threshold"), (expected_rows, "expected_rows"), (squared_error, "squared_error")];
        let (numbers, counts) = (Wanted::new(numbers)?, Wanted::new([(winners, "winners")])?);
        let outputs: Vec<Region> = numbers.regions().chain(counts.regions()).collect();
        check_disjoint(&outputs, &regions([Some(weights.region()), norms.as_ref().map(Array::region)]))?;
        plan.check_heap()?;
        // SAFETY: checked for NULL, alignment and overlap; as documented they hold one number for each token.
        let (weights, norms) = unsafe { (Weights::new(weights.get())?, norms.map(|norms| norms.get())) };
        let settled = weights.threshold(plan.budget);
        let cut = match (0..weights.len()).find(|&i| weights.fixed()[i] > 0) {
            Some(i) if settled.tail_places > 0 => {
                let unit = weights.value(i) / weights.fixed()[i] as f64;
                unit * settled.tail_mass as f64 / settled.tail_places as f64
            }
            _ => 0.0,
        };
        let rows = expected_rows_of(plan.linear.design, &weights, &plan);
        let error = norms.map_or(0.0, |norms| theory::poisson_variance(&weights, plan.budget, |i| norms[i] * norms[i]));
        // SAFETY: as above.
        unsafe {
            numbers.set([cut, rows, error]);
            counts.set([settled.winners as u64]);
        }
        Ok(())
    })
}

fn expected_rows_of(design: BuiltIn, weights: &Weights, plan: &Plan) -> f64 {
    let settled = weights.threshold(plan.budget);
    match design {
        BuiltIn::Uniform => plan.budget.get() as f64,
        BuiltIn::Crs if weights.is_empty() => 0.0,
        BuiltIn::Crs => theory::crs_expected_distinct(weights, plan.budget),
        BuiltIn::WtaIid => theory::wta_iid_expected_distinct(weights, plan.budget),
        BuiltIn::WtaStratified => theory::wta_stratified_expected_distinct(weights, plan.budget),
        // As many as there are places, or pairs of positive weight.
        _ => (settled.winners + settled.tail_places) as f64,
    }
}
