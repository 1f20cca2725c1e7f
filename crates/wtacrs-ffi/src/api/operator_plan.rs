//! An operator's plan and its passes.

use super::context::{device, wtacrs_context};
use super::operator::{description, wtacrs_operator};
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{Array, Block, PassMemory, check_disjoint, regions};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard};
use crate::device::{Device, OperatorBackward, OperatorDescription, OperatorForward, OperatorPlan, in_place};
use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::Randomness;
use wtacrs_core::operators::{Keeps, Operation};

/// An operator's settled plan. It never changes: any number of threads may use one at the same time, each with saved and
/// scratch memory of its own.
pub struct wtacrs_operator_plan {
    _opaque: (),
}

#[derive(Debug)]
struct Plan {
    device: Arc<dyn Device>,
    description: OperatorDescription,
    calls: Box<dyn OperatorPlan>,
}

static PLANS: Registry<Plan> = Registry::new("operator's plan");

fn plan(handle: *const wtacrs_operator_plan) -> Outcome<Arc<Plan>> {
    PLANS.get(handle)
}

/// Whether an operator has an operand.
#[derive(Clone, Copy, PartialEq)]
enum Need {
    Required,
    Optional,
    Unused,
}

impl Need {
    fn required(is_required: bool) -> Self {
        if is_required { Self::Required } else { Self::Unused }
    }

    fn optional(is_optional: bool) -> Self {
        if is_optional { Self::Optional } else { Self::Unused }
    }

    /// The operand, if the operator has it.
    fn of<T: Copy>(
        self,
        pointer: *const c_void,
        what: &'static str,
        check: impl FnOnce() -> Outcome<Array<T>>,
    ) -> Outcome<Option<Array<T>>> {
        match self {
            Self::Unused if !pointer.is_null() => {
                let message = format!("{what} was given, which this operator does not use in this pass: pass NULL");
                Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message))
            }
            Self::Unused => Ok(None),
            Self::Optional if pointer.is_null() => Ok(None),
            Self::Optional | Self::Required => check().map(Some),
        }
    }
}

impl Plan {
    /// An array of rows x columns.
    fn array(&self, pointer: *const c_void, what: &'static str) -> Outcome<Array<u8>> {
        Array::aligned(pointer.cast(), self.description.bytes(), self.description.dtype.bytes(), what)
    }

    fn array_if(&self, need: Need, pointer: *const c_void, what: &'static str) -> Outcome<Option<Array<u8>>> {
        need.of(pointer, what, || self.array(pointer, what))
    }

    /// A number for each column.
    fn row_if(&self, need: Need, pointer: *const f32, what: &'static str) -> Outcome<Option<Array<f32>>> {
        need.of(pointer.cast(), what, || Array::new(pointer, self.description.shape[1], what))
    }

    fn operation(&self) -> Operation {
        self.description.operator.operation()
    }
}

/// What an operator's passes need. Every size is in bytes. All memory is the caller's; it is aligned to `alignment`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_operator_plan_info {
    /// [in] sizeof(wtacrs_operator_plan_info). The other fields are outputs.
    pub size: usize,
    /// How far a forward pass advances the offset of its randomness: 0 if nothing is packed and nothing dropped.
    pub draws: u64,
    /// Alignment of saved and scratch memory: 64, on CUDA 256.
    pub alignment: usize,
    /// Saved memory, which lives from the forward to the backward pass; may be 0.
    pub saved_bytes: usize,
    /// Scratch memory of the backward pass; 0 on the CPU.
    pub backward_scratch_bytes: usize,
    /// 1 if the backward pass must be given x, else 0.
    pub keeps_input: i32,
    /// 1 if it must be given the gate.
    pub keeps_gate: i32,
    /// 1 if it must be given y.
    pub keeps_output: i32,
    /// 1 if wtacrs_operator_plan_restore writes y from saved memory: for a packed identity or softmax.
    pub restores: i32,
}

