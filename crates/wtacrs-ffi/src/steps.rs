//! Each step alone, for frameworks that fuse their own: weights, selection, gather, product.

use crate::array::{Array, Region, block, check_disjoint, device_block};
use crate::cuda::{self, DeviceSelection};
use crate::dlpack::{shaped, wtacrs_dltensor};
use crate::dtype::{Source, with_element, with_elements};
use crate::guard::{Failure, Outcome, guard};
use crate::linear::{gradient, known, norm_guess, update, workspace};
use crate::plan::{Plan, plan, wtacrs_plan};
use crate::saved::SelectionOutput;
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use wtacrs_core::element::Element;
use wtacrs_core::sampling::design::Design;
use wtacrs_core::sampling::{PhiloxChance, Randomness};
use wtacrs_core::{Selection, Weights, product};

/// The weights of a plan's tokens from the norms of H and, by the plan's source, a guess of the norms of dZ (for
/// WTACRS_SOURCE_INPUT and WTACRS_SOURCE_PREDICTED `guess` is NULL, and the weights are the input's norms): `tokens`
/// doubles, each the weight that the selection's integers stand for (rounded by at most 2^-29 of the largest). For wtacrs_theory
/// and for looking at; wtacrs_select makes its own, the same.
///
/// On CUDA all arrays are the GPU's, and one block of one kernel makes them; if a norm is negative or not finite, all
/// weights are NaN. `stream` is as in wtacrs_forward.
///
/// Errors: WTACRS_INVALID_WEIGHTS names the first norm that is negative or not finite; WTACRS_INVALID_ARGUMENT,
/// WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_weights(
    plan: *const wtacrs_plan,
    input_norms: *const f32,
    guess: *const f32,
    weights: *mut f64,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_weights", || {
        let plan = self::plan(plan)?;
        let output = Array::new(weights, plan.tokens, "weights")?;
        if let Some((gpu, layer)) = plan.on_gpu() {
            // SAFETY: as documented.
            return unsafe { cuda::weights(&plan, &layer.linear, gpu, [input_norms, guess], &output, stream) };
        }
        // SAFETY: as documented.
        let (weights, inputs) = unsafe { given_weights(&plan, input_norms, guess) }?;
        check_disjoint(&[output.region()], &inputs)?;
        // SAFETY: checked for NULL, alignment and overlap; as documented it holds one number for each token.
        let output = unsafe { output.get_mut() };
        output.iter_mut().enumerate().for_each(|(i, to)| *to = weights.value(i));
        Ok(())
    })
}

/// Weights from norms that a caller gives, and where those are.
///
/// # Safety
///
/// Each is NULL or holds one norm for each token.
unsafe fn given_weights(plan: &Plan, input_norms: *const f32, guess: *const f32) -> Outcome<(Weights, Vec<Region>)> {
    let input = Array::new(input_norms, plan.tokens, "input_norms")?;
    let guess = norm_guess(plan, guess)?;
    plan.check_heap()?;
    let regions = [Some(input.region()), guess.as_ref().map(Array::region)].into_iter().flatten().collect();
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    let (input, guess) = unsafe { (input.get(), guess.map(|guess| guess.get())) };
    let weights = match (plan.source, guess) {
        (Source::Norms, Some(guess)) => Weights::from_norms(input, guess)?,
        (Source::Cached, Some(guess)) => Weights::from_cache(input, &known(guess), plan.linear.mix)?,
        _ => Weights::from_input(input)?,
    };
    Ok((weights, regions))
}

