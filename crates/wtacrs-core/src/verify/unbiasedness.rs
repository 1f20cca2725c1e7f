//! A Monte-Carlo test that an estimator is unbiased, with a stated false-alarm rate.
//!
//! The estimate Σ scale_i C_i is projected on random directions: with signs ε_i = ±1 and magnitudes a_i (by default the
//! weights, so that every kept pair of a good design matters about equally), the error Σ (scale_i − 1) a_i ε_i, where a
//! pair that is not kept has scale 0, must have the mean 0. Certain pairs drop out of it exactly, however heavy. Each direction is a two-sided t test at the false-alarm rate divided by the number of
//! directions (Bonferroni), so all of them together raise a false alarm no more often than stated. The t statistic is
//! a sum over many kept pairs and trials; with hundreds of trials its law is the t law to well below that rate.

use crate::sampling::{Philox4x32_10, Selection, Weights};
use rand_core::Rng;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Directions tested at once: one bit of a word each.
const DIRECTIONS: usize = 32;

/// A mean error of less than this share of the errors' mean size, Σ |scale_i − 1| a_i, is rounding.
const ROUNDING: f64 = 1e-12;

/// How to test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnbiasednessTest {
    /// Independent selections drawn, at least two.
    pub trials: u64,
    /// The probability of rejecting an unbiased estimator.
    pub false_alarm: f64,
    /// Seed of the directions.
    pub seed: u64,
}

/// The outcome of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The largest |t| over the directions.
    pub statistic: f64,
    /// What an unbiased estimator exceeds with the false-alarm probability.
    pub critical: f64,
}

impl Default for UnbiasednessTest {
    /// 2000 trials, one false alarm in a million tests.
    fn default() -> Self {
        Self { trials: 2000, false_alarm: 1e-6, seed: 0 }
    }
}

impl Verdict {
    /// Whether the estimator is biased, up to the false-alarm rate.
    pub fn rejects(&self) -> bool {
        self.statistic > self.critical
    }
}

impl UnbiasednessTest {
    /// Tests `select`, which gives trial t's selection from these weights.
    ///
    /// # Panics
    ///
    /// If there are fewer than two trials, the false-alarm rate is not between 0 and 1, or a magnitude is not finite.
    pub fn run(&self, weights: &Weights, select: impl FnMut(u64) -> Selection) -> Verdict {
        let magnitudes: Vec<f64> = weights.fixed().iter().map(|&q| q as f64).collect();
        self.run_with(&magnitudes, select)
    }

    /// [`Self::run`] with magnitudes a_i of the caller's, for instance the true norms where weights are stale.
    ///
    /// # Panics
    ///
    /// As [`Self::run`].
    pub fn run_with(&self, magnitudes: &[f64], mut select: impl FnMut(u64) -> Selection) -> Verdict {
        assert!(magnitudes.iter().all(|a| a.is_finite()), "magnitudes must be finite");
        self.run_errors(magnitudes.len(), |trial, errors| {
            let selection = select(trial);
            let mut kept = selection.iter().peekable();
            for (pair, (error, &magnitude)) in errors.iter_mut().zip(magnitudes).enumerate() {
                let scale = kept.next_if(|&(at, _)| at == pair).map_or(0.0, |(_, scale)| scale);
                *error = (scale - 1.0) * magnitude;
            }
        })
    }

    /// Tests an estimate of some numbers: `estimate` writes trial t's estimate of `truth`, as for a row that is packed and
    /// read back.
    ///
    /// # Panics
    ///
    /// As [`Self::run`].
    pub fn run_numbers(&self, truth: &[f64], mut estimate: impl FnMut(u64, &mut [f64])) -> Verdict {
        self.run_errors(truth.len(), |trial, errors| {
            estimate(trial, errors);
            errors.iter_mut().zip(truth).for_each(|(error, truth)| *error -= truth);
        })
    }

