//! The norm cache: what stands for the norms of dZ in a forward pass, by training sample.

use crate::array::{Array, check_disjoint};
use crate::cuda::DeviceCache;
use crate::guard::{Failure, Outcome, guard, poisoned};
use crate::heap;
use crate::registry::Registry;
use crate::status::*;
use core::ffi::c_void;
use std::sync::{Arc, RwLock};
use wtacrs_core::guesses::NormCache;

/// Norms of dZ by training sample, from each sample's last visit. A lock inside lets any number of threads use one;
/// calls that change it wait for one another. (One on a GPU has none: its calls belong on one stream.)
pub struct wtacrs_norm_cache {
    _opaque: (),
}

/// Where a cache's norms lie.
enum Cache {
    Host(Arc<RwLock<HostCache>>),
    Device(Arc<DeviceCache>),
}

/// A cache of the CPU's.
pub(crate) struct HostCache {
    pub(crate) norms: NormCache,
    /// Of any samples, if there are none.
    pub(crate) bounds: Option<Bounds>,
}

/// What a cache that was made for a context has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) samples: usize,
    pub(crate) tokens_per_sample: usize,
}

/// Bytes for each sample of a batch, beside its norms: id, length, and a place in the cache.
pub(crate) const PER_SAMPLE: usize = 64;
/// A loaded cache is at most so many times its bytes: of each sample they have an id and a length.
const LOADED: usize = PER_SAMPLE / 16;

static CACHES: Registry<Cache> = Registry::new("norm cache");

/// A cache of the CPU's.
fn cache(handle: *const wtacrs_norm_cache) -> Outcome<Arc<RwLock<HostCache>>> {
    match &*CACHES.get(handle)? {
        Cache::Host(cache) => Ok(Arc::clone(cache)),
        Cache::Device(_) => {
            let message = "the norm cache is a GPU's: the CPU cannot use it, and calls on it take a stream (…_on)";
            Err(Failure::new(WTACRS_DEVICE_MISMATCH, message))
        }
    }
}

/// A cache of any device.
pub(crate) fn any_cache<T>(
    handle: *const wtacrs_norm_cache,
    host: impl FnOnce(&RwLock<HostCache>) -> Outcome<T>,
    device: impl FnOnce(&DeviceCache) -> Outcome<T>,
) -> Outcome<T> {
    match &*CACHES.get(handle)? {
        Cache::Host(cache) => host(cache),
        Cache::Device(cache) => device(cache),
    }
}

pub(crate) fn insert_host(cache: HostCache) -> *mut wtacrs_norm_cache {
    CACHES.insert(Cache::Host(Arc::new(RwLock::new(cache))))
}

pub(crate) fn insert_device(cache: DeviceCache) -> *mut wtacrs_norm_cache {
    CACHES.insert(Cache::Device(Arc::new(cache)))
}

impl HostCache {
    /// Of samples of any ids and lengths.
    fn boundless(norms: NormCache) -> Self {
        Self { norms, bounds: None }
    }

    /// Refuses samples that a bounded cache has no room for.
    pub(crate) fn check(&self, batch: &[(u64, usize)]) -> Outcome {
        let Some(Bounds { samples, tokens_per_sample }) = self.bounds else { return Ok(()) };
        for (at, &(sample, length)) in batch.iter().enumerate() {
            if sample >= samples as u64 {
                let message = format!("samples[{at}] is {sample}: the cache is for {samples} samples, from 0 on");
                return Err(Failure::new(WTACRS_INVALID_ARGUMENT, message));
            }
            if length > tokens_per_sample {
                let message = format!(
                    "samples[{at}], {sample}, has {length} tokens: the cache is for at most {tokens_per_sample} of a sample"
                );
                return Err(Failure::new(WTACRS_SHAPE_MISMATCH, message));
            }
        }
        Ok(())
    }
}

/// An empty cache.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_create(cache: *mut *mut wtacrs_norm_cache) -> wtacrs_status {
    guard("wtacrs_norm_cache_create", || {
        let output = Array::new(cache, 1, "cache")?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(insert_host(HostCache::boundless(NormCache::new()))) };
        Ok(())
    })
}

