//! The norm predictor: a guess of the norms of dZ from H itself, learned from the kept rows of each step.

use super::checkpoint::Checkpoint;
use super::context::{device, wtacrs_context};
use super::plan::{Plan, plan, wtacrs_plan};
use crate::arguments::heap;
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{Array, Place, Region, Wanted, check_disjoint, regions};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard};
use crate::device::{Lesson, NormPredictorObject};
use core::ffi::c_void;
use std::sync::Arc;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};

/// An online guess of the norms of dZ for one layer, or for layers that share H. On the CPU a lock inside lets any number of
/// threads use one: forward passes read it, and calls that change it wait for them and for one another. On CUDA forward
/// passes read its state and updates write it when they run, so calls on one predictor belong on one stream, or on streams
/// that wait for one another, whatever threads make them.
pub struct wtacrs_norm_predictor {
    _opaque: (),
}

struct Predictor {
    object: Arc<dyn NormPredictorObject>,
    /// Alignment of statistics.
    sums_alignment: usize,
}

static PREDICTORS: Registry<Predictor> = Registry::new("norm predictor");

pub(super) fn predictor(handle: *const wtacrs_norm_predictor) -> Outcome<Arc<dyn NormPredictorObject>> {
    Ok(Arc::clone(&PREDICTORS.get(handle)?.object))
}

/// How a predictor learns. Zeros, and NULL in place of the struct, stand for the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_norm_predictor_options {
    /// sizeof(wtacrs_norm_predictor_options)
    pub size: usize,
    /// Random projections of H that the regression has, 1 to 2^14, on CUDA at most 512; 256 by default.
    pub features: usize,
    /// What is left of a step's statistics after the next, above 0 and at most 1; 0.97 by default.
    pub forgetting: f64,
    /// Ridge of the regression, above 0, as a share of the mean diagonal of its matrix; 0.1 by default.
    pub ridge: f64,
    /// The most that the logarithm of a guess may differ from the mean of the last step, above 0 and at most 20; 6 by
    /// default.
    pub clamp: f64,
    /// The most rows that are learned from in a step, on CUDA at most 4096; 192 by default.
    pub rows_per_update: usize,
    /// Seed of the projections' signs; 0 by default.
    pub seed: u64,
}

// SAFETY: repr(C), begins with its size, and has numbers alone.
unsafe impl SizedStruct for wtacrs_norm_predictor_options {}

impl wtacrs_norm_predictor_options {
    fn settings(self) -> PredictorSettings {
        let mut settings = PredictorSettings::default().with_seed(self.seed);
        if self.features != 0 {
            settings.features = self.features;
        }
        if self.rows_per_update != 0 {
            settings.rows_per_update = self.rows_per_update;
        }
        let numbers = [&mut settings.forgetting, &mut settings.ridge, &mut settings.clamp];
        for (setting, given) in numbers.into_iter().zip([self.forgetting, self.ridge, self.clamp]) {
            if given != 0.0 {
                *setting = given;
            }
        }
        settings
    }
}

/// Puts a predictor, made of some inputs, on a context's device.
///
/// # Safety
///
/// `output` is NULL or an output of one pointer.
unsafe fn create(
    context: *const wtacrs_context,
    output: *mut *mut wtacrs_norm_predictor,
    inputs: &[Region],
    make: impl FnOnce() -> Outcome<NormPredictor>,
) -> Outcome {
    let output = Array::new(output.cast_const(), 1, "predictor")?;
    check_disjoint(&[output.region()], inputs)?;
    let device = device(context)?;
    let object = device.norm_predictor(make()?)?;
    let sums_alignment = match device.place() {
        Place::Host => align_of::<f64>(),
        // Kernels take statistics as a block of memory.
        Place::Cuda(_) => device.alignment(),
    };
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { output.set(PREDICTORS.insert(Predictor { object, sums_alignment })) };
    Ok(())
}

