//! A linear layer's two passes: choose and save rows of H; then dW from them.

use crate::array::{Array, block, check_disjoint, regions};
use crate::cuda::Pass;
use crate::dlpack::{shaped, wtacrs_dltensor};
use crate::dtype::{Number, Source, flag, with_element, with_elements};
use crate::guard::{Failure, Outcome, guard, poisoned};
use crate::plan::{Plan, plan, wtacrs_plan};
use crate::predictor::{predictor, wtacrs_norm_predictor};
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use ndarray::{ArrayViewMut1, ArrayViewMut2};
use wtacrs_core::Randomness;
use wtacrs_core::Selection;
use wtacrs_core::element::Element;
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::product::{self, Update};

/// The forward pass: chooses rows of H (tokens x in_features, of the plan's dtype, `h_leading` >= in_features elements
/// from row to row), and writes them to `saved` with their indices and scales. For layers that read the same H (Q, K
/// and V) one pass is enough: plans of equal tokens, in_features, dtype of H and budget read each other's saved memory.
///
/// `guess` holds `tokens` floats for WTACRS_SOURCE_NORMS and WTACRS_SOURCE_CACHED (negative: not known). For
/// WTACRS_SOURCE_PREDICTED it may be NULL; cached norms given there (negative: not known) move the predictor's guesses as
/// far as it has learnt to trust them (wtacrs_norm_predictor_update_cached, and _update_cached_on for any device). For
/// WTACRS_SOURCE_INPUT it must be NULL. `predictor` is for WTACRS_SOURCE_PREDICTED, and must be NULL otherwise; this call
/// only reads it.
/// Randomness is a function of `seed` and `offset` alone; see wtacrs_plan_draws.
///
/// `saved` and `scratch` are aligned to 64 (on CUDA 256) and of the sizes that the plan tells; larger ones are allowed.
/// `stream` is the CUDA stream to work on (a CUstream or cudaStream_t of the context's CUDA context, or NULL for its
/// default stream), borrowed; the CPU ignores it and is done when the call returns.
///
/// The same weights, budget, design, seed and offset give the same rows and scales on every machine and for every
/// number of threads.
///
/// On CUDA all memory is the GPU's and must live until the work is done. Three kernels are launched; nothing is
/// allocated, copied or waited for, and the call can be captured in a CUDA graph (in which seed and offset are fixed: see
/// wtacrs_layer_set_further_offset). A row that is not finite shows in the saved status, not here: see
/// wtacrs_plan_saved_status_offset. Rows are saved times their scales, rounded once more (the CPU saves them as they
/// are); the backward pass of either device knows its own. The elements of a row of H must lie side by side.
///
/// Errors: WTACRS_INVALID_WEIGHTS names the first row of H or guess that is negative or not finite;
/// WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_INVALID_ARGUMENT, WTACRS_SHAPE_MISMATCH (another layer's predictor),
/// WTACRS_SIZE_OVERFLOW, WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP. `saved` is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_forward(
    plan: *const wtacrs_plan,
    h: *const c_void,
    h_leading: usize,
    guess: *const f32,
    predictor: *const wtacrs_norm_predictor,
    seed: u64,
    offset: u64,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_forward", || {
        let plan = &*self::plan(plan)?;
        let h = Tensor::rows(h, plan.h, [plan.tokens, plan.in_features], h_leading, "h")?;
        let memory = Pass { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { forward(plan, h, guess, predictor, seed, offset, memory) }
    })
}

/// wtacrs_forward with H as a DLPack tensor of two axes: any strides, byte_offset, sizes of zero. On CUDA the tensor is
/// one of the plan's GPU (device type 2), whose rows' elements lie side by side: WTACRS_UNSUPPORTED otherwise.
///
/// Errors: as for wtacrs_forward; also WTACRS_DEVICE_MISMATCH, and WTACRS_UNSUPPORTED for a dtype that no plan has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_forward_dl(
    plan: *const wtacrs_plan,
    h: *const wtacrs_dltensor,
    guess: *const f32,
    predictor: *const wtacrs_norm_predictor,
    seed: u64,
    offset: u64,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_forward_dl", || {
        let plan = &*self::plan(plan)?;
        // SAFETY: as documented.
        let h = unsafe { shaped(h, plan.device(), plan.h, [plan.tokens, plan.in_features], "h") }?;
        let memory = Pass { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { forward(plan, h, guess, predictor, seed, offset, memory) }
    })
}

