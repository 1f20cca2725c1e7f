//! Norm caches of any device: made for a context and a number of samples, and working on a stream.

use crate::array::{Array, Region, Wanted, check_disjoint, regions};
use crate::cache::{
    Bounds, HostCache, PER_SAMPLE, any_cache, check_capacity, insert_device, insert_host, loaded, wtacrs_norm_cache,
};
use crate::context::{context, wtacrs_context};
use crate::cuda::DeviceCache;
use crate::guard::{Failure, Outcome, guard, poisoned};
use crate::heap;
use crate::status::*;
use core::ffi::c_void;
use std::sync::RwLock;
use wtacrs_core::guesses::NormCache;
use wtacrs_kernels::plan::CacheMisfit;

/// An empty cache for a context's device, of samples with the ids 0 to `samples` - 1 and at most `tokens_per_sample` tokens
/// each. On CUDA its norms lie in the GPU's memory, samples * (tokens_per_sample + 1) * 4 bytes, which is allocated by this
/// call and freed by wtacrs_norm_cache_destroy, which waits for all that was launched: neither may be called while a stream
/// is captured, and the CUDA context must still live when the cache is destroyed. Calls on one cache belong on one stream,
/// or on streams that wait for one another. On the CPU it is a cache as of wtacrs_norm_cache_create that refuses other samples.
///
/// Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_SIZE_OVERFLOW, WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_create_on(
    context: *const wtacrs_context,
    samples: usize,
    tokens_per_sample: usize,
    cache: *mut *mut wtacrs_norm_cache,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_create_on", || {
        // SAFETY: as documented.
        unsafe { create(context, Bounds { samples, tokens_per_sample }, cache, &[], || Ok(NormCache::new())) }
    })
}

/// A cache for a context's device, as of wtacrs_norm_cache_create_on, from the `length` bytes that wtacrs_norm_cache_save
/// wrote, on whatever device.
///
/// Errors: WTACRS_SHAPE_MISMATCH names a sample that this cache has no room for; as for wtacrs_norm_cache_load and
/// wtacrs_norm_cache_create_on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_load_on(
    context: *const wtacrs_context,
    samples: usize,
    tokens_per_sample: usize,
    bytes: *const c_void,
    length: usize,
    cache: *mut *mut wtacrs_norm_cache,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_load_on", || {
        let given = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let bytes = unsafe { given.get() };
        let bounds = Bounds { samples, tokens_per_sample };
        // SAFETY: as documented.
        unsafe { create(context, bounds, cache, &[given.region()], || loaded(bytes)) }
    })
}

/// Puts a cache, made of some inputs, on a context's device.
///
/// # Safety
///
/// `output` is NULL or an output of one pointer.
unsafe fn create(
    context: *const wtacrs_context,
    bounds: Bounds,
    output: *mut *mut wtacrs_norm_cache,
    inputs: &[Region],
    make: impl FnOnce() -> Outcome<NormCache>,
) -> Outcome {
    let output = Array::new(output, 1, "cache")?;
    check_disjoint(&[output.region()], inputs)?;
    let context = self::context(context)?;
    let norms = make()?;
    let made = match context.device.gpu() {
        None => {
            CacheMisfit::check(&norms, bounds.samples as u64, bounds.tokens_per_sample as u64)?;
            insert_host(HostCache { norms, bounds: Some(bounds) })
        }
        Some(_) => insert_device(DeviceCache::new(&context, bounds, &norms)?),
    };
    // SAFETY: checked for NULL and alignment; the caller has the rest.
    unsafe { output.set(made) };
    Ok(())
}

