//! A layer's plan: everything that is settled before the first step, and what its calls need.

use super::context::{device, wtacrs_context};
use super::layer::{description, wtacrs_layer};
use crate::arguments::enums::{self, wtacrs_engine};
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{Array, Block, Place, Source};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard};
use crate::device::{Device, LinearDescription, LinearPlan, LinearSizes, StatusWords};
use core::ffi::c_void;
use core::mem::offset_of;
use std::sync::Arc;

/// A layer's settled plan. It never changes: any number of threads may use one at the same time, each with saved and
/// scratch memory of its own.
pub struct wtacrs_plan {
    _opaque: (),
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) device: Arc<dyn Device>,
    pub(super) layer: LinearDescription,
    pub(super) calls: Box<dyn LinearPlan>,
}

static PLANS: Registry<Plan> = Registry::new("plan");

pub(super) fn plan(handle: *const wtacrs_plan) -> Outcome<Arc<Plan>> {
    PLANS.get(handle)
}

impl Plan {
    pub(super) fn place(&self) -> Place {
        self.device.place()
    }

    pub(super) fn sizes(&self) -> LinearSizes {
        self.calls.sizes()
    }

    /// Saved memory of this plan.
    pub(super) fn saved(&self, saved: *const c_void, bytes: usize) -> Outcome<Array<u8>> {
        Block::saved(saved, bytes).check(self.sizes().saved, self.device.alignment())
    }

    /// Scratch memory of which a call needs so much.
    pub(super) fn scratch(&self, scratch: *const c_void, bytes: usize, needed: usize) -> Outcome<Array<u8>> {
        Block::scratch(scratch, bytes).check(needed, self.device.alignment())
    }

    /// The caller's guess, which the plan's source requires, allows or forbids.
    pub(super) fn guess(&self, guess: *const f32) -> Outcome<Option<Array<f32>>> {
        match self.layer.source {
            Source::Norms | Source::Cached => Array::new(guess, self.layer.tokens, "guess").map(Some),
            Source::Predicted => Array::optional(guess, self.layer.tokens, "guess"),
            Source::Input => no_guess(guess),
        }
    }

    /// The same where a predictor has no part: cached norms beside it mean nothing then.
    pub(super) fn guess_without_predictor(&self, guess: *const f32) -> Outcome<Option<Array<f32>>> {
        if self.layer.source == Source::Predicted { no_guess(guess) } else { self.guess(guess) }
    }
}

fn no_guess(guess: *const f32) -> Outcome<Option<Array<f32>>> {
    if guess.is_null() {
        return Ok(None);
    }
    Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, "a guess, but the plan's source takes none"))
}

/// What a plan's calls need. Every size is in bytes. All memory is the caller's; it is aligned to `alignment`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_plan_info {
    /// [in] sizeof(wtacrs_plan_info). The other fields are outputs.
    pub size: usize,
    /// The most rows that a forward pass keeps.
    pub budget_rows: usize,
    /// How far a forward pass advances the offset of its randomness: one that starts at (seed, offset) leaves
    /// (seed, offset + draws) to the next. With packed rows at least one for each token.
    pub draws: u64,
    /// Alignment of saved memory, of scratch memory and of a predictor's statistics: 64, on CUDA 256.
    pub alignment: usize,
    /// Saved memory, which lives from the forward to the backward pass: see wtacrs_layer_set_packing.
    pub saved_bytes: usize,
    /// What the exact layer keeps in its place: H.
    pub exact_bytes: usize,
    /// Scratch memory of wtacrs_plan_forward and wtacrs_plan_select: dead when the call returns (on CUDA, when its work is
    /// done). 0 on the CPU, which takes a few words for each token from its own heap.
    pub forward_scratch_bytes: usize,
    /// Scratch memory of wtacrs_plan_backward; 0 on the CPU.
    pub backward_scratch_bytes: usize,
    /// Scratch memory of wtacrs_plan_estimate.
    pub estimate_scratch_bytes: usize,
    /// Scratch memory of wtacrs_plan_weight_gradient; 0 on the CPU, and for a plan with packed rows, which that call refuses.
    pub weight_gradient_scratch_bytes: usize,
    /// Where in saved memory on CUDA a forward pass leaves its status: a 32-bit word that is 0, or 1 + the index of the
    /// first row of H whose norm or guess is negative or not finite. Nothing is kept then, and the backward pass makes a dW
    /// of zeros (or adds nothing); but of NaN where cuBLASLt multiplies, all rows are packed, and dZ is not finite either.
    /// SIZE_MAX on the CPU, where the forward pass itself returns the failure.
    pub saved_status_offset: usize,
    /// How many such words there are, one behind another: 1, or more if all rows are packed. The status is the first that is
    /// not 0. 0 on the CPU.
    pub saved_status_words: usize,
    /// The program that multiplies in wtacrs_plan_backward: WTACRS_ENGINE_OWN or WTACRS_ENGINE_CUBLASLT, see
    /// wtacrs_layer_set_engine. WTACRS_ENGINE_OWN on the CPU.
    pub engine: wtacrs_engine,
    /// Reserved; 0.
    pub reserved: i32,
}