/// # Safety
///
/// The contract of `wtacrs_forward`.
unsafe fn forward(
    plan: &Plan,
    h: Tensor<2>,
    guess: *const f32,
    predictor: *const wtacrs_norm_predictor,
    seed: u64,
    offset: u64,
    memory: Pass,
) -> Outcome {
    if let Some((gpu, layer)) = plan.on_gpu() {
        let randomness = plan.randomness(seed, offset);
        // SAFETY: the caller has it.
        return unsafe { layer.forward(plan, gpu, h, guess, predictor, randomness, &memory) };
    }
    // SAFETY: as documented, the number is on the host.
    let offset = unsafe { plan.further_offset.added_to(offset) };
    let saved = block(memory.saved, memory.saved_bytes, plan.saved.bytes(), "saved")?;
    block(memory.scratch, memory.scratch_bytes, 0, "scratch")?;
    let guess = match plan.source {
        Source::Predicted => Array::optional(guess, plan.tokens, "guess")?,
        _ => norm_guess(plan, guess)?,
    };
    let inputs = regions([Some(h.region()), guess.as_ref().map(Array::region)]);
    check_disjoint(&[saved.region()], &inputs)?;
    plan.check_heap()?;
    let predictor = match (plan.source, predictor.is_null()) {
        (Source::Predicted, _) => Some(self::predictor(predictor)?),
        (_, true) => None,
        _ => return Err(Failure::new(WTACRS_INVALID_ARGUMENT, "a predictor, but the plan's source is another")),
    };
    let learned = predictor.as_ref().map(|predictor| predictor.read().map_err(poisoned)).transpose()?;
    // SAFETY: as the caller promises, nobody writes to it; it overlaps no output.
    let norms = guess.map(|guess| unsafe { guess.get() });
    let cached;
    with_element!(plan.h, T => {
        // SAFETY: as above.
        let h = unsafe { h.view::<T>() };
        let guess = match (plan.source, &learned, norms) {
            (Source::Norms, _, Some(norms)) => NormGuess::Norms(norms),
            (Source::Cached, _, Some(norms)) => {
                cached = known(norms);
                NormGuess::Cached(&cached)
            }
            (Source::Predicted, Some(predictor), None) => NormGuess::Predicted(predictor),
            (Source::Predicted, Some(predictor), Some(norms)) => {
                cached = known(norms);
                NormGuess::PredictedAndCached(predictor, &cached)
            }
            _ => NormGuess::Unknown,
        };
        let selection = plan.linear.select(h, guess, Randomness::new(seed, offset))?;
        // SAFETY: checked for size and alignment, and overlaps nothing; the caller has the rest.
        unsafe { plan.saved.write::<T>(saved.as_ptr(), &selection, |rows| Ok(product::gather_into(h, &selection, rows)?)) }
    })
}

/// The caller's guesses, if the plan's source takes any.
pub(crate) fn norm_guess(plan: &Plan, guess: *const f32) -> Outcome<Option<Array<f32>>> {
    match plan.source {
        Source::Norms | Source::Cached => Array::new(guess, plan.tokens, "guess").map(Some),
        _ if guess.is_null() => Ok(None),
        _ => Err(Failure::new(WTACRS_INVALID_ARGUMENT, "a guess, but the plan's source takes none")),
    }
}

/// Cached norms as core has them: negative ones are not known.
pub(crate) fn known<'a>(norms: impl IntoIterator<Item = &'a f32>) -> Vec<Option<f32>> {
    norms.into_iter().map(|&norm| if norm < 0.0 { None } else { Some(norm) }).collect()
}