// SAFETY: repr(C), begins with its size, and has numbers alone.
unsafe impl SizedStruct for wtacrs_operator_plan_info {}

/// What a forward pass reads and writes. Leave NULL what the operator does not have.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_operator_forward {
    /// sizeof(wtacrs_operator_forward)
    pub size: usize,
    /// [in] rows x columns
    pub x: *const c_void,
    /// [in] rows x columns: what a gated operator multiplies by, and NULL for the others.
    pub gate: *const c_void,
    /// [in, optional] A norm's weight, one for each column; without it 1.
    pub weight: *const f32,
    /// [in, optional] The bias of WTACRS_OPERATION_LAYER_NORM, one for each column; without it 0.
    pub bias: *const f32,
    /// [out, optional] rows x columns; may be x, which it then replaces. NULL to write saved memory alone.
    pub y: *mut c_void,
}

impl Default for wtacrs_operator_forward {
    fn default() -> Self {
        let none = ptr::null();
        Self {
            size: size_of::<Self>(),
            x: none,
            gate: none,
            weight: ptr::null(),
            bias: ptr::null(),
            y: ptr::null_mut(),
        }
    }
}

// SAFETY: repr(C), begins with its size, and has pointers alone.
unsafe impl SizedStruct for wtacrs_operator_forward {}

/// What a backward pass reads and writes. Leave NULL what the operator does not have.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_operator_backward {
    /// sizeof(wtacrs_operator_backward)
    pub size: usize,
    /// [in] x of the forward pass if the plan says keeps_input, else NULL.
    pub x: *const c_void,
    /// [in] The gate of the forward pass if the plan says keeps_gate, else NULL.
    pub gate: *const c_void,
    /// [in] y of the forward pass if the plan says keeps_output, else NULL.
    pub y: *const c_void,
    /// [in] A norm's weight, if the forward pass had one.
    pub weight: *const f32,
    /// [in] The gradient of y, rows x columns.
    pub dy: *const c_void,
    /// [out] The gradient of x, rows x columns; may be dy, which it then replaces.
    pub dx: *mut c_void,
    /// [out] The gradient of the gate, rows x columns; required of a gated operator, else NULL.
    pub dgate: *mut c_void,
    /// [out, optional] The gradient of a norm's weight, which the forward pass need not have had.
    pub dweight: *mut f32,
    /// [out, optional] The gradient of the bias of WTACRS_OPERATION_LAYER_NORM, which the forward pass need not have had.
    pub dbias: *mut f32,
}

impl Default for wtacrs_operator_backward {
    fn default() -> Self {
        let (none, nowhere) = (ptr::null(), ptr::null_mut());
        Self {
            size: size_of::<Self>(),
            x: none,
            gate: none,
            y: none,
            weight: ptr::null(),
            dy: none,
            dx: nowhere,
            dgate: nowhere,
            dweight: ptr::null_mut(),
            dbias: ptr::null_mut(),
        }
    }
}

// SAFETY: repr(C), begins with its size, and has pointers alone.
unsafe impl SizedStruct for wtacrs_operator_backward {}

/// Freezes a description into a plan for a device. Later changes of the description do not touch the plan.
///
/// plan      [out]
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT if operation or shape were not set; _UNSUPPORTED for a native softmax with dropout;
/// _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_plan_create(
    context: *const wtacrs_context,
    op: *const wtacrs_operator,
    plan: *mut *mut wtacrs_operator_plan,
) -> wtacrs_status {
    guard("wtacrs_operator_plan_create", || {
        let output = Array::new(plan.cast_const(), 1, "plan")?;
        let (device, description) = (device(context)?, description(op)?);
        let calls = device.operator(&description)?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(PLANS.insert(Plan { device, description, calls })) };
        Ok(())
    })
}

/// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_plan_destroy(plan: *mut wtacrs_operator_plan) -> wtacrs_status {
    guard("wtacrs_operator_plan_destroy", || PLANS.remove(plan))
}

