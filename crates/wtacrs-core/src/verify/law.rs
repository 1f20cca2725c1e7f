//! The exact law of a design, by following every answer that chance could give.
//!
//! The enumerator is a [`Draws`] that answers each question with the first possible answer it has not tried yet, and
//! multiplies the probabilities of its answers along the way. Running the design again and again walks the whole tree
//! of answers, depth first. Independent draws from an alias table are one question, answered by how often each entry
//! is hit, so orders of draws count as one.

use crate::sampling::{AliasTable, Budget, Chance, Design, Selection, Weights};
use nalgebra::{DMatrix, SymmetricEigen};
use ndarray::{Array1, Array2, ArrayView2};
use std::collections::{BTreeMap, BTreeSet};

/// Paths through a design's questions that an enumeration follows at most.
const MOST_PATHS: usize = 500_000;

/// Every outcome of a design for given weights and budget, with its probability.
#[derive(Clone, Debug)]
pub struct Law {
    pairs: usize,
    outcomes: Vec<(Selection, f64)>,
}

/// Why a law cannot be enumerated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LawError {
    /// There are too many ways the draws can fall.
    #[error("more than {MOST_PATHS} paths through the design's draws: enumerate fewer pairs, or use UnbiasednessTest")]
    TooManyPaths,
}

impl Law {
    /// Follows every path through the design's questions.
    ///
    /// # Errors
    ///
    /// [`LawError::TooManyPaths`].
    ///
    /// # Panics
    ///
    /// If the design asks other questions when it is given the same answers, asks two questions under one index, which
    /// Philox would answer alike, or uses an index beyond its [`Design::draws`].
    pub fn enumerate<D: Design>(design: &D, weights: &Weights, budget: Budget) -> Result<Self, LawError> {
        let mut merged: BTreeMap<(Vec<u32>, Vec<u64>), (Selection, f64)> = BTreeMap::new();
        let mut paths = Paths {
            forks: Vec::new(),
            depth: 0,
            probability: 1.0,
            asked: BTreeSet::new(),
            draws: design.draws(budget),
        };
        for _ in 0..MOST_PATHS {
            let selection = design.select(weights, budget, &mut paths);
            let key = (selection.indices().to_vec(), selection.scales().iter().map(|s| s.to_bits()).collect());
            merged.entry(key).or_insert((selection, 0.0)).1 += paths.probability;
            if !paths.advance() {
                return Ok(Self { pairs: weights.len(), outcomes: merged.into_values().collect() });
            }
        }
        Err(LawError::TooManyPaths)
    }

    /// Every possible selection, with its probability; they add up to one.
    pub fn outcomes(&self) -> &[(Selection, f64)] {
        &self.outcomes
    }

    /// The probability of each pair to be kept.
    pub fn inclusion(&self) -> Vec<f64> {
        let mut inclusion = vec![0.0; self.pairs];
        for (selection, probability) in &self.outcomes {
            selection.indices().iter().for_each(|&i| inclusion[i as usize] += probability);
        }
        inclusion
    }

    /// The mean number of distinct pairs kept.
    pub fn expected_distinct(&self) -> f64 {
        self.outcomes.iter().map(|(selection, probability)| selection.len() as f64 * probability).sum()
    }

    /// The exact mean of the estimate Σ scale_i · c_i, where row i of `contributions` (pairs × d) is pair i's
    /// contribution c_i, flattened, or the values of d linear functionals of it.
    pub fn mean(&self, contributions: ArrayView2<'_, f64>) -> Array1<f64> {
        let mut mean = Array1::zeros(contributions.ncols());
        for (selection, probability) in &self.outcomes {
            mean.scaled_add(*probability, &estimate(selection, contributions));
        }
        mean
    }

    /// The exact covariance (d × d) of the estimate; its trace is the variance of [`crate::theory`].
    pub fn covariance(&self, contributions: ArrayView2<'_, f64>) -> Array2<f64> {
        let mean = self.mean(contributions);
        let mut covariance = Array2::zeros((mean.len(), mean.len()));
        for (selection, probability) in &self.outcomes {
            let deviation = (estimate(selection, contributions) - &mean).insert_axis(ndarray::Axis(1));
            covariance.scaled_add(*probability, &deviation.dot(&deviation.t()));
        }
        covariance
    }
}

