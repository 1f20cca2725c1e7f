//! A memory of ‖dZ_i‖ for each training sample: one of the two guesses that a forward pass can use.
//!
//! A sample's norms from its last visit predict those of the next. The cache costs four bytes for each token of the
//! data set, and knows nothing in the first epoch ([`Weights::from_cache`](crate::Weights::from_cache) says what then).

use std::collections::HashMap;

/// Norms by sample id; sequences may have any lengths, each its own.
///
/// A sample's tokens are remembered, not its padding: with padding that changes from batch to batch, pass each sample's
/// own length and leave padded rows cold. [`NormCache::forget`] a sample whose text has changed.
///
/// `Send` and `Sync`; concurrent stores need a lock, as for any map.
#[derive(Clone, Debug, Default)]
pub struct NormCache {
    samples: HashMap<u64, Box<[f32]>>,
}

/// Why norms are refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NormCacheError {
    /// The lengths of the sequences do not add up to the tokens given.
    #[error("the sequences have {expected} tokens in all, but there are {found} norms")]
    TokenMismatch {
        /// Σ of the sequences' lengths.
        expected: usize,
        /// Norms given.
        found: usize,
    },
    /// A sample is remembered with another length.
    #[error("sample {sample} is remembered with {expected} tokens, but has {found} now")]
    LengthChanged {
        /// The sample's id.
        sample: u64,
        /// Tokens at its last visit.
        expected: usize,
        /// Tokens now.
        found: usize,
    },
    /// A norm that is negative or not finite.
    #[error("sample {sample}, token {token}: the norm is {value}; it must be finite and not negative")]
    InvalidNorm {
        /// The sample's id.
        sample: u64,
        /// The token within it.
        token: usize,
        /// The offending norm.
        value: f32,
    },
}

impl NormCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The remembered norms of a batch's tokens, sample after sample; `None` for every token of a sample not seen yet.
    /// `batch` holds each sample's id and number of tokens.
    ///
    /// # Errors
    ///
    /// [`NormCacheError::LengthChanged`].
    pub fn fetch(&self, batch: &[(u64, usize)]) -> Result<Vec<Option<f32>>, NormCacheError> {
        let mut norms = Vec::with_capacity(batch.iter().map(|&(_, tokens)| tokens).sum());
        for &(sample, found) in batch {
            match self.samples.get(&sample) {
                None => norms.resize(norms.len() + found, None),
                Some(known) if known.len() == found => norms.extend(known.iter().copied().map(Some)),
                Some(known) => {
                    return Err(NormCacheError::LengthChanged { sample, expected: known.len(), found });
                }
            }
        }
        Ok(norms)
    }

    /// Remembers the norms of a batch's tokens, sample after sample; a sample's former norms are forgotten. Of a sample
    /// that is twice in a batch, the last is remembered.
    ///
    /// # Errors
    ///
    /// [`NormCacheError::TokenMismatch`], [`NormCacheError::InvalidNorm`]; the cache is then unchanged.
    pub fn store(&mut self, batch: &[(u64, usize)], norms: &[f32]) -> Result<(), NormCacheError> {
        let expected = batch.iter().map(|&(_, tokens)| tokens).sum();
        if norms.len() != expected {
            return Err(NormCacheError::TokenMismatch { expected, found: norms.len() });
        }
        let mut rest = norms;
        let mut parts = Vec::with_capacity(batch.len());
        for &(sample, tokens) in batch {
            let (part, behind) = rest.split_at(tokens);
            if let Some(token) = part.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
                return Err(NormCacheError::InvalidNorm { sample, token, value: part[token] });
            }
            parts.push((sample, part));
            rest = behind;
        }
        self.samples.extend(parts.into_iter().map(|(sample, part)| (sample, part.into())));
        Ok(())
    }

    /// Forgets one sample; whether it was known.
    pub fn forget(&mut self, sample: u64) -> bool {
        self.samples.remove(&sample).is_some()
    }

    /// How many samples are remembered.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Bytes of norms held, without the map's own.
    pub fn bytes(&self) -> usize {
        self.samples.values().map(|norms| size_of_val::<[f32]>(norms)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_by_sample() {
        let mut cache = NormCache::new();
        assert_eq!(cache.fetch(&[(1, 2)]), Ok(vec![None, None]));
        cache.store(&[(1, 2), (9, 1)], &[0.5, 1.5, 2.5]).expect("valid");
        assert_eq!(cache.fetch(&[(9, 1), (4, 2), (1, 2)]), Ok(vec![
            Some(2.5),
            None,
            None,
            Some(0.5),
            Some(1.5)
        ]));
        assert_eq!((cache.len(), cache.bytes()), (2, 12));
        cache.store(&[(9, 3)], &[0.0; 3]).expect("a sample may change its length when stored");
        assert_eq!(cache.fetch(&[(9, 3)]), Ok(vec![Some(0.0); 3]));
        assert!(cache.forget(9) && !cache.forget(9) && !cache.is_empty());
    }

    #[test]
    fn refusals_leave_it_unchanged() {
        let mut cache = NormCache::new();
        cache.store(&[(1, 2)], &[0.5, 1.5]).expect("valid");
        assert_eq!(
            cache.store(&[(1, 2)], &[0.5]),
            Err(NormCacheError::TokenMismatch { expected: 2, found: 1 })
        );
        for value in [-1.0, f32::INFINITY] {
            assert_eq!(
                cache.store(&[(1, 2), (2, 1)], &[0.0, 0.0, value]),
                Err(NormCacheError::InvalidNorm { sample: 2, token: 0, value })
            );
        }
        assert!(cache.store(&[(1, 1)], &[f32::NAN]).is_err());
        assert_eq!(
            cache.fetch(&[(1, 3)]),
            Err(NormCacheError::LengthChanged { sample: 1, expected: 2, found: 3 })
        );
        assert_eq!(cache.fetch(&[(1, 2)]), Ok(vec![Some(0.5), Some(1.5)]));
    }
}