/// Chooses rows from norms alone: weights as in wtacrs_weights, then the plan's design at (seed, offset). For weights of
/// your own, pass them as `input_norms` to a plan of WTACRS_SOURCE_INPUT. `item` is the item of a batch that shares one
/// offset, 0 if there is none.
///
/// Writes `*kept` ascending indices with their scales, and of how many of them were certain, `*winners` (either may be
/// NULL); `capacity` is at least what the plan's budget says. Entries beyond `*kept` are left as they are. `scratch` as
/// in wtacrs_forward; `stream` too.
///
/// The same bits on every machine.
///
/// On CUDA all arrays are the GPU's, `winners` too, and `kept` must not be NULL. The upper half of `*kept` is 0, or 1 +
/// the index of the first norm that is negative or not finite; the lower half is then 0.
///
/// Errors: as for wtacrs_weights; also WTACRS_BUFFER_TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_select(
    plan: *const wtacrs_plan,
    input_norms: *const f32,
    guess: *const f32,
    seed: u64,
    offset: u64,
    item: u32,
    indices: *mut u32,
    scales: *mut f64,
    capacity: usize,
    kept: *mut u64,
    winners: *mut u64,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_select", || {
        let plan = self::plan(plan)?;
        if let Some((gpu, layer)) = plan.on_gpu() {
            check_room(&plan, capacity)?;
            let selection = DeviceSelection::new(&plan, indices, Some(scales.cast_const()), kept)?;
            let scratch = device_block(scratch, scratch_bytes, plan.sizes.forward, "scratch")?;
            let (randomness, norms) = (plan.randomness(seed, offset), [input_norms, guess]);
            // SAFETY: as documented.
            return unsafe {
                cuda::select(&plan, &layer.linear, gpu, norms, randomness, item, &selection, winners, &scratch, stream)
            };
        }
        // SAFETY: as documented, the number is on the host.
        let offset = unsafe { plan.further_offset.added_to(offset) };
        block(scratch, scratch_bytes, 0, "scratch")?;
        let output = SelectionOutput::new(indices, scales, capacity, kept, winners)?;
        check_room(&plan, capacity)?;
        // SAFETY: as documented.
        let (weights, inputs) = unsafe { given_weights(&plan, input_norms, guess) }?;
        let mut draws = PhiloxChance::with_stream(Randomness::new(seed, offset), item);
        let selection = plan.linear.design.select(&weights, plan.budget, &mut draws);
        // SAFETY: as documented.
        unsafe { output.write(&selection, &inputs) }
    })
}

fn check_room(plan: &Plan, capacity: usize) -> Outcome {
    if capacity >= plan.budget.get() {
        return Ok(());
    }
    let message = format!("room for {capacity} pairs where the budget is {}", plan.budget.get());
    Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message))
}

/// A selection that a caller gives back.
struct GivenSelection {
    kept: Array<u64>,
    indices: *const u32,
    scales: *const f64,
}

impl GivenSelection {
    fn new(indices: *const u32, scales: *const f64, kept: *const u64) -> Outcome<Self> {
        Ok(Self { kept: Array::new(kept, 1, "kept")?, indices, scales })
    }

    /// The same in a GPU's memory, where nothing is read.
    fn on_device(&self, plan: &Plan, with_scales: bool) -> Outcome<DeviceSelection> {
        DeviceSelection::new(plan, self.indices, with_scales.then_some(self.scales), self.kept.as_ptr())
    }

    /// The selection and where it is.
    ///
    /// # Safety
    ///
    /// `kept` holds one number, `indices` and `scales` so many entries; `scales` may be NULL if they are not needed.
    unsafe fn read(&self, plan: &Plan, with_scales: bool) -> Outcome<(Selection, Vec<Region>)> {
        // SAFETY: checked for NULL and alignment; the caller has the rest.
        let [kept] = (unsafe { self.kept.get() }) else { unreachable!("one entry") };
        let kept = usize::try_from(*kept).ok().filter(|&kept| kept <= plan.budget.get()).ok_or_else(|| {
            let message = format!("{kept} rows where the budget is {}", plan.budget.get());
            Failure::new(WTACRS_INVALID_ARGUMENT, message)
        })?;
        let indices = Array::new(self.indices, kept, "indices")?;
        let mut regions = vec![self.kept.region(), indices.region()];
        let scales = if with_scales {
            let scales = Array::new(self.scales, kept, "scales")?;
            regions.push(scales.region());
            // SAFETY: as above.
            unsafe { scales.get() }.to_vec()
        } else {
            vec![1.0; kept]
        };
        // SAFETY: as above.
        let indices = unsafe { indices.get() }.to_vec();
        Ok((Selection::new(plan.tokens, 0, indices, scales)?, regions))
    }
}