/// What a plan's passes need: sizes of memory, its alignment, the advance of the randomness, and what the caller keeps.
///
/// info      [in, out] with `size` set
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_plan_get_info(
    plan: *const wtacrs_operator_plan,
    info: *mut wtacrs_operator_plan_info,
) -> wtacrs_status {
    guard("wtacrs_operator_plan_get_info", || {
        let plan = self::plan(plan)?;
        let (operator, sizes) = (&plan.description.operator, plan.calls.sizes());
        let Keeps { input, gate, output } = operator.keeps();
        let found = wtacrs_operator_plan_info {
            size: 0,
            draws: plan.description.draws(),
            alignment: plan.device.alignment(),
            saved_bytes: sizes.saved,
            backward_scratch_bytes: sizes.backward,
            keeps_input: input.into(),
            keeps_gate: gate.into(),
            keeps_output: output.into(),
            restores: operator.restores().into(),
        };
        // SAFETY: as documented.
        unsafe { options::write(info, "info", found) }
    })
}

/// The forward pass: y, and what the backward pass needs.
///
/// operands  [in] see wtacrs_operator_forward. Arrays are dense and of the plan's dtype. y may be x, exactly; otherwise no
///           output overlaps another argument. An operator that keeps its input (keeps_input) needs x again in the backward
///           pass, so replace x only where you have it elsewhere, or never call that pass.
/// seed, offset, stream  as in wtacrs_plan_forward; a plan whose `draws` are 0 ignores seed and offset
/// saved     [out] `saved_bytes` >= the size in wtacrs_operator_plan_info, aligned as it says; if that is 0, anything
///
/// Errors: WTACRS_STATUS_NULL_POINTER if x, or the gate of a gated operator, is missing; _INVALID_ARGUMENT for an operand that
/// the operator does not have; _BUFFER_TOO_SMALL, _OVERLAP, _INVALID_HANDLE, _MISALIGNED. Outputs are then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_plan_forward(
    plan: *const wtacrs_operator_plan,
    operands: *const wtacrs_operator_forward,
    seed: u64,
    offset: u64,
    saved: *mut c_void,
    saved_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_operator_plan_forward", || {
        let plan = &*self::plan(plan)?;
        // SAFETY: as documented.
        let given = unsafe { options::read(operands, "the operands") }?;
        let operation = plan.operation();
        let x = plan.array(given.x, "x")?;
        let gate = plan.array_if(Need::required(plan.description.operator.is_gated()), given.gate, "gate")?;
        let weight = plan.row_if(Need::optional(operation.is_norm()), given.weight, "weight")?;
        let bias = plan.row_if(Need::optional(operation == Operation::LayerNorm), given.bias, "bias")?;
        let y = plan.array_if(Need::Optional, given.y, "y")?;
        let saved = Block::saved(saved, saved_bytes).check(plan.calls.sizes().saved, plan.device.alignment())?;
        let is_replaced = y.is_some_and(|y| in_place(&x, &y));
        let outputs = regions([y.map(|y| y.region()), Some(saved.region())]);
        let inputs = regions([
            Some(x.region()).filter(|_| !is_replaced),
            gate.map(|gate| gate.region()),
            weight.map(|weight| weight.region()),
            bias.map(|bias| bias.region()),
        ]);
        check_disjoint(&outputs, &inputs)?;
        let randomness = Randomness::new(seed, offset);
        // SAFETY: checked; the rest is as documented.
        unsafe { plan.calls.forward(OperatorForward { x, gate, weight, bias, y, randomness, saved, stream }) }
    })
}

