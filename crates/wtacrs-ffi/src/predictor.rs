//! The norm predictor: a guess of the norms of dZ from H itself, learned from the kept rows of each step.

use crate::array::{Array, block, check_disjoint};
use crate::cache::save;
use crate::context::Context;
use crate::cuda::DevicePredictor;
use crate::dtype::with_element;
use crate::guard::{Failure, Outcome, guard, poisoned};
use crate::plan::{Plan, plan, wtacrs_plan};
use crate::registry::Registry;
use crate::status::*;
use core::ffi::c_void;
use ndarray::Array2;
use std::sync::{Arc, RwLock};
use wtacrs_core::Selection;
use wtacrs_core::norm_predictor::{NormPredictor, Settings, StepStatistics};

/// An online guess of the norms of dZ for one layer, or for layers that share H. A lock inside lets any number of
/// threads use one; forward passes read it, and calls that change it wait for them and for one another.
pub struct wtacrs_norm_predictor {
    _opaque: (),
}

/// Where a predictor's state lies.
enum Predictor {
    Host(Arc<RwLock<NormPredictor>>),
    Device(Arc<DevicePredictor>),
}

static PREDICTORS: Registry<Predictor> = Registry::new("norm predictor");

/// A predictor of the CPU's.
pub(crate) fn predictor(handle: *const wtacrs_norm_predictor) -> Outcome<Arc<RwLock<NormPredictor>>> {
    match &*PREDICTORS.get(handle)? {
        Predictor::Host(predictor) => Ok(Arc::clone(predictor)),
        Predictor::Device(_) => {
            let message = "the predictor is a GPU's: the CPU cannot use it, and calls on it take a stream (…_on)";
            Err(Failure::new(WTACRS_DEVICE_MISMATCH, message))
        }
    }
}

/// A predictor of a context's GPU.
pub(crate) fn device_predictor(
    handle: *const wtacrs_norm_predictor,
    context: &Arc<Context>,
) -> Outcome<Arc<DevicePredictor>> {
    match &*PREDICTORS.get(handle)? {
        Predictor::Device(predictor) => {
            predictor.check_context(context)?;
            Ok(Arc::clone(predictor))
        }
        Predictor::Host(_) => {
            let message = "the predictor is the CPU's: wtacrs_norm_predictor_create_on makes one for a GPU";
            Err(Failure::new(WTACRS_DEVICE_MISMATCH, message))
        }
    }
}

/// Takes a predictor to a context's device; its handle.
pub(crate) fn insert(context: &Arc<Context>, made: NormPredictor) -> Outcome<*mut wtacrs_norm_predictor> {
    Ok(PREDICTORS.insert(match context.device.gpu() {
        None => Predictor::Host(Arc::new(RwLock::new(made))),
        Some(_) => Predictor::Device(Arc::new(DevicePredictor::new(context, made)?)),
    }))
}

/// A predictor of any device.
pub(crate) fn any_predictor<T>(
    handle: *const wtacrs_norm_predictor,
    host: impl FnOnce(&RwLock<NormPredictor>) -> Outcome<T>,
    device: impl FnOnce(&DevicePredictor) -> Outcome<T>,
) -> Outcome<T> {
    match &*PREDICTORS.get(handle)? {
        Predictor::Host(predictor) => host(predictor),
        Predictor::Device(predictor) => device(predictor),
    }
}

/// A predictor that knows nothing yet, with default settings (256 features, forgetting 0.97, ridge 0.01, clamp 6,
/// 128 rows a step, seed 0), for H of `in_features` columns.
///
/// Errors: WTACRS_INVALID_ARGUMENT for no features or more than 2^24; WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_create(
    in_features: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_create", || {
        // SAFETY: as documented.
        unsafe { create(predictor, || Ok(NormPredictor::new(in_features, Settings::default())?)) }
    })
}

/// A predictor with settings of the caller's: random projections of H (1 to 2^14), what is left of a step's statistics
/// after the next (above 0, at most 1), ridge (above 0), the most that the logarithm of a guess may be from the mean (above
/// 0, at most 20), the most rows learned from in a step (at least 1), and the seed of the projections' signs.
///
/// Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_create_with(
    in_features: usize,
    features: usize,
    forgetting: f64,
    ridge: f64,
    clamp: f64,
    rows_per_update: usize,
    seed: u64,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_create_with", || {
        let settings = Settings { features, forgetting, ridge, clamp, rows_per_update, seed };
        // SAFETY: as documented.
        unsafe { create(predictor, || Ok(NormPredictor::new(in_features, settings)?)) }
    })
}

/// # Safety
///
/// `output` is NULL or an output of one pointer.
unsafe fn create(output: *mut *mut wtacrs_norm_predictor, make: impl FnOnce() -> Outcome<NormPredictor>) -> Outcome {
    let output = Array::new(output, 1, "predictor")?;
    let made = make()?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { output.set(PREDICTORS.insert(Predictor::Host(Arc::new(RwLock::new(made))))) };
    Ok(())
}

/// Destroys a predictor; NULL is allowed.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_destroy(predictor: *mut wtacrs_norm_predictor) -> wtacrs_status {
    guard("wtacrs_norm_predictor_destroy", || PREDICTORS.remove(predictor))
}

/// Learns from the rows that a forward pass of `plan` has saved, and from `tokens` norms of dZ, which wtacrs_backward
/// gives (wtacrs_joint_norms for layers that share H).
///
/// Errors: WTACRS_INVALID_WEIGHTS for a norm that is negative or not finite; WTACRS_SHAPE_MISMATCH for another number of
/// in_features; as for wtacrs_backward about `saved`; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED. The
/// predictor is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_update(
    predictor: *mut wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_update", || {
        let (predictor, plan) = (self::predictor(predictor)?, self::plan(plan)?);
        // SAFETY: as documented.
        let step = unsafe { statistics(&predictor, &plan, saved, saved_bytes, dz_norms) }?;
        Ok(predictor.write().map_err(poisoned)?.apply(&step)?)
    })
}

