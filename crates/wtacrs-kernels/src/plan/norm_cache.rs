//! The plan of a norm cache in device memory: its layout, its launches, and its exchange with a cache on the host.

use super::error::{ExecuteError, PlanError};
use super::kernels;
use super::memory::{Layout, Memory, Part, check_pointer};
use crate::kernel::norm_cache::{Args, Status};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::guesses::{NormCache, NormCacheError};

/// The memory of the norms of samples 0 to N − 1, of at most so many tokens each, and the launches that fetch and store them.
///
/// The memory is first filled with [`Self::first_bytes`]. Immutable, `Send` and `Sync`; a cache's memory belongs to one call
/// at a time.
#[derive(Clone, Copy, Debug)]
pub struct NormCachePlan {
    samples: u64,
    sample_tokens: u64,
    status: Part,
    known: Part,
    stored: Part,
    bytes: u64,
}

/// The samples of a batch, and where their norms lie. All pointers are to device memory.
#[derive(Clone, Copy, Debug)]
pub struct CacheBatch {
    /// For each sample its id.
    pub samples: *const u64,
    /// For each its number of tokens; null: as many as a row has.
    pub lengths: *const u64,
    /// How many samples.
    pub count: usize,
    /// Floats from one sample's norms to the next one's; 0: without gaps.
    pub row_tokens: usize,
    /// How many floats there are.
    pub tokens: usize,
}

impl NormCachePlan {
    /// The plan for so many samples, of at most so many tokens each.
    ///
    /// # Errors
    ///
    /// More tokens than 32 bits count; more memory than a device has.
    pub fn new(samples: usize, sample_tokens: usize) -> Result<Self, PlanError> {
        let most = u32::MAX as usize - 1;
        if sample_tokens > most {
            return Err(PlanError::TooLarge { what: "the number of a sample's tokens", found: sample_tokens, most });
        }
        let (samples, sample_tokens) = (samples as u64, sample_tokens as u64);
        let what = "the norm cache";
        let mut layout = Layout::default();
        let status = layout.part(what, &[size_of::<Status>() as u64])?;
        let known = layout.part(what, &[4, samples])?;
        let stored = layout.part(what, &[4, samples, sample_tokens])?;
        Ok(Self { samples, sample_tokens, status, known, stored, bytes: layout.bytes() })
    }

    /// Bytes of the cache.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the status lies: the id (u64) and the `Fault` (u32) of the first sample that was left out, or zeros.
    pub fn status(&self) -> Part {
        Part { bytes: 12, ..self.status }
    }

    /// Where the known samples are listed: see [`Self::lengths`].
    pub fn known(&self) -> Part {
        self.known
    }

    /// Where the norms of the first so many samples lie.
    pub fn norms(&self, samples: usize) -> Part {
        Part { bytes: 4 * self.sample_tokens * samples as u64, ..self.stored }
    }

    /// The first bytes of the memory, for the content of a cache on the host; the other bytes may be anything.
    ///
    /// # Errors
    ///
    /// [`CacheMisfit`].
    pub fn first_bytes(&self, cache: &NormCache) -> Result<Vec<u8>, CacheMisfit> {
        CacheMisfit::check(cache, self.samples, self.sample_tokens)?;
        let last = cache.samples().last();
        let end = last.map_or(self.stored.offset, |(sample, norms)| self.norms_of(sample) + 4 * norms.len() as u64);
        let mut bytes = vec![0; end as usize];
        for (sample, norms) in cache.samples() {
            let known = (self.known.offset + 4 * sample) as usize;
            bytes[known..known + 4].copy_from_slice(&(norms.len() as u32 + 1).to_le_bytes());
            let (places, _) = bytes[self.norms_of(sample) as usize..].as_chunks_mut::<4>();
            places.iter_mut().zip(norms).for_each(|(place, norm)| *place = norm.to_le_bytes());
        }
        Ok(bytes)
    }

    /// The known samples and their numbers of tokens, from the bytes at [`Self::known`].
    pub fn lengths(known: &[u8]) -> Vec<(u64, usize)> {
        let words = known.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let known = (0..).zip(words).filter(|&(_, word)| word > 0);
        known.map(|(sample, word)| (sample, word as usize - 1)).collect()
    }

    /// The cache of samples of these [lengths](Self::lengths), from the bytes at [`Self::norms`].
    ///
    /// # Errors
    ///
    /// Norms that were never written.
    pub fn cache(&self, lengths: &[(u64, usize)], norms: &[u8]) -> Result<NormCache, NormCacheError> {
        let (places, _) = norms.as_chunks::<4>();
        let row = self.sample_tokens as usize;
        let rows = lengths.iter().map(|&(sample, tokens)| places.iter().skip(sample as usize * row).take(tokens));
        let norms: Vec<f32> = rows.flatten().map(|place| f32::from_le_bytes(*place)).collect();
        let mut cache = NormCache::new();
        cache.store(lengths, &norms)?;
        Ok(cache)
    }

