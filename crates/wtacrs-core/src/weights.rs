//! The weights of the pairs: how much each is likely to matter to the product.
//!
//! For X (m × n) and Y (n × p), pair i is the column `X[:,i]` with the row `Y[i,:]`, and its weight is
//! w_i = `‖X[:,i]‖₂ · ‖Y[i,:]‖₂`; for a weight gradient dW = Hᵀ dZ it is `‖H[i,:]‖₂ · ‖dZ[i,:]‖₂`. Any other positive guess
//! keeps the estimate unbiased and costs variance alone.
//!
//! All arithmetic before the fixed-point conversion is in f64, one operation for each pair, and sums are taken over
//! integers. So the same norms give the same integers everywhere.

use crate::budget::{Budget, BudgetError, Keep};
use crate::fixed_point::FixedPoint;
use crate::threshold::Threshold;

/// Valid weights of n ≥ 0 pairs, in fixed point (see [`crate::fixed_point`]).
///
/// Some weight is positive, unless there are no pairs: weights that are all zero stand for "nothing is known", and
/// become all equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    fixed: Vec<u64>,
    scale: FixedPoint,
}

/// Why weights are refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A weight, or a norm that goes into one, is negative, infinite or not a number.
    #[error("{what} {index} is {value}: it must be finite and not negative")]
    Invalid {
        /// Which of the inputs it is in.
        what: &'static str,
        /// The offending pair.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// Two inputs speak of different numbers of pairs.
    #[error("{what} has {found} entries where {expected} are needed, one for each pair")]
    LengthMismatch {
        /// Which of the inputs is off.
        what: &'static str,
        /// How many pairs there are.
        expected: usize,
        /// How many entries it has.
        found: usize,
    },
    /// Indices are 32-bit.
    #[error("{pairs} pairs are more than the {} that can be indexed", u32::MAX)]
    TooManyPairs {
        /// How many there are.
        pairs: usize,
    },
    /// The share λ of the input's norms is not in [0, 1].
    #[error("the mix is {mix}: it must lie between 0 and 1")]
    InvalidMix {
        /// The offending share.
        mix: f64,
    },
}

/// The share of the input's own norms that a warm cache is mixed with by default (λ = 0.01).
pub const DEFAULT_MIX: f64 = 0.01;

impl Weights {
    /// Ready weights, f32 or f64, one for each pair.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Invalid`] names the first weight that is negative or not finite.
    pub fn new<W: Copy + Into<f64>>(weights: &[W]) -> Result<Self, WeightsError> {
        check("weight", weights)?;
        Self::from_valid(weights.iter().map(|&w| w.into()))
    }