/// Destroys a cache; NULL is allowed.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_destroy(cache: *mut wtacrs_norm_cache) -> wtacrs_status {
    guard("wtacrs_norm_cache_destroy", || CACHES.remove(cache))
}

/// Samples of a batch: ids and numbers of tokens.
///
/// # Safety
///
/// Each is NULL or holds `count` numbers.
unsafe fn batch(samples: *const u64, lengths: *const u64, count: usize) -> Outcome<(Vec<(u64, usize)>, usize)> {
    let (samples, lengths) = (Array::new(samples, count, "samples")?, Array::new(lengths, count, "lengths")?);
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    let (samples, lengths) = unsafe { (samples.get(), lengths.get()) };
    heap::check("a batch of samples", &[(count, PER_SAMPLE)])?;
    let mut total = 0_usize;
    let mut batch = Vec::with_capacity(count);
    for (&sample, &length) in samples.iter().zip(lengths) {
        let overflow = || Failure::new(WTACRS_SIZE_OVERFLOW, format!("sample {sample} has {length} tokens"));
        let length = usize::try_from(length).map_err(|_| overflow())?;
        total = total.checked_add(length).ok_or_else(overflow)?;
        batch.push((sample, length));
    }
    Ok((batch, total))
}

pub(crate) fn check_capacity(capacity: usize, total: usize) -> Outcome {
    if capacity >= total {
        return Ok(());
    }
    let message = format!("room for {capacity} norms where the samples have {total} tokens");
    Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message))
}

/// The norms of a batch's tokens, sample after sample, as WTACRS_SOURCE_CACHED takes them: -1 for every token of a sample
/// that is not known. `samples` and `lengths` hold `count` ids and numbers of tokens, and `norms` has room for `capacity`
/// floats, at least one for each token.
///
/// Errors: WTACRS_SHAPE_MISMATCH if a sample is known with another length, or is longer than a cache of
/// wtacrs_norm_cache_create_on takes, and WTACRS_INVALID_ARGUMENT for an id beyond its samples; WTACRS_DEVICE_MISMATCH for
/// a cache on a GPU; WTACRS_BUFFER_TOO_SMALL, WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
/// WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_fetch(
    cache: *const wtacrs_norm_cache,
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    norms: *mut f32,
    capacity: usize,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_fetch", || {
        let cache = self::cache(cache)?;
        // SAFETY: as documented.
        let (batch, total) = unsafe { batch(samples, lengths, count) }?;
        check_capacity(capacity, total)?;
        let norms = Array::new(norms, total, "norms")?;
        let inputs = [Array::new(samples, count, "samples")?.region(), Array::new(lengths, count, "lengths")?.region()];
        check_disjoint(&[norms.region()], &inputs)?;
        let cache = cache.read().map_err(poisoned)?;
        cache.check(&batch)?;
        heap::check("norms of a batch", &[(total, size_of::<Option<f32>>())])?;
        let known = cache.norms.fetch(&batch)?;
        // SAFETY: checked for NULL, alignment and overlap; as documented there is room.
        let norms = unsafe { norms.get_mut() };
        norms.iter_mut().zip(known).for_each(|(to, norm)| *to = norm.unwrap_or(-1.0));
        Ok(())
    })
}

/// Remembers the norms of a batch's tokens, sample after sample (from wtacrs_backward), in place of what was known of
/// these samples; of a sample that is twice in the batch, the last. `total` floats, which must be one for each token.
///
/// Errors: WTACRS_INVALID_WEIGHTS names a norm that is negative or not finite; WTACRS_SHAPE_MISMATCH also for another
/// `total`; otherwise as for wtacrs_norm_cache_fetch. The cache is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_store(
    cache: *mut wtacrs_norm_cache,
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    norms: *const f32,
    total: usize,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_store", || {
        let cache = self::cache(cache)?;
        // SAFETY: as documented.
        let (batch, _) = unsafe { batch(samples, lengths, count) }?;
        let norms = Array::new(norms, total, "norms")?;
        let mut cache = cache.write().map_err(poisoned)?;
        cache.check(&batch)?;
        heap::check("norms of a batch", &[(total, size_of::<f32>())])?;
        // SAFETY: checked for NULL and alignment; as documented it holds `total` norms.
        cache.norms.store(&batch, unsafe { norms.get() })?;
        Ok(())
    })
}