/// Copies the rows of H (as in wtacrs_forward) that `indices` name, `*kept` of them, into `rows` (kept x in_features, of
/// H's dtype, `rows_leading` >= in_features elements from row to row): what wtacrs_weight_gradient takes.
///
/// On CUDA all memory is the GPU's, the indices are not checked, `rows` has as many rows as the plan's budget, and those
/// from `*kept` on become zero.
///
/// Errors: WTACRS_INVALID_ARGUMENT if indices do not ascend, lie beyond the tokens, or are more than the budget;
/// WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_SIZE_OVERFLOW, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_gather(
    plan: *const wtacrs_plan,
    h: *const c_void,
    h_leading: usize,
    indices: *const u32,
    kept: *const u64,
    rows: *mut c_void,
    rows_leading: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_gather", || {
        let plan = self::plan(plan)?;
        let h = Tensor::rows(h, plan.h, [plan.tokens, plan.in_features], h_leading, "h")?;
        let given = GivenSelection::new(indices, core::ptr::null(), kept)?;
        let rows = |shape| Tensor::rows(rows, plan.h, shape, rows_leading, "rows");
        // SAFETY: as documented.
        unsafe { gather(&plan, h, &given, rows, stream) }
    })
}

/// wtacrs_gather with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the budget).
///
/// Errors: as for wtacrs_gather; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_gather_dl(
    plan: *const wtacrs_plan,
    h: *const wtacrs_dltensor,
    indices: *const u32,
    kept: *const u64,
    rows: *const wtacrs_dltensor,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_gather_dl", || {
        let plan = self::plan(plan)?;
        // SAFETY: as documented.
        let h = unsafe { shaped(h, plan.device(), plan.h, [plan.tokens, plan.in_features], "h") }?;
        let given = GivenSelection::new(indices, core::ptr::null(), kept)?;
        // SAFETY: as documented.
        unsafe { gather(&plan, h, &given, |shape| shaped(rows, plan.device(), plan.h, shape, "rows"), stream) }
    })
}

/// # Safety
///
/// The contract of `wtacrs_gather`.
unsafe fn gather(
    plan: &Plan,
    h: Tensor<2>,
    given: &GivenSelection,
    rows: impl FnOnce([usize; 2]) -> Outcome<Tensor<2>>,
    stream: *mut c_void,
) -> Outcome {
    if let Some((gpu, layer)) = plan.on_gpu() {
        let selection = given.on_device(plan, false)?;
        let rows = rows([plan.budget.get(), plan.in_features])?;
        // SAFETY: the caller has it.
        return unsafe { cuda::gather(&layer.linear, gpu, h, &selection, rows, stream) };
    }
    // SAFETY: the caller has it.
    let (selection, mut inputs) = unsafe { given.read(plan, false) }?;
    let rows = rows([selection.len(), plan.in_features])?.writable()?;
    inputs.push(h.region());
    check_disjoint(&[rows.region()], &inputs)?;
    with_element!(plan.h, T => {
        // SAFETY: checked for NULL, alignment and overlap; the caller has the rest.
        let (h, rows) = unsafe { (h.view::<T>(), rows.view_mut::<T>()) };
        Ok(product::gather_into(h, &selection, rows)?)
    })
}

