//! A memory of ‖dZ_i‖ for each training sample: one of the two guesses that a forward pass can use.
//!
//! A sample's norms from its last visit predict those of the next. The cache costs four bytes for each token of the
//! data set, and knows nothing in the first epoch:
//! [`Weights::from_cache`](crate::sampling::Weights::from_cache) then falls back to the norms of H.

use crate::envelope::{self, EnvelopeError};
use std::collections::HashMap;

const MAGIC: &[u8; 8] = b"wtacrsNC";
const VERSION: u32 = 2;

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
    /// The lengths of the sequences add up to more than can be counted.
    #[error("the lengths of the sequences add up to more than {}", usize::MAX)]
    TooManyTokens,
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
    /// Saved bytes of another version of the format.
    #[error("saved by format version {found}, but this is version {expected}")]
    Version {
        /// The version read here.
        expected: u32,
        /// The version found.
        found: u32,
    },
    /// Saved bytes that no cache has written.
    #[error("not a saved norm cache: {what}")]
    Corrupted {
        /// What is wrong.
        what: &'static str,
    },
}

impl From<EnvelopeError> for NormCacheError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Version { expected, found } => Self::Version { expected, found },
            EnvelopeError::Corrupted { what } => Self::Corrupted { what },
        }
    }
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
    /// [`NormCacheError::LengthChanged`], [`NormCacheError::TooManyTokens`].
    pub fn fetch(&self, batch: &[(u64, usize)]) -> Result<Vec<Option<f32>>, NormCacheError> {
        let mut norms = Vec::with_capacity(token_count(batch)?);
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
    /// [`NormCacheError::TokenMismatch`], [`NormCacheError::TooManyTokens`], [`NormCacheError::InvalidNorm`]; the cache is
    /// then unchanged.
    pub fn store(&mut self, batch: &[(u64, usize)], norms: &[f32]) -> Result<(), NormCacheError> {
        let expected = token_count(batch)?;
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

    /// Forgets one sample, and returns whether it was known.
    pub fn forget(&mut self, sample: u64) -> bool {
        self.samples.remove(&sample).is_some()
    }

    /// All that is remembered, by ascending id.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = (u64, &[f32])> {
        let mut samples: Vec<(u64, &[f32])> = self.samples.iter().map(|(&sample, norms)| (sample, &**norms)).collect();
        samples.sort_unstable_by_key(|&(sample, _)| sample);
        samples.into_iter()
    }

    /// How many bytes [`Self::to_bytes`] returns for so many samples with so many tokens in all.
    pub const fn saved_bytes(samples: usize, tokens: usize) -> usize {
        envelope::FRAME + size_of::<u64>() * (1 + 2 * samples) + size_of::<f32>() * tokens
    }

    /// The whole cache, for a checkpoint: equal caches give equal bytes. [`Self::from_bytes`] reads them anywhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let samples = self.samples();
        let needed = Self::saved_bytes(samples.len(), self.bytes() / size_of::<f32>());
        let mut bytes = envelope::begin(MAGIC, VERSION, needed);
        bytes.extend((samples.len() as u64).to_le_bytes());
        for (sample, norms) in samples {
            bytes.extend(sample.to_le_bytes());
            bytes.extend((norms.len() as u64).to_le_bytes());
            bytes.extend(norms.iter().flat_map(|norm| norm.to_le_bytes()));
        }
        envelope::close(bytes)
    }

    /// The cache that [`Self::to_bytes`] saved.
    ///
    /// # Errors
    ///
    /// Another version; bytes missing, added or changed; norms that no cache holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NormCacheError> {
        let corrupted = |what| Err(NormCacheError::Corrupted { what });
        let mut reader = envelope::open(bytes, MAGIC, VERSION)?;
        let count = reader.word()?;
        let mut samples = HashMap::new();
        let mut last = None;
        for _ in 0..count {
            let sample = reader.word()?;
            if last.is_some_and(|last| last >= sample) {
                return corrupted("its samples do not ascend");
            }
            last = Some(sample);
            let tokens = reader.word()?;
            // Before anything is allocated: so many must be left.
            if tokens > reader.len() as u64 / 4 {
                return corrupted("it ends early");
            }
            let mut norms = Vec::with_capacity(tokens as usize);
            for _ in 0..tokens {
                let norm = f32::from_le_bytes(reader.array()?);
                if !(norm.is_finite() && norm >= 0.0) {
                    return corrupted("a norm is negative or not finite");
                }
                norms.push(norm);
            }
            samples.insert(sample, norms.into());
        }
        if reader.len() > 0 {
            return corrupted("there are bytes after its end");
        }
        Ok(Self { samples })
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

