//! Sources of guesses for a forward pass, which learn after a backward pass: a predictor and a norm cache.

use crate::device::{Buffer, Gpu};
use std::ptr;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_kernels::plan::{CacheBatch, LinearPlan, Memory, NormCachePlan, PredictorPlan, UpdateBuffers};

/// Tokens of a sample in the cache.
const SAMPLE: usize = 512;

/// A layer's predictor, and a cache of more bytes than the L2 holds.
pub(crate) struct Guesses {
    predictor: PredictorPlan,
    state: Buffer,
    sums: Buffer,
    status: Buffer,
    scratch: Buffer,
    cache: NormCachePlan,
    remembered: Buffer,
    /// The samples of the batches, one batch after another.
    ids: Buffer,
    batches: usize,
    samples: usize,
    fetched: Buffer,
}

impl Guesses {
    /// The norms of all batches have more than `bytes` bytes.
    pub(crate) fn new(plan: &LinearPlan, bytes: usize) -> Self {
        let (tokens, in_features) = (plan.settings().tokens, plan.settings().in_features);
        let settings = PredictorSettings::default();
        let predictor = PredictorPlan::new(plan, settings).expect("a valid predictor");
        let fresh = NormPredictor::new(in_features, settings).expect("a valid predictor");
        let state = PredictorPlan::first_bytes(&fresh).expect("few features");
        let (samples, batches) = (tokens / SAMPLE, bytes / (4 * tokens) + 2);
        let ids: Vec<u64> = (0..(batches * samples) as u64).collect();
        let cache = NormCachePlan::new(ids.len(), SAMPLE).expect("a valid cache");
        Self {
            state: Buffer::repeated(state.len(), &state),
            sums: Buffer::new(8 * predictor.sums_len() as usize),
            status: Buffer::new(8),
            scratch: Buffer::new(predictor.scratch_bytes() as usize),
            remembered: Buffer::repeated(cache.bytes() as usize, &[0_u8; 1 << 16]),
            ids: Buffer::repeated(8 * ids.len(), &ids),
            fetched: Buffer::new(4 * tokens),
            predictor,
            cache,
            batches,
            samples,
        }
    }

    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// θ, from which a forward pass makes its guess.
    pub(crate) fn theta(&self) -> *const f32 {
        self.state.pointer::<u8>().wrapping_add(self.predictor.theta().offset as usize).cast()
    }

    /// The four numbers that place the guess.
    pub(crate) fn placement(&self) -> *const f64 {
        self.state.pointer::<u8>().wrapping_add(self.predictor.placement().offset as usize).cast()
    }

    /// Three launches.
    pub(crate) fn update(&self, gpu: &Gpu, saved: Memory, norms: &Buffer) {
        let buffers = UpdateBuffers {
            saved,
            gradient_norms: norms.pointer(),
            cached_norms: ptr::null(),
            state: self.state.memory(),
            sums: self.sums.memory(),
            status: self.status.pointer(),
            scratch: self.scratch.memory(),
        };
        // SAFETY: all buffers have the sizes that the plan asks for.
        unsafe { self.predictor.update(&mut gpu.launcher(), &buffers) }.expect("launches");
    }

    /// The samples of the batch of run `run`: runs take the batches in turn.
    fn batch(&self, run: usize) -> CacheBatch {
        CacheBatch {
            samples: self.ids.pointer::<u64>().wrapping_add(run % self.batches * self.samples),
            lengths: ptr::null(),
            count: self.samples,
            row_tokens: SAMPLE,
            tokens: self.samples * SAMPLE,
        }
    }

    pub(crate) fn fetch(&self, gpu: &Gpu, run: usize) {
        let (cache, batch) = (self.remembered.memory(), self.batch(run));
        // SAFETY: as above; ids are less than the cache's samples.
        unsafe { self.cache.fetch(&mut gpu.launcher(), cache, &batch, self.fetched.pointer()) }.expect("launches");
    }

    pub(crate) fn store(&self, gpu: &Gpu, run: usize, norms: &Buffer) {
        let (cache, batch) = (self.remembered.memory(), self.batch(run));
        // SAFETY: as above.
        unsafe { self.cache.store(&mut gpu.launcher(), cache, &batch, norms.pointer()) }.expect("launches");
    }
}
