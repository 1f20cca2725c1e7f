//! The weights of the pairs: how much each is likely to matter to the product.
//!
//! For X (m × n) and Y (n × p), pair i is the column `X[:,i]` with the row `Y[i,:]`, and its weight is
//! w_i = `‖X[:,i]‖₂ · ‖Y[i,:]‖₂`; for a weight gradient dW = Hᵀ dZ it is `‖H[i,:]‖₂ · ‖dZ[i,:]‖₂`. Any other positive guess
//! keeps the estimate unbiased and costs variance alone.
//!
//! All arithmetic before the fixed-point conversion is in f64, a fixed sequence of operations for each pair, and sums
//! over pairs are taken over integers. So the same norms give the same integers everywhere.

use super::budget::{Budget, BudgetError, Keep};
use crate::lanes::vectorised;
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::threshold::{Split, Threshold, split};
use wtacrs_exact::weighing::{CacheMix, product};

/// Valid weights of n ≥ 0 pairs, in fixed point (see [`wtacrs_exact::fixed_point`]).
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
        Self::from_valid(x.iter().zip(y).map(|(&x, &y)| product(x, y)))
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
    /// subsample of H serves them all. `layers` holds each layer's norms; without layers the weights are ‖H_i‖.
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
        if layers.is_empty() {
            return Self::from_input(input_norms);
        }
        let squared = |i: usize| {
            let norms = layers.iter().map(|layer| f64::from(layer[i]));
            norms.map(|norm| norm * norm).sum::<f64>()
        };
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
        check_count(input_norms.len())?;
        check_len("the cached norms", cached.len(), input_norms.len())?;
        for (index, norm) in cached.iter().enumerate() {
            check_one("cached norm", index, norm.unwrap_or(0.0).into())?;
        }
        if !(0.0..=1.0).contains(&mix) {
            return Err(WeightsError::InvalidMix { mix });
        }
        let known = |i: usize| cached[i].map(|norm| product(input_norms[i], norm));
        let pairs = 0..input_norms.len();
        let weight_sum = exact_sum(pairs.clone().map(|i| known(i).unwrap_or(0.0)));
        let norm_sum = exact_sum(pairs.clone().map(|i| if cached[i].is_some() { input_norms[i].into() } else { 0.0 }));
        if weight_sum == 0.0 {
            return Self::from_input(input_norms);
        }
        let mixed = CacheMix::new(mix, weight_sum, norm_sum);
        Self::from_valid(pairs.map(|i| mixed.weight(input_norms[i], cached[i])))
    }

    /// What every design owes its caller before it selects.
    pub(crate) fn check_fit(&self, budget: Budget) {
        assert_eq!(budget.pairs(), self.len(), "the budget was made for another number of pairs");
    }

    fn from_valid(weights: impl ExactSizeIterator<Item = f64>) -> Result<Self, WeightsError> {
        let count = check_count(weights.len())?;
        // Bits of numbers that are not negative are in the numbers' order. A zero may have a sign.
        let mut fixed: Vec<u64> = weights.map(|weight| weight.abs().to_bits()).collect();
        let (largest, all_normal) = largest(&fixed);
        let scale = FixedPoint::new(f64::from_bits(largest), count);
        if largest == 0 {
            fixed.fill(1);
        } else if all_normal {
            quantize(&mut fixed, scale);
        } else {
            fixed.iter_mut().for_each(|bits| *bits = scale.quantize(f64::from_bits(*bits)));
        }
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

    /// The integer weights, proportional to w_i up to the rounding of [`wtacrs_exact::fixed_point`]; their sum fits 62 bits.
    pub fn fixed(&self) -> &[u64] {
        &self.fixed
    }

    /// Σ of the integer weights.
    pub fn total(&self) -> u64 {
        self.fixed.iter().sum()
    }

    /// The weight that pair i's integer stands for, in the unit of the weights given; 1 for each pair if all of those
    /// were zero.
    pub fn value(&self, i: usize) -> f64 {
        self.scale.value(self.fixed[i])
    }

    /// p_i = w_i / Σ w.
    pub fn probabilities(&self) -> Vec<f64> {
        let total = self.total() as f64;
        self.fixed.iter().map(|&q| q as f64 / total).collect()
    }

    /// The budget that `keep` is for these pairs.
    ///
    /// # Errors
    ///
    /// See [`Keep::budget`].
    pub fn budget(&self, keep: Keep) -> Result<Budget, BudgetError> {
        keep.budget(self.len())
    }

    /// Winners and tail for a budget; without pairs there are no winners.
    ///
    /// # Panics
    ///
    /// If the budget was made for another number of pairs.
    pub fn threshold(&self, budget: Budget) -> Threshold {
        self.check_fit(budget);
        if self.is_empty() {
            return Threshold { cut: 1, winners: 0, tail_mass: 0, tail_places: 0 };
        }
        Threshold::find_by(budget.get(), |cuts| split_on_vectors(&self.fixed, cuts))
    }
}

