//! A norm cache on a device, and the samples that its calls name.

use crate::arguments::{Array, Stream};
use crate::boundary::Outcome;

/// The samples of a batch, and where their tokens' norms lie.
pub(crate) struct Samples {
    pub(crate) ids: Array<u64>,
    /// Without them, every sample has `row_tokens` tokens.
    pub(crate) lengths: Option<Array<u64>>,
    pub(crate) count: usize,
    /// Distance from one sample's norms to the next; 0 for norms without gaps.
    pub(crate) row_tokens: usize,
    /// Floats in the norms' array.
    pub(crate) tokens: usize,
}

/// Samples and tokens that a cache has room for; `usize::MAX` for any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheBounds {
    pub(crate) samples: usize,
    pub(crate) tokens_per_sample: usize,
}

/// A norm cache whose norms lie on one device.
pub(crate) trait NormCacheObject: Send + Sync {
    /// # Safety
    ///
    /// See the module.
    unsafe fn fetch(&self, samples: &Samples, norms: &Array<f32>, stream: Stream) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn store(&self, samples: &Samples, norms: &Array<f32>, stream: Stream) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn forget(&self, ids: &Array<u64>, count: usize, stream: Stream) -> Outcome;

    /// Fault and sample: see `wtacrs_norm_cache_outcome`.
    fn outcome(&self) -> Outcome<(u32, u64)>;

    /// How many bytes [`Self::to_bytes`] returns, if that is cheaper than to make them.
    fn saved_len(&self) -> Outcome<Option<usize>>;

    /// The whole cache as bytes.
    fn to_bytes(&self) -> Outcome<Vec<u8>>;
}
