//! What a design decides: which pairs to keep, and how much each counts.

/// Kept pairs, ascending and distinct, with their scales.
///
/// The estimate of X·Y is Σ over kept pairs of `scale · X[:,i] Y[i,:]`. Scales are f64 so that a reference can be
/// exact; a product in f32 uses them rounded to f32.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "Parts"))]
pub struct Selection {
    pairs: usize,
    winners: usize,
    indices: Vec<u32>,
    scales: Vec<f64>,
}

/// Why a selection is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// Not one scale for each index.
    #[error("{scales} scales for {indices} indices")]
    LengthMismatch {
        /// How many indices there are.
        indices: usize,
        /// How many scales.
        scales: usize,
    },
    /// More certain pairs than kept ones.
    #[error("{winners} winners among {kept} kept pairs")]
    TooManyWinners {
        /// How many pairs are said to be certain.
        winners: usize,
        /// How many are kept.
        kept: usize,
    },
    /// An index beyond the pairs.
    #[error("index {index} at position {position} is beyond the {pairs} pairs")]
    OutOfRange {
        /// Where it stands.
        position: usize,
        /// The offending index.
        index: u32,
        /// How many pairs there are.
        pairs: usize,
    },
    /// Indices must ascend strictly: a pair drawn twice is one pair of twice the scale.
    #[error("index {index} at position {position} is not more than the one before it")]
    NotAscending {
        /// Where it stands.
        position: usize,
        /// The offending index.
        index: u32,
    },
    /// A scale that is negative or not finite.
    #[error("the scale of pair {index} is {scale}: it must be finite and not negative")]
    InvalidScale {
        /// The offending pair.
        index: u32,
        /// Its scale.
        scale: f64,
    },
}

impl Selection {
    /// A selection from parts, out of `pairs` pairs, of which `winners` of the kept ones were certain.
    ///
    /// # Errors
    ///
    /// Lengths that differ; more winners than indices; indices that do not ascend strictly or lie beyond the pairs;
    /// scales that are negative or not finite.
    pub fn new(pairs: usize, winners: usize, indices: Vec<u32>, scales: Vec<f64>) -> Result<Self, SelectionError> {
        if indices.len() != scales.len() {
            return Err(SelectionError::LengthMismatch { indices: indices.len(), scales: scales.len() });
        }
        if winners > indices.len() {
            return Err(SelectionError::TooManyWinners { winners, kept: indices.len() });
        }
        for (position, &index) in indices.iter().enumerate() {
            if index as usize >= pairs {
                return Err(SelectionError::OutOfRange { position, index, pairs });
            }
            if position > 0 && indices[position - 1] >= index {
                return Err(SelectionError::NotAscending { position, index });
            }
        }
        for (&index, &scale) in indices.iter().zip(&scales) {
            if !(scale >= 0.0 && scale.is_finite()) {
                return Err(SelectionError::InvalidScale { index, scale });
            }
        }
        Ok(Self { pairs, winners, indices, scales })
    }

    /// Every one of `pairs` pairs, each with scale 1: the exact product.
    pub fn everything(pairs: u32) -> Self {
        Self::collect(pairs as usize, pairs as usize, pairs as usize, |_| Some(1.0))
    }

    /// The pairs for which `scale` is given, in order of their index.
    pub(crate) fn collect(
        pairs: usize,
        winners: usize,
        budget: usize,
        mut scale: impl FnMut(usize) -> Option<f64>,
    ) -> Self {
        let mut indices = Vec::with_capacity(budget);
        let mut scales = Vec::with_capacity(budget);
        for pair in 0..pairs {
            if let Some(scale) = scale(pair) {
                indices.push(pair as u32);
                scales.push(scale);
            }
        }
        Self { pairs, winners, indices, scales }
    }