    /// w_i = x_i · y_i from the norms of both sides. The product is exact in f64, and cannot overflow.
    ///
    /// # Errors
    ///
    /// Different lengths; a norm that is negative or not finite.
    pub fn from_norms(x: &[f32], y: &[f32]) -> Result<Self, WeightsError> {
        check("input norm", x)?;
        check_len("the other side's norms", y.len(), x.len())?;
        check("the other side's norm", y)?;
        Self::from_valid(x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)))
    }

    /// w_i = ‖H_i‖: all that is known in a first forward pass without a predictor.
    ///
    /// # Errors
    ///
    /// A norm that is negative or not finite.
    pub fn from_input(input_norms: &[f32]) -> Result<Self, WeightsError> {
        check("input norm", input_norms)?;
        Self::from_valid(input_norms.iter().map(|&x| x.into()))
    }

    /// One set of weights for all layers that read the same H, w_i = ‖H_i‖ · √(Σ_l ‖dZ_i^l‖²), so that a single
    /// subsample of H serves them all. `layers` holds each layer's norms.
    ///
    /// # Errors
    ///
    /// Different lengths; a norm that is negative or not finite.
    pub fn from_shared_input(input_norms: &[f32], layers: &[&[f32]]) -> Result<Self, WeightsError> {
        check("input norm", input_norms)?;
        for layer in layers {
            check_len("a layer's norms", layer.len(), input_norms.len())?;
            check("a layer's norm", layer)?;
        }
        let squared = |i: usize| layers.iter().map(|layer| f64::from(layer[i]).powi(2)).sum::<f64>();
        Self::from_valid(input_norms.iter().enumerate().map(|(i, &x)| f64::from(x) * squared(i).sqrt()))
    }

    /// Weights in a forward pass, from the input's norms and what a norm cache remembers of the other side.
    ///
    /// A warm pair (`Some`) gets (1 − λ) · w_i + λ · ‖H_i‖ · r with w_i = ‖H_i‖ · ‖dZ_i‖_cached and
    /// r = Σ w / Σ ‖H‖ over the warm pairs, so that a pair whose remembered norm is zero can still be drawn. A cold
    /// pair (`None`) gets ‖H_i‖ · r, that is λ = 1. If nothing is warm, or all that is remembered is zero, r = 1 and
    /// every pair is cold. `mix` is λ; see [`DEFAULT_MIX`].
    ///
    /// # Errors
    ///
    /// Different lengths; a norm that is negative or not finite; λ outside [0, 1].
    pub fn from_cache(input_norms: &[f32], cached: &[Option<f32>], mix: f64) -> Result<Self, WeightsError> {
        check("input norm", input_norms)?;
        check_len("the cached norms", cached.len(), input_norms.len())?;
        for (index, norm) in cached.iter().enumerate() {
            check_one("cached norm", index, norm.unwrap_or(0.0).into())?;
        }
        if !(0.0..=1.0).contains(&mix) {
            return Err(WeightsError::InvalidMix { mix });
        }
        let known = |i: usize| cached[i].map(|norm| f64::from(input_norms[i]) * f64::from(norm));
        let pairs = 0..input_norms.len();
        let weight_sum = exact_sum(pairs.clone().map(|i| known(i).unwrap_or(0.0)));
        let norm_sum = exact_sum(pairs.clone().map(|i| if cached[i].is_some() { input_norms[i].into() } else { 0.0 }));
        if weight_sum == 0.0 {
            return Self::from_input(input_norms);
        }
        let ratio = weight_sum / norm_sum;
        Self::from_valid(pairs.map(|i| {
            let by_input = f64::from(input_norms[i]) * ratio;
            known(i).map_or(by_input, |w| (1.0 - mix) * w + mix * by_input)
        }))
    }

    fn from_valid(weights: impl ExactSizeIterator<Item = f64> + Clone) -> Result<Self, WeightsError> {
        let pairs = weights.len();
        let count = u32::try_from(pairs).map_err(|_| WeightsError::TooManyPairs { pairs })?;
        let largest = weights.clone().fold(0.0, f64::max);
        let scale = FixedPoint::new(largest, count);
        let fixed = if largest > 0.0 { weights.map(|w| scale.quantize(w)).collect() } else { vec![1; pairs] };
        Ok(Self { fixed, scale })
    }

    /// How many pairs there are, n.
    pub fn len(&self) -> usize {
        self.fixed.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty()
    }

    /// The integer weights, proportional to w_i up to the rounding of [`crate::fixed_point`]; their sum fits 62 bits.
    pub fn fixed(&self) -> &[u64] {
        &self.fixed
    }

    /// Σ of the integer weights.
    pub fn total(&self) -> u64 {
        self.fixed.iter().sum()
    }

    /// The weight that pair i's integer stands for; 1 each, in a unit of its own, if all weights were zero.
    pub fn value(&self, i: usize) -> f64 {
        self.scale.value(self.fixed[i])
    }

    /// p_i = w_i / Σ w.
    pub fn probabilities(&self) -> Vec<f64> {
        let total = self.total() as f64;
        self.fixed.iter().map(|&q| q as f64 / total).collect()
    }

    /// The budget that `keep` means for these pairs.
    ///
    /// # Errors
    ///
    /// See [`Keep::of`].
    pub fn budget(&self, keep: Keep) -> Result<Budget, BudgetError> {
        keep.of(self.len())
    }

    /// Winners and tail for a budget; with no pairs, nobody wins.
    pub fn threshold(&self, budget: Budget) -> Threshold {
        if self.is_empty() {
            return Threshold { cut: 1, winners: 0, tail_mass: 0, tail_places: 0 };
        }
        Threshold::find(&self.fixed, budget.get())
    }
}

/// Σ of finite, non-negative numbers, to 2^−40 or better and the same for every order, by way of integers.
fn exact_sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    let scale = FixedPoint::new(largest, values.clone().count() as u32);
    scale.value(values.map(|v| scale.quantize(v)).sum())
}

fn check<W: Copy + Into<f64>>(what: &'static str, values: &[W]) -> Result<(), WeightsError> {
    values.iter().enumerate().try_for_each(|(index, &value)| check_one(what, index, value.into()))
}

fn check_one(what: &'static str, index: usize, value: f64) -> Result<(), WeightsError> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(WeightsError::Invalid { what, index, value }) }
}

fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), WeightsError> {
    if found == expected { Ok(()) } else { Err(WeightsError::LengthMismatch { what, expected, found }) }
}
