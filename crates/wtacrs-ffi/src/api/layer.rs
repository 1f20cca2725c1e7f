//! The description of a linear layer, filled by setters and then frozen into a plan.

use crate::arguments::enums::{
    self, wtacrs_budget, wtacrs_design, wtacrs_dtype, wtacrs_engine, wtacrs_packing, wtacrs_precision, wtacrs_source,
};
use crate::arguments::{Array, Dtype, Source, check_dtypes};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard, poisoned};
use crate::device::{FurtherOffset, LinearDescription, Sampling, budget_of};
use std::sync::Mutex;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, Linear};
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::{BuiltIn, DEFAULT_MIX};

/// What a linear layer is like and how its weight gradient dW = H^T dZ is to be estimated. A lock guards it, so threads may
/// share it.
pub struct wtacrs_layer {
    _opaque: (),
}

/// A description, as far as setters have filled it.
#[derive(Clone, Copy, Debug)]
struct Layer {
    shape: Option<[usize; 3]>,
    keep: Option<Contraction>,
    dtypes: [Dtype; 3],
    source: Source,
    sampling: Sampling,
}

static LAYERS: Registry<Mutex<Layer>> = Registry::new("layer");

/// The description that a plan is made of.
pub(super) fn description(handle: *const wtacrs_layer) -> Outcome<LinearDescription> {
    let layer = *LAYERS.get(handle)?.lock().map_err(poisoned)?;
    let unset = |what| Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, format!("the layer's {what} was not set"));
    let [tokens, in_features, out_features] = layer.shape.ok_or_else(|| unset("shape"))?;
    let contraction = layer.keep.ok_or_else(|| unset("budget"))?;
    let Sampling { design, mix, packing, precision, engine, further_offset } = layer.sampling;
    let (keep, design, source, packing) = match contraction {
        // Every row has the scale 1 in this design, whatever its weight.
        Contraction::Exact => (Keep::Fraction(1.0), BuiltIn::Uniform, Source::Input, Packing::Native),
        Contraction::Sampled(keep) => (keep, design, layer.source, packing),
    };
    let [h, dz, dw] = layer.dtypes;
    Ok(LinearDescription {
        tokens,
        in_features,
        out_features,
        budget: budget_of(contraction, tokens)?,
        linear: Linear::new(keep).with_design(design).with_mix(mix).with_packing(packing),
        h,
        dz,
        dw,
        source,
        precision,
        engine,
        further_offset,
    })
}

fn change(handle: *const wtacrs_layer, change: impl FnOnce(&mut Layer)) -> Outcome {
    change(&mut *LAYERS.get(handle)?.lock().map_err(poisoned)?);
    Ok(())
}

/// A share that a mix can be.
pub(super) fn check_mix(mix: f64) -> Outcome<f64> {
    if (0.0..=1.0).contains(&mix) {
        return Ok(mix);
    }
    Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, format!("the mix is {mix}: it must lie between 0 and 1")))
}

/// A budget that may fit some number of pairs.
pub(super) fn budget(unit: wtacrs_budget, amount: f64) -> Outcome<Contraction> {
    let rows = || {
        if amount >= 0.0 && amount.fract() == 0.0 && amount < 2_f64.powi(53) {
            return Ok(Keep::Rows(amount as usize));
        }
        Err(Failure::new(
            WTACRS_STATUS_INVALID_BUDGET,
            format!("the budget is {amount} rows: it must be a whole number"),
        ))
    };
    let keep = match enums::budget(unit)? {
        enums::BudgetUnit::Exact => return Ok(Contraction::Exact),
        enums::BudgetUnit::Fraction => Keep::Fraction(amount),
        enums::BudgetUnit::Rows => rows()?,
    };
    keep.budget(usize::MAX)?;
    Ok(Contraction::Sampled(keep))
}

/// Refuses sizes whose matrices could not be addressed in any dtype.
pub(super) fn check_sizes(products: &[(&str, usize, usize)]) -> Outcome {
    for &(what, rows, columns) in products {
        let bytes = rows.checked_mul(columns).and_then(|count| count.checked_mul(size_of::<f64>()));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            let message = format!("{what} of {rows} x {columns} elements cannot be addressed");
            return Err(Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, message));
        }
    }
    Ok(())
}