    /// Fetches a batch's norms, -1 for unknown ones; every float is written. One launch; none without floats.
    ///
    /// # Errors
    ///
    /// An invalid pointer or size, before anything is launched; or the launcher's error.
    ///
    /// # Safety
    ///
    /// Everything lies in memory of the launcher's device, alive and otherwise unused until the launch has run, and
    /// `norms` overlaps nothing.
    pub unsafe fn fetch<L: Launcher>(
        &self,
        launcher: &mut L,
        cache: Memory,
        batch: &CacheBatch,
        norms: *mut f32,
    ) -> Result<(), ExecuteError<L::Error>> {
        if batch.tokens == 0 && batch.count == 0 {
            return Ok(());
        }
        let args = self.args(cache, batch, norms)?;
        let (kernel, shape) = kernels::norm_cache_fetch(&args);
        // SAFETY: the caller's promise; sizes were checked.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// Stores a batch's norms in place of the older ones of its samples. One launch; none without samples.
    ///
    /// # Errors
    ///
    /// As for [`Self::fetch`].
    ///
    /// # Safety
    ///
    /// As for [`Self::fetch`].
    pub unsafe fn store<L: Launcher>(
        &self,
        launcher: &mut L,
        cache: Memory,
        batch: &CacheBatch,
        norms: *const f32,
    ) -> Result<(), ExecuteError<L::Error>> {
        if batch.count == 0 {
            return Ok(());
        }
        let args = self.args(cache, batch, norms.cast_mut())?;
        let (kernel, shape) = kernels::norm_cache_store(&args);
        // SAFETY: the caller's promise; sizes were checked, and the kernel only reads the norms.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// Forgets samples. One launch; none without samples.
    ///
    /// # Errors
    ///
    /// As for [`Self::fetch`].
    ///
    /// # Safety
    ///
    /// As for [`Self::fetch`].
    pub unsafe fn forget<L: Launcher>(
        &self,
        launcher: &mut L,
        cache: Memory,
        samples: *const u64,
        count: usize,
    ) -> Result<(), ExecuteError<L::Error>> {
        if count == 0 {
            return Ok(());
        }
        let batch = CacheBatch { samples, lengths: ptr::null(), count, row_tokens: 0, tokens: 0 };
        let args = self.launched(cache, &batch, ptr::null_mut())?;
        let (kernel, shape) = kernels::norm_cache_store(&args);
        // SAFETY: the caller's promise; without norms the kernel reads ids alone.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    fn norms_of(&self, sample: u64) -> u64 {
        self.stored.offset + 4 * self.sample_tokens * sample
    }

    fn args<E>(&self, cache: Memory, batch: &CacheBatch, norms: *mut f32) -> Result<Args, ExecuteError<E>> {
        let &CacheBatch { lengths, count, row_tokens, tokens, .. } = batch;
        if (count > 0 && row_tokens == 0) || !lengths.is_null() {
            check_pointer("the lengths", lengths, 8)?;
        }
        // Null would mean to forget. A batch without floats still has samples whose ids are checked.
        let norms = if tokens == 0 { ptr::dangling_mut() } else { norms };
        check_pointer("the norms", norms.cast_const(), 4)?;
        let (found, needed) = (tokens as u64, (count as u64).saturating_mul(row_tokens as u64));
        if found < needed {
            let (needed, found) = (needed.saturating_mul(4), found.saturating_mul(4));
            return Err(ExecuteError::TooSmall { what: "the memory of the norms", needed, found });
        }
        self.launched(cache, batch, norms)
    }

    fn launched<E>(&self, cache: Memory, batch: &CacheBatch, norms: *mut f32) -> Result<Args, ExecuteError<E>> {
        let &CacheBatch { samples, lengths, count, row_tokens, tokens } = batch;
        cache.check("the norm cache", self.bytes)?;
        if count > 0 {
            check_pointer("the samples", samples, 8)?;
        }
        let most = u32::MAX as usize - 1;
        let Some(count) = u32::try_from(count).ok().filter(|_| count <= most) else {
            return Err(ExecuteError::TooLarge { what: "the number of a batch's samples", found: count, most });
        };
        Ok(Args {
            samples,
            lengths,
            count,
            row_tokens: row_tokens as u64,
            norms,
            tokens: tokens as u64,
            cache_samples: self.samples,
            sample_tokens: self.sample_tokens,
            known: cache.of(self.known),
            stored: cache.of(self.stored),
            status: cache.of(self.status),
        })
    }
}

/// Why a cache does not fit into one in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheMisfit {
    /// A sample beyond the last.
    #[error("sample {sample} is remembered, and the cache is for {samples} samples")]
    Sample {
        /// The sample's id.
        sample: u64,
        /// N.
        samples: u64,
    },
    /// A sample that is too long.
    #[error("sample {sample} is remembered with {tokens} tokens, and the cache is for at most {most} of a sample")]
    Tokens {
        /// The sample's id.
        sample: u64,
        /// How many tokens it has.
        tokens: usize,
        /// How many it may have.
        most: u64,
    },
}

impl CacheMisfit {
    /// Refuses a cache that has other samples than those below `samples`, or more than `most` tokens of one.
    ///
    /// # Errors
    ///
    /// The least of the samples that do not fit.
    pub fn check(cache: &NormCache, samples: u64, most: u64) -> Result<(), Self> {
        for (sample, norms) in cache.samples() {
            let tokens = norms.len();
            if sample >= samples {
                return Err(Self::Sample { sample, samples });
            }
            if tokens as u64 > most {
                return Err(Self::Tokens { sample, tokens, most });
            }
        }
        Ok(())
    }
}