/// The backward pass: dW (in_features x out_features, `dw_leading` >= out_features elements from row to row) from the
/// saved rows and dZ (tokens x out_features, `dz_leading` >= out_features), of which only the kept tokens' rows count.
/// `accumulate` is 0 to write dW (its old values are never read) or 1 to add to it; so for `bias_gradient`.
///
/// `dz_norms`, if not NULL, becomes the `tokens` norms of the rows of dZ, for a norm cache or predictor.
/// `bias_gradient`, if not NULL, becomes the exact sum of the rows of dZ: `out_features` numbers of dW's dtype.
/// `scratch` is aligned to 64 (on CUDA 256); wtacrs_plan_backward_scratch_bytes tells its size. `stream` as in
/// wtacrs_forward.
///
/// On CUDA at most three kernels are launched, of which one reads dZ once for its norms and `bias_gradient` together, and
/// the call can be captured. `saved` is not checked there: it must be what a forward pass of such a plan wrote, earlier on
/// this stream or on one that it waits for. Norms may round otherwise if `bias_gradient` is asked for as well.
///
/// The same bits for every number of threads on one machine; other machines may round otherwise.
///
/// Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH or WTACRS_SHAPE_MISMATCH if no forward pass of such a plan wrote
/// `saved`; WTACRS_INVALID_ENUM for `accumulate`; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_INVALID_ARGUMENT,
/// WTACRS_SIZE_OVERFLOW, WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP. Outputs are then as they were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_backward(
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz: *const c_void,
    dz_leading: usize,
    dw: *mut c_void,
    dw_leading: usize,
    accumulate: i32,
    dz_norms: *mut f32,
    bias_gradient: *mut c_void,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_backward", || {
        let plan = &*self::plan(plan)?;
        let dz = Tensor::rows(dz, plan.dz, [plan.tokens, plan.out_features], dz_leading, "dz")?;
        let dw = Tensor::rows(dw, plan.dw, [plan.in_features, plan.out_features], dw_leading, "dw")?;
        let memory = Pass { saved: saved.cast_mut(), saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { backward(plan, dz, dw, accumulate, dz_norms, bias_gradient, memory) }
    })
}

/// wtacrs_backward with dZ and dW as DLPack tensors of two axes: any strides, byte_offset, sizes of zero. For a weight
/// that is stored as out_features x in_features, pass dW with its strides exchanged. On CUDA the elements of a row of
/// dZ and of dW must lie side by side, so that dW cannot be such a transpose: WTACRS_UNSUPPORTED.
///
/// Errors: as for wtacrs_backward; also WTACRS_DEVICE_MISMATCH, and WTACRS_UNSUPPORTED for a dtype that no plan has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_backward_dl(
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz: *const wtacrs_dltensor,
    dw: *const wtacrs_dltensor,
    accumulate: i32,
    dz_norms: *mut f32,
    bias_gradient: *mut c_void,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_backward_dl", || {
        let plan = &*self::plan(plan)?;
        // SAFETY: as documented.
        let (dz, dw) = unsafe {
            (
                shaped(dz, plan.device(), plan.dz, [plan.tokens, plan.out_features], "dz")?,
                shaped(dw, plan.device(), plan.dw, [plan.in_features, plan.out_features], "dw")?,
            )
        };
        let memory = Pass { saved: saved.cast_mut(), saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { backward(plan, dz, dw, accumulate, dz_norms, bias_gradient, memory) }
    })
}