/// Refuses more pairs than 32-bit indices can tell apart.
pub(super) fn check_pairs(pairs: usize) -> Outcome {
    if u32::try_from(pairs).is_ok() {
        return Ok(());
    }
    let message = format!("{pairs} pairs are more than the {} that can be indexed", u32::MAX);
    Err(Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, message))
}

/// A description of a layer. Shape and budget must be set; the other defaults are f32 matrices, WTACRS_DESIGN_WTA_PIVOTAL,
/// WTACRS_SOURCE_PREDICTED, a mix of 0.01, WTACRS_PACKING_NATIVE and WTACRS_PRECISION_F32.
///
/// layer     [out]
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_create(layer: *mut *mut wtacrs_layer) -> wtacrs_status {
    guard("wtacrs_layer_create", || {
        let output = Array::new(layer, 1, "layer")?;
        let (dtypes, source, sampling) = ([Dtype::F32; 3], Source::Predicted, Sampling::default());
        let layer = Layer { shape: None, keep: None, dtypes, source, sampling };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(LAYERS.insert(Mutex::new(layer))) };
        Ok(())
    })
}

/// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_destroy(layer: *mut wtacrs_layer) -> wtacrs_status {
    guard("wtacrs_layer_destroy", || LAYERS.remove(layer))
}

/// H is tokens x in_features, dZ tokens x out_features, dW in_features x out_features. Zeros are allowed.
///
/// Errors: WTACRS_STATUS_SIZE_OVERFLOW for 2^32 tokens or more, or for a matrix beyond the address space;
/// _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_shape(
    layer: *mut wtacrs_layer,
    tokens: usize,
    in_features: usize,
    out_features: usize,
) -> wtacrs_status {
    guard("wtacrs_layer_set_shape", || {
        check_pairs(tokens)?;
        check_sizes(&[("H", tokens, in_features), ("dZ", tokens, out_features), ("dW", in_features, out_features)])?;
        change(layer, |layer| layer.shape = Some([tokens, in_features, out_features]))
    })
}

/// The dtypes of H and dZ (WTACRS_DTYPE_F32, _F16, _BF16, in any mixture) and of dW (then WTACRS_DTYPE_F32); or
/// WTACRS_DTYPE_F64 for all three.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _UNSUPPORTED, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_dtypes(
    layer: *mut wtacrs_layer,
    h: wtacrs_dtype,
    dz: wtacrs_dtype,
    dw: wtacrs_dtype,
) -> wtacrs_status {
    guard("wtacrs_layer_set_dtypes", || {
        let dtypes @ [h, dz, dw] = [enums::dtype(h)?, enums::dtype(dz)?, enums::dtype(dw)?];
        check_dtypes(h, dz, dw)?;
        change(layer, |layer| layer.dtypes = dtypes)
    })
}

/// How many rows of H to keep: `amount` in the given unit. Rows are a whole number; more than there are tokens are refused
/// when the plan is made. With WTACRS_BUDGET_EXACT the amount, the design, the source and the packing are ignored.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_BUDGET, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_budget(
    layer: *mut wtacrs_layer,
    unit: wtacrs_budget,
    amount: f64,
) -> wtacrs_status {
    guard("wtacrs_layer_set_budget", || {
        let keep = budget(unit, amount)?;
        change(layer, |layer| layer.keep = Some(keep))
    })
}

/// The sampling design. All but WTACRS_DESIGN_TOP_K are unbiased.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_design(layer: *mut wtacrs_layer, design: wtacrs_design) -> wtacrs_status {
    guard("wtacrs_layer_set_design", || {
        let design = enums::design(design)?;
        change(layer, |layer| layer.sampling.design = design)
    })
}