    /// The pairs that `is_kept` names, at most `budget`, in order of their index, each with its scale. Without branches, which no
    /// predictor could follow.
    pub(crate) fn marked(
        pairs: usize,
        winners: usize,
        budget: usize,
        is_kept: impl Fn(usize) -> bool,
        scale: impl Fn(usize) -> f64,
    ) -> Self {
        // One more, for the pair that may follow the last.
        let mut indices = vec![0; budget + 1];
        let mut kept = 0;
        for pair in 0..pairs {
            indices[kept] = pair as u32;
            kept += usize::from(is_kept(pair));
        }
        indices.truncate(kept);
        let scales = indices.iter().map(|&pair| scale(pair as usize)).collect();
        Self { pairs, winners, indices, scales }
    }

    /// How many pairs there were to choose from, n.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// How many of the kept pairs were certain, |C|.
    pub fn winners(&self) -> usize {
        self.winners
    }

    /// How many distinct pairs are kept.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The kept pairs, strictly ascending.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Each kept pair's scale, in the order of [`Self::indices`].
    pub fn scales(&self) -> &[f64] {
        &self.scales
    }

    /// Bytes of an index and a scale.
    pub const BYTES_PER_PAIR: usize = size_of::<u32>() + size_of::<f64>();

    /// Bytes of the indices and scales.
    pub fn bytes(&self) -> usize {
        self.len() * Self::BYTES_PER_PAIR
    }

    /// Kept pairs with their scales, ascending.
    pub fn iter(&self) -> Iter<'_> {
        Iter { indices: self.indices.iter(), scales: self.scales.iter() }
    }
}

/// Kept pairs with their scales, ascending: (i, scale).
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    indices: core::slice::Iter<'a, u32>,
    scales: core::slice::Iter<'a, f64>,
}

impl Iterator for Iter<'_> {
    type Item = (usize, f64);

    #[inline]
    fn next(&mut self) -> Option<(usize, f64)> {
        Some((*self.indices.next()? as usize, *self.scales.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Selection {
    type Item = (usize, f64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// A selection as data, before its parts are checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Parts {
    pairs: usize,
    winners: usize,
    indices: Vec<u32>,
    scales: Vec<f64>,
}

#[cfg(feature = "serde")]
impl TryFrom<Parts> for Selection {
    type Error = SelectionError;

    fn try_from(Parts { pairs, winners, indices, scales }: Parts) -> Result<Self, SelectionError> {
        Self::new(pairs, winners, indices, scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_iterated_over_pair_by_pair() {
        let selection = Selection::new(5, 0, vec![0, 4], vec![1.0, 2.5]).expect("valid");
        let mut seen = Vec::new();
        for (pair, scale) in &selection {
            seen.push((pair, scale));
        }
        assert_eq!(seen, [(0, 1.0), (4, 2.5)]);
        assert_eq!(selection.iter().len(), 2);
    }

    #[test]
    fn parts_are_checked() {
        assert!(Selection::new(5, 0, vec![0, 4], vec![1.0, 2.5]).is_ok());
        let refused = |indices: &[u32], scales: &[f64]| {
            Selection::new(5, 0, indices.to_vec(), scales.to_vec()).expect_err("must be refused")
        };
        assert_eq!(refused(&[1], &[]), SelectionError::LengthMismatch { indices: 1, scales: 0 });
        assert_eq!(refused(&[5], &[1.0]), SelectionError::OutOfRange { position: 0, index: 5, pairs: 5 });
        assert_eq!(refused(&[2, 2], &[1.0; 2]), SelectionError::NotAscending { position: 1, index: 2 });
        assert_eq!(refused(&[2], &[-1.0]), SelectionError::InvalidScale { index: 2, scale: -1.0 });
        assert!(matches!(refused(&[2], &[f64::NAN]), SelectionError::InvalidScale { .. }));
        let crowded = Selection::new(5, 3, vec![0, 4], vec![1.0; 2]);
        assert_eq!(crowded, Err(SelectionError::TooManyWinners { winners: 3, kept: 2 }));
        assert!(Selection::new(5, 2, vec![0, 4], vec![1.0; 2]).is_ok());
    }
}
