//! A norm cache on the CPU.

use crate::arguments::{Array, Stream, heap};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, poisoned};
use crate::device::{CacheBounds, NormCacheObject, Samples};
use std::sync::RwLock;
use wtacrs_core::guesses::NormCache;
use wtacrs_kernels::plan::CacheMisfit;

/// Bytes of the heap that a sample takes while a batch is worked on.
const PER_SAMPLE: usize = 64;

/// A cache behind a lock.
pub(super) struct CpuNormCache {
    norms: RwLock<NormCache>,
    bounds: CacheBounds,
}

/// Where a sample's norms lie in the batch's array.
struct Place {
    sample: u64,
    begin: usize,
    length: usize,
}

impl CpuNormCache {
    pub(super) fn new(norms: NormCache, bounds: CacheBounds) -> Outcome<Self> {
        let [samples, tokens] = [bounds.samples, bounds.tokens_per_sample].map(|bound| match bound {
            usize::MAX => u64::MAX,
            bound => bound as u64,
        });
        CacheMisfit::check(&norms, samples, tokens)?;
        Ok(Self { norms: RwLock::new(norms), bounds })
    }

    /// Where the samples' norms lie.
    ///
    /// # Safety
    ///
    /// The caller's arrays, as for every call.
    unsafe fn places(&self, samples: &Samples) -> Outcome<Vec<Place>> {
        // SAFETY: the caller has it.
        let (ids, lengths) = unsafe { (samples.ids.get(), samples.lengths.as_ref().map(|lengths| lengths.get())) };
        heap::check("a batch of samples", &[(ids.len(), PER_SAMPLE), (samples.tokens, size_of::<Option<f32>>())])?;
        let (row_tokens, bounds) = (samples.row_tokens, self.bounds);
        let mut end = 0_usize;
        let mut places = Vec::with_capacity(ids.len());
        for (at, &sample) in ids.iter().enumerate() {
            let overflow = |length: u64| {
                Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("lengths[{at}], of sample {sample}, is {length}"))
            };
            let length = lengths.map_or(row_tokens as u64, |lengths| lengths[at]);
            let tokens = usize::try_from(length).map_err(|_| overflow(length))?;
            if row_tokens > 0 && tokens > row_tokens {
                let message = format!("lengths[{at}] is {tokens}: a row has {row_tokens} tokens");
                return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
            }
            let begin = if row_tokens > 0 { at * row_tokens } else { end };
            end = begin.checked_add(tokens).ok_or_else(|| overflow(length))?;
            if bounds.samples != usize::MAX && sample >= bounds.samples as u64 {
                let message =
                    format!("samples[{at}] is {sample}: the cache has room for the ids below {}", bounds.samples);
                return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
            }
            if tokens > bounds.tokens_per_sample {
                let message = format!(
                    "samples[{at}], {sample}, has {tokens} tokens: the cache has room for {}",
                    bounds.tokens_per_sample
                );
                return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
            }
            places.push(Place { sample, begin, length: tokens });
        }
        if samples.tokens < end {
            let message = format!("room for {} norms where the samples have {end} tokens", samples.tokens);
            return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
        }
        Ok(places)
    }
}

fn batch(places: &[Place]) -> Vec<(u64, usize)> {
    places.iter().map(|place| (place.sample, place.length)).collect()
}

impl NormCacheObject for CpuNormCache {
    unsafe fn fetch(&self, samples: &Samples, norms: &Array<f32>, _stream: Stream) -> Outcome {
        // SAFETY: the caller has it.
        let places = unsafe { self.places(samples) }?;
        let known = self.norms.read().map_err(poisoned)?.fetch(&batch(&places))?;
        // SAFETY: as above.
        let norms = unsafe { norms.get_mut() };
        norms.fill(-1.0);
        let to = places.iter().flat_map(|place| place.begin..place.begin + place.length);
        to.zip(known).for_each(|(to, norm)| norms[to] = norm.unwrap_or(-1.0));
        Ok(())
    }

    unsafe fn store(&self, samples: &Samples, norms: &Array<f32>, _stream: Stream) -> Outcome {
        // SAFETY: the caller has it.
        let (places, norms) = unsafe { (self.places(samples)?, norms.get()) };
        let dense: Vec<f32> =
            places.iter().flat_map(|place| &norms[place.begin..place.begin + place.length]).copied().collect();
        Ok(self.norms.write().map_err(poisoned)?.store(&batch(&places), &dense)?)
    }

    unsafe fn forget(&self, ids: &Array<u64>, _count: usize, _stream: Stream) -> Outcome {
        let mut norms = self.norms.write().map_err(poisoned)?;
        // SAFETY: the caller has it.
        unsafe { ids.get() }.iter().for_each(|&sample| _ = norms.forget(sample));
        Ok(())
    }

    fn outcome(&self) -> Outcome<(u32, u64)> {
        // Calls have returned every fault.
        Ok((0, 0))
    }

    fn saved_len(&self) -> Outcome<Option<usize>> {
        Ok(None)
    }

    fn to_bytes(&self) -> Outcome<Vec<u8>> {
        let norms = self.norms.read().map_err(poisoned)?;
        heap::check("a cache's bytes", &[(norms.len(), PER_SAMPLE), (norms.bytes(), 1)])?;
        Ok(norms.to_bytes())
    }
}