/// A predictor that knows nothing yet, for H of `in_features` columns.
///
/// context   Plans of this context take it, and on CUDA only those of this very handle.
/// options   [in, optional]
/// predictor [out]
///
/// On CUDA its state lies in the GPU's memory. This call allocates it: do not make it while a stream is captured.
/// wtacrs_norm_predictor_destroy waits for nothing, and may be called at any time while the CUDA context lives, by a garbage
/// collector too. The next predictor or cache that is made in the CUDA context frees the memory. A CUDA graph that has captured
/// calls with the predictor must not be launched afterwards.
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for an option out of range, or for no features or more than 2^24; _UNSUPPORTED,
/// _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_create(
    context: *const wtacrs_context,
    in_features: usize,
    options: *const wtacrs_norm_predictor_options,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_create", || {
        // SAFETY: as documented.
        let settings = unsafe { options::read(options, "the predictor's options") }?.settings();
        let make = || {
            // What is more is refused below.
            let most = in_features.checked_next_power_of_two().unwrap_or(usize::MAX);
            let (inputs, r) = (in_features.min(1 << 24), settings.features.min(most).min(1 << 14));
            heap::check("a predictor", &[(r * r, 8), (inputs, 16)])?;
            Ok(NormPredictor::new(in_features, settings)?)
        };
        // SAFETY: as documented.
        unsafe { create(context, predictor, &[], make) }
    })
}

/// Destroys a predictor; NULL is allowed.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_destroy(predictor: *mut wtacrs_norm_predictor) -> wtacrs_status {
    guard("wtacrs_norm_predictor_destroy", || PREDICTORS.remove(predictor))
}

/// What a step brings, as a caller gave it.
fn lesson(
    plan: &Plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached_norms: *const f32,
    stream: *mut c_void,
) -> Outcome<Lesson> {
    let saved = plan.saved(saved, saved_bytes)?;
    let dz_norms = Array::new(dz_norms, plan.layer.tokens, "dz_norms")?;
    let cached_norms = Array::optional(cached_norms, plan.layer.tokens, "cached_norms")?;
    Ok(Lesson { saved, dz_norms, cached_norms, stream })
}

/// Learns from the rows that a forward pass of `plan` has saved.
///
/// saved     [in] as in wtacrs_plan_backward
/// dz_norms  [in] norms of dZ, one for each token, as wtacrs_plan_backward returns them; for layers that share H their joint
///           norms (wtacrs_context_norms)
/// cached_norms  [in, optional] the guess that the forward pass of this step was given (negative: unknown): the predictor
///           then also learns how far to trust cached norms
/// stream    as in wtacrs_plan_forward
///
/// On CUDA three kernels are launched, nothing is allocated, and the call can be captured. A norm that is negative or not
/// finite shows when the kernels run: the predictor then stays as it was, and wtacrs_norm_predictor_outcome reports it.
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS for a norm, or a cached norm of a kept row, that is negative or not finite;
/// _SHAPE_MISMATCH for another number of in_features; _DEVICE_MISMATCH for a plan of another device or CUDA context; as
/// for wtacrs_plan_backward about `saved`; _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. The predictor is then
/// unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_update(
    predictor: *mut wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached_norms: *const f32,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_update", || {
        let (predictor, plan) = (self::predictor(predictor)?, self::plan(plan)?);
        let lesson = lesson(&plan, saved, saved_bytes, dz_norms, cached_norms, stream)?;
        // SAFETY: checked; as documented for the rest.
        unsafe { predictor.update(plan.calls.saved_layout(), lesson) }
    })
}

/// How many numbers a step's statistics are.
///
/// count     [out]
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics_count(
    predictor: *const wtacrs_norm_predictor,
    count: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_statistics_count", || {
        let output = Array::new(count.cast_const(), 1, "count")?;
        let count = self::predictor(predictor)?.statistics_len()?;
        // SAFETY: an output of one number, checked for NULL and alignment.
        unsafe { output.set(count) };
        Ok(())
    })
}

/// What one rank's rows bring to a step, as plain sums: add them over the ranks, and give the same total to every rank's
/// wtacrs_norm_predictor_apply; then equal predictors stay equal. The predictor does not change. Statistics with and without
/// cached norms, of CPUs and of GPUs, may be added.
///
/// saved, dz_norms, cached_norms, stream  as in wtacrs_norm_predictor_update
/// sums      [out] in the memory of the plan's device, with room for `capacity` numbers; on CUDA aligned to 256
///
/// On CUDA two kernels are launched. Sums of a step with a norm that is negative or not finite are not finite there, and
/// applying them changes nothing.
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP; as for wtacrs_norm_predictor_update.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics(
    predictor: *const wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached_norms: *const f32,
    sums: *mut f64,
    capacity: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_statistics", || {
        let (predictor, plan) = (PREDICTORS.get(predictor)?, self::plan(plan)?);
        let count = predictor.object.statistics_len()?;
        if capacity < count {
            let message = format!("room for {capacity} sums where there are {count}");
            return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
        }
        let lesson = lesson(&plan, saved, saved_bytes, dz_norms, cached_norms, stream)?;
        let sums = Array::aligned(sums.cast_const(), count, predictor.sums_alignment, "sums")?;
        let cached = lesson.cached_norms.as_ref().map(Array::region);
        let inputs = regions([Some(lesson.saved.region()), Some(lesson.dz_norms.region()), cached]);
        check_disjoint(&[sums.region()], &inputs)?;
        // SAFETY: checked; as documented for the rest.
        unsafe { predictor.object.statistics(plan.calls.saved_layout(), lesson, &sums) }
    })
}

