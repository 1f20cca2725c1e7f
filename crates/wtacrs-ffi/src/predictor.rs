//! The norm predictor: a guess of the norms of dZ from H itself, learned from the kept rows of each step.

use crate::array::{Array, Region, block, check_disjoint};
use crate::cache::save;
use crate::context::{Context, context, wtacrs_context};
use crate::cuda::DevicePredictor;
use crate::dtype::with_element;
use crate::guard::{Failure, Outcome, guard, poisoned};
use crate::heap;
use crate::linear::known;
use crate::plan::{Plan, plan, wtacrs_plan};
use crate::registry::Registry;
use crate::status::*;
use core::ffi::c_void;
use ndarray::Array2;
use std::sync::{Arc, RwLock};
use wtacrs_core::Selection;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings, StepStatistics};

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

/// A predictor that knows nothing yet, with default settings (256 features, forgetting 0.97, ridge 0.1, clamp 6,
/// 192 rows a step, seed 0), for H of `in_features` columns.
///
/// Errors: WTACRS_INVALID_ARGUMENT for no features or more than 2^24; WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_create(
    in_features: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_create", || {
        // SAFETY: as documented.
        unsafe { create(None, predictor, &[], || made(in_features, PredictorSettings::default())) }
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
        let settings = PredictorSettings::default()
            .with_features(features)
            .with_forgetting(forgetting)
            .with_ridge(ridge)
            .with_clamp(clamp)
            .with_rows_per_update(rows_per_update)
            .with_seed(seed);
        // SAFETY: as documented.
        unsafe { create(None, predictor, &[], || made(in_features, settings)) }
    })
}

/// A predictor that knows nothing yet.
pub(crate) fn made(in_features: usize, settings: PredictorSettings) -> Outcome<NormPredictor> {
    // What is more is refused below.
    let most = in_features.checked_next_power_of_two().unwrap_or(usize::MAX);
    let (inputs, r) = (in_features.min(1 << 24), settings.features.min(most).min(1 << 14));
    heap::check("a predictor", &[(r * r, 8), (inputs, 16)])?;
    Ok(NormPredictor::new(in_features, settings)?)
}

/// A predictor from its bytes.
pub(crate) fn loaded(bytes: &[u8]) -> Outcome<NormPredictor> {
    // Numbers as they are read, and where they then belong.
    heap::check("a predictor", &[(bytes.len(), 2)])?;
    Ok(NormPredictor::from_bytes(bytes)?)
}

/// Refuses to learn from a step's rows if there is no memory for that.
fn check_heap(predictor: &NormPredictor, rows: usize) -> Outcome {
    let (inputs, r) = (predictor.in_features(), predictor.features());
    let rows = rows.min(predictor.settings().rows_per_update);
    // Features in 32 bits with some padding; sums of half a square, once more with those of other ranks.
    heap::check("a predictor's step", &[(rows, 4 * r + 256), (r * (r + 16), 8), (inputs, 8)])
}

/// Puts a predictor, made of some inputs, on a context's device, or on the CPU.
///
/// # Safety
///
/// `output` is NULL or an output of one pointer.
pub(crate) unsafe fn create(
    context: Option<*const wtacrs_context>,
    output: *mut *mut wtacrs_norm_predictor,
    inputs: &[Region],
    make: impl FnOnce() -> Outcome<NormPredictor>,
) -> Outcome {
    let output = Array::new(output, 1, "predictor")?;
    check_disjoint(&[output.region()], inputs)?;
    let context = context.map(self::context).transpose()?;
    let made = make()?;
    let made = match context.filter(|context| context.device.gpu().is_some()) {
        None => Predictor::Host(Arc::new(RwLock::new(made))),
        Some(context) => Predictor::Device(Arc::new(DevicePredictor::new(&context, made)?)),
    };
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { output.set(PREDICTORS.insert(made)) };
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
/// in_features; WTACRS_DEVICE_MISMATCH for a predictor or plan on a GPU; as for wtacrs_backward about `saved`;
/// WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED. The predictor is then as it was.
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
        unsafe { learn(&predictor, &plan, saved, saved_bytes, dz_norms, None) }
    })
}

