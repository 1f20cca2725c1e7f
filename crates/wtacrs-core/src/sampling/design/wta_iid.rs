use super::{Design, independent_counts};
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use wtacrs_exact::scales;

/// Winner-take-all column-row sampling as published: winners always, the rest of the budget drawn independently from
/// the tail.
///
/// Σ_C X_i Y_i + (Σ_tail w)/(k − |C|) · Σ_j X_j Y_j / w_j over k − |C| independent draws j from the tail with
/// probabilities w_j / Σ_tail w. A pair drawn c times is kept once, with scale c · (Σ_tail w) / ((k − |C|) w_j).
///
/// # Guarantee
///
/// Unbiased; for exact weights, no more variance than [`Crs`](super::Crs) if the winners hold more than their share,
/// P_C > |C|/k (theorem 2).
///
/// # Cost
///
/// O(n) for the threshold and the alias table, O(1) for each draw; at most k draws. Fewer than k distinct rows, since
/// draws repeat.
///
/// # Determinism
///
/// Draw j uses index j.
///
/// Source: Liu et al., "Winner-Take-All Column Row Sampling for Memory Efficient Adaptation of Language Model",
/// NeurIPS 2023, eq. 5; |C| by theorem 2's criterion, see [`wtacrs_exact::threshold`].
#[derive(Clone, Copy, Debug, Default)]
pub struct WtaIid;

impl Design for WtaIid {
    fn name(&self) -> &'static str {
        "wta-iid"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.get() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let threshold = weights.threshold(budget);
        let fixed = weights.fixed();
        let tail: Vec<u64> = fixed.iter().map(|&w| if threshold.is_winner(w) { 0 } else { w }).collect();
        let counts = independent_counts(&tail, threshold.tail_places, chance);
        let is_kept = |pair: usize| counts[pair] > 0 || threshold.is_winner(fixed[pair]);
        // A winner counts once.
        let scale = |pair: usize| scales::repeated(counts[pair].max(1), &threshold, fixed[pair]);
        Selection::marked(fixed.len(), threshold.winners, budget.get(), is_kept, scale)
    }
}
