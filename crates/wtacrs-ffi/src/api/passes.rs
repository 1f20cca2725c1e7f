//! A layer's passes: forward, backward, both in one call, and what a forward pass has chosen.

use super::norm_predictor::{predictor, wtacrs_norm_predictor};
use super::plan::{Plan, plan, wtacrs_plan};
use super::selection::{SelectionOutput, wtacrs_selection};
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{
    Array, PassMemory, Source, Stream, Tensor, check_disjoint, regions, shaped, update, wtacrs_dltensor,
};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, guard};
use crate::device::{Backward, Estimate, Forward};
use core::ffi::c_void;
use core::ptr;
use wtacrs_core::Randomness;

/// What a forward pass may be given. Zeros, and NULL in place of the struct, stand for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_forward_options {
    /// sizeof(wtacrs_forward_options)
    pub size: usize,
    /// [in] Norms of dZ, one for each token. WTACRS_SOURCE_NORMS and WTACRS_SOURCE_CACHED (negative: unknown) require it.
    /// For WTACRS_SOURCE_PREDICTED cached norms (negative: unknown) are optional: they move the predictor's guesses as far
    /// as it has learned to trust them. For WTACRS_SOURCE_INPUT it must be NULL. A plan that packs all rows does not read
    /// it, and requires none.
    pub guess: *const f32,
    /// [in] The layer's predictor, which this call only reads. WTACRS_SOURCE_PREDICTED requires it; for other sources it
    /// must be NULL. A plan that packs all rows does not read it, and requires none.
    pub predictor: *const wtacrs_norm_predictor,
    /// [out] The weights that the rows are chosen by, one for each token, for wtacrs_planner_observe; with a predictor up to a
    /// factor that all of them share. A plan that packs all rows writes what it would choose by, if it is given a predictor or a
    /// guess as its source requires; on CUDA it has none: WTACRS_STATUS_UNSUPPORTED. One more kernel is launched on CUDA.
    pub weights: *mut f64,
}

impl Default for wtacrs_forward_options {
    fn default() -> Self {
        Self { size: size_of::<Self>(), guess: ptr::null(), predictor: ptr::null(), weights: ptr::null_mut() }
    }
}

// SAFETY: repr(C), begins with its size, and has pointers alone.
unsafe impl SizedStruct for wtacrs_forward_options {
    const FIRST_BYTES: usize = core::mem::offset_of!(wtacrs_forward_options, weights);
}

/// What a backward pass may be asked for. Zeros, and NULL in place of the struct, stand for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_backward_options {
    /// sizeof(wtacrs_backward_options)
    pub size: usize,
    /// 0 to write dW and `bias_gradient`, whose old values are then never read; 1 to add to them.
    pub accumulate: i32,
    /// [out] Norms of the rows of dZ, one for each token: what a norm cache or predictor learns from.
    pub dz_norms: *mut f32,
    /// [out] The exact sum of the rows of dZ: out_features numbers of dW's dtype.
    pub bias_gradient: *mut c_void,
}

impl Default for wtacrs_backward_options {
    fn default() -> Self {
        Self { size: size_of::<Self>(), accumulate: 0, dz_norms: ptr::null_mut(), bias_gradient: ptr::null_mut() }
    }
}

// SAFETY: repr(C), begins with its size, and has numbers and pointers alone.
unsafe impl SizedStruct for wtacrs_backward_options {}