vectorised! {
    /// The largest of these bits of weights, and whether each is 0 or a normal number.
    fn largest<'a>(bits: &'a [u64]) -> (u64, bool) {
        let (mut largest, mut subnormal) = (0, 0);
        for &bits in bits {
            largest = if bits > largest { bits } else { largest };
            subnormal |= u64::from(bits.wrapping_sub(1) < f64::MIN_POSITIVE.to_bits() - 1);
        }
        (largest, subnormal == 0)
    }

    /// Integers from bits of weights.
    fn quantize<'a>(bits: &'a mut [u64], scale: FixedPoint) {
        bits.iter_mut().for_each(|bits| *bits = scale.quantize_normal(*bits));
    }

    fn split_on_vectors<'a>(weights: &'a [u64], cuts: [u64; 2]) -> [Split; 2] {
        split(weights, cuts)
    }
}

/// Σ of n finite, non-negative numbers by way of integers: the same for every order, with a relative error of less than
/// n · 2^(⌈log2 n⌉ − 61), which is 2^−41 for a thousand numbers and 2^−21 for a million.
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

fn check_count(pairs: usize) -> Result<u32, WeightsError> {
    u32::try_from(pairs).map_err(|_| WeightsError::TooManyPairs { pairs })
}

fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), WeightsError> {
    if found == expected { Ok(()) } else { Err(WeightsError::LengthMismatch { what, expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_probabilities(weights: &Weights, expected: &[f64]) {
        for (found, expected) in weights.probabilities().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{:?}, expected {expected:?}", weights.probabilities());
        }
    }

    #[test]
    fn the_threshold_on_vectors_is_the_threshold() {
        let uneven = |i: u64| (i.wrapping_mul(6_364_136_223_846_793_005) >> 40) as f64;
        for pairs in [1, 2, 7, 100, 1000] {
            let values: Vec<f64> = (0..pairs).map(|i| uneven(i).powi(1 + (i % 4) as i32)).collect();
            let weights = Weights::new(&values).expect("valid");
            for budget in (1..=pairs as usize).step_by(1 + pairs as usize / 20) {
                let found = weights.threshold(weights.budget(Keep::Rows(budget)).expect("fits"));
                assert_eq!(found, Threshold::find(weights.fixed(), budget), "{pairs} {budget}");
            }
        }
    }

    #[test]
    fn weights_without_normal_numbers_are_quantized_as_all_are() {
        let values = [5e-324, 1e-310, 0.0, -0.0, f64::MIN_POSITIVE, 1e-300];
        let weights = Weights::new(&values).expect("valid");
        let scale = FixedPoint::new(1e-300, values.len() as u32);
        assert_eq!(weights.fixed(), values.map(|value| scale.quantize(value)));
        assert_eq!(Weights::new(&[-0.0, 0.0]).expect("valid").fixed(), [1, 1]);
    }

    #[test]
    fn every_input_is_checked_and_the_offender_named() {
        let one = [1.0_f32; 3];
        for value in [f32::NAN, -1.0, f32::INFINITY] {
            let bad = [1.0, value, 1.0];
            let refused = |result: Result<Weights, WeightsError>, expected: &str| match result {
                Err(WeightsError::Invalid { what, index: 1, value: found }) => {
                    assert_eq!(what, expected);
                    assert_eq!(found.to_bits(), f64::from(value).to_bits());
                }
                other => panic!("{expected}: {other:?}"),
            };
            refused(Weights::new(&bad), "weight");
            refused(Weights::new(&bad.map(f64::from)), "weight");
            refused(Weights::from_input(&bad), "input norm");
            refused(Weights::from_norms(&bad, &one), "input norm");
            refused(Weights::from_norms(&one, &bad), "the other side's norm");
            refused(Weights::from_shared_input(&bad, &[&one]), "input norm");
            refused(Weights::from_shared_input(&one, &[&one, &bad]), "a layer's norm");
            refused(Weights::from_cache(&bad, &[None; 3], 0.5), "input norm");
            refused(Weights::from_cache(&one, &[None, Some(value), None], 0.5), "cached norm");
        }
        let mismatch = |what| Err(WeightsError::LengthMismatch { what, expected: 3, found: 2 });
        assert_eq!(Weights::from_norms(&one, &one[..2]), mismatch("the other side's norms"));
        assert_eq!(Weights::from_shared_input(&one, &[&one[..2]]), mismatch("a layer's norms"));
        assert_eq!(Weights::from_cache(&one, &[None; 2], 0.5), mismatch("the cached norms"));
        for mix in [-0.1, 1.1] {
            assert_eq!(Weights::from_cache(&one, &[None; 3], mix), Err(WeightsError::InvalidMix { mix }));
        }
        assert!(Weights::from_cache(&one, &[None; 3], f64::NAN).is_err());
    }

    #[test]
    fn a_partly_warm_cache() {
        // Warm weights 0 and 1 over warm norms 1 and 1: r = 1/2.
        let weights = Weights::from_cache(&[1.0, 1.0, 1.0], &[Some(0.0), Some(1.0), None], 0.01).expect("valid");
        assert_probabilities(&weights, &[0.005 / 1.5, 0.995 / 1.5, 0.5 / 1.5]);
        // Warm weights 2·3 = 6 and 1·0 = 0 over warm norms 2 and 1: r = 2; the cold pair has 4·2 = 8.
        let mixed = |mix| Weights::from_cache(&[2.0, 1.0, 4.0], &[Some(3.0), Some(0.0), None], mix).expect("valid");
        assert_probabilities(&mixed(0.0), &[6.0 / 14.0, 0.0, 8.0 / 14.0]);
        assert_probabilities(&mixed(0.5), &[5.0 / 14.0, 1.0 / 14.0, 8.0 / 14.0]);
        assert_eq!(mixed(1.0).probabilities(), Weights::from_input(&[2.0, 1.0, 4.0]).expect("valid").probabilities());
        assert_eq!(mixed(0.0).fixed()[1], 0);
    }

    #[test]
    fn norms_multiply_without_overflow_and_shared_norms_add_in_squares() {
        let weights = Weights::from_norms(&[1e30, 1e-30, 2e30], &[1e30, 1e-30, 1e30]).expect("valid");
        assert_probabilities(&weights, &[1.0 / 3.0, 0.0, 2.0 / 3.0]);
        assert_eq!(weights.fixed()[1], 1);
        let shared = Weights::from_shared_input(&[1.0, 2.0], &[&[3.0, 0.0], &[4.0, 5.0]]).expect("valid");
        assert_probabilities(&shared, &[1.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(Weights::from_shared_input(&[1.0, 5.0], &[]), Weights::from_input(&[1.0, 5.0]));
    }

    #[test]
    fn values_are_what_was_given() {
        let weights = Weights::new(&[0.75, 0.0, 3.0]).expect("valid");
        assert_eq!([0, 1, 2].map(|i| weights.value(i)), [0.75, 0.0, 3.0]);
        assert!(Weights::new::<f32>(&[]).expect("valid").is_empty());
        let nothing_known = Weights::new(&[0.0; 5]).expect("valid");
        assert!((0..5).all(|i| nothing_known.value(i) == 1.0));
    }

    #[test]
    fn sums_are_as_exact_as_they_say() {
        for n in [1, 2, 3, 1000, 1024, 5000, 1 << 17] {
            // One large number, and small ones whose fractions of a unit are all cut off.
            let largest = 1.0 + f64::EPSILON;
            let bits = 62 - usize::BITS.saturating_sub((n - 1_usize).leading_zeros());
            let cut = 0.999 * 2_f64.powi(1 - bits as i32);
            let values = (0..n).map(|i| if i == 0 { largest } else { 3.0 * cut });
            let exact = largest + (n - 1) as f64 * 3.0 * cut;
            let bound = n as f64 * 2_f64.powi(1 - bits as i32);
            let error = (exact_sum(values) / exact - 1.0).abs();
            assert!(error <= bound.max(f64::EPSILON), "{n}: {error} {bound}");
        }
    }

    #[test]
    #[should_panic(expected = "another number of pairs")]
    fn a_budget_for_other_pairs_is_refused() {
        let budget = Keep::Fraction(0.3).budget(0).expect("nothing of nothing");
        Weights::new(&[1.0]).expect("valid").threshold(budget);
    }
}