/// Forgets a sample, such as one whose text has changed; one that is not known is no error.
///
/// Errors: WTACRS_DEVICE_MISMATCH for a cache on a GPU; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_forget(cache: *mut wtacrs_norm_cache, sample: u64) -> wtacrs_status {
    guard("wtacrs_norm_cache_forget", || {
        self::cache(cache)?.write().map_err(poisoned)?.norms.forget(sample);
        Ok(())
    })
}

/// The whole cache as bytes, for a checkpoint; wtacrs_norm_cache_load reads them on any machine, and
/// wtacrs_norm_cache_load_on for any device. For a cache on a GPU this call waits for all that was launched in its CUDA
/// context, so it must not be made while a stream is captured. `*needed` becomes their number, also with
/// WTACRS_BUFFER_TOO_SMALL. With `buffer` NULL and `capacity` 0 it is only asked for.
///
/// Errors: WTACRS_BUFFER_TOO_SMALL, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
/// WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_save(
    cache: *const wtacrs_norm_cache,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_save", || {
        let on_host = |cache: &RwLock<HostCache>| {
            let cache = cache.read().map_err(poisoned)?;
            heap::check("a cache's bytes", &[(cache.norms.len(), PER_SAMPLE), (cache.norms.bytes(), 1)])?;
            Ok(cache.norms.to_bytes())
        };
        // For the number alone a GPU's norms need not come to the host.
        let asked = |cache: &DeviceCache| match is_asked_only(buffer, capacity) {
            true => cache.saved_bytes().map(Some),
            false => Ok(None),
        };
        if let Some(bytes) = any_cache(cache, |_| Ok(None), asked)? {
            let needed = Array::new(needed, 1, "needed")?;
            // SAFETY: an output of one number, checked for NULL and alignment.
            unsafe { needed.set(bytes) };
            return Ok(());
        }
        let bytes = any_cache(cache, on_host, |cache| Ok(cache.fetch_all()?.to_bytes()))?;
        // SAFETY: as documented.
        unsafe { save(&bytes, buffer, capacity, needed) }
    })
}

/// A cache from the `length` bytes that wtacrs_norm_cache_save wrote.
///
/// Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH, WTACRS_NULL_POINTER, WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_load(
    bytes: *const c_void,
    length: usize,
    cache: *mut *mut wtacrs_norm_cache,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_load", || {
        let output = Array::new(cache, 1, "cache")?;
        let bytes = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        check_disjoint(&[output.region()], &[bytes.region()])?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let loaded = loaded(unsafe { bytes.get() })?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(insert_host(HostCache::boundless(loaded))) };
        Ok(())
    })
}

/// A cache from its bytes.
pub(crate) fn loaded(bytes: &[u8]) -> Outcome<NormCache> {
    heap::check("a cache", &[(bytes.len(), LOADED)])?;
    Ok(NormCache::from_bytes(bytes)?)
}

/// Whether a save is to tell its number of bytes and no more.
fn is_asked_only(buffer: *const c_void, capacity: usize) -> bool {
    buffer.is_null() && capacity == 0
}

/// Copies saved bytes to a caller that may only be asking how many there are.
///
/// # Safety
///
/// `buffer` is NULL or has room for `capacity` bytes, and `needed` is NULL or an output.
pub(crate) unsafe fn save(bytes: &[u8], buffer: *mut c_void, capacity: usize, needed: *mut usize) -> Outcome {
    let needed = Array::new(needed, 1, "needed")?;
    let room = Array::new(buffer.cast::<u8>(), capacity, "buffer")?;
    check_disjoint(&[room.region(), needed.region()], &[])?;
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { needed.set(bytes.len()) };
    if is_asked_only(buffer, capacity) {
        return Ok(());
    }
    // SAFETY: as above.
    let room = unsafe { room.get_mut() };
    let message = || format!("room for {capacity} bytes where {} are needed", bytes.len());
    let room = room.get_mut(..bytes.len()).ok_or_else(|| Failure::new(WTACRS_BUFFER_TOO_SMALL, message()))?;
    room.copy_from_slice(bytes);
    Ok(())
}