/// wtacrs_norm_cache_fetch for any device: the norms of a batch's tokens, as WTACRS_SOURCE_CACHED takes them, -1 for every
/// one that is not known. `samples`, `lengths` and `norms` are in the memory of the cache's device: on CUDA ids and lengths
/// lie on the GPU, where a data loader puts them with the batch. (Ids of int64_t will do: negative ones are out of range.)
///
/// `samples` holds `count` ids, `lengths` as many numbers of tokens. Sample i's norms begin at `norms` + i * `row_tokens`,
/// as in a batch that is padded to rows of `row_tokens` tokens; `lengths` may then be NULL, if all rows are full. With
/// `row_tokens` 0 they lie sample after sample without gaps. `norms` has `tokens` floats (the plan's `tokens`), and all of
/// them are written: what is no sample's token is -1 as well.
///
/// `stream` as in wtacrs_forward. On CUDA one kernel is launched, nothing is allocated, and the call can be captured. It
/// cannot know the ids: a sample that is out of range, too long for the cache, its row or `norms`, or known with another
/// length is then not known, and wtacrs_norm_cache_outcome tells.
///
/// Errors: WTACRS_BUFFER_TOO_SMALL if `tokens` is less than count * row_tokens; on the CPU also for samples that have more
/// tokens, WTACRS_INVALID_ARGUMENT for an id out of range, and WTACRS_SHAPE_MISMATCH for a sample that is too long or known
/// with another length. WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED,
/// WTACRS_OVERLAP, WTACRS_DEVICE_MISMATCH, WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_fetch_on(
    cache: *const wtacrs_norm_cache,
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    row_tokens: usize,
    norms: *mut f32,
    tokens: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_fetch_on", || {
        let on_host = |cache: &RwLock<HostCache>| {
            let (batch, norms) = checked(samples, lengths, count, row_tokens, norms, tokens)?;
            check_disjoint(&[norms.region()], &batch.regions())?;
            // SAFETY: as documented.
            let places = unsafe { batch.places() }?;
            let cache = cache.read().map_err(poisoned)?;
            let known = cache.fetch(&places)?;
            // SAFETY: checked for NULL, alignment and overlap; as documented there is room.
            let norms = unsafe { norms.get_mut() };
            norms.fill(-1.0);
            let to = places.iter().flat_map(|place| place.begin..place.begin + place.length);
            to.zip(known).for_each(|(to, norm)| norms[to] = norm.unwrap_or(-1.0));
            Ok(())
        };
        any_cache(cache, on_host, |cache| {
            let (batch, norms) = checked(samples, lengths, count, row_tokens, norms, tokens)?;
            check_disjoint(&[norms.region()], &batch.regions())?;
            // SAFETY: as documented.
            unsafe { cache.fetch(&batch, &norms, stream) }
        })
    })
}

/// wtacrs_norm_cache_store for any device: remembers the norms of a batch's tokens in place of what was known of its samples;
/// of a sample that is twice in the batch, the last. All arguments are as for wtacrs_norm_cache_fetch_on, and `norms` is
/// what wtacrs_backward gives.
///
/// On CUDA one kernel is launched, nothing is allocated, and the call can be captured. It cannot know ids and norms: a
/// sample that is out of range or too long, or has a norm that is negative or not finite, is left out, as if the batch did
/// not store it (an earlier one of the same id is not stored in its place), and wtacrs_norm_cache_outcome tells.
///
/// Errors: on the CPU WTACRS_INVALID_WEIGHTS names a norm that is negative or not finite; otherwise as for
/// wtacrs_norm_cache_fetch_on. The cache is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_store_on(
    cache: *mut wtacrs_norm_cache,
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    row_tokens: usize,
    norms: *const f32,
    tokens: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_store_on", || {
        let on_host = |cache: &RwLock<HostCache>| {
            let (batch, norms) = checked(samples, lengths, count, row_tokens, norms, tokens)?;
            // SAFETY: as documented.
            let places = unsafe { batch.places() }?;
            // SAFETY: checked for NULL and alignment; as documented it holds `tokens` norms.
            let norms = unsafe { norms.get() };
            cache.write().map_err(poisoned)?.store(&places, norms)
        };
        any_cache(cache, on_host, |cache| {
            let (batch, norms) = checked(samples, lengths, count, row_tokens, norms, tokens)?;
            // SAFETY: as documented.
            unsafe { cache.store(&batch, &norms, stream) }
        })
    })
}

/// wtacrs_norm_cache_forget for any device: forgets `count` samples, whose ids are in the memory of the cache's device.
/// `stream` as in wtacrs_forward; on CUDA one kernel is launched. One that is not known, or out of range, is no error.
///
/// Errors: WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_DEVICE_MISMATCH,
/// WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_forget_on(
    cache: *mut wtacrs_norm_cache,
    samples: *const u64,
    count: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_forget_on", || {
        let on_host = |cache: &RwLock<HostCache>| {
            let samples = Array::new(samples, count, "samples")?;
            let mut cache = cache.write().map_err(poisoned)?;
            // SAFETY: checked for NULL and alignment; as documented there are `count` ids.
            unsafe { samples.get() }.iter().for_each(|&sample| _ = cache.norms.forget(sample));
            Ok(())
        };
        any_cache(cache, on_host, |cache| {
            let samples = Array::new(samples, count, "samples")?;
            // SAFETY: as documented.
            unsafe { cache.forget(&samples, count, stream) }
        })
    })
}

/// What fetches and stores on a GPU have left out, for looking at: waits for all that was launched in the cache's CUDA
/// context, and must not be called while a stream is captured. `*fault` is 0 if all went well, and otherwise tells of the
/// first sample that was left out since the last call of this function (of a batch, the first in its order): 1 if its id
/// is out of range, 2 if it has more tokens than the cache, its row or the rest of `norms` has room for, 3 if it is known with
/// another length, 4 if it has a norm that is negative or not finite. `*sample` is its id, or 0. Either may be NULL. On the
/// CPU it is WTACRS_UNSUPPORTED, as calls tell at once.
///
/// Errors: WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
/// WTACRS_CUDA_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_norm_cache_outcome(
    cache: *mut wtacrs_norm_cache,
    fault: *mut u32,
    sample: *mut u64,
) -> wtacrs_status {
    guard("wtacrs_norm_cache_outcome", || {
        let (faults, ids) = (Wanted::new([(fault, "fault")])?, Wanted::new([(sample, "sample")])?);
        check_disjoint(&faults.regions().chain(ids.regions()).collect::<Vec<_>>(), &[])?;
        let on_host = |_: &_| Err(Failure::new(WTACRS_UNSUPPORTED, "on the CPU, calls tell at once what came of them"));
        let told = any_cache(cache, on_host, DeviceCache::outcome)?;
        // SAFETY: outputs of one number each, checked for NULL, alignment and overlap.
        unsafe {
            faults.set([told.1]);
            ids.set([told.0]);
        }
        Ok(())
    })
}

