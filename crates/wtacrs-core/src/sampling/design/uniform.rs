use super::Design;
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use wtacrs_exact::scales;

/// Simple random sampling: k distinct pairs, every set of k equally likely, the weights ignored.
///
/// π_i = k/n and the scale is n/k.
///
/// # Guarantee
///
/// Unbiased for any data. Its variance, n²/k · (1 − k/n) · S² with S² the spread of the pairs' products around their
/// mean, is what weights are there to beat.
///
/// # Cost
///
/// O(n), n draws (Fan, Muller and Rezucha's sequential selection: each pair in turn is taken with probability
/// places left / pairs left).
///
/// # Determinism
///
/// Pair i uses draw i.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uniform;

impl Design for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.pairs() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        weights.check_fit(budget);
        let (pairs, places) = (budget.pairs(), budget.get());
        let scale = scales::uniform(pairs, places);
        let winners = if places == pairs { pairs } else { 0 };
        let mut left = places as u64;
        Selection::collect(pairs, winners, places, |pair| {
            let taken = left > 0 && chance.happens(pair as u64, left, (pairs - pair) as u64);
            left -= u64::from(taken);
            taken.then_some(scale)
        })
    }
}
