//! A layer's plan: everything that is settled before the first step, and the sizes of the memory that steps need.

use crate::array::{Array, BLOCK_ALIGNMENT, report};
use crate::context::{Context, context, wtacrs_context};
use crate::cuda::CudaLayer;
use crate::device::{Device, Gpu};
use crate::dtype::{Dtype, Source, with_element};
use crate::guard::{Failure, Outcome, guard};
use crate::heap::{self, PER_TOKEN};
use crate::kept::{KeptBlock, aligned};
use crate::layer::{FurtherOffset, layer, wtacrs_layer};
use crate::registry::Registry;
use crate::status::*;
use std::sync::Arc;
use wtacrs_core::layers::Linear;
use wtacrs_core::product::workspace_len;
use wtacrs_core::sampling::{Budget, Keep};
use wtacrs_kernels::plan::DeviceRandomness;

/// A layer's settled plan. It never changes: any number of threads may use one at the same time, each with saved and
/// scratch memory of its own.
pub struct wtacrs_plan {
    _opaque: (),
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) context: Arc<Context>,
    pub(crate) linear: Linear,
    pub(crate) tokens: usize,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    pub(crate) h: Dtype,
    pub(crate) dz: Dtype,
    pub(crate) dw: Dtype,
    pub(crate) source: Source,
    pub(crate) budget: Budget,
    pub(crate) saved: KeptBlock,
    pub(crate) backward_scratch: usize,
    pub(crate) estimate_scratch: usize,
    pub(crate) further_offset: FurtherOffset,
    /// The launches, if the device is a GPU.
    pub(crate) cuda: Option<CudaLayer>,
    /// Of the plan's device.
    pub(crate) sizes: Sizes,
}

/// Bytes of the memory of steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) saved: usize,
    pub(crate) forward: usize,
    pub(crate) backward: usize,
    pub(crate) estimate: usize,
    pub(crate) weight_gradient: usize,
}

static PLANS: Registry<Plan> = Registry::new("plan");

pub(crate) fn plan(handle: *const wtacrs_plan) -> Outcome<Arc<Plan>> {
    PLANS.get(handle)
}

/// Bytes that a weight gradient from `kept` rows works in.
pub(crate) fn workspace_bytes(h: Dtype, kept: usize, in_features: usize, out_features: usize) -> Outcome<usize> {
    let overflow = || Failure::new(WTACRS_SIZE_OVERFLOW, format!("the scratch memory for {kept} rows overflows"));
    // An upper bound first, so that the numbers below cannot overflow.
    let most = in_features.checked_add(out_features).and_then(|columns| columns.checked_mul(kept));
    most.and_then(|count| count.checked_mul(size_of::<f64>())).ok_or_else(overflow)?;
    let numbers = with_element!(h, T => workspace_len::<T>(kept, in_features, out_features));
    aligned(numbers * h.accumulator().bytes()).filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(overflow)
}

impl Plan {
    fn new(context: Arc<Context>, layer: crate::layer::Layer) -> Outcome<Self> {
        let unset = |what| Failure::new(WTACRS_INVALID_ARGUMENT, format!("the layer's {what} was not set"));
        let [tokens, in_features, out_features] = layer.shape.ok_or_else(|| unset("shape"))?;
        let keep: Keep = layer.keep.ok_or_else(|| unset("budget"))?;
        let budget = keep.budget(tokens)?;
        let saved = KeptBlock::new(layer.h, tokens, in_features, budget.get())?;
        let backward_scratch = workspace_bytes(layer.h, budget.get(), in_features, out_features)?;
        let estimate_scratch = saved.bytes().checked_add(backward_scratch);
        let overflow = || Failure::new(WTACRS_SIZE_OVERFLOW, "the scratch memory overflows");
        let estimate_scratch = estimate_scratch.filter(|&b| isize::try_from(b).is_ok()).ok_or_else(overflow)?;
        let shape = [tokens, in_features, out_features];
        let cuda = context.device.gpu().map(|gpu| CudaLayer::new(gpu, &layer, shape, budget)).transpose()?;
        let on_cpu = Sizes {
            saved: saved.bytes(),
            forward: 0,
            backward: backward_scratch,
            estimate: estimate_scratch,
            weight_gradient: backward_scratch,
        };
        Ok(Self {
            sizes: cuda.as_ref().map_or(on_cpu, |cuda| cuda.sizes),
            cuda,
            further_offset: layer.further_offset,
            context,
            linear: Linear::new(keep).with_design(layer.design).with_mix(layer.mix),
            tokens,
            in_features,
            out_features,
            h: layer.h,
            dz: layer.dz,
            dw: layer.dw,
            source: layer.source,
            budget,
            saved,
            backward_scratch,
            estimate_scratch,
        })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.context.device
    }