/// How many numbers a step's statistics are.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics_count(
    predictor: *const wtacrs_norm_predictor,
    count: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_statistics_count", || {
        let output = Array::new(count, 1, "count")?;
        let on_host =
            |predictor: &RwLock<NormPredictor>| Ok(no_statistics(&*predictor.read().map_err(poisoned)?)?.sums().len());
        let len = any_predictor(predictor, on_host, |predictor| Ok(predictor.sums_len()))?;
        // SAFETY: an output of one number, checked for NULL and alignment.
        unsafe { output.set(len) };
        Ok(())
    })
}

/// What one rank's rows bring to a step: plain sums in `sums`, with room for `capacity` of them. Add them over the ranks,
/// and give the same total to every rank's wtacrs_norm_predictor_apply: then equal predictors stay equal. Otherwise as
/// wtacrs_norm_predictor_update, but the predictor does not change.
///
/// Errors: WTACRS_BUFFER_TOO_SMALL; as for wtacrs_norm_predictor_update; WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics(
    predictor: *const wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    sums: *mut f64,
    capacity: usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_statistics", || {
        let (predictor, plan) = (self::predictor(predictor)?, self::plan(plan)?);
        // SAFETY: as documented.
        let step = unsafe { statistics(&predictor, &plan, saved, saved_bytes, dz_norms) }?;
        let count = step.sums().len();
        if capacity < count {
            let message = format!("room for {capacity} sums where there are {count}");
            return Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message));
        }
        let output = Array::new(sums, count, "sums")?;
        let inputs = [
            block(saved, saved_bytes, plan.saved.bytes(), "saved")?.region(),
            Array::new(dz_norms, plan.tokens, "dz_norms")?.region(),
        ];
        check_disjoint(&[output.region()], &inputs)?;
        // SAFETY: checked for NULL, alignment and overlap; as documented there is room.
        unsafe { output.get_mut() }.copy_from_slice(step.sums());
        Ok(())
    })
}

/// Learns from a step's statistics, `count` sums over all ranks.
///
/// Errors: WTACRS_SHAPE_MISMATCH for another count; WTACRS_INVALID_ARGUMENT for sums that no rows can have;
/// WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED. The predictor is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_apply(
    predictor: *mut wtacrs_norm_predictor,
    sums: *const f64,
    count: usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_apply", || {
        let predictor = self::predictor(predictor)?;
        let sums = Array::new(sums, count, "sums")?;
        let mut predictor = predictor.write().map_err(poisoned)?;
        let mut step = no_statistics(&predictor)?;
        if step.sums().len() != count {
            let message = format!("{count} sums where {} are needed", step.sums().len());
            return Err(Failure::new(WTACRS_SHAPE_MISMATCH, message));
        }
        // SAFETY: checked for NULL and alignment; as documented it holds `count` sums.
        step.sums_mut().copy_from_slice(unsafe { sums.get() });
        Ok(predictor.apply(&step)?)
    })
}

/// The whole predictor as bytes, for a checkpoint; wtacrs_norm_predictor_load reads them on any machine, and the loaded
/// predictor continues to the same bits. For a predictor on a GPU this call waits for all that was launched in its CUDA
/// context, so it must not be made while a stream is captured. `*needed` becomes their number, also with WTACRS_BUFFER_TOO_SMALL. With `buffer`
/// NULL and `capacity` 0 it is only asked for.
///
/// Errors: WTACRS_BUFFER_TOO_SMALL, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_save(
    predictor: *const wtacrs_norm_predictor,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_save", || {
        let on_host = |predictor: &RwLock<NormPredictor>| Ok(predictor.read().map_err(poisoned)?.to_bytes());
        let bytes = any_predictor(predictor, on_host, |predictor| Ok(predictor.fetch()?.to_bytes()))?;
        // SAFETY: as documented.
        unsafe { save(&bytes, buffer, capacity, needed) }
    })
}

/// A predictor from the `length` bytes that wtacrs_norm_predictor_save wrote.
///
/// Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH, WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_load(
    bytes: *const c_void,
    length: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_load", || {
        let bytes = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let bytes = unsafe { bytes.get() };
        // SAFETY: as documented.
        unsafe { create(predictor, || Ok(NormPredictor::from_bytes(bytes)?)) }
    })
}

/// # Safety
///
/// `saved` and `dz_norms` are NULL or as `wtacrs_norm_predictor_update` says.
pub(crate) unsafe fn statistics(
    predictor: &RwLock<NormPredictor>,
    plan: &Plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
) -> Outcome<StepStatistics> {
    plan.host()?;
    let saved = block(saved, saved_bytes, plan.saved.bytes(), "saved")?;
    let norms = Array::new(dz_norms, plan.tokens, "dz_norms")?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    let norms = unsafe { norms.get() };
    let predictor = predictor.read().map_err(poisoned)?;
    with_element!(plan.h, T => {
        // SAFETY: as above.
        let (selection, rows): (Selection, _) = unsafe { plan.saved.read::<T>(saved.as_ptr()) }?;
        let kept: Vec<f32> = selection.indices().iter().map(|&i| norms[i as usize]).collect();
        Ok(predictor.statistics(rows, &kept, selection.scales(), None)?)
    })
}

/// The statistics of no rows.
pub(crate) fn no_statistics(predictor: &NormPredictor) -> Outcome<StepStatistics> {
    let rows = Array2::<f32>::zeros((0, predictor.in_features()));
    Ok(predictor.statistics(rows.view(), &[], &[], None)?)
}
