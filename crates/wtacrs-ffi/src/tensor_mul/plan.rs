//! A batched product's plan and the sizes of its memory.

use super::{Description, description, wtacrs_tensor_mul};
use crate::array::{Array, report};
use crate::context::{Context, context, wtacrs_context};
use crate::cuda::CudaTensorMul;
use crate::device::{Device, Gpu};
use crate::dtype::{Dtype, one_of};
use crate::guard::{Failure, Outcome, guard};
use crate::heap::{self, PER_TOKEN};
use crate::kept::KeptBlock;
use crate::layer::FurtherOffset;
use crate::plan::workspace_bytes;
use crate::registry::Registry;
use crate::status::*;
use std::sync::Arc;
use wtacrs_core::Selection;
use wtacrs_core::layers::{Contraction, Side, TensorMul};

/// A batched product's settled plan. It never changes: any number of threads may use one at the same time, each with
/// saved and scratch memory of its own.
pub struct wtacrs_tensor_mul_plan {
    _opaque: (),
}

/// Items are spread over so many tasks at most, each with scratch memory of its own.
const TASKS: usize = 16;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) context: Arc<Context>,
    pub(super) product: TensorMul,
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) operands: Dtype,
    pub(super) gradient: Dtype,
    /// What one item saves for dA, and for dB.
    pub(super) left: KeptBlock,
    pub(super) right: KeptBlock,
    pub(super) saved_bytes: usize,
    pub(super) task_scratch: usize,
    pub(super) further_offset: FurtherOffset,
    /// The launches, if the device is a GPU.
    cuda: Option<CudaTensorMul>,
    draws: u64,
}

static PLANS: Registry<Plan> = Registry::new("batched product's plan");

pub(super) fn plan(handle: *const wtacrs_tensor_mul_plan) -> Outcome<Arc<Plan>> {
    PLANS.get(handle)
}

impl Plan {
    fn new(context: Arc<Context>, given: Description) -> Outcome<Self> {
        let unset = |what| Failure::new(WTACRS_INVALID_ARGUMENT, format!("the product's {what} was not set"));
        let [batch, heads, rows, inner, columns] = given.shape.ok_or_else(|| unset("shape"))?;
        let [left, right] = given.contractions;
        let (left, right) = (left.ok_or_else(|| unset("left budget"))?, right.ok_or_else(|| unset("right budget"))?);
        let product = TensorMul::new(left, right).with_design(given.design).with_mix(given.mix);
        let draws = product.draws(rows, columns)?;
        let block = |contraction, pairs| -> Outcome<KeptBlock> {
            let capacity = match contraction {
                Contraction::Exact => pairs,
                Contraction::Sampled(keep) => keep.budget(pairs)?.get(),
            };
            KeptBlock::new(given.operands, pairs, inner, capacity)
        };
        let (left, right) = (block(left, columns)?, block(right, rows)?);
        let workspace = |block: &KeptBlock, out| workspace_bytes(given.operands, block.capacity(), inner, out);
        let task_scratch = workspace(&left, rows)?.max(workspace(&right, columns)?);
        let overflow = || Failure::new(WTACRS_SIZE_OVERFLOW, "the saved memory overflows");
        let fits = |bytes: &usize| isize::try_from(*bytes).is_ok();
        let item = left.bytes().checked_add(right.bytes());
        let saved_bytes = item.and_then(|bytes| bytes.checked_mul(batch * heads)).filter(fits).ok_or_else(overflow)?;
        task_scratch.checked_mul(TASKS).filter(fits).ok_or_else(overflow)?;
        let shape = [batch, heads, rows, inner, columns];
        let dtypes = [given.operands, given.gradient];
        let cuda = context.device.gpu().map(|gpu| CudaTensorMul::new(gpu, product, shape, dtypes, given.precision));
        let cuda = cuda.transpose()?;
        Ok(Self {
            further_offset: given.further_offset,
            cuda,
            context,
            product,
            batch,
            heads,
            rows,
            inner,
            columns,
            operands: given.operands,
            gradient: given.gradient,
            left,
            right,
            saved_bytes,
            task_scratch,
            draws,
        })
    }

    pub(super) fn device(&self) -> &Device {
        &self.context.device
    }

    /// The GPU and the launches, if that is the device.
    pub(super) fn on_gpu(&self) -> Option<(&Gpu, &CudaTensorMul)> {
        self.device().gpu().zip(self.cuda.as_ref())
    }