/// wtacrs_norm_predictor_update that also learns how far to trust cached norms: `cached_norms` are the `tokens` floats that
/// the forward pass of this step was given as its guess (negative: not known).
///
/// Errors: as for wtacrs_norm_predictor_update; WTACRS_INVALID_WEIGHTS also for a cached norm of a kept row that is not
/// finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_update_cached(
    predictor: *mut wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached_norms: *const f32,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_update_cached", || {
        let (predictor, plan) = (self::predictor(predictor)?, self::plan(plan)?);
        let cached = Array::new(cached_norms, plan.tokens, "cached_norms")?;
        // SAFETY: as documented.
        unsafe { learn(&predictor, &plan, saved, saved_bytes, dz_norms, Some(cached)) }
    })
}

/// # Safety
///
/// As for [`statistics`].
pub(crate) unsafe fn learn(
    predictor: &RwLock<NormPredictor>,
    plan: &Plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached: Option<Array<f32>>,
) -> Outcome {
    // One lock for both: what is learned is measured against the state that it is added to.
    let mut predictor = predictor.write().map_err(poisoned)?;
    // SAFETY: the caller has it.
    let step = unsafe { statistics(&predictor, plan, saved, saved_bytes, dz_norms, cached) }?;
    Ok(predictor.apply(&step)?)
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
        unsafe { write_statistics(&predictor, &plan, saved, saved_bytes, dz_norms, None, sums, capacity) }
    })
}

/// wtacrs_norm_predictor_statistics of a step whose forward pass was given cached norms: to
/// wtacrs_norm_predictor_update_cached what that is to wtacrs_norm_predictor_update. Statistics of both kinds may be added.
///
/// Errors: as for wtacrs_norm_predictor_statistics and wtacrs_norm_predictor_update_cached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics_cached(
    predictor: *const wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached_norms: *const f32,
    sums: *mut f64,
    capacity: usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_statistics_cached", || {
        let (predictor, plan) = (self::predictor(predictor)?, self::plan(plan)?);
        let cached = Array::new(cached_norms, plan.tokens, "cached_norms")?;
        // SAFETY: as documented.
        unsafe { write_statistics(&predictor, &plan, saved, saved_bytes, dz_norms, Some(cached), sums, capacity) }
    })
}

/// Refuses sums that do not fit.
pub(crate) fn check_sums_room(capacity: usize, count: usize) -> Outcome {
    if capacity >= count {
        return Ok(());
    }
    let message = format!("room for {capacity} sums where there are {count}");
    Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message))
}

/// # Safety
///
/// The contract of `wtacrs_norm_predictor_statistics`.
pub(crate) unsafe fn write_statistics(
    predictor: &RwLock<NormPredictor>,
    plan: &Plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached: Option<Array<f32>>,
    sums: *mut f64,
    capacity: usize,
) -> Outcome {
    plan.host()?;
    let mut inputs = vec![
        block(saved, saved_bytes, plan.saved.bytes(), "saved")?.region(),
        Array::new(dz_norms, plan.tokens, "dz_norms")?.region(),
    ];
    inputs.extend(cached.as_ref().map(Array::region));
    let predictor = predictor.read().map_err(poisoned)?;
    // SAFETY: the caller has it.
    let step = unsafe { statistics(&predictor, plan, saved, saved_bytes, dz_norms, cached) }?;
    check_sums_room(capacity, step.sums().len())?;
    let output = Array::new(sums, step.sums().len(), "sums")?;
    check_disjoint(&[output.region()], &inputs)?;
    // SAFETY: checked for NULL, alignment and overlap; as documented there is room.
    unsafe { output.get_mut() }.copy_from_slice(step.sums());
    Ok(())
}

/// Learns from a step's statistics, `count` sums over all ranks.
///
/// Errors: WTACRS_SHAPE_MISMATCH for another count; WTACRS_INVALID_ARGUMENT for sums that no rows can have;
/// WTACRS_DEVICE_MISMATCH for a predictor on a GPU; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED. The
/// predictor is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_apply(
    predictor: *mut wtacrs_norm_predictor,
    sums: *const f64,
    count: usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_apply", || {
        // SAFETY: as documented.
        unsafe { apply(&*self::predictor(predictor)?, sums, count) }
    })
}