/// The forward pass: chooses rows of H, and writes them to `saved` with their indices and scales. One pass is enough for
/// layers that read the same H (Q, K and V): plans of equal tokens, in_features, dtype of H, budget and packing read each
/// other's saved memory.
///
/// h         [in] tokens x in_features, of the plan's dtype, `h_leading` >= in_features elements from row to row
/// seed, offset  where the randomness begins; see `draws` in wtacrs_plan_info
/// options   [in, optional]
/// saved     [out] `saved_bytes` >= the size in wtacrs_plan_info, aligned as it says
/// scratch   [scratch] `scratch_bytes` >= forward_scratch_bytes, aligned likewise
/// stream    the CUDA stream to work on (a CUstream or cudaStream_t of the context's CUDA context, or NULL for its default
///           stream), borrowed; ignored by the CPU, which is done when the call returns
///
/// The same weights, budget, design, seed and offset give the same rows and scales on every machine and for every number
/// of threads.
///
/// On CUDA all memory is the GPU's and must live until the work is done. Three kernels are launched, or one if all rows are
/// packed; nothing is allocated, copied or waited for, and the call can be captured in a CUDA graph (in which seed and
/// offset are fixed: see wtacrs_layer_set_further_offset). A row that is not finite shows in the saved status and not here:
/// see wtacrs_plan_info. Native rows are saved times their scales, rounded once more (the CPU saves them as they are); the
/// backward pass of either device reads its own. The elements of a row of H must lie side by side.
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS names the first row of H or guess that is negative or not finite (where all rows are
/// packed, the first row of H with an element that is not finite in f32);
/// _SHAPE_MISMATCH for another layer's predictor, _DEVICE_MISMATCH for another device's; _INVALID_ARGUMENT,
/// _BUFFER_TOO_SMALL, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. `saved` is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_forward(
    plan: *const wtacrs_plan,
    h: *const c_void,
    h_leading: usize,
    seed: u64,
    offset: u64,
    options: *const wtacrs_forward_options,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_forward", || {
        let plan = &*self::plan(plan)?;
        let h = Tensor::rows(h, plan.layer.h, plan.layer.h_shape(), h_leading, "h")?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { forward(plan, h, Randomness::new(seed, offset), options, memory) }
    })
}

/// wtacrs_plan_forward with H as a DLPack tensor of two axes: any strides, byte_offset, sizes of zero. On CUDA the tensor
/// is one of the plan's GPU (device type 2), whose rows' elements lie side by side: WTACRS_STATUS_UNSUPPORTED otherwise.
///
/// Errors: as for wtacrs_plan_forward; also WTACRS_STATUS_DEVICE_MISMATCH, and _UNSUPPORTED for a dtype outside
/// wtacrs_dtype.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_forward_dl(
    plan: *const wtacrs_plan,
    h: *const wtacrs_dltensor,
    seed: u64,
    offset: u64,
    options: *const wtacrs_forward_options,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_forward_dl", || {
        let plan = &*self::plan(plan)?;
        // SAFETY: as documented.
        let h = unsafe { shaped(h, plan.place(), plan.layer.h, plan.layer.h_shape(), "h") }?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { forward(plan, h, Randomness::new(seed, offset), options, memory) }
    })
}

/// # Safety
///
/// The contract of `wtacrs_plan_forward`.
unsafe fn forward(
    plan: &Plan,
    h: Tensor<2>,
    randomness: Randomness,
    options: *const wtacrs_forward_options,
    memory: PassMemory,
) -> Outcome {
    // SAFETY: the caller has it.
    let options = unsafe { options::read(options, "the forward options") }?;
    let sizes = plan.sizes();
    let (saved, scratch) = memory.check(sizes.saved, sizes.forward, plan.device.alignment())?;
    let weights = Array::optional(options.weights.cast_const(), plan.layer.tokens, "weights")?;
    // Where all rows are packed and no weights are asked for, what would guess is checked, and not read.
    let is_optional = plan.layer.keeps_all() && weights.is_none();
    let guess = if is_optional && options.guess.is_null() { None } else { plan.guess(options.guess)? };
    let predictor = match plan.layer.source {
        Source::Predicted if is_optional && options.predictor.is_null() => None,
        Source::Predicted => Some(predictor(options.predictor)?),
        _ if options.predictor.is_null() => None,
        _ => {
            let message = "a predictor, but the plan's source is another";
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
        }
    };
    let inputs = regions([Some(h.region()), guess.as_ref().map(Array::region)]);
    let outputs = regions([Some(saved.region()), Some(scratch.region()), weights.as_ref().map(Array::region)]);
    check_disjoint(&outputs, &inputs)?;
    let stream = memory.stream;
    let (guess, predictor) = if is_optional { (None, None) } else { (guess, predictor) };
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.forward(Forward { h, guess, predictor, weights, randomness, saved, scratch, stream }) }
}