/// What the weights are made from besides the norms of H.
///
/// mix       The share, in [0, 1], of the input's own norms in weights from cached norms, so that a token whose norm was
///           zero can still be drawn; 0.01 serves. Other sources ignore it.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT for the mix, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_source(
    layer: *mut wtacrs_layer,
    source: wtacrs_source,
    mix: f64,
) -> wtacrs_status {
    guard("wtacrs_layer_set_source", || {
        let source = enums::source(source)?;
        let mix = if source == Source::Cached { check_mix(mix)? } else { DEFAULT_MIX };
        change(layer, |layer| (layer.source, layer.sampling.mix) = (source, mix))
    })
}

/// How kept rows are saved, and so how large saved memory is. Packed rows add a little noise and no bias.
///
/// If the budget is all rows (a fraction of 1, or as many rows as there are tokens) and they are packed, a forward pass takes
/// no norms and chooses nothing: saved memory has neither indices nor scales, every scale is 1, and no guess is required or
/// read. With WTACRS_BUDGET_EXACT rows are saved native whatever the packing.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_packing(layer: *mut wtacrs_layer, packing: wtacrs_packing) -> wtacrs_status {
    guard("wtacrs_layer_set_packing", || {
        let packing = enums::packing(packing)?;
        change(layer, |layer| layer.sampling.packing = packing)
    })
}

/// How precisely matrices are multiplied. What is selected, and with which probability, stays the same.
///
/// With WTACRS_PRECISION_TF32, as frameworks allow it for f32, each factor has a relative error of about 2^-11, and a GPU's
/// tensor cores multiply several times faster; the CPU, and matrices of other dtypes, ignore it.
///
/// With WTACRS_PRECISION_WIDE, the CPU multiplies every factor in the dtype of dW, and a GPU refuses plans of 16-bit dtypes as
/// WTACRS_STATUS_UNSUPPORTED. Otherwise, and with dZ in bf16, the CPU multiplies rows in bf16 or packed in 4 or 2 bits in bf16
/// where it is faster so. It then rounds dZ times its scales, and packed rows as they are read back, to bf16 once: by a
/// relative error of 2^-8 at most, which averages out over the rows.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_precision(
    layer: *mut wtacrs_layer,
    precision: wtacrs_precision,
) -> wtacrs_status {
    guard("wtacrs_layer_set_precision", || {
        let precision = enums::precision(precision)?;
        change(layer, |layer| layer.sampling.precision = precision)
    })
}

/// Which program multiplies kept rows with those of dZ on a GPU; the CPU ignores it.
///
/// WTACRS_ENGINE_AUTO takes cuBLASLt if the GPU has compute capability 9 to 11, dW has at least 2^20 elements, and at least 512
/// rows are kept. If rows of dZ must be gathered for it, the layer also needs 1024 input features; none are gathered where all
/// rows are packed. The bits of cuBLASLt's products depend on its version and on the GPU. wtacrs_plan_get_info reports the engine
/// of a plan's backward passes. wtacrs_plan_weight_gradient always multiplies by this library's kernels.
///
/// A plan of cuBLASLt loads that library when it is made, so make no plan while a stream is captured. Run each pass once before
/// you capture it: cuBLASLt loads its kernels at their first run.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_engine(layer: *mut wtacrs_layer, engine: wtacrs_engine) -> wtacrs_status {
    guard("wtacrs_layer_set_engine", || {
        let engine = enums::engine(engine)?;
        change(layer, |layer| layer.sampling.engine = engine)
    })
}

/// A number that passes which draw add to their offset when they run, so that a captured CUDA graph, in which seed and
/// offset are fixed, draws anew at each replay.
///
/// further_offset  [in, optional] one number in the memory of the plan's device, aligned to 8. It must live as long as
///                 the plans that are made of the description.
///
/// Errors: WTACRS_STATUS_MISALIGNED, _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_further_offset(
    layer: *mut wtacrs_layer,
    further_offset: *const u64,
) -> wtacrs_status {
    guard("wtacrs_layer_set_further_offset", || {
        let further_offset = FurtherOffset::new(further_offset)?;
        change(layer, |layer| layer.sampling.further_offset = further_offset)
    })
}