    /// Tests that errors, which `errors` writes for each trial, have the mean 0.
    fn run_errors(&self, count: usize, mut errors: impl FnMut(u64, &mut [f64])) -> Verdict {
        assert!(self.trials >= 2, "a variance needs two trials");
        assert!(self.false_alarm > 0.0 && self.false_alarm < 1.0, "the false-alarm rate is a probability");
        let mut rng = Philox4x32_10::new(self.seed, 0);
        let signs: Vec<u32> = (0..count).map(|_| rng.next_u32()).collect();
        // Welford's recurrence on the error.
        let mut mean = [0.0; DIRECTIONS];
        let mut squares = [0.0; DIRECTIONS];
        let mut size = 0.0;
        let mut found = vec![0.0; count];
        for trial in 0..self.trials {
            errors(trial, &mut found);
            let mut error = [0.0; DIRECTIONS];
            for (&found, signs) in found.iter().zip(&signs) {
                size += found.abs() / self.trials as f64;
                for (d, error) in error.iter_mut().enumerate() {
                    *error += if signs >> d & 1 == 1 { found } else { -found };
                }
            }
            for d in 0..DIRECTIONS {
                let step = error[d] - mean[d];
                mean[d] += step / (trial + 1) as f64;
                squares[d] += step * (error[d] - mean[d]);
            }
        }
        let statistic = (0..DIRECTIONS)
            .filter(|&d| mean[d].abs() > ROUNDING * size)
            .map(|d| mean[d].abs() / (squares[d] / (self.trials - 1) as f64 / self.trials as f64).sqrt())
            .fold(0.0, f64::max);
        Verdict { statistic, critical: self.critical() }
    }

    fn critical(&self) -> f64 {
        let law = StudentsT::new(0.0, 1.0, (self.trials - 1) as f64).expect("positive degrees of freedom");
        -law.inverse_cdf(self.false_alarm / (2 * DIRECTIONS) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::design::{Design, WtaPivotal};
    use crate::sampling::{Keep, Randomness};

    #[test]
    fn the_false_alarm_rate_holds() {
        // Bonferroni is conservative, so that 20 % stated must give less than 20 % plus three standard deviations.
        let weights = Weights::new(&(1..=40).map(f64::from).collect::<Vec<_>>()).expect("valid");
        let budget = weights.budget(Keep::Rows(12)).expect("fits");
        let alarms = (0..400)
            .filter(|&seed| {
                let test = UnbiasednessTest { trials: 200, false_alarm: 0.2, seed };
                test.run(&weights, |trial| {
                    WtaPivotal.select_seeded(&weights, budget, Randomness::new(seed, 64 * trial))
                })
                .rejects()
            })
            .count();
        assert!((20..=104).contains(&alarms), "{alarms} alarms in 400");
    }

    #[test]
    fn a_certain_bias_is_rejected_and_certainty_without_bias_is_not() {
        let weights = Weights::new(&[1.0, 1.0, 1.0]).expect("valid");
        let test = UnbiasednessTest { trials: 2, ..Default::default() };
        assert!(!test.run(&weights, |_| Selection::everything(3)).rejects());
        let half = Selection::new(3, 0, vec![0, 1, 2], vec![0.5; 3]).expect("valid");
        assert!(test.run(&weights, |_| half.clone()).rejects());
    }

    /// A tail of 1e-12 of the weight is a tail.
    #[test]
    fn a_tail_dropped_beside_a_giant_is_missed() {
        let mut values = vec![1.0; 50];
        values[20] = 1e12;
        let weights = Weights::new(&values).expect("valid");
        let budget = weights.budget(Keep::Rows(12)).expect("fits");
        let test = UnbiasednessTest::default();
        let right = |trial| WtaPivotal.select_seeded(&weights, budget, Randomness::new(3, 64 * trial));
        assert!(!test.run(&weights, right).rejects());
        let winner = Selection::new(50, 1, vec![20], vec![1.0]).expect("valid");
        assert!(test.run(&weights, |_| winner.clone()).rejects());
    }
}