/// The backward pass: dW from the saved rows and dZ, of which only the kept tokens' rows count.
///
/// saved     [in] what a forward pass of such a plan wrote
/// dz        [in] tokens x out_features, `dz_leading` >= out_features elements from row to row
/// dw        [out] in_features x out_features, `dw_leading` >= out_features; also an input with options->accumulate
/// options   [in, optional]
/// scratch   [scratch] `scratch_bytes` >= backward_scratch_bytes
/// stream    as in wtacrs_plan_forward
///
/// On CUDA at most three kernels are launched, or four for packed rows, of which one reads dZ once for its norms and the
/// bias gradient together, and the call can be captured. `saved` is not checked there: a forward pass must have written it
/// earlier on this stream, or on one that this stream waits for. Norms may round otherwise if the bias gradient is asked for
/// as well.
///
/// The same bits for every number of threads on one machine; other machines may round otherwise.
///
/// Errors: WTACRS_STATUS_CORRUPTED, _VERSION_MISMATCH or _SHAPE_MISMATCH if no forward pass of such a plan wrote `saved`;
/// _INVALID_ENUM for `accumulate`; _INVALID_ARGUMENT, _BUFFER_TOO_SMALL, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER,
/// _INVALID_HANDLE, _MISALIGNED. Outputs are then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_backward(
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz: *const c_void,
    dz_leading: usize,
    dw: *mut c_void,
    dw_leading: usize,
    options: *const wtacrs_backward_options,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_backward", || {
        let plan = &*self::plan(plan)?;
        let dz = Tensor::rows(dz, plan.layer.dz, plan.layer.dz_shape(), dz_leading, "dz")?;
        let dw = Tensor::rows(dw, plan.layer.dw, plan.layer.dw_shape(), dw_leading, "dw")?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { backward(plan, dz, dw, options, memory) }
    })
}

/// wtacrs_plan_backward with dZ and dW as DLPack tensors of two axes: any strides, byte_offset, sizes of zero. For a weight
/// that is stored as out_features x in_features, pass dW with its strides exchanged. On CUDA the elements of a row of dZ
/// and of dW must lie side by side, so that dW cannot be such a transpose: WTACRS_STATUS_UNSUPPORTED.
///
/// Errors: as for wtacrs_plan_backward; also WTACRS_STATUS_DEVICE_MISMATCH, and _UNSUPPORTED for a dtype outside
/// wtacrs_dtype.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_backward_dl(
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz: *const wtacrs_dltensor,
    dw: *const wtacrs_dltensor,
    options: *const wtacrs_backward_options,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_plan_backward_dl", || {
        let plan = &*self::plan(plan)?;
        // SAFETY: as documented.
        let (dz, dw) = unsafe {
            (
                shaped(dz, plan.place(), plan.layer.dz, plan.layer.dz_shape(), "dz")?,
                shaped(dw, plan.place(), plan.layer.dw, plan.layer.dw_shape(), "dw")?,
            )
        };
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { backward(plan, dz, dw, options, memory) }
    })
}

/// # Safety
///
/// The contract of `wtacrs_plan_backward`.
unsafe fn backward(
    plan: &Plan,
    dz: Tensor<2>,
    dw: Tensor<2>,
    options: *const wtacrs_backward_options,
    memory: PassMemory,
) -> Outcome {
    // SAFETY: the caller has it.
    let options = unsafe { options::read(options, "the backward options") }?;
    let (dw, update) = (dw.writable()?, update(options.accumulate)?);
    let sizes = plan.sizes();
    let (saved, scratch) = memory.check(sizes.saved, sizes.backward, plan.device.alignment())?;
    let dz_norms = Array::optional(options.dz_norms, plan.layer.tokens, "dz_norms")?;
    let bias_gradient = match options.bias_gradient.is_null() {
        true => None,
        false => {
            let shape = [plan.layer.out_features];
            Some(Tensor::contiguous(options.bias_gradient, plan.layer.dw, shape, "bias_gradient")?)
        }
    };
    let outputs = regions([
        Some(dw.region()),
        Some(scratch.region()),
        dz_norms.as_ref().map(Array::region),
        bias_gradient.as_ref().map(Tensor::region),
    ]);
    check_disjoint(&outputs, &[saved.region(), dz.region()])?;
    let stream = memory.stream;
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.backward(Backward { saved, dz, dw, update, dz_norms, bias_gradient, scratch, stream }) }
}

