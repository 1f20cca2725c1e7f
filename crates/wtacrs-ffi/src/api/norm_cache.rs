//! The norm cache: norms of dZ by training sample, which stand for the next ones in a forward pass.

use super::checkpoint::Checkpoint;
use super::context::{device, wtacrs_context};
use crate::arguments::{Array, Region, Wanted, check_disjoint, heap, regions};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard};
use crate::device::{CacheBounds, NormCacheObject, Samples};
use core::ffi::c_void;
use std::sync::Arc;
use wtacrs_core::guesses::NormCache;

/// Norms of dZ by training sample, from each sample's last visit. On the CPU a lock inside lets any number of threads use
/// one: calls that change it wait for one another. On CUDA its calls belong on one stream, or on streams that wait for one
/// another, whatever threads make them.
pub struct wtacrs_norm_cache {
    _opaque: (),
}

/// Bytes that a loaded sample takes for each of its own.
const LOADED: usize = 4;

static CACHES: Registry<Box<dyn NormCacheObject>> = Registry::new("norm cache");

fn cache(handle: *const wtacrs_norm_cache) -> Outcome<Arc<Box<dyn NormCacheObject>>> {
    CACHES.get(handle)
}

/// Puts a cache, made of some inputs, on a context's device.
///
/// # Safety
///
/// `output` is NULL or an output of one pointer.
unsafe fn create(
    context: *const wtacrs_context,
    bounds: CacheBounds,
    output: *mut *mut wtacrs_norm_cache,
    inputs: &[Region],
    make: impl FnOnce() -> Outcome<NormCache>,
) -> Outcome {
    let output = Array::new(output.cast_const(), 1, "cache")?;
    check_disjoint(&[output.region()], inputs)?;
    let made = device(context)?.norm_cache(make()?, bounds)?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { output.set(CACHES.insert(made)) };
    Ok(())
}

/// An empty cache for samples with the ids 0 to `samples` - 1 and at most `tokens_per_sample` tokens each. On the CPU either
/// may be SIZE_MAX: no bound.
///
/// cache     [out]
///
/// On CUDA its norms lie in the GPU's memory, samples * (tokens_per_sample + 1) * 4 bytes. This call allocates them: do not
/// make it while a stream is captured. wtacrs_norm_cache_destroy waits for nothing, and may be called at any time while the
/// CUDA context lives, by a garbage collector too. The next predictor or cache that is made in the CUDA context frees the
/// memory. A CUDA graph that has captured calls with the cache must not be launched afterwards.
///
/// Errors: WTACRS_STATUS_UNSUPPORTED for a cache without bounds on CUDA; _SIZE_OVERFLOW, _CUDA_ERROR, _NULL_POINTER,
/// _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_create(
    context: *const wtacrs_context,
    samples: usize,
    tokens_per_sample: usize,
    cache: *mut *mut wtacrs_norm_cache,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_create", || {
        // SAFETY: as documented.
        unsafe { create(context, CacheBounds { samples, tokens_per_sample }, cache, &[], || Ok(NormCache::new())) }
    })
}

/// Destroys a cache; NULL is allowed.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_destroy(cache: *mut wtacrs_norm_cache) -> wtacrs_status {
    guard("wtacrs_norm_cache_destroy", || CACHES.remove(cache))
}

/// A batch as a caller gave it, and its norms.
fn batch(
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    row_tokens: usize,
    norms: *const f32,
    tokens: usize,
) -> Outcome<(Samples, Array<f32>)> {
    let ids = Array::new(samples, count, "samples")?;
    if lengths.is_null() && row_tokens == 0 && count > 0 {
        let message = "lengths is NULL, and row_tokens is 0: only rows of equal length need no lengths";
        return Err(Failure::new(WTACRS_STATUS_NULL_POINTER, message));
    }
    let lengths = Array::optional(lengths, count, "lengths")?;
    let overflow = || format!("{count} rows of {row_tokens} tokens cannot be addressed");
    let needed = count.checked_mul(row_tokens).ok_or_else(|| Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, overflow()))?;
    if tokens < needed {
        let message = format!("room for {tokens} norms where the samples have {needed} tokens");
        return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
    }
    let norms = Array::new(norms, tokens, "norms")?;
    Ok((Samples { ids, lengths, count, row_tokens, tokens }, norms))
}

/// The norms of a batch's tokens, as WTACRS_SOURCE_CACHED takes them.
///
/// samples   [in] `count` ids. (Ids of int64_t will do: negative ones are out of range.)
/// lengths   [in, optional] as many numbers of tokens; NULL if every sample has `row_tokens`
/// row_tokens  Sample i's norms begin at norms + i * row_tokens, as in a batch that is padded to rows of so many tokens.
///           With 0 they lie sample after sample without gaps.
/// norms     [out] `tokens` floats (the plan's tokens), all of which are written: -1 for every token that is unknown, and
///           where no sample's token is
/// stream    as in wtacrs_plan_forward
///
/// All arrays are in the memory of the cache's device. On CUDA one kernel is launched, nothing is allocated, and the call
/// can be captured. The ids are not known to the call there: a sample that is out of range, too long for the cache, its row
/// or `norms`, or known with another length is then unknown, and wtacrs_norm_cache_outcome reports it.
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL if `tokens` is less than count * row_tokens; on the CPU also for samples that have
/// more tokens, _INVALID_ARGUMENT for an id out of range, and _SHAPE_MISMATCH for a sample that is too long or known with
/// another length. _SIZE_OVERFLOW, _OVERLAP, _DEVICE_MISMATCH, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_fetch(
    cache: *const wtacrs_norm_cache,
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    row_tokens: usize,
    norms: *mut f32,
    tokens: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_fetch", || {
        let cache = self::cache(cache)?;
        let (samples, norms) = batch(samples, lengths, count, row_tokens, norms.cast_const(), tokens)?;
        let inputs = regions([Some(samples.ids.region()), samples.lengths.as_ref().map(Array::region)]);
        check_disjoint(&[norms.region()], &inputs)?;
        // SAFETY: checked; as documented for the rest.
        unsafe { cache.fetch(&samples, &norms, stream) }
    })
}

