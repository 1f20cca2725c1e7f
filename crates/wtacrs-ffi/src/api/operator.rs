//! The description of what stands between a model's products, filled by setters and then frozen into a plan.

use super::layer::check_sizes;
use crate::arguments::enums::{self, one_of, wtacrs_dtype, wtacrs_operation, wtacrs_packing};
use crate::arguments::{Array, Dtype};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard, poisoned};
use crate::device::{FurtherOffset, OperatorDescription};
use std::sync::Mutex;
use wtacrs_core::operators::{Operation, Operator};
use wtacrs_core::product::Packing;

/// What stands between the products of a model: an activation function, a gated unit, softmax, a norm, dropout, and how
/// little of it is kept for the backward pass. A lock guards it, so threads may share it.
///
/// Arrays are dense, rows x columns; where an operator works on each element by itself, any shape with as many elements
/// will do. Arithmetic is in f32.
///
/// What `saved` holds, and what the caller keeps until the backward pass and passes to it again (keeps_input, keeps_gate and
/// keeps_output of wtacrs_operator_plan_info):
///
/// operation                         packing   saved                                          the caller keeps
/// ------------------------------------------------------------------------------------------------------------
/// identity                          native    nothing                                        nothing
/// identity                          packed    x: wtacrs_operator_plan_restore reads it back  nothing
/// relu                              any       1 bit an element                               nothing
/// gelu, gelu_tanh, silu             native    nothing                                        x
/// gelu, gelu_tanh, silu             packed    the slope act'(x)                              nothing
/// gated relu, gelu, gelu_tanh, silu native    nothing                                        x, gate
/// gated relu, gelu, gelu_tanh, silu packed    act(x), and gate act'(x)                       nothing
/// softmax                           native    nothing                                        y
/// softmax                           packed    the probabilities before dropout               nothing
/// layer_norm                        native    mean and 1/sigma of each row, in f32           x
/// rms_norm                          native    1/sigma of each row, in f32                    x
/// layer_norm, rms_norm              packed    the normalised rows, and 1/sigma in f32        nothing
///
/// Dropout of the output saves nothing but seed and offset, from which its mask is made again. Where there is nothing to
/// save, not even those, saved memory has 0 bytes and may be NULL.
///
/// Gradients from packed arrays are unbiased estimates, and 8 bits add as much noise as bf16's rounding does. All others are
/// exact up to rounding. Elements that are not finite are no error: they make what they make in f32, and a packed group of
/// 128 elements with one of them is read back as NaN.
pub struct wtacrs_operator {
    _opaque: (),
}

/// A description, as far as setters have filled it.
#[derive(Clone, Copy, Debug)]
struct Description {
    /// And whether it is gated.
    operation: Option<(Operation, bool)>,
    shape: Option<[usize; 2]>,
    dtype: Dtype,
    packing: Packing,
    dropout: f64,
    epsilon: f64,
    further_offset: FurtherOffset,
}

static OPERATORS: Registry<Mutex<Description>> = Registry::new("operator");

/// The description that a plan is made of.
pub(super) fn description(handle: *const wtacrs_operator) -> Outcome<OperatorDescription> {
    let given = *OPERATORS.get(handle)?.lock().map_err(poisoned)?;
    let unset = |what| Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, format!("the operator's {what} was not set"));
    let (operation, is_gated) = given.operation.ok_or_else(|| unset("operation"))?;
    let shape = given.shape.ok_or_else(|| unset("shape"))?;
    let operator = operator(operation, is_gated)?.with_packing(given.packing);
    let operator = operator.with_dropout(given.dropout)?.with_epsilon(given.epsilon)?;
    operator.check()?;
    Ok(OperatorDescription { operator, shape, dtype: given.dtype, further_offset: given.further_offset })
}

fn operator(operation: Operation, is_gated: bool) -> Outcome<Operator> {
    let operator = Operator::new(operation);
    Ok(if is_gated { operator.gated()? } else { operator })
}

fn change(handle: *const wtacrs_operator, change: impl FnOnce(&mut Description)) -> Outcome {
    change(&mut *OPERATORS.get(handle)?.lock().map_err(poisoned)?);
    Ok(())
}

/// A description of an operator. Operation and shape must be set; the other defaults are WTACRS_DTYPE_F32,
/// WTACRS_PACKING_NATIVE, no dropout and an epsilon of 1e-5.
///
/// op        [out]
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_create(op: *mut *mut wtacrs_operator) -> wtacrs_status {
    guard("wtacrs_operator_create", || {
        let output = Array::new(op.cast_const(), 1, "op")?;
        let description = Description {
            operation: None,
            shape: None,
            dtype: Dtype::F32,
            packing: Packing::default(),
            dropout: 0.0,
            epsilon: 1e-5,
            further_offset: FurtherOffset::NONE,
        };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(OPERATORS.insert(Mutex::new(description))) };
        Ok(())
    })
}

/// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_destroy(op: *mut wtacrs_operator) -> wtacrs_status {
    guard("wtacrs_operator_destroy", || OPERATORS.remove(op))
}

/// What y is of x, before dropout: see wtacrs_operation.
///
/// gated     1 for act(x) gate, element by element, with a second array `gate`: WTACRS_OPERATION_RELU, _GELU, _GELU_TANH and
///           _SILU alone can be gated. 0 otherwise.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT if the operation cannot be gated; _NULL_POINTER,
/// _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_operation(
    op: *mut wtacrs_operator,
    operation: wtacrs_operation,
    gated: i32,
) -> wtacrs_status {
    guard("wtacrs_operator_set_operation", || {
        let (operation, is_gated) = (enums::operation(operation)?, one_of("gated", gated, &[false, true])?);
        self::operator(operation, is_gated)?;
        change(op, |description| description.operation = Some((operation, is_gated)))
    })
}

/// x, y, the gate and their gradients have rows x columns elements; the weight, the bias and their gradients one for each
/// column. Softmax and norms are taken along rows, and elements are packed in groups of 128 of a row, so choose long rows for
/// an operator that works on each element by itself. Zeros are allowed.
///
/// Errors: WTACRS_STATUS_SIZE_OVERFLOW for arrays beyond the address space; _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_shape(
    op: *mut wtacrs_operator,
    rows: usize,
    columns: usize,
) -> wtacrs_status {
    guard("wtacrs_operator_set_shape", || {
        check_sizes(&[("x", rows, columns), ("a weight", 1, columns)])?;
        change(op, |description| description.shape = Some([rows, columns]))
    })
}

/// The dtype of x, y, the gate and their gradients: WTACRS_DTYPE_F32, _F16 or _BF16. A norm's weight and bias, and their
/// gradients, are f32 always.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _UNSUPPORTED for WTACRS_DTYPE_F64; _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_dtype(op: *mut wtacrs_operator, dtype: wtacrs_dtype) -> wtacrs_status {
    guard("wtacrs_operator_set_dtype", || {
        let dtype = enums::dtype(dtype)?;
        if dtype == Dtype::F64 {
            let message = "dtype is F64: operators work in f32, on f32, f16 and bf16";
            return Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message));
        }
        change(op, |description| description.dtype = dtype)
    })
}

/// How what is saved is packed: see the table at wtacrs_operator.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_packing(
    op: *mut wtacrs_operator,
    packing: wtacrs_packing,
) -> wtacrs_status {
    guard("wtacrs_operator_set_packing", || {
        let packing = enums::packing(packing)?;
        change(op, |description| description.packing = packing)
    })
}

/// Dropout of the output: each element becomes 0 with this probability, and else is divided by the probability that it is
/// kept. The mask is a function of seed, offset and the element's place. A native softmax, which keeps its output, has no
/// dropout: follow it by an identity with dropout.
///
/// probability  at least 0 and below 1; rounded to a multiple of 2^-32
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_dropout(op: *mut wtacrs_operator, probability: f64) -> wtacrs_status {
    guard("wtacrs_operator_set_dropout", || {
        Operator::new(Operation::Identity).with_dropout(probability)?;
        change(op, |description| description.dropout = probability)
    })
}

/// What a norm adds to the variance or the mean of squares. Other operations ignore it.
///
/// epsilon   finite in f32, and not negative
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_epsilon(op: *mut wtacrs_operator, epsilon: f64) -> wtacrs_status {
    guard("wtacrs_operator_set_epsilon", || {
        Operator::new(Operation::LayerNorm).with_epsilon(epsilon)?;
        change(op, |description| description.epsilon = epsilon)
    })
}

/// A number that forward passes add to their offset when they run: see wtacrs_layer_set_further_offset. Backward passes read
/// the sum from saved memory.
///
/// Errors: WTACRS_STATUS_MISALIGNED, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_operator_set_further_offset(
    op: *mut wtacrs_operator,
    further_offset: *const u64,
) -> wtacrs_status {
    guard("wtacrs_operator_set_further_offset", || {
        let further_offset = FurtherOffset::new(further_offset)?;
        change(op, |description| description.further_offset = further_offset)
    })
}