/// Estimates the product of X^T (in_features x tokens) and Y (tokens x out_features) in one call: X in the place of H and Y
/// in that of dZ, both whole, so that the weights are exact whatever the plan's source. Nothing is kept from one pass to
/// another, so rows are not packed, whatever the plan's packing.
///
/// x, y      [in] as H and dZ in wtacrs_plan_forward and wtacrs_plan_backward
/// out       [out] in_features x out_features, of dW's dtype
/// scratch   [scratch] `scratch_bytes` >= estimate_scratch_bytes
///
/// On CUDA a row that is not finite makes a product of zeros.
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS for a row that is not finite; _INVALID_ARGUMENT, _BUFFER_TOO_SMALL,
/// _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_estimate(
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
    guard("wtacrs_plan_estimate", || {
        let plan = &*self::plan(plan)?;
        let layer = &plan.layer;
        let x = Tensor::rows(x, layer.h, layer.h_shape(), x_leading, "x")?;
        let y = Tensor::rows(y, layer.dz, layer.dz_shape(), y_leading, "y")?;
        let out = Tensor::rows(out, layer.dw, layer.dw_shape(), out_leading, "out")?;
        // SAFETY: as documented.
        unsafe { estimate(plan, [x, y, out], Randomness::new(seed, offset), scratch, scratch_bytes, stream) }
    })
}

/// wtacrs_plan_estimate with DLPack tensors of two axes.
///
/// Errors: as for wtacrs_plan_estimate; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH, _UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_estimate_dl(
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
    guard("wtacrs_plan_estimate_dl", || {
        let plan = &*self::plan(plan)?;
        let layer = &plan.layer;
        // SAFETY: as documented.
        unsafe {
            let x = shaped(x, plan.place(), layer.h, layer.h_shape(), "x")?;
            let y = shaped(y, plan.place(), layer.dz, layer.dz_shape(), "y")?;
            let out = shaped(out, plan.place(), layer.dw, layer.dw_shape(), "out")?;
            estimate(plan, [x, y, out], Randomness::new(seed, offset), scratch, scratch_bytes, stream)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_plan_estimate`.
unsafe fn estimate(
    plan: &Plan,
    [x, y, out]: [Tensor<2>; 3],
    randomness: Randomness,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: Stream,
) -> Outcome {
    let scratch = plan.scratch(scratch, scratch_bytes, plan.sizes().estimate)?;
    let out = out.writable()?;
    check_disjoint(&[out.region(), scratch.region()], &[x.region(), y.region()])?;
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.estimate(Estimate { x, y, out, randomness, scratch, stream }) }
}

/// Reads the selection in saved memory back.
///
/// saved     [in] what a forward pass of such a plan wrote
/// selection [out] in the host's memory: `*kept` ascending indices with their scales, of which `*winners` were certain (if
///           all rows are packed, every index with the scale 1, though none is saved).
///           `indices` and `scales` have room for `capacity` entries, or are NULL with `capacity` 0 to ask for the counts
///           alone; `kept` and `winners` may be NULL.
///
/// On CUDA only `saved` is the GPU's memory. The call waits for all that was launched in the CUDA context, so do not make
/// it while a stream is captured.
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL; on CUDA _INVALID_WEIGHTS for a row of H whose norm or guess was negative or not
/// finite; as for wtacrs_plan_backward about `saved`; _INVALID_ARGUMENT, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE,
/// _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_saved_selection(
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    selection: *const wtacrs_selection,
) -> wtacrs_status {
    guard("wtacrs_plan_saved_selection", || {
        let plan = &*self::plan(plan)?;
        let saved = plan.saved(saved, saved_bytes)?;
        // SAFETY: as documented.
        unsafe {
            let output = SelectionOutput::new(selection)?;
            output.write(&plan.calls.saved_selection(&saved)?, &[saved.region()])
        }
    })
}