/// Σ of the sequences' lengths.
fn token_count(batch: &[(u64, usize)]) -> Result<usize, NormCacheError> {
    let sum = batch.iter().try_fold(0_usize, |sum, &(_, tokens)| sum.checked_add(tokens));
    sum.ok_or(NormCacheError::TooManyTokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_by_sample() {
        let mut cache = NormCache::new();
        assert_eq!(cache.fetch(&[(1, 2)]), Ok(vec![None, None]));
        cache.store(&[(1, 2), (9, 1)], &[0.5, 1.5, 2.5]).expect("valid");
        assert_eq!(cache.fetch(&[(9, 1), (4, 2), (1, 2)]), Ok(vec![Some(2.5), None, None, Some(0.5), Some(1.5)]));
        assert_eq!((cache.len(), cache.bytes()), (2, 12));
        cache.store(&[(9, 3)], &[0.0; 3]).expect("a sample may change its length when stored");
        assert_eq!(cache.fetch(&[(9, 3)]), Ok(vec![Some(0.0); 3]));
        assert!(cache.forget(9) && !cache.forget(9) && !cache.is_empty());
    }

    #[test]
    fn refusals_leave_it_unchanged() {
        let mut cache = NormCache::new();
        cache.store(&[(1, 2)], &[0.5, 1.5]).expect("valid");
        assert_eq!(cache.store(&[(1, 2)], &[0.5]), Err(NormCacheError::TokenMismatch { expected: 2, found: 1 }));
        for value in [-1.0, f32::INFINITY] {
            assert_eq!(
                cache.store(&[(1, 2), (2, 1)], &[0.0, 0.0, value]),
                Err(NormCacheError::InvalidNorm { sample: 2, token: 0, value })
            );
        }
        assert!(cache.store(&[(1, 1)], &[f32::NAN]).is_err());
        for absurd in [[(1, usize::MAX), (2, 1)], [(3, usize::MAX), (4, usize::MAX)]] {
            assert_eq!(cache.store(&absurd, &[]), Err(NormCacheError::TooManyTokens));
            assert_eq!(cache.fetch(&absurd), Err(NormCacheError::TooManyTokens));
        }
        assert_eq!(cache.fetch(&[(1, 3)]), Err(NormCacheError::LengthChanged { sample: 1, expected: 2, found: 3 }));
        assert_eq!(cache.fetch(&[(1, 2)]), Ok(vec![Some(0.5), Some(1.5)]));
    }

    #[test]
    fn bytes_bring_it_back_and_changed_ones_are_refused() {
        let mut cache = NormCache::new();
        cache.store(&[(7, 2), (u64::MAX, 0), (3, 1)], &[1.5, 0.0, 2.0]).expect("valid");
        let bytes = cache.to_bytes();
        assert_eq!(bytes.len(), NormCache::saved_bytes(3, 3));
        let back = NormCache::from_bytes(&bytes).expect("as saved");
        assert_eq!(back.to_bytes(), bytes);
        assert_eq!(back.fetch(&[(3, 1), (7, 2), (4, 1)]), Ok(vec![Some(2.0), Some(1.5), Some(0.0), None]));
        assert!(NormCache::from_bytes(&NormCache::new().to_bytes()).expect("empty").is_empty());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(NormCache::from_bytes(&changed).is_err(), "byte {at}");
            assert!(NormCache::from_bytes(&bytes[..at]).is_err(), "cut to {at}");
        }
        // Whole envelopes that no cache has written.
        let sealed = |words: &[u64]| {
            let mut bytes = envelope::begin(MAGIC, VERSION, 0);
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            NormCache::from_bytes(&envelope::close(bytes))
        };
        assert!(sealed(&[2, 5, 0, 6, 0]).is_ok());
        for absurd in [&[u64::MAX][..], &[1, 5, u64::MAX], &[2, 5, 0, 5, 0], &[0, 0], &[1, 5, 2, u64::MAX]] {
            assert!(matches!(sealed(absurd), Err(NormCacheError::Corrupted { .. })), "{absurd:?}");
        }
        let mut newer = envelope::begin(MAGIC, VERSION + 1, 0);
        newer.extend(0_u64.to_le_bytes());
        assert!(matches!(
            NormCache::from_bytes(&envelope::close(newer)),
            Err(NormCacheError::Version { found: 3, .. })
        ));
    }
}