/// # Safety
///
/// `sums` is NULL or holds `count` sums.
pub(crate) unsafe fn apply(predictor: &RwLock<NormPredictor>, sums: *const f64, count: usize) -> Outcome {
    let sums = Array::new(sums, count, "sums")?;
    let mut predictor = predictor.write().map_err(poisoned)?;
    let mut step = no_statistics(&predictor)?;
    check_sums_count(count, step.sums().len())?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    step.sums_mut().copy_from_slice(unsafe { sums.get() });
    Ok(predictor.apply(&step)?)
}

/// Refuses another number of sums.
pub(crate) fn check_sums_count(count: usize, needed: usize) -> Outcome {
    if count == needed {
        return Ok(());
    }
    Err(Failure::new(WTACRS_SHAPE_MISMATCH, format!("{count} sums where {needed} are needed")))
}

/// The whole predictor as bytes, for a checkpoint; wtacrs_norm_predictor_load reads them on any machine, and the loaded
/// predictor continues to the same bits. For a predictor on a GPU this call waits for all that was launched in its CUDA
/// context, so it must not be made while a stream is captured. `*needed` becomes their number, also with
/// WTACRS_BUFFER_TOO_SMALL. With `buffer` NULL and `capacity` 0 it is only asked for.
///
/// Errors: WTACRS_BUFFER_TOO_SMALL, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
/// WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_save(
    predictor: *const wtacrs_norm_predictor,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_save", || {
        let on_host = |predictor: &RwLock<NormPredictor>| {
            let predictor = predictor.read().map_err(poisoned)?;
            heap::check("a predictor's bytes", &[(predictor.bytes(), 1)])?;
            Ok(predictor.to_bytes())
        };
        let bytes = any_predictor(predictor, on_host, |predictor| Ok(predictor.fetch()?.to_bytes()))?;
        // SAFETY: as documented.
        unsafe { save(&bytes, buffer, capacity, needed) }
    })
}

/// A predictor from the `length` bytes that wtacrs_norm_predictor_save wrote.
///
/// Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH, WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_MISALIGNED,
/// WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_load(
    bytes: *const c_void,
    length: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_load", || {
        let given = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let bytes = unsafe { given.get() };
        // SAFETY: as documented.
        unsafe { create(None, predictor, &[given.region()], || loaded(bytes)) }
    })
}

/// # Safety
///
/// `saved`, `dz_norms` and `cached` are NULL or as `wtacrs_norm_predictor_update_cached` says.
unsafe fn statistics(
    predictor: &NormPredictor,
    plan: &Plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached: Option<Array<f32>>,
) -> Outcome<StepStatistics> {
    plan.host()?;
    let saved = block(saved, saved_bytes, plan.saved.bytes(), "saved")?;
    let norms = Array::new(dz_norms, plan.tokens, "dz_norms")?;
    check_heap(predictor, plan.budget.get())?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    let (norms, cached) = unsafe { (norms.get(), cached.map(|cached| cached.get())) };
    with_element!(plan.h, T => {
        // SAFETY: as above.
        let (selection, rows): (Selection, _) = unsafe { plan.saved.read::<T>(saved.as_ptr()) }?;
        let of_kept = |norms: &[f32]| -> Vec<f32> { selection.indices().iter().map(|&i| norms[i as usize]).collect() };
        let cached = cached.map(|cached| known(&of_kept(cached)));
        Ok(predictor.statistics(rows, &of_kept(norms), selection.scales(), cached.as_deref())?)
    })
}

/// The statistics of no rows.
fn no_statistics(predictor: &NormPredictor) -> Outcome<StepStatistics> {
    check_heap(predictor, 0)?;
    let rows = Array2::<f32>::zeros((0, predictor.in_features()));
    Ok(predictor.statistics(rows.view(), &[], &[], None)?)
}
