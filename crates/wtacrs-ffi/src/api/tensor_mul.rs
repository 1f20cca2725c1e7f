//! The description of a batched product, such as attention's two, filled by setters and then frozen into a plan.

use super::layer::{budget, check_mix, check_pairs, check_sizes};
use crate::arguments::enums::{
    self, wtacrs_budget, wtacrs_design, wtacrs_dtype, wtacrs_engine, wtacrs_packing, wtacrs_precision, wtacrs_side,
};
use crate::arguments::{Array, Dtype, check_dtypes};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard, poisoned};
use crate::device::{FurtherOffset, Sampling, TensorMulDescription, budget_of};
use std::sync::Mutex;
use wtacrs_core::layers::{Contraction, Side, TensorMul};

/// What a batched product C = A B is like, and how both gradients are to be estimated. A lock guards it, so threads may
/// share it.
pub struct wtacrs_tensor_mul {
    _opaque: (),
}

/// A description, as far as setters have filled it.
#[derive(Clone, Copy, Debug)]
struct Product {
    /// Batch, heads, rows, inner, columns.
    shape: Option<[usize; 5]>,
    operands: Dtype,
    gradient: Dtype,
    left: Option<Contraction>,
    right: Option<Contraction>,
    sampling: Sampling,
}

static PRODUCTS: Registry<Mutex<Product>> = Registry::new("batched product");

/// The description that a plan is made of.
pub(super) fn description(handle: *const wtacrs_tensor_mul) -> Outcome<TensorMulDescription> {
    let given = *PRODUCTS.get(handle)?.lock().map_err(poisoned)?;
    let unset = |what| Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, format!("the product's {what} was not set"));
    let [batch, heads, rows, inner, columns] = given.shape.ok_or_else(|| unset("shape"))?;
    let (left, right) =
        (given.left.ok_or_else(|| unset("left budget"))?, given.right.ok_or_else(|| unset("right budget"))?);
    budget_of(left, columns)?;
    budget_of(right, rows)?;
    let Sampling { design, mix, packing, precision, engine, further_offset } = given.sampling;
    let product = TensorMul::new(left, right).with_design(design).with_mix(mix).with_packing(packing);
    let (operands, gradient) = (given.operands, given.gradient);
    Ok(TensorMulDescription {
        batch,
        heads,
        rows,
        inner,
        columns,
        product,
        operands,
        gradient,
        precision,
        engine,
        further_offset,
    })
}

fn change(handle: *const wtacrs_tensor_mul, change: impl FnOnce(&mut Product)) -> Outcome {
    change(&mut *PRODUCTS.get(handle)?.lock().map_err(poisoned)?);
    Ok(())
}

/// A description of C = A B for every (batch, head). The shape and both sides' budgets must be set; the other defaults are
/// f32, WTACRS_DESIGN_WTA_PIVOTAL, a mix of 0.01, WTACRS_PACKING_NATIVE and WTACRS_PRECISION_F32.
///
/// tensor_mul  [out]
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_create(tensor_mul: *mut *mut wtacrs_tensor_mul) -> wtacrs_status {
    guard("wtacrs_tensor_mul_create", || {
        let output = Array::new(tensor_mul.cast_const(), 1, "tensor_mul")?;
        let (operands, gradient, sampling) = (Dtype::F32, Dtype::F32, Sampling::default());
        let product = Product { shape: None, operands, gradient, left: None, right: None, sampling };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(PRODUCTS.insert(Mutex::new(product))) };
        Ok(())
    })
}

/// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_destroy(tensor_mul: *mut wtacrs_tensor_mul) -> wtacrs_status {
    guard("wtacrs_tensor_mul_destroy", || PRODUCTS.remove(tensor_mul))
}