fn estimate(selection: &Selection, contributions: ArrayView2<'_, f64>) -> Array1<f64> {
    let mut sum = Array1::zeros(contributions.ncols());
    for (pair, scale) in selection.iter() {
        sum.scaled_add(scale, &contributions.row(pair));
    }
    sum
}

/// The smallest eigenvalue of `larger` − `smaller`: at least zero, up to rounding, exactly if no linear functional has
/// more variance under `smaller` than under `larger`.
///
/// # Panics
///
/// If the two are not square and of one size.
pub fn loewner_margin(smaller: ArrayView2<'_, f64>, larger: ArrayView2<'_, f64>) -> f64 {
    assert!(smaller.dim() == larger.dim() && smaller.is_square(), "covariances of one size");
    let size = smaller.nrows();
    let difference = DMatrix::from_fn(size, size, |i, j| larger[[i, j]] - smaller[[i, j]]);
    SymmetricEigen::new(difference).eigenvalues.min()
}

/// The path of answers being followed.
struct Paths {
    forks: Vec<Fork>,
    depth: usize,
    probability: f64,
    /// Indices of randomness that this path has used, and how many there may be.
    asked: BTreeSet<u64>,
    draws: u64,
}

/// One question on the path: which of its possible answers is being followed.
struct Fork {
    options: usize,
    taken: usize,
    last_possible: usize,
}

impl Paths {
    /// The answer to the next question, whose answers have these probabilities.
    fn follow(&mut self, probabilities: &[f64]) -> usize {
        if self.depth == self.forks.len() {
            let last_possible = probabilities.iter().rposition(|&p| p > 0.0).expect("some answer is possible");
            self.forks.push(Fork { options: probabilities.len(), taken: 0, last_possible });
        }
        let fork = &mut self.forks[self.depth];
        assert_eq!(fork.options, probabilities.len(), "the design asks other questions after the same answers");
        while probabilities[fork.taken] == 0.0 {
            fork.taken += 1;
        }
        self.depth += 1;
        self.probability *= probabilities[fork.taken];
        fork.taken
    }

    /// Marks an index of randomness as used.
    fn use_index(&mut self, index: u64) {
        assert!(index < self.draws, "index {index} is beyond the {} draws that the design speaks of", self.draws);
        assert!(self.asked.insert(index), "two questions under index {index} would get the same random bits");
    }

    /// Turns to the next path; false if there is none.
    fn advance(&mut self) -> bool {
        self.asked.clear();
        self.depth = 0;
        self.probability = 1.0;
        while let Some(fork) = self.forks.last_mut() {
            if fork.taken < fork.last_possible {
                fork.taken += 1;
                return true;
            }
            self.forks.pop();
        }
        false
    }
}

impl Chance for Paths {
    fn happens(&mut self, index: u64, part: u64, whole: u64) -> bool {
        self.use_index(index);
        let whole_f = whole as f64;
        self.follow(&[part as f64 / whole_f, (whole - part) as f64 / whole_f]) == 0
    }

    fn category(&mut self, index: u64, masses: &[u64]) -> usize {
        self.use_index(index);
        let total = masses.iter().sum::<u64>() as f64;
        let probabilities: Vec<f64> = masses.iter().map(|&mass| mass as f64 / total).collect();
        self.follow(&probabilities)
    }

    /// The counts are multinomial: entry after entry, binomial among the draws and the mass that are left.
    fn counts(&mut self, first_index: u64, draws: u32, table: &AliasTable) -> Vec<u32> {
        (0..draws).for_each(|draw| self.use_index(first_index + u64::from(draw)));
        let law = table.law();
        let mut mass_left: u128 = law.iter().sum();
        let mut draws_left = draws;
        law.iter()
            .map(|&mass| {
                let hits = self.follow(&binomial(draws_left, mass, mass_left - mass)) as u32;
                mass_left -= mass;
                draws_left -= hits;
                hits
            })
            .collect()
    }
}