/// The samples of a batch, as they were given.
pub(crate) struct Batch {
    pub(crate) samples: Array<u64>,
    /// If there are none, all are of `row_tokens`.
    pub(crate) lengths: Option<Array<u64>>,
    pub(crate) count: usize,
    /// 0 for norms without gaps.
    pub(crate) row_tokens: usize,
    pub(crate) tokens: usize,
}

/// Where a sample's norms lie.
struct Place {
    sample: u64,
    begin: usize,
    length: usize,
}

/// A batch and its norms, as far as they can be checked without a look at memory.
fn checked(
    samples: *const u64,
    lengths: *const u64,
    count: usize,
    row_tokens: usize,
    norms: *const f32,
    tokens: usize,
) -> Outcome<(Batch, Array<f32>)> {
    let samples = Array::new(samples, count, "samples")?;
    if lengths.is_null() && row_tokens == 0 && count > 0 {
        let message = "lengths is NULL, and row_tokens is 0: only rows of equal length need no lengths";
        return Err(Failure::new(WTACRS_NULL_POINTER, message));
    }
    let lengths = Array::optional(lengths, count, "lengths")?;
    let overflow = || format!("{count} rows of {row_tokens} tokens cannot be addressed");
    let needed = count.checked_mul(row_tokens).ok_or_else(|| Failure::new(WTACRS_SIZE_OVERFLOW, overflow()))?;
    check_capacity(tokens, needed)?;
    Ok((Batch { samples, lengths, count, row_tokens, tokens }, Array::new(norms, tokens, "norms")?))
}

impl Batch {
    fn regions(&self) -> Vec<Region> {
        regions([Some(self.samples.region()), self.lengths.as_ref().map(Array::region)])
    }

    /// Where the samples' norms lie, in host memory.
    ///
    /// # Safety
    ///
    /// The arrays may be read.
    unsafe fn places(&self) -> Outcome<Vec<Place>> {
        // SAFETY: checked for NULL and alignment; the caller has the rest.
        let (samples, lengths) = unsafe { (self.samples.get(), self.lengths.as_ref().map(|lengths| lengths.get())) };
        heap::check("a batch of samples", &[(samples.len(), PER_SAMPLE), (self.tokens, size_of::<Option<f32>>())])?;
        let mut end = 0_usize;
        let mut places = Vec::with_capacity(samples.len());
        for (at, &sample) in samples.iter().enumerate() {
            let overflow = |length: u64| {
                Failure::new(WTACRS_SIZE_OVERFLOW, format!("lengths[{at}], of sample {sample}, is {length}"))
            };
            let length = lengths.map_or(self.row_tokens as u64, |lengths| lengths[at]);
            let tokens = usize::try_from(length).map_err(|_| overflow(length))?;
            let begin = if self.row_tokens > 0 { at * self.row_tokens } else { end };
            if self.row_tokens > 0 && tokens > self.row_tokens {
                let message = format!("lengths[{at}] is {tokens}: a row has {} tokens", self.row_tokens);
                return Err(Failure::new(WTACRS_SHAPE_MISMATCH, message));
            }
            end = begin.checked_add(tokens).ok_or_else(|| overflow(length))?;
            places.push(Place { sample, begin, length: tokens });
        }
        check_capacity(self.tokens, end)?;
        Ok(places)
    }
}

impl HostCache {
    fn pairs(&self, places: &[Place]) -> Outcome<Vec<(u64, usize)>> {
        let pairs: Vec<(u64, usize)> = places.iter().map(|place| (place.sample, place.length)).collect();
        self.check(&pairs)?;
        Ok(pairs)
    }

    /// The norms of the samples' tokens, without gaps.
    fn fetch(&self, places: &[Place]) -> Outcome<Vec<Option<f32>>> {
        Ok(self.norms.fetch(&self.pairs(places)?)?)
    }

    fn store(&mut self, places: &[Place], norms: &[f32]) -> Outcome {
        let pairs = self.pairs(places)?;
        let dense: Vec<f32> =
            places.iter().flat_map(|place| &norms[place.begin..place.begin + place.length]).copied().collect();
        Ok(self.norms.store(&pairs, &dense)?)
    }
}
