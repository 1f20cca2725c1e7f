//! Norm predictors of any device: made for a context, and working on a stream.

use crate::array::{Array, report};
use crate::context::wtacrs_context;
use crate::guard::{Failure, guard};
use crate::plan::{plan, wtacrs_plan};
use crate::predictor::{
    any_predictor, apply, check_sums_count, check_sums_room, create, learn, loaded, made, write_statistics,
    wtacrs_norm_predictor,
};
use crate::status::*;
use core::ffi::c_void;
use wtacrs_core::guesses::PredictorSettings;

/// wtacrs_norm_predictor_create for a context's device. On CUDA its state lies in the GPU's memory, which is allocated by
/// this call and freed by wtacrs_norm_predictor_destroy, which waits for all that was launched: neither may be called while
/// a stream is captured, and the CUDA context must still live when the predictor is destroyed. Forward passes read the
/// state and updates write it when they run, so calls on one predictor belong on one stream, or on streams that wait for
/// one another. A plan on CUDA takes only predictors that were made with the handle of its own context; one of another
/// handle, though it be of the same GPU, is WTACRS_DEVICE_MISMATCH.
///
/// Errors: as for wtacrs_norm_predictor_create; also WTACRS_INVALID_HANDLE and WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_create_on(
    context: *const wtacrs_context,
    in_features: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_create_on", || {
        // SAFETY: as documented.
        unsafe { create(Some(context), predictor, &[], || made(in_features, PredictorSettings::default())) }
    })
}

/// wtacrs_norm_predictor_create_with for a context's device, as wtacrs_norm_predictor_create_on. On CUDA at most 512
/// features and 4096 rows a step are possible.
///
/// Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_create_with_on(
    context: *const wtacrs_context,
    in_features: usize,
    features: usize,
    forgetting: f64,
    ridge: f64,
    clamp: f64,
    rows_per_update: usize,
    seed: u64,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_create_with_on", || {
        let settings = PredictorSettings::default()
            .with_features(features)
            .with_forgetting(forgetting)
            .with_ridge(ridge)
            .with_clamp(clamp)
            .with_rows_per_update(rows_per_update)
            .with_seed(seed);
        // SAFETY: as documented.
        unsafe { create(Some(context), predictor, &[], || made(in_features, settings)) }
    })
}

/// A predictor for a context's device from the `length` bytes that wtacrs_norm_predictor_save wrote, on whatever device.
///
/// Errors: as for wtacrs_norm_predictor_load and wtacrs_norm_predictor_create_with_on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_load_on(
    context: *const wtacrs_context,
    bytes: *const c_void,
    length: usize,
    predictor: *mut *mut wtacrs_norm_predictor,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_load_on", || {
        let given = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let bytes = unsafe { given.get() };
        // SAFETY: as documented.
        unsafe { create(Some(context), predictor, &[given.region()], || loaded(bytes)) }
    })
}

/// wtacrs_norm_predictor_update for any device: `saved` and `dz_norms` are in the memory of the plan's device, and
/// `stream` is as in wtacrs_forward. On CUDA three kernels are launched, nothing is allocated, and the call can be captured.
///
/// On CUDA a norm that is negative or not finite shows when the kernels run: the predictor then stays as it was, and
/// wtacrs_norm_predictor_outcome tells.
///
/// Errors: as for wtacrs_norm_predictor_update; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_update_on(
    predictor: *mut wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_update_on", || {
        let plan = self::plan(plan)?;
        any_predictor(
            predictor,
            // SAFETY: as documented.
            |predictor| unsafe { learn(predictor, &plan, saved, saved_bytes, dz_norms, None) },
            // SAFETY: as documented.
            |predictor| unsafe { predictor.learn(&plan, (saved, saved_bytes), dz_norms, None, None, stream) },
        )
    })
}

/// wtacrs_norm_predictor_update_cached for any device: `cached_norms` is in the memory of the plan's device too. Otherwise
/// as wtacrs_norm_predictor_update_on; on CUDA a cached norm of a kept row that is not finite shows likewise.
///
/// Errors: as for wtacrs_norm_predictor_update_cached; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_update_cached_on(
    predictor: *mut wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    cached_norms: *const f32,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_update_cached_on", || {
        let plan = self::plan(plan)?;
        any_predictor(
            predictor,
            |predictor| {
                let cached = Array::new(cached_norms, plan.tokens, "cached_norms")?;
                // SAFETY: as documented.
                unsafe { learn(predictor, &plan, saved, saved_bytes, dz_norms, Some(cached)) }
            },
            // SAFETY: as documented.
            |predictor| unsafe {
                predictor.learn(&plan, (saved, saved_bytes), dz_norms, Some(cached_norms), None, stream)
            },
        )
    })
}