/// A is batch x heads x rows x inner, B batch x heads x inner x columns, C and its gradient G batch x heads x rows x
/// columns. For scores = Q K^T: rows are queries, inner channels, columns keys.
///
/// Errors: WTACRS_STATUS_SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_shape(
    tensor_mul: *mut wtacrs_tensor_mul,
    batch: usize,
    heads: usize,
    rows: usize,
    inner: usize,
    columns: usize,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_shape", || {
        check_pairs(rows)?;
        check_pairs(columns)?;
        check_sizes(&[("a batch of heads", batch, heads)])?;
        let items = batch * heads;
        // Two streams of draws for each item.
        check_pairs(items.saturating_mul(2))?;
        check_sizes(&[("A", rows, inner), ("B", inner, columns), ("C", rows, columns)])?;
        check_sizes(&[("A", items, rows * inner), ("B", items, inner * columns), ("C", items, rows * columns)])?;
        change(tensor_mul, |product| product.shape = Some([batch, heads, rows, inner, columns]))
    })
}

/// The dtypes of A and B, and of G: WTACRS_DTYPE_F32, _F16 or _BF16, whose gradients are WTACRS_DTYPE_F32; or
/// WTACRS_DTYPE_F64 for both, and for the gradients.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _UNSUPPORTED, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_dtypes(
    tensor_mul: *mut wtacrs_tensor_mul,
    operands: wtacrs_dtype,
    gradient: wtacrs_dtype,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_dtypes", || {
        let (operands, gradient) = (enums::dtype(operands)?, enums::dtype(gradient)?);
        check_dtypes(operands, gradient, operands.accumulator())?;
        change(tensor_mul, |product| (product.operands, product.gradient) = (operands, gradient))
    })
}

/// How many pairs one gradient is estimated from: `amount` in the given unit. With WTACRS_BUDGET_EXACT, for which the amount
/// is ignored, the gradient is exact, and the operand that it needs is saved whole: right for sums over channels, as of dP
/// in context = P V.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_BUDGET, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_budget(
    tensor_mul: *mut wtacrs_tensor_mul,
    side: wtacrs_side,
    unit: wtacrs_budget,
    amount: f64,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_budget", || {
        let (side, contraction) = (enums::side(side)?, budget(unit, amount)?);
        change(tensor_mul, |product| match side {
            Side::Left => product.left = Some(contraction),
            Side::Right => product.right = Some(contraction),
        })
    })
}

/// The sampling design, as for a layer.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_design(
    tensor_mul: *mut wtacrs_tensor_mul,
    design: wtacrs_design,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_design", || {
        let design = enums::design(design)?;
        change(tensor_mul, |product| product.sampling.design = design)
    })
}

/// The share, in [0, 1], of the operand's own norms in weights from guessed norms of G; 0 for true norms.
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_mix(tensor_mul: *mut wtacrs_tensor_mul, mix: f64) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_mix", || {
        let mix = check_mix(mix)?;
        change(tensor_mul, |product| product.sampling.mix = mix)
    })
}

/// How the pairs of a sampled sum are saved: see wtacrs_layer_set_packing. What a side of WTACRS_BUDGET_EXACT needs is saved
/// native. A side that packs all of its pairs reads no guess.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_packing(
    tensor_mul: *mut wtacrs_tensor_mul,
    packing: wtacrs_packing,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_packing", || {
        let packing = enums::packing(packing)?;
        change(tensor_mul, |product| product.sampling.packing = packing)
    })
}

/// How precisely matrices are multiplied: see wtacrs_layer_set_precision.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_precision(
    tensor_mul: *mut wtacrs_tensor_mul,
    precision: wtacrs_precision,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_precision", || {
        let precision = enums::precision(precision)?;
        change(tensor_mul, |product| product.sampling.precision = precision)
    })
}

/// Which program multiplies on a GPU: see wtacrs_layer_set_engine. Columns of G are gathered in any case.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_engine(
    tensor_mul: *mut wtacrs_tensor_mul,
    engine: wtacrs_engine,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_engine", || {
        let engine = enums::engine(engine)?;
        change(tensor_mul, |product| product.sampling.engine = engine)
    })
}

/// A number that forward passes add to their offset when they run: see wtacrs_layer_set_further_offset.
///
/// Errors: WTACRS_STATUS_MISALIGNED, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_further_offset(
    tensor_mul: *mut wtacrs_tensor_mul,
    further_offset: *const u64,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_further_offset", || {
        let further_offset = FurtherOffset::new(further_offset)?;
        change(tensor_mul, |product| product.sampling.further_offset = further_offset)
    })
}