/// The probabilities of 0, 1, …, `draws` hits, where a hit has mass `hit` and a miss has mass `miss`.
fn binomial(draws: u32, hit: u128, miss: u128) -> Vec<f64> {
    if hit + miss == 0 {
        // Nothing is left to hit; then no draws are left either.
        return vec![1.0];
    }
    let total = (hit + miss) as f64;
    let (p, q) = (hit as f64 / total, miss as f64 / total);
    let mut ways = 1.0;
    (0..=draws)
        .map(|hits| {
            let probability = ways * p.powi(hits as i32) * q.powi((draws - hits) as i32);
            ways *= f64::from(draws - hits) / f64::from(hits + 1);
            probability
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Keep;
    use crate::sampling::design::{Crs, Uniform};
    use ndarray::array;

    #[test]
    fn uniform_is_every_subset_equally_likely() {
        let weights = Weights::new(&[1.0, 2.0, 3.0, 0.0]).expect("valid");
        let law = Law::enumerate(&Uniform, &weights, weights.budget(Keep::Rows(2)).expect("fits")).expect("small");
        assert_eq!(law.outcomes().len(), 6);
        assert!(law.outcomes().iter().all(|(_, p)| (p - 1.0 / 6.0).abs() < 1e-15));
    }

    #[test]
    fn crs_counts_are_multinomial() {
        let weights = Weights::new(&[1.0, 3.0]).expect("valid");
        let law = Law::enumerate(&Crs, &weights, weights.budget(Keep::Rows(2)).expect("fits")).expect("small");
        let mut found: Vec<_> = law.outcomes().iter().map(|(s, p)| (s.indices(), s.scales(), *p)).collect();
        found.sort_by(|a, b| a.2.total_cmp(&b.2));
        assert_eq!(found[0], (&[0][..], &[4.0][..], 1.0 / 16.0));
        assert_eq!(found[1], (&[0, 1][..], &[2.0, 2.0 / 3.0][..], 6.0 / 16.0));
        assert_eq!(found[2].0, &[1]);
        assert_eq!(law.inclusion(), [7.0 / 16.0, 15.0 / 16.0]);
        // One functional, values 5 and 7: mean 12, variance (25·4 + 49·4/3 − 144)/2.
        let contributions = array![[5.0], [7.0]];
        assert!((law.mean(contributions.view())[0] - 12.0).abs() < 1e-13);
        let variance = law.covariance(contributions.view())[[0, 0]];
        assert!((variance - (100.0 + 196.0 / 3.0 - 144.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn too_large_a_law_is_refused() {
        let weights = Weights::new(&[1.0; 24]).expect("valid");
        let budget = weights.budget(Keep::Rows(12)).expect("fits");
        assert_eq!(Law::enumerate(&Uniform, &weights, budget).expect_err("too large"), LawError::TooManyPaths);
    }

    /// Two fair coins under one index, or under more indices than announced.
    struct Coins {
        second_index: u64,
        draws: u64,
    }

    impl Design for Coins {
        fn name(&self) -> &'static str {
            "coins"
        }

        fn draws(&self, _budget: Budget) -> u64 {
            self.draws
        }

        fn select<C: Chance>(&self, weights: &Weights, _budget: Budget, chance: &mut C) -> Selection {
            let coins = [chance.happens(0, 1, 2), chance.happens(self.second_index, 1, 2)];
            Selection::collect(weights.len(), 0, 2, |pair| coins[pair].then_some(2.0))
        }
    }

    fn coins(second_index: u64, draws: u64) -> Law {
        let weights = Weights::new(&[1.0; 2]).expect("valid");
        let budget = weights.budget(Keep::Rows(1)).expect("fits");
        Law::enumerate(&Coins { second_index, draws }, &weights, budget).expect("small")
    }

    #[test]
    fn questions_with_indices_of_their_own() {
        assert_eq!(coins(1, 2).outcomes().len(), 4);
    }

    #[test]
    #[should_panic(expected = "the same random bits")]
    fn an_index_used_twice_is_refused() {
        coins(0, 2);
    }

    #[test]
    #[should_panic(expected = "beyond the 1 draws")]
    fn an_index_that_was_not_announced_is_refused() {
        coins(1, 1);
    }

    #[test]
    fn the_margin_is_the_smallest_eigenvalue() {
        let larger = array![[3.0, 1.0], [1.0, 3.0]];
        assert!((loewner_margin(array![[1.0, 0.0], [0.0, 1.0]].view(), larger.view()) - 1.0).abs() < 1e-12);
        assert!((loewner_margin(array![[0.0, 0.0], [0.0, 5.0]].view(), larger.view()) + 2.19258).abs() < 1e-4);
    }
}