    pub(super) fn items(&self) -> usize {
        self.batch * self.heads
    }

    pub(super) fn tasks(&self) -> usize {
        self.items().min(TASKS)
    }

    /// Refuses a pass for whose selections there is no memory.
    pub(super) fn check_heap(&self) -> Outcome {
        let pairs = self.left.capacity() + self.right.capacity();
        let selections = (self.items(), size_of::<[Selection; 2]>() + pairs * (size_of::<u32>() + size_of::<f64>()));
        let in_work = rayon::current_num_threads().min(self.items());
        heap::check("a pass over all items", &[selections, (in_work * self.rows.max(self.columns), PER_TOKEN)])
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        self.task_scratch * self.tasks()
    }
}

/// Freezes a description into a plan for a device. Later changes of the description do not touch it.
///
/// On CUDA no size may be 0, and WTACRS_F64 is not served: WTACRS_UNSUPPORTED.
///
/// Errors: WTACRS_INVALID_ARGUMENT if the shape or a side was not set, WTACRS_INVALID_BUDGET if a budget does not fit,
/// WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_create(
    context: *const wtacrs_context,
    tensor_mul: *const wtacrs_tensor_mul,
    plan: *mut *mut wtacrs_tensor_mul_plan,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_create", || {
        let output = Array::new(plan, 1, "plan")?;
        let plan = Plan::new(self::context(context)?, description(tensor_mul)?)?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(PLANS.insert(plan)) };
        Ok(())
    })
}

/// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_destroy(plan: *mut wtacrs_tensor_mul_plan) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_destroy", || PLANS.remove(plan))
}

/// Bytes of the memory of a step: saved from the forward to the backward pass; scratch of the forward pass (0 on the
/// CPU) and of the backward pass; and what the exact product keeps, which is A and B. All memory is the caller's,
/// aligned to 64 (on CUDA 256). Outputs may be NULL where they are not wanted.
///
/// Errors: WTACRS_MISALIGNED, WTACRS_OVERLAP, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_memory(
    plan: *const wtacrs_tensor_mul_plan,
    saved_bytes: *mut usize,
    forward_scratch_bytes: *mut usize,
    backward_scratch_bytes: *mut usize,
    exact_bytes: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_memory", || {
        let plan = self::plan(plan)?;
        // Rows and columns first: where there are none, the inner size may be any.
        let exact = plan.items() * (plan.rows + plan.columns) * plan.inner * plan.operands.bytes();
        let outputs = [
            (saved_bytes, "saved_bytes"),
            (forward_scratch_bytes, "forward_scratch_bytes"),
            (backward_scratch_bytes, "backward_scratch_bytes"),
            (exact_bytes, "exact_bytes"),
        ];
        let sizes = match plan.on_gpu() {
            Some((_, cuda)) => [cuda.saved_bytes, cuda.forward_bytes, cuda.backward_bytes, exact],
            None => [plan.saved_bytes, 0, plan.scratch_bytes(), exact],
        };
        // SAFETY: as documented.
        unsafe { report(outputs, sizes) }
    })
}

/// Where in saved memory on CUDA a forward pass leaves the status words of one gradient, WTACRS_LEFT or WTACRS_RIGHT, in
/// bytes from the beginning: batch x heads 32-bit words, each as wtacrs_plan_saved_status_offset tells.
///
/// Errors: WTACRS_UNSUPPORTED on the CPU, WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
/// WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_saved_status_offset(
    plan: *const wtacrs_tensor_mul_plan,
    side: i32,
    offset: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_saved_status_offset", || {
        let output = Array::new(offset, 1, "offset")?;
        let plan = self::plan(plan)?;
        let side = one_of("side", side, &[Side::Left, Side::Right])?;
        let (_, cuda) = plan
            .on_gpu()
            .ok_or_else(|| Failure::new(WTACRS_UNSUPPORTED, "on the CPU, a forward pass tells at once"))?;
        // SAFETY: an output of one number, checked for NULL and alignment.
        unsafe { output.set(cuda.status_offset(side) as usize) };
        Ok(())
    })
}

/// How far a forward pass advances the offset of its randomness; see wtacrs_plan_draws.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_draws(
    plan: *const wtacrs_tensor_mul_plan,
    draws: *mut u64,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_draws", || {
        let output = Array::new(draws, 1, "draws")?;
        // SAFETY: an output of one number, checked for NULL and alignment.
        unsafe { output.set(self::plan(plan)?.draws) };
        Ok(())
    })
}