// SAFETY: repr(C), begins with its size, and has numbers alone.
unsafe impl SizedStruct for wtacrs_plan_info {
    const FIRST_BYTES: usize = offset_of!(Self, saved_status_words);
}

/// Freezes a description into a plan for a device. Later changes of the description do not touch the plan.
///
/// On CUDA H and dZ must be of one dtype, WTACRS_DTYPE_F32, _F16 or _BF16: WTACRS_STATUS_UNSUPPORTED otherwise.
///
/// plan      [out]
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT if shape or budget was not set; _INVALID_BUDGET if the budget does not fit;
/// _UNSUPPORTED, also if WTACRS_ENGINE_CUBLASLT is asked for and cannot be loaded; _CUDA_ERROR, _SIZE_OVERFLOW, _NULL_POINTER,
/// _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_create(
    context: *const wtacrs_context,
    layer: *const wtacrs_layer,
    plan: *mut *mut wtacrs_plan,
) -> wtacrs_status {
    guard("wtacrs_plan_create", || {
        let output = Array::new(plan, 1, "plan")?;
        let (device, layer) = (device(context)?, description(layer)?);
        let calls = device.linear(&layer)?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(PLANS.insert(Plan { device, layer, calls })) };
        Ok(())
    })
}

/// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_destroy(plan: *mut wtacrs_plan) -> wtacrs_status {
    guard("wtacrs_plan_destroy", || PLANS.remove(plan))
}

/// What a plan's calls need: sizes of memory, its alignment, and the advance of the randomness.
///
/// info      [in, out] with `size` set
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_plan_get_info(plan: *const wtacrs_plan, info: *mut wtacrs_plan_info) -> wtacrs_status {
    guard("wtacrs_plan_get_info", || {
        let plan = self::plan(plan)?;
        let (layer, sizes) = (&plan.layer, plan.sizes());
        let (saved_status_offset, saved_status_words) = StatusWords::reported(sizes.status);
        let found = wtacrs_plan_info {
            size: 0,
            budget_rows: layer.budget.get(),
            draws: layer.linear.draws(layer.tokens)?,
            alignment: plan.device.alignment(),
            saved_bytes: sizes.saved,
            exact_bytes: layer.tokens * layer.in_features * layer.h.bytes(),
            forward_scratch_bytes: sizes.forward,
            backward_scratch_bytes: sizes.backward,
            estimate_scratch_bytes: sizes.estimate,
            weight_gradient_scratch_bytes: sizes.weight_gradient,
            saved_status_offset,
            saved_status_words,
            engine: enums::number_of_engine(plan.calls.engine()),
            reserved: 0,
        };
        // SAFETY: as documented.
        unsafe { options::write(info, "info", found) }
    })
}