    /// The GPU and the launches, if that is the device.
    pub(crate) fn on_gpu(&self) -> Option<(&Gpu, &CudaLayer)> {
        self.device().gpu().zip(self.cuda.as_ref())
    }

    /// Refuses a plan on a GPU.
    pub(crate) fn host(&self) -> Outcome {
        match self.device() {
            Device::Cpu => Ok(()),
            Device::Cuda(_) => {
                Err(Failure::new(WTACRS_DEVICE_MISMATCH, "the plan is a GPU's, the call is for the CPU"))
            }
        }
    }

    /// Refuses a call of the CPU's for whose tokens there is no memory.
    pub(crate) fn check_heap(&self) -> Outcome {
        heap::check("a pass over all tokens", &[(self.tokens, PER_TOKEN)])
    }

    /// Where a pass on a GPU takes its bits from.
    pub(crate) fn randomness(&self, seed: u64, offset: u64) -> DeviceRandomness {
        DeviceRandomness {
            start: wtacrs_core::Randomness::new(seed, offset),
            further_offset: self.further_offset.as_ptr(),
        }
    }
}

/// Freezes a description into a plan for a device. Later changes of the description do not touch it.
///
/// On CUDA H and dZ must be of one dtype, WTACRS_F32, WTACRS_F16 or WTACRS_BF16: WTACRS_UNSUPPORTED.
///
/// Errors: WTACRS_INVALID_ARGUMENT if shape or budget was not set, WTACRS_INVALID_BUDGET if the budget does not fit,
/// WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_create(
    context: *const wtacrs_context,
    layer: *const wtacrs_layer,
    plan: *mut *mut wtacrs_plan,
) -> wtacrs_status {
    guard("wtacrs_plan_create", || {
        let output = Array::new(plan, 1, "plan")?;
        let plan = Plan::new(self::context(context)?, self::layer(layer)?)?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(PLANS.insert(plan)) };
        Ok(())
    })
}

/// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_destroy(plan: *mut wtacrs_plan) -> wtacrs_status {
    guard("wtacrs_plan_destroy", || PLANS.remove(plan))
}

/// Writes what a query asks of a plan.
///
/// # Safety
///
/// `value` is NULL or an output of one value.
unsafe fn query<T>(handle: *const wtacrs_plan, value: *mut T, of: impl FnOnce(&Plan) -> T) -> Outcome {
    let output = Array::new(value, 1, "the output")?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { output.set(of(&*plan(handle)?)) };
    Ok(())
}

/// The most rows that a forward pass keeps.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_budget(plan: *const wtacrs_plan, rows: *mut usize) -> wtacrs_status {
    // SAFETY: as documented.
    guard("wtacrs_plan_budget", || unsafe { query(plan, rows, |plan| plan.budget.get()) })
}

/// Bytes of the saved memory that a forward pass writes and its backward pass reads: the caller's, aligned to 64 (on CUDA
/// 256).
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_saved_bytes(plan: *const wtacrs_plan, bytes: *mut usize) -> wtacrs_status {
    // SAFETY: as documented.
    guard("wtacrs_plan_saved_bytes", || unsafe { query(plan, bytes, |plan| plan.sizes.saved) })
}

/// Bytes of scratch memory for wtacrs_forward and wtacrs_select: the caller's, aligned to 64 (on CUDA 256), dead when the
/// call returns (on CUDA, when its work is done). 0 on the CPU, which takes a few words for each token from its own heap.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_forward_scratch_bytes(
    plan: *const wtacrs_plan,
    bytes: *mut usize,
) -> wtacrs_status {
    // SAFETY: as documented.
    guard("wtacrs_plan_forward_scratch_bytes", || unsafe { query(plan, bytes, |plan| plan.sizes.forward) })
}