/// dW from rows that the caller keeps: as wtacrs_backward, with `rows` (kept x in_features, of H's dtype, `rows_leading`
/// >= in_features elements from row to row), `*kept` indices and scales in place of saved memory.
///
/// `scratch` is of the size that wtacrs_plan_weight_gradient_scratch_bytes tells. On CUDA all memory is the GPU's, and
/// `rows`, `indices` and `scales` have as many rows and entries as the plan's budget. The rows of dZ are gathered and
/// scaled first, rounded to their dtype.
///
/// Errors: WTACRS_INVALID_ARGUMENT also for a scale that is negative or not finite; as for wtacrs_gather and
/// wtacrs_backward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_weight_gradient(
    plan: *const wtacrs_plan,
    rows: *const c_void,
    rows_leading: usize,
    indices: *const u32,
    scales: *const f64,
    kept: *const u64,
    dz: *const c_void,
    dz_leading: usize,
    dw: *mut c_void,
    dw_leading: usize,
    accumulate: i32,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_weight_gradient", || {
        let plan = self::plan(plan)?;
        let dz = Tensor::rows(dz, plan.dz, [plan.tokens, plan.out_features], dz_leading, "dz")?;
        let dw = Tensor::rows(dw, plan.dw, [plan.in_features, plan.out_features], dw_leading, "dw")?;
        let given = GivenSelection::new(indices, scales, kept)?;
        let rows = |shape| Tensor::rows(rows, plan.h, shape, rows_leading, "rows");
        // SAFETY: as documented.
        unsafe { weight_gradient(&plan, rows, &given, [dz, dw], accumulate, (scratch, scratch_bytes), stream) }
    })
}

/// wtacrs_weight_gradient with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the budget).
///
/// Errors: as for wtacrs_weight_gradient; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_weight_gradient_dl(
    plan: *const wtacrs_plan,
    rows: *const wtacrs_dltensor,
    indices: *const u32,
    scales: *const f64,
    kept: *const u64,
    dz: *const wtacrs_dltensor,
    dw: *const wtacrs_dltensor,
    accumulate: i32,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_weight_gradient_dl", || {
        let plan = self::plan(plan)?;
        // SAFETY: as documented.
        let (dz, dw) = unsafe {
            (
                shaped(dz, plan.device(), plan.dz, [plan.tokens, plan.out_features], "dz")?,
                shaped(dw, plan.device(), plan.dw, [plan.in_features, plan.out_features], "dw")?,
            )
        };
        let given = GivenSelection::new(indices, scales, kept)?;
        // SAFETY: as documented.
        unsafe {
            let rows = |shape| shaped(rows, plan.device(), plan.h, shape, "rows");
            weight_gradient(&plan, rows, &given, [dz, dw], accumulate, (scratch, scratch_bytes), stream)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_weight_gradient`.
unsafe fn weight_gradient(
    plan: &Plan,
    rows: impl FnOnce([usize; 2]) -> Outcome<Tensor<2>>,
    given: &GivenSelection,
    [dz, dw]: [Tensor<2>; 2],
    accumulate: i32,
    scratch: (*mut c_void, usize),
    stream: *mut c_void,
) -> Outcome {
    if let Some((gpu, layer)) = plan.on_gpu() {
        let selection = given.on_device(plan, true)?;
        let rows = rows([plan.budget.get(), plan.in_features])?;
        // SAFETY: the caller has it.
        return unsafe {
            cuda::weight_gradient(plan, &layer.linear, gpu, rows, &selection, [dz, dw], accumulate, scratch, stream)
        };
    }
    let scratch = block(scratch.0, scratch.1, plan.backward_scratch, "scratch")?;
    let dw = dw.writable()?;
    let update = update(accumulate)?;
    // SAFETY: the caller has it.
    let (selection, mut inputs) = unsafe { given.read(plan, true) }?;
    let rows = rows([selection.len(), plan.in_features])?;
    inputs.extend([rows.region(), dz.region()]);
    check_disjoint(&[dw.region(), scratch.region()], &inputs)?;
    with_elements!(plan.h, plan.dz, T, U => {
        // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
        let (rows, dz, dw, workspace) = unsafe {
            (
                rows.view::<T>(),
                dz.view::<U>(),
                dw.view_mut::<<T as Element>::Accumulator>(),
                workspace::<<T as Element>::Accumulator>(&scratch),
            )
        };
        gradient::<T, U>(rows, dz, &selection, dw, update, workspace)
    })
}