/// Remembers the norms of a batch's tokens (from wtacrs_plan_backward) in place of what was known of its samples; of a sample
/// that is twice in the batch, the last.
///
/// norms     [in] laid out as in wtacrs_norm_cache_fetch, and so are all other arguments
///
/// On CUDA one kernel is launched, nothing is allocated, and the call can be captured. A sample that is out of range or too
/// long, or has a norm that is negative or not finite, is left out there, as if the batch did not store it (an earlier one
/// of the same id is not stored in its place), and wtacrs_norm_cache_outcome reports it.
///
/// Errors: on the CPU WTACRS_STATUS_INVALID_WEIGHTS names a norm that is negative or not finite; otherwise as for
/// wtacrs_norm_cache_fetch. The cache is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_store(
    cache: *mut wtacrs_norm_cache,
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    row_tokens: usize,
    norms: *const f32,
    tokens: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_store", || {
        let cache = self::cache(cache)?;
        let (samples, norms) = batch(samples, lengths, count, row_tokens, norms, tokens)?;
        // SAFETY: checked; as documented for the rest.
        unsafe { cache.store(&samples, &norms, stream) }
    })
}

/// Forgets samples, such as those whose text has changed. One that is unknown, or out of range, is not an error.
///
/// samples   [in] `count` ids, in the memory of the cache's device
/// stream    as in wtacrs_plan_forward; on CUDA one kernel is launched
///
/// Errors: WTACRS_STATUS_SIZE_OVERFLOW, _DEVICE_MISMATCH, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_forget(
    cache: *mut wtacrs_norm_cache,
    samples: *const u64,
    count: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_forget", || {
        let (cache, samples) = (self::cache(cache)?, Array::new(samples, count, "samples")?);
        // SAFETY: checked; as documented for the rest.
        unsafe { cache.forget(&samples, count, stream) }
    })
}

/// What fetches and stores on a GPU have left out since the last call of this function, for inspection.
///
/// fault     [out, optional] 0 if nothing was left out; otherwise why the first sample was (of a batch, the first in its
///           order): 1 if its id is out of range, 2 if it has more tokens than the cache, its row or the rest of the norms
///           has room for, 3 if it is known with another length, 4 if it has a norm that is negative or not finite. Always 0
///           on the CPU, where calls return such failures.
/// sample    [out, optional] its id, or 0
///
/// On CUDA the call waits for all that was launched in the cache's CUDA context: do not make it while a stream is captured.
///
/// Errors: WTACRS_STATUS_OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_outcome(
    cache: *mut wtacrs_norm_cache,
    fault: *mut u32,
    sample: *mut u64,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_outcome", || {
        let (faults, ids) = (Wanted::new([(fault, "fault")])?, Wanted::new([(sample, "sample")])?);
        check_disjoint(&faults.regions().chain(ids.regions()).collect::<Vec<_>>(), &[])?;
        let (fault, sample) = self::cache(cache)?.outcome()?;
        // SAFETY: outputs of one number each, checked for alignment and overlap.
        unsafe {
            faults.set([fault]);
            ids.set([sample]);
        }
        Ok(())
    })
}

/// The whole cache as bytes, for a checkpoint. wtacrs_norm_cache_load reads them for any device and on any machine.
///
/// buffer    [out] room for `capacity` bytes; NULL with `capacity` 0 to ask for their number alone
/// needed    [out] how many bytes there are, also with WTACRS_STATUS_BUFFER_TOO_SMALL
///
/// On CUDA the call waits for all that was launched in the cache's CUDA context: do not make it while a stream is captured.
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_save(
    cache: *const wtacrs_norm_cache,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_save", || {
        let (cache, output) = (self::cache(cache)?, Checkpoint::new(buffer, capacity, needed)?);
        if output.is_query()
            && let Some(length) = cache.saved_len()?
        {
            // SAFETY: as documented.
            unsafe { output.write_needed(length) };
            return Ok(());
        }
        // SAFETY: as documented.
        unsafe { output.write(&cache.to_bytes()?) }
    })
}

/// A cache from the bytes that wtacrs_norm_cache_save wrote, otherwise as from wtacrs_norm_cache_create.
///
/// bytes     [in] `length` of them
/// cache     [out]
///
/// Errors: WTACRS_STATUS_SHAPE_MISMATCH names a sample that this cache has no room for; _CORRUPTED, _VERSION_MISMATCH,
/// _OVERLAP; as for wtacrs_norm_cache_create.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_load(
    context: *const wtacrs_context,
    samples: usize,
    tokens_per_sample: usize,
    bytes: *const c_void,
    length: usize,
    cache: *mut *mut wtacrs_norm_cache,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_load", || {
        let given = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let bytes = unsafe { given.get() };
        let make = || {
            heap::check("a cache", &[(bytes.len(), LOADED)])?;
            Ok(NormCache::from_bytes(bytes)?)
        };
        // SAFETY: as documented.
        unsafe { create(context, CacheBounds { samples, tokens_per_sample }, cache, &[given.region()], make) }
    })
}
