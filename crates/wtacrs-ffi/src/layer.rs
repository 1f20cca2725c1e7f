//! The description of a linear layer, filled by setters and then frozen into a plan.

use crate::array::Array;
use crate::dtype::{Dtype, Source, check_dtypes, design, precision};
use crate::guard::{Failure, Outcome, guard, poisoned};
use crate::registry::Registry;
use crate::status::*;
use std::sync::Mutex;
use wtacrs_core::Keep;
use wtacrs_core::sampling::DEFAULT_MIX;
use wtacrs_core::sampling::design::BuiltIn;
use wtacrs_kernels::plan::Precision;

/// What a linear layer is like and how its weight gradient dW = H^T dZ is to be estimated. A description is guarded by
/// a lock, so threads may share it, but one thread at a time is what makes sense.
pub struct wtacrs_layer {
    _opaque: (),
}

/// A description, as far as it has been given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) shape: Option<[usize; 3]>,
    pub(crate) keep: Option<Keep>,
    pub(crate) h: Dtype,
    pub(crate) dz: Dtype,
    pub(crate) dw: Dtype,
    pub(crate) design: BuiltIn,
    pub(crate) source: Source,
    pub(crate) mix: f64,
    pub(crate) precision: Precision,
    pub(crate) further_offset: FurtherOffset,
}

/// Where a number lies that forward passes add to their offset; or null. In the memory of the plan's device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FurtherOffset(*const u64);

// SAFETY: an address; only unsafe functions read what is there, on their callers' promises.
unsafe impl Send for FurtherOffset {}
// SAFETY: as above.
unsafe impl Sync for FurtherOffset {}

impl FurtherOffset {
    /// None.
    pub(crate) const NONE: Self = Self(core::ptr::null());

    pub(crate) fn new(pointer: *const u64) -> Outcome<Self> {
        Array::optional(pointer, 1, "further_offset")?;
        Ok(Self(pointer))
    }

    pub(crate) fn as_ptr(self) -> *const u64 {
        self.0
    }

    /// The offset of a pass on the CPU.
    ///
    /// # Safety
    ///
    /// The number is on the host, lives, and nobody writes to it.
    pub(crate) unsafe fn added_to(self, offset: u64) -> u64 {
        // SAFETY: `new` has checked the alignment; the caller has the rest.
        if self.0.is_null() { offset } else { offset.wrapping_add(unsafe { self.0.read() }) }
    }
}

static LAYERS: Registry<Mutex<Layer>> = Registry::new("layer");

/// A copy of the description.
pub(crate) fn layer(handle: *const wtacrs_layer) -> Outcome<Layer> {
    Ok(*LAYERS.get(handle)?.lock().map_err(poisoned)?)
}

fn change(handle: *const wtacrs_layer, change: impl FnOnce(&mut Layer)) -> Outcome {
    change(&mut *LAYERS.get(handle)?.lock().map_err(poisoned)?);
    Ok(())
}

/// A share that a mix can be.
pub(crate) fn check_mix(mix: f64) -> Outcome {
    if (0.0..=1.0).contains(&mix) {
        return Ok(());
    }
    Err(Failure::new(WTACRS_INVALID_ARGUMENT, format!("the mix is {mix}: it must lie between 0 and 1")))
}

/// A budget that may fit some number of pairs.
pub(crate) fn check_keep(keep: Keep) -> Outcome<Keep> {
    keep.budget(usize::MAX).map(|_| keep).map_err(Failure::from)
}

/// Refuses sizes whose matrices could not be addressed in any dtype.
pub(crate) fn check_sizes(products: &[(&str, usize, usize)]) -> Outcome {
    for &(what, rows, columns) in products {
        let bytes = rows.checked_mul(columns).and_then(|count| count.checked_mul(size_of::<f64>()));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            let message = format!("{what} of {rows} x {columns} elements cannot be addressed");
            return Err(Failure::new(WTACRS_SIZE_OVERFLOW, message));
        }
    }
    Ok(())
}

/// Refuses more pairs than 32-bit indices can tell apart.
pub(crate) fn check_pairs(pairs: usize) -> Outcome {
    if u32::try_from(pairs).is_ok() {
        return Ok(());
    }
    Err(Failure::new(WTACRS_SIZE_OVERFLOW, format!("{pairs} pairs are more than the {} that can be indexed", u32::MAX)))
}

/// A description of a layer. Shape and budget must be set; the other defaults are f32 matrices, WTACRS_WTA_PIVOTAL,
/// WTACRS_SOURCE_PREDICTED, a mix of 0.01 and WTACRS_PRECISION_F32.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_create(layer: *mut *mut wtacrs_layer) -> wtacrs_status {
    guard("wtacrs_layer_create", || {
        let output = Array::new(layer, 1, "layer")?;
        let (h, dz, dw) = (Dtype::F32, Dtype::F32, Dtype::F32);
        let (design, source) = (BuiltIn::default(), Source::Predicted);
        let (precision, further_offset) = (Precision::default(), FurtherOffset::NONE);
        let layer =
            Layer { shape: None, keep: None, h, dz, dw, design, source, mix: DEFAULT_MIX, precision, further_offset };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(LAYERS.insert(Mutex::new(layer))) };
        Ok(())
    })
}

/// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_destroy(layer: *mut wtacrs_layer) -> wtacrs_status {
    guard("wtacrs_layer_destroy", || LAYERS.remove(layer))
}

/// H is tokens x in_features, dZ tokens x out_features, dW in_features x out_features. Zeros are allowed.
///
/// Errors: WTACRS_SIZE_OVERFLOW for 2^32 tokens or more, or for a matrix beyond the address space;
/// WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
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

/// The dtypes of H and dZ (WTACRS_F32, WTACRS_F16, WTACRS_BF16, in any mixture) and of dW (then WTACRS_F32); or
/// WTACRS_F64 for all three.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_dtypes(layer: *mut wtacrs_layer, h: i32, dz: i32, dw: i32) -> wtacrs_status {
    guard("wtacrs_layer_set_dtypes", || {
        let (h, dz, dw) = (Dtype::new(h)?, Dtype::new(dz)?, Dtype::new(dw)?);
        check_dtypes(h, dz, dw)?;
        change(layer, |layer| (layer.h, layer.dz, layer.dw) = (h, dz, dw))
    })
}

/// How many rows of H to keep, at least one; more than there are tokens is refused when the plan is made.
///
/// Errors: WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_budget_rows(layer: *mut wtacrs_layer, rows: usize) -> wtacrs_status {
    guard("wtacrs_layer_set_budget_rows", || {
        let keep = check_keep(Keep::Rows(rows))?;
        change(layer, |layer| layer.keep = Some(keep))
    })
}

/// What share of the rows of H to keep, in (0, 1]: the nearest number of rows, at least one if there are any.
///
/// Errors: WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_budget_fraction(layer: *mut wtacrs_layer, fraction: f64) -> wtacrs_status {
    guard("wtacrs_layer_set_budget_fraction", || {
        let keep = check_keep(Keep::Fraction(fraction))?;
        change(layer, |layer| layer.keep = Some(keep))
    })
}

/// The sampling design: WTACRS_UNIFORM, WTACRS_CRS, WTACRS_TOP_K, WTACRS_WTA_IID, WTACRS_WTA_STRATIFIED or
/// WTACRS_WTA_PIVOTAL. All but WTACRS_TOP_K are unbiased.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_design(layer: *mut wtacrs_layer, design: i32) -> wtacrs_status {
    guard("wtacrs_layer_set_design", || {
        let design = self::design(design)?;
        change(layer, |layer| layer.design = design)
    })
}

/// What the forward pass knows of the norms of dZ: WTACRS_SOURCE_INPUT (nothing), WTACRS_SOURCE_NORMS,
/// WTACRS_SOURCE_CACHED or WTACRS_SOURCE_PREDICTED.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_source(layer: *mut wtacrs_layer, source: i32) -> wtacrs_status {
    guard("wtacrs_layer_set_source", || {
        let source = Source::new(source)?;
        change(layer, |layer| layer.source = source)
    })
}

/// The share, in [0, 1], of the input's own norms in weights from cached norms, so that a token whose norm was zero can
/// still be drawn.
///
/// Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_mix(layer: *mut wtacrs_layer, mix: f64) -> wtacrs_status {
    guard("wtacrs_layer_set_mix", || {
        check_mix(mix)?;
        change(layer, |layer| layer.mix = mix)
    })
}

/// How precisely f32 matrices are multiplied: WTACRS_PRECISION_F32, or WTACRS_PRECISION_TF32 as frameworks allow it, with a
/// relative error of about 2^-11 in each factor. A GPU's tensor cores then multiply several times faster; the CPU, and
/// matrices of other dtypes, know no difference. What is selected, and with which probability, stays the same.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_precision(layer: *mut wtacrs_layer, precision: i32) -> wtacrs_status {
    guard("wtacrs_layer_set_precision", || {
        let precision = self::precision(precision)?;
        change(layer, |layer| layer.precision = precision)
    })
}

/// A number in the memory of the plan's device, aligned to 8, that passes which draw add to their offset when they run:
/// so that a captured CUDA graph, in which seed and offset are fixed, draws anew at each replay. NULL: none. It must live
/// as long as plans that are made of the description.
///
/// Errors: WTACRS_MISALIGNED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_layer_set_further_offset(
    layer: *mut wtacrs_layer,
    further_offset: *const u64,
) -> wtacrs_status {
    guard("wtacrs_layer_set_further_offset", || {
        let further_offset = FurtherOffset::new(further_offset)?;
        change(layer, |layer| layer.further_offset = further_offset)
    })
}
