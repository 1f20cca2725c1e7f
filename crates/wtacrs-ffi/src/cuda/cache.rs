//! A norm cache whose norms lie in a GPU's memory.

use super::{bytes, unsupported};
use crate::array::Array;
use crate::cache::Bounds;
use crate::cache_on::Batch;
use crate::context::Context;
use crate::device::{DeviceMemory, Gpu};
use crate::guard::{Failure, Outcome};
use crate::heap;
use crate::status::*;
use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::guesses::NormCache;
use wtacrs_kernels::plan::{CacheBatch, Memory, NormCachePlan, Part};

/// A cache in device memory. Calls that enqueue work need no lock: the order of streams is the caller's.
#[derive(Debug)]
pub(crate) struct DeviceCache {
    plan: NormCachePlan,
    bounds: Bounds,
    memory: DeviceMemory,
}

impl DeviceCache {
    /// Takes a cache to a GPU.
    pub(crate) fn new(context: &Arc<Context>, bounds: Bounds, first: &NormCache) -> Outcome<Self> {
        let plan = NormCachePlan::new(bounds.samples, bounds.tokens_per_sample)?;
        let known = if first.is_empty() { 4 * bounds.samples } else { bytes(plan.bytes())? };
        heap::check("a copy of a cache", &[(known, 1)])?;
        let first = plan.first_bytes(first)?;
        let memory = DeviceMemory::beginning(Arc::clone(context), bytes(plan.bytes())?, &first)?;
        Ok(Self { plan, bounds, memory })
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_norm_cache_fetch_on`; the arrays were checked.
    pub(crate) unsafe fn fetch(&self, batch: &Batch, norms: &Array<f32>, stream: *mut c_void) -> Outcome {
        let given = self.batch(batch)?;
        let mut launcher = self.gpu()?.on(stream)?;
        // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
        Ok(unsafe { self.plan.fetch(&mut launcher, self.whole(), &given, norms.as_ptr()) }?)
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_norm_cache_store_on`; the arrays were checked.
    pub(crate) unsafe fn store(&self, batch: &Batch, norms: &Array<f32>, stream: *mut c_void) -> Outcome {
        let given = self.batch(batch)?;
        let mut launcher = self.gpu()?.on(stream)?;
        // SAFETY: checked for NULL, size and alignment; the caller has the rest.
        Ok(unsafe { self.plan.store(&mut launcher, self.whole(), &given, norms.as_ptr()) }?)
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_norm_cache_forget_on`; the array was checked.
    pub(crate) unsafe fn forget(&self, samples: &Array<u64>, count: usize, stream: *mut c_void) -> Outcome {
        let mut launcher = self.gpu()?.on(stream)?;
        // SAFETY: checked for NULL, size and alignment; the caller has the rest.
        Ok(unsafe { self.plan.forget(&mut launcher, self.whole(), samples.as_ptr(), count) }?)
    }

    /// How many bytes a checkpoint of it has; waits for all that was launched.
    pub(crate) fn saved_bytes(&self) -> Outcome<usize> {
        let lengths = self.lengths()?;
        Ok(NormCache::saved_bytes(lengths.len(), lengths.iter().map(|&(_, tokens)| tokens).sum()))
    }

    /// What it remembers, on the host; waits for all that was launched.
    pub(crate) fn fetch_all(&self) -> Outcome<NormCache> {
        let lengths = self.lengths()?;
        let samples = lengths.last().map_or(0, |&(sample, _)| sample as usize + 1);
        Ok(self.plan.cache(&lengths, &self.download(self.plan.norms(samples))?)?)
    }

    /// The first sample that was left out since this was last asked, and why; waits for all that was launched.
    pub(crate) fn outcome(&self) -> Outcome<(u64, u32)> {
        let status = self.plan.status();
        let found = self.download(status)?;
        let (word, rest) = found.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let told = (u64::from_le_bytes(*word), rest.first_chunk().map_or(0, |fault| u32::from_le_bytes(*fault)));
        if told.1 != 0 {
            // SAFETY: the cache's own memory, of that size.
            unsafe { self.gpu()?.upload(self.part(status).at, &vec![0; found.len()]) }?;
        }
        Ok(told)
    }

    /// The known samples and their numbers of tokens.
    fn lengths(&self) -> Outcome<Vec<(u64, usize)>> {
        Ok(NormCachePlan::lengths(&self.download(self.plan.known())?))
    }

    fn batch(&self, batch: &Batch) -> Outcome<CacheBatch> {
        let most = self.bounds.tokens_per_sample;
        if batch.count > 0 && batch.lengths.is_none() && batch.row_tokens > most {
            let message =
                format!("row_tokens is {}: the cache is for at most {most} tokens of a sample", batch.row_tokens);
            return Err(Failure::new(WTACRS_SHAPE_MISMATCH, message));
        }
        Ok(CacheBatch {
            samples: batch.samples.as_ptr(),
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
            unsafe { self.gpu()?.download(self.part(part).at, &mut found) }?;
        }
        Ok(found)
    }

    fn whole(&self) -> Memory {
        self.memory.part(0, self.plan.bytes())
    }

    fn part(&self, part: Part) -> Memory {
        self.memory.part(part.offset, part.bytes)
    }

    fn gpu(&self) -> Outcome<&Gpu> {
        self.memory.context().device.gpu().ok_or_else(|| unsupported("the context is the CPU's"))
    }
}
