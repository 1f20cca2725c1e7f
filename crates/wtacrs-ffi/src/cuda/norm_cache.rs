//! A norm cache whose norms lie in a GPU's memory.

use super::gpu::Gpu;
use super::matrices::{bytes, unsupported};
use super::memory::DeviceMemory;
use crate::arguments::{Array, Stream, heap};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use crate::device::{CacheBounds, NormCacheObject, Samples};
use core::ptr;
use std::sync::Arc;
use wtacrs_core::guesses::NormCache;
use wtacrs_kernels::plan::{CacheBatch, Memory, NormCachePlan, Part};

/// A cache in device memory. Calls that enqueue work need no lock: the order of streams is the caller's.
#[derive(Debug)]
pub(super) struct CudaNormCache {
    plan: NormCachePlan,
    bounds: CacheBounds,
    memory: DeviceMemory,
}

impl CudaNormCache {
    /// Moves a cache to a GPU.
    pub(super) fn new(gpu: &Arc<Gpu>, first: &NormCache, bounds: CacheBounds) -> Outcome<Self> {
        if bounds.samples == usize::MAX || bounds.tokens_per_sample == usize::MAX {
            return Err(unsupported("a cache needs a number of samples and of tokens, to have memory for them"));
        }
        let plan = NormCachePlan::new(bounds.samples, bounds.tokens_per_sample)?;
        let known = if first.is_empty() { 4 * bounds.samples } else { bytes(plan.bytes())? };
        heap::check("a copy of a cache", &[(known, 1)])?;
        let first = plan.first_bytes(first)?;
        let memory = DeviceMemory::new(gpu, bytes(plan.bytes())?, &first)?;
        Ok(Self { plan, bounds, memory })
    }

    /// The known samples and their numbers of tokens.
    fn lengths(&self) -> Outcome<Vec<(u64, usize)>> {
        Ok(NormCachePlan::lengths(&self.download(self.plan.known())?))
    }

    fn batch(&self, batch: &Samples) -> Outcome<CacheBatch> {
        let most = self.bounds.tokens_per_sample;
        if batch.count > 0 && batch.lengths.is_none() && batch.row_tokens > most {
            let message =
                format!("row_tokens is {}: the cache is for at most {most} tokens of a sample", batch.row_tokens);
            return Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message));
        }
        Ok(CacheBatch {
            samples: batch.ids.as_ptr(),
            lengths: batch.lengths.as_ref().map_or(ptr::null(), |lengths| lengths.as_ptr().cast_const()),
            count: batch.count,
            row_tokens: batch.row_tokens,
            tokens: batch.tokens,
        })
    }

    fn download(&self, part: Part) -> Outcome<Vec<u8>> {
        heap::check("a copy of a cache", &[(part.bytes as usize, 1)])?;
        let mut found = vec![0; part.bytes as usize];
        if !found.is_empty() {
            // SAFETY: the cache's own memory, of that size.
            unsafe { self.memory.gpu().download(self.part(part).at, &mut found) }?;
        }
        Ok(found)
    }

    fn whole(&self) -> Memory {
        self.memory.part(0, self.plan.bytes())
    }

    fn part(&self, part: Part) -> Memory {
        self.memory.part(part.offset, part.bytes)
    }
}

impl NormCacheObject for CudaNormCache {
    unsafe fn fetch(&self, samples: &Samples, norms: &Array<f32>, stream: Stream) -> Outcome {
        let given = self.batch(samples)?;
        let mut launcher = self.memory.gpu().on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.plan.fetch(&mut launcher, self.whole(), &given, norms.as_ptr()) }?)
    }

    unsafe fn store(&self, samples: &Samples, norms: &Array<f32>, stream: Stream) -> Outcome {
        let given = self.batch(samples)?;
        let mut launcher = self.memory.gpu().on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.plan.store(&mut launcher, self.whole(), &given, norms.as_ptr()) }?)
    }

    unsafe fn forget(&self, ids: &Array<u64>, count: usize, stream: Stream) -> Outcome {
        let mut launcher = self.memory.gpu().on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.plan.forget(&mut launcher, self.whole(), ids.as_ptr(), count) }?)
    }

    fn outcome(&self) -> Outcome<(u32, u64)> {
        let status = self.plan.status();
        let words = self.download(status)?;
        let (sample, rest) = words.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let fault = rest.first_chunk().map_or(0, |fault| u32::from_le_bytes(*fault));
        if fault != 0 {
            // SAFETY: the cache's own memory, of that size.
            unsafe { self.memory.gpu().upload(self.part(status).at, &vec![0; words.len()]) }?;
        }
        Ok((fault, u64::from_le_bytes(*sample)))
    }

    fn saved_len(&self) -> Outcome<Option<usize>> {
        let lengths = self.lengths()?;
        Ok(Some(NormCache::saved_bytes(lengths.len(), lengths.iter().map(|&(_, tokens)| tokens).sum())))
    }

    fn to_bytes(&self) -> Outcome<Vec<u8>> {
        let lengths = self.lengths()?;
        let samples = lengths.last().map_or(0, |&(sample, _)| sample as usize + 1);
        Ok(self.plan.cache(&lengths, &self.download(self.plan.norms(samples))?)?.to_bytes())
    }
}