/// The backward pass: the gradients of x, the gate, the weight and the bias, which are written and not added to.
///
/// operands  [in] see wtacrs_operator_backward. dx may be dy, exactly; otherwise no output overlaps another argument.
/// saved     [in] what a forward pass of such a plan wrote
/// scratch   [scratch] `scratch_bytes` >= backward_scratch_bytes
/// stream    as in wtacrs_plan_forward
///
/// Errors: WTACRS_STATUS_NULL_POINTER if an operand that the operator needs is missing; _INVALID_ARGUMENT for one that it does
/// not use; _BUFFER_TOO_SMALL, _OVERLAP, _INVALID_HANDLE, _MISALIGNED. On the CPU also, for what is in `saved`:
/// _SHAPE_MISMATCH if another operator, or one of another shape or dtype, wrote it; _CORRUPTED, _VERSION_MISMATCH. Outputs
/// are then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_plan_backward(
    plan: *const wtacrs_operator_plan,
    operands: *const wtacrs_operator_backward,
    saved: *const c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_operator_plan_backward", || {
        let plan = &*self::plan(plan)?;
        // SAFETY: as documented.
        let given = unsafe { options::read(operands, "the operands") }?;
        let (operation, keeps) = (plan.operation(), plan.description.operator.keeps());
        let (of_norms, of_layer_norms) =
            (Need::optional(operation.is_norm()), Need::optional(operation == Operation::LayerNorm));
        let x = plan.array_if(Need::required(keeps.input), given.x, "x")?;
        let gate = plan.array_if(Need::required(keeps.gate), given.gate, "gate")?;
        let y = plan.array_if(Need::required(keeps.output), given.y, "y")?;
        let weight = plan.row_if(of_norms, given.weight, "weight")?;
        let (dy, dx) = (plan.array(given.dy, "dy")?, plan.array(given.dx, "dx")?);
        let dgate = plan.array_if(Need::required(plan.description.operator.is_gated()), given.dgate, "dgate")?;
        let dweight = plan.row_if(of_norms, given.dweight, "dweight")?;
        let dbias = plan.row_if(of_layer_norms, given.dbias, "dbias")?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        let sizes = plan.calls.sizes();
        let (saved, scratch) = memory.check(sizes.saved, sizes.backward, plan.device.alignment())?;
        let outputs = regions([
            Some(dx.region()),
            dgate.map(|dgate| dgate.region()),
            dweight.map(|dweight| dweight.region()),
            dbias.map(|dbias| dbias.region()),
            Some(scratch.region()),
        ]);
        let inputs = regions([
            Some(dy.region()).filter(|_| !in_place(&dy, &dx)),
            x.map(|x| x.region()),
            gate.map(|gate| gate.region()),
            y.map(|y| y.region()),
            weight.map(|weight| weight.region()),
            Some(saved.region()),
        ]);
        check_disjoint(&outputs, &inputs)?;
        let call = OperatorBackward { x, gate, y, weight, dy, dx, dgate, dweight, dbias, saved, scratch, stream };
        // SAFETY: checked; the rest is as documented.
        unsafe { plan.calls.backward(call) }
    })
}

/// Writes y again from what a forward pass saved: x or the probabilities within the packing's error and unbiased, behind the
/// same dropout.
///
/// saved     [in] what a forward pass of such a plan wrote
/// y         [out] rows x columns, of the plan's dtype
/// stream    as in wtacrs_plan_forward
///
/// Errors: WTACRS_STATUS_UNSUPPORTED unless the plan restores; else as for wtacrs_operator_plan_backward.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_plan_restore(
    plan: *const wtacrs_operator_plan,
    saved: *const c_void,
    saved_bytes: usize,
    y: *mut c_void,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_operator_plan_restore", || {
        let plan = &*self::plan(plan)?;
        if !plan.description.operator.restores() {
            return Err(wtacrs_core::operators::OperatorError::NotRestored.into());
        }
        let y = plan.array(y, "y")?;
        let saved = Block::saved(saved, saved_bytes).check(plan.calls.sizes().saved, plan.device.alignment())?;
        check_disjoint(&[y.region()], &[saved.region()])?;
        // SAFETY: checked; the rest is as documented.
        unsafe { plan.calls.restore(saved, y, stream) }
    })
}
