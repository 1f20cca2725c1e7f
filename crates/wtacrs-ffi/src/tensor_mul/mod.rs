//! Batched matrix products, attention's two: their description, plan and passes.

mod plan;
mod run;

pub use self::plan::*;
pub use self::run::*;

use crate::array::Array;
use crate::dtype::{Dtype, check_dtypes, design, one_of, precision};
use crate::guard::{Outcome, guard, poisoned};
use crate::layer::{FurtherOffset, check_keep, check_mix, check_pairs, check_sizes};
use crate::registry::Registry;
use crate::status::*;
use std::sync::Mutex;
use wtacrs_core::Keep;
use wtacrs_core::layers::Contraction;
use wtacrs_core::sampling::DEFAULT_MIX;
use wtacrs_core::sampling::design::BuiltIn;
use wtacrs_kernels::plan::Precision;

/// The gradient of A, dA = G B^T, which sums over the columns of B.
pub const WTACRS_LEFT: i32 = 0;
/// The gradient of B, dB = A^T G, which sums over the rows of A.
pub const WTACRS_RIGHT: i32 = 1;

/// What a batched product C = A B is like, and how both gradients are to be estimated. A description is guarded by a
/// lock, so threads may share it, but one thread at a time is what makes sense.
pub struct wtacrs_tensor_mul {
    _opaque: (),
}

/// A description, as far as it has been given.
#[derive(Clone, Copy, Debug)]
struct Description {
    /// Batch, heads, rows, inner, columns.
    shape: Option<[usize; 5]>,
    operands: Dtype,
    gradient: Dtype,
    contractions: [Option<Contraction>; 2],
    design: BuiltIn,
    mix: f64,
    precision: Precision,
    further_offset: FurtherOffset,
}

static DESCRIPTIONS: Registry<Mutex<Description>> = Registry::new("batched product");

fn description(handle: *const wtacrs_tensor_mul) -> Outcome<Description> {
    Ok(*DESCRIPTIONS.get(handle)?.lock().map_err(poisoned)?)
}

fn change(handle: *const wtacrs_tensor_mul, change: impl FnOnce(&mut Description)) -> Outcome {
    change(&mut *DESCRIPTIONS.get(handle)?.lock().map_err(poisoned)?);
    Ok(())
}

fn set_contraction(handle: *const wtacrs_tensor_mul, side: i32, contraction: Contraction) -> Outcome {
    let at = one_of("side", side, &[0, 1])?;
    change(handle, |description| description.contractions[at] = Some(contraction))
}

/// A description of C = A B for every (batch, head). The shape and both sides' budgets must be set (or exactness); the
/// other defaults are f32, WTACRS_WTA_PIVOTAL, a mix of 0.01 and WTACRS_PRECISION_F32.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_create(tensor_mul: *mut *mut wtacrs_tensor_mul) -> wtacrs_status {
    guard("wtacrs_tensor_mul_create", || {
        let output = Array::new(tensor_mul, 1, "tensor_mul")?;
        let (operands, gradient, design) = (Dtype::F32, Dtype::F32, BuiltIn::default());
        let (contractions, mix) = ([None; 2], DEFAULT_MIX);
        let (precision, further_offset) = (Precision::default(), FurtherOffset::NONE);
        let made =
            Description { shape: None, operands, gradient, contractions, design, mix, precision, further_offset };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(DESCRIPTIONS.insert(Mutex::new(made))) };
        Ok(())
    })
}

/// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_destroy(tensor_mul: *mut wtacrs_tensor_mul) -> wtacrs_status {
    guard("wtacrs_tensor_mul_destroy", || DESCRIPTIONS.remove(tensor_mul))
}

/// A is batch x heads x rows x inner, B batch x heads x inner x columns, C and its gradient G batch x heads x rows x
/// columns. For scores = Q K^T: rows are queries, inner channels, columns keys.
///
/// Errors: WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
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
        change(tensor_mul, |description| description.shape = Some([batch, heads, rows, inner, columns]))
    })
}

/// The dtypes of A and B, and of G: WTACRS_F32, WTACRS_F16 or WTACRS_BF16, whose gradients are WTACRS_F32; or WTACRS_F64
/// for both, and for the gradients.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_dtypes(
    tensor_mul: *mut wtacrs_tensor_mul,
    operands: i32,
    gradient: i32,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_dtypes", || {
        let (operands, gradient) = (Dtype::new(operands)?, Dtype::new(gradient)?);
        check_dtypes(operands, gradient, operands.accumulator())?;
        change(tensor_mul, |description| (description.operands, description.gradient) = (operands, gradient))
    })
}

/// How many pairs one gradient, WTACRS_LEFT or WTACRS_RIGHT, is estimated from.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_budget_rows(
    tensor_mul: *mut wtacrs_tensor_mul,
    side: i32,
    rows: usize,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_budget_rows", || {
        set_contraction(tensor_mul, side, Contraction::Sampled(check_keep(Keep::Rows(rows))?))
    })
}

/// What share of its pairs, in (0, 1], one gradient, WTACRS_LEFT or WTACRS_RIGHT, is estimated from.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_budget_fraction(
    tensor_mul: *mut wtacrs_tensor_mul,
    side: i32,
    fraction: f64,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_budget_fraction", || {
        set_contraction(tensor_mul, side, Contraction::Sampled(check_keep(Keep::Fraction(fraction))?))
    })
}

/// One gradient, WTACRS_LEFT or WTACRS_RIGHT, is exact, and the operand that it needs saved whole: right for sums over
/// channels, as of dP in context = P V.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_exact(tensor_mul: *mut wtacrs_tensor_mul, side: i32) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_exact", || set_contraction(tensor_mul, side, Contraction::Exact))
}

/// The sampling design, as for a layer.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_design(
    tensor_mul: *mut wtacrs_tensor_mul,
    design: i32,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_design", || {
        let design = self::design(design)?;
        change(tensor_mul, |description| description.design = design)
    })
}

/// The share, in [0, 1], of the operand's own norms in weights from guessed norms of G; 0 for true norms.
///
/// Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_mix(tensor_mul: *mut wtacrs_tensor_mul, mix: f64) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_mix", || {
        check_mix(mix)?;
        change(tensor_mul, |description| description.mix = mix)
    })
}

/// How precisely f32 matrices are multiplied: see wtacrs_layer_set_precision.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_precision(
    tensor_mul: *mut wtacrs_tensor_mul,
    precision: i32,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_precision", || {
        let precision = self::precision(precision)?;
        change(tensor_mul, |description| description.precision = precision)
    })
}

/// A number that forward passes add to their offset when they run: see wtacrs_layer_set_further_offset.
///
/// Errors: WTACRS_MISALIGNED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_set_further_offset(
    tensor_mul: *mut wtacrs_tensor_mul,
    further_offset: *const u64,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_set_further_offset", || {
        let further_offset = FurtherOffset::new(further_offset)?;
        change(tensor_mul, |description| description.further_offset = further_offset)
    })
}