/// Learns from a step's statistics.
///
/// sums      [in] `count` sums over all ranks, in the memory of the predictor's device; on CUDA aligned to 256
/// stream    as in wtacrs_plan_forward; on CUDA one kernel is launched
///
/// Errors: WTACRS_STATUS_SHAPE_MISMATCH for another count; on the CPU _INVALID_ARGUMENT for sums that no rows can have (on
/// CUDA wtacrs_norm_predictor_outcome reports them); _DEVICE_MISMATCH, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE,
/// _MISALIGNED. The predictor is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_apply(
    predictor: *mut wtacrs_norm_predictor,
    sums: *const f64,
    count: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_apply", || {
        let predictor = PREDICTORS.get(predictor)?;
        let needed = predictor.object.statistics_len()?;
        if count != needed {
            let message = format!("{count} sums where {needed} are needed");
            return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
        }
        let sums = Array::aligned(sums, count, predictor.sums_alignment, "sums")?;
        // SAFETY: checked; as documented for the rest.
        unsafe { predictor.object.apply(&sums, stream) }
    })
}

/// What came of the last step, for inspection.
///
/// outcome   [out, optional] 0 if the predictor has learned; 1 if there was nothing to learn, or no step yet; 2 if the norms
///           have fallen so far that nothing was learned and the next step finds a new level; 3 (on CUDA) if the step was
///           refused for a number that is negative or not finite
/// row       [out, optional] 0, or on CUDA 1 + the first kept row (in the order of the indices) with such a number in the
///           statistics of the last step on this rank
///
/// On CUDA the call waits for all that was launched in the predictor's CUDA context: do not make it while a stream is
/// captured.
///
/// Errors: WTACRS_STATUS_OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_outcome(
    predictor: *const wtacrs_norm_predictor,
    outcome: *mut u32,
    row: *mut u32,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_outcome", || {
        let outputs = Wanted::new([(outcome, "outcome"), (row, "row")])?;
        check_disjoint(&outputs.regions().collect::<Vec<_>>(), &[])?;
        let found = self::predictor(predictor)?.outcome()?;
        // SAFETY: checked for alignment and overlap; as documented for the rest.
        unsafe { outputs.set(found) };
        Ok(())
    })
}

/// The whole predictor as bytes, for a checkpoint. wtacrs_norm_predictor_load reads them for any device and on any machine,
/// and the loaded predictor continues to the same bits.
///
/// buffer    [out] room for `capacity` bytes; NULL with `capacity` 0 to ask for their number alone
/// needed    [out] how many bytes there are, also with WTACRS_STATUS_BUFFER_TOO_SMALL
///
/// On CUDA the call waits for all that was launched in the predictor's CUDA context: do not make it while a stream is
/// captured.
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_save(
    predictor: *const wtacrs_norm_predictor,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_save", || {
        let (predictor, output) = (self::predictor(predictor)?, Checkpoint::new(buffer, capacity, needed)?);
        // SAFETY: as documented.
        unsafe { output.write(&predictor.fetch()?.to_bytes()) }
    })
}

/// A predictor from the bytes that wtacrs_norm_predictor_save wrote, otherwise as from wtacrs_norm_predictor_create.
///
/// bytes     [in] `length` of them
/// predictor [out]
///
/// Errors: WTACRS_STATUS_CORRUPTED, _VERSION_MISMATCH, _OVERLAP; as for wtacrs_norm_predictor_create.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_load(
    context: *const wtacrs_context,
    bytes: *const c_void,
    length: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_load", || {
        let given = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let bytes = unsafe { given.get() };
        let make = || {
            // Numbers as they are read, and where they then belong.
            heap::check("a predictor", &[(bytes.len(), 2)])?;
            Ok(NormPredictor::from_bytes(bytes)?)
        };
        // SAFETY: as documented.
        unsafe { create(context, predictor, &[given.region()], make) }
    })
}