/// Bytes of scratch memory for wtacrs_backward: the caller's, aligned to 64 (on CUDA 256), dead when the call returns (on
/// CUDA, when its work is done). On the CPU also for wtacrs_weight_gradient.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_backward_scratch_bytes(
    plan: *const wtacrs_plan,
    bytes: *mut usize,
) -> wtacrs_status {
    // SAFETY: as documented.
    guard("wtacrs_plan_backward_scratch_bytes", || unsafe { query(plan, bytes, |plan| plan.sizes.backward) })
}

/// Bytes of scratch memory for wtacrs_estimate: the caller's, aligned to 64 (on CUDA 256), dead when the call returns (on
/// CUDA, when its work is done).
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_estimate_scratch_bytes(
    plan: *const wtacrs_plan,
    bytes: *mut usize,
) -> wtacrs_status {
    // SAFETY: as documented.
    guard("wtacrs_plan_estimate_scratch_bytes", || unsafe { query(plan, bytes, |plan| plan.sizes.estimate) })
}

/// Bytes of scratch memory for wtacrs_weight_gradient: the caller's, aligned to 64 (on CUDA 256), dead when the call
/// returns. On the CPU it is wtacrs_plan_backward_scratch_bytes.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_weight_gradient_scratch_bytes(
    plan: *const wtacrs_plan,
    bytes: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_plan_weight_gradient_scratch_bytes", || {
        // SAFETY: as documented.
        unsafe { query(plan, bytes, |plan| plan.sizes.weight_gradient) }
    })
}

/// Where in saved memory on CUDA a forward pass leaves its status, in bytes from the beginning: a 32-bit word that is 0,
/// or 1 + the index of the first row of H whose norm or guess is negative or not finite. Nothing is kept then, and the
/// backward pass makes a dW of zeros (or adds nothing). A training loop may look at it when it next waits for the GPU.
///
/// Errors: WTACRS_UNSUPPORTED on the CPU, which tells such a row at once; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
/// WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_saved_status_offset(
    plan: *const wtacrs_plan,
    offset: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_plan_saved_status_offset", || {
        let output = Array::new(offset, 1, "offset")?;
        let plan = self::plan(plan)?;
        let cuda = plan.cuda.as_ref();
        let cuda = cuda.ok_or_else(|| Failure::new(WTACRS_UNSUPPORTED, "on the CPU, a forward pass tells at once"))?;
        // SAFETY: an output of one number, checked for NULL and alignment.
        unsafe { output.set(cuda.linear.saved().status.offset as usize) };
        Ok(())
    })
}

/// How far a forward pass advances the offset of its randomness: one that starts at (seed, offset) leaves
/// (seed, offset + draws) to the next. There is no generator with a state of its own.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_draws(plan: *const wtacrs_plan, draws: *mut u64) -> wtacrs_status {
    use wtacrs_core::sampling::design::Design;
    // SAFETY: as documented.
    guard("wtacrs_plan_draws", || unsafe { query(plan, draws, |plan| plan.linear.design.draws(plan.budget)) })
}

/// The memory of a step: bytes that live from the forward to the backward pass, the most scratch memory of either
/// pass, and what the exact layer keeps, which is H. Outputs may be NULL where they are not wanted.
///
/// Errors: WTACRS_MISALIGNED, WTACRS_OVERLAP, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_memory(
    plan: *const wtacrs_plan,
    saved_bytes: *mut usize,
    scratch_bytes: *mut usize,
    exact_bytes: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_plan_memory", || {
        let plan = self::plan(plan)?;
        let exact = plan.tokens * plan.in_features * plan.h.bytes();
        let scratch = plan.sizes.forward.max(plan.sizes.backward);
        let outputs = [(saved_bytes, "saved_bytes"), (scratch_bytes, "scratch_bytes"), (exact_bytes, "exact_bytes")];
        // SAFETY: as documented.
        unsafe { report(outputs, [plan.sizes.saved, scratch, exact]) }
    })
}

const _: () = assert!(BLOCK_ALIGNMENT.is_multiple_of(align_of::<f64>()));