/// wtacrs_norm_predictor_statistics for any device: `sums` is in the memory of the plan's device, on CUDA aligned to 256.
/// `stream` as in wtacrs_forward; on CUDA two kernels are launched. Sums of a step with a norm that is no number are not
/// finite on CUDA, and applying them changes nothing.
///
/// Errors: as for wtacrs_norm_predictor_statistics; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics_on(
    predictor: *const wtacrs_norm_predictor,
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    dz_norms: *const f32,
    sums: *mut f64,
    capacity: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_statistics_on", || {
        let plan = self::plan(plan)?;
        any_predictor(
            predictor,
            // SAFETY: as documented.
            |predictor| unsafe {
                write_statistics(predictor, &plan, saved, saved_bytes, dz_norms, None, sums, capacity)
            },
            |predictor| {
                check_sums_room(capacity, predictor.sums_len())?;
                // SAFETY: as documented, there is room.
                unsafe { predictor.learn(&plan, (saved, saved_bytes), dz_norms, None, Some(sums), stream) }
            },
        )
    })
}

/// wtacrs_norm_predictor_statistics_cached for any device: to wtacrs_norm_predictor_update_cached_on what
/// wtacrs_norm_predictor_statistics_on is to wtacrs_norm_predictor_update_on. Statistics of both kinds, and of CPUs and
/// GPUs, may be added.
///
/// Errors: as for wtacrs_norm_predictor_statistics_cached; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_statistics_cached_on(
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
    guard("wtacrs_norm_predictor_statistics_cached_on", || {
        let plan = self::plan(plan)?;
        any_predictor(
            predictor,
            |predictor| {
                let cached = Array::new(cached_norms, plan.tokens, "cached_norms")?;
                // SAFETY: as documented.
                unsafe {
                    write_statistics(predictor, &plan, saved, saved_bytes, dz_norms, Some(cached), sums, capacity)
                }
            },
            |predictor| {
                check_sums_room(capacity, predictor.sums_len())?;
                // SAFETY: as documented, there is room.
                unsafe {
                    predictor.learn(&plan, (saved, saved_bytes), dz_norms, Some(cached_norms), Some(sums), stream)
                }
            },
        )
    })
}

/// wtacrs_norm_predictor_apply for any device: `sums` is in the memory of the predictor's device, on CUDA aligned to 256.
/// `stream` as in wtacrs_forward; on CUDA one kernel is launched.
///
/// Errors: WTACRS_SHAPE_MISMATCH for another count; on the CPU WTACRS_INVALID_ARGUMENT for sums that no rows can have (on
/// CUDA see wtacrs_norm_predictor_outcome); WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED,
/// WTACRS_DEVICE_MISMATCH, WTACRS_CUDA_ERROR. The predictor is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_apply_on(
    predictor: *mut wtacrs_norm_predictor,
    sums: *const f64,
    count: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_apply_on", || {
        any_predictor(
            predictor,
            // SAFETY: as documented.
            |predictor| unsafe { apply(predictor, sums, count) },
            |predictor| {
                check_sums_count(count, predictor.sums_len())?;
                // SAFETY: as documented.
                unsafe { predictor.apply(sums, stream) }
            },
        )
    })
}

/// What came of the last step on a GPU, for looking at: waits for all that was launched in its CUDA context, and must not be
/// called while a stream is captured. `*outcome` is 0 if the predictor has learned, 1 if there was nothing to learn, 2 if
/// in addition the norms have fallen so far that their level is found anew, 3 if the step was refused for a number that
/// is none. `*row` is 0, or 1 + the first kept row (in the order of the indices) with such a number, in the statistics of
/// the last step on this rank. Either may be NULL. On the CPU it is WTACRS_UNSUPPORTED, as calls tell at once.
///
/// Errors: WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
/// WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_predictor_outcome(
    predictor: *const wtacrs_norm_predictor,
    outcome: *mut u32,
    row: *mut u32,
) -> wtacrs_status {
    guard("wtacrs_norm_predictor_outcome", || {
        let on_host = |_: &_| Err(Failure::new(WTACRS_UNSUPPORTED, "on the CPU, calls tell at once what came of them"));
        let found = any_predictor(predictor, on_host, |predictor| predictor.outcome())?;
        // SAFETY: as documented.
        unsafe { report([(outcome, "outcome"), (row, "row")], found) }
    })
}