/// # Safety
///
/// The contract of `wtacrs_backward`.
unsafe fn backward(
    plan: &Plan,
    dz: Tensor<2>,
    dw: Tensor<2>,
    accumulate: i32,
    dz_norms: *mut f32,
    bias_gradient: *mut c_void,
    memory: Pass,
) -> Outcome {
    if let Some((gpu, layer)) = plan.on_gpu() {
        // SAFETY: the caller has it.
        return unsafe { layer.backward(plan, gpu, [dz, dw], accumulate, dz_norms, bias_gradient, &memory) };
    }
    let dw = dw.writable()?;
    let update = update(accumulate)?;
    let saved = block(memory.saved, memory.saved_bytes, plan.saved.bytes(), "saved")?;
    let scratch = block(memory.scratch, memory.scratch_bytes, plan.backward_scratch, "scratch")?;
    let dz_norms = Array::optional(dz_norms, plan.tokens, "dz_norms")?;
    let bias = match bias_gradient.is_null() {
        true => None,
        false => Some(Tensor::contiguous(bias_gradient, plan.dw, [plan.out_features], "bias_gradient")?),
    };
    let outputs = regions([
        Some(dw.region()),
        Some(scratch.region()),
        dz_norms.as_ref().map(Array::region),
        bias.as_ref().map(Tensor::region),
    ]);
    check_disjoint(&outputs, &[saved.region(), dz.region()])?;
    plan.check_heap()?;
    with_elements!(plan.h, plan.dz, T, U => {
        // SAFETY: checked for size and alignment; nobody writes to inputs, and no output overlaps them or another.
        let (read, dz, dw, bias, workspace) = unsafe {
            (
                plan.saved.read::<T>(saved.as_ptr())?,
                dz.view::<U>(),
                dw.view_mut::<<T as Element>::Accumulator>(),
                bias.map(|bias| bias.view_mut::<<T as Element>::Accumulator>()),
                workspace::<<T as Element>::Accumulator>(&scratch),
            )
        };
        // SAFETY: as above.
        let norms = dz_norms.map(|norms| unsafe { norms.get_mut() });
        let (selection, rows): (Selection, _) = read;
        let side = move || side_outputs(dz, norms, bias, update);
        let product = move || gradient::<T, U>(rows, dz, &selection, dw, update, workspace);
        // The product waits for the cores, the rest for memory.
        let (product, side) = rayon::join(product, side);
        product.and(side)
    })
}

/// What else a pass over dZ gives.
fn side_outputs<U: Element>(
    dz: ndarray::ArrayView2<'_, U>,
    norms: Option<&mut [f32]>,
    bias: Option<ArrayViewMut1<'_, U::Accumulator>>,
    update: Update,
) -> Outcome {
    match (norms, bias) {
        (Some(norms), Some(bias)) => product::row_norms_and_column_sums_into(dz, norms, bias, update)?,
        (Some(norms), None) => product::row_norms_into(dz, norms)?,
        (None, Some(bias)) => product::column_sums_into(dz, bias, update)?,
        (None, None) => {}
    }
    Ok(())
}

pub(crate) fn gradient<T: Element, U: Element<Accumulator = T::Accumulator>>(
    rows: ndarray::ArrayView2<'_, T>,
    dz: ndarray::ArrayView2<'_, U>,
    selection: &Selection,
    dw: ArrayViewMut2<'_, T::Accumulator>,
    update: Update,
    workspace: &mut [T::Accumulator],
) -> Outcome {
    Ok(product::weight_gradient_within(rows, dz, selection, dw, update, workspace)?)
}

pub(crate) fn update(accumulate: i32) -> Outcome<Update> {
    Ok(if flag("accumulate", accumulate)? { Update::Accumulate } else { Update::Overwrite })
}

/// Scratch memory as numbers.
///
/// # Safety
///
/// It must be writable and used by nobody else as long as the numbers live.
pub(crate) unsafe fn workspace<'a, A: Number>(scratch: &Array<u8>) -> &'a mut [A] {
    let bytes = scratch.region().bytes;
    if bytes == 0 {
        return &mut [];
    }
    // SAFETY: `block` has aligned it to 64, more than any number's; any bytes are a number; the caller has the rest.
    unsafe { core::slice::from_raw_parts_mut(scratch.as_ptr().cast(), bytes / size_of::<A>()) }
}
