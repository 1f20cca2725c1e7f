use super::{Design, Strata};
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use wtacrs_exact::scales;

/// Winners always, and one draw from each of the k − |C| equal strata of the tail's cumulative weights, in pair order.
///
/// The tail's masses m·w_i (m = k − |C|) are laid end to end and cut into m strata of Σ_tail w each; a uniform point in
/// each stratum picks a pair. A pair on a cut can be picked from both sides, and is then kept once with twice the scale.
///
/// # Guarantee
///
/// Unbiased, and for any data (and any stale weights) of no more variance than [`WtaIid`](super::WtaIid), for every
/// linear functional of the product: what varies between strata no longer counts.
///
/// # Cost
///
/// O(n), at most k draws.
///
/// # Determinism
///
/// Stratum j uses index j.
///
/// Source: stratified resampling of survey statistics and particle filters, on eq. 5's tail; docs/mathematics.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct WtaStratified;

impl Design for WtaStratified {
    fn name(&self) -> &'static str {
        "wta-stratified"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.get() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let threshold = weights.threshold(budget);
        let fixed = weights.fixed();
        let mut counts = vec![0_u32; fixed.len()];
        let mut strata = Strata::new(threshold.tail_mass);
        for (pair, &weight) in fixed.iter().enumerate() {
            if weight == 0 || threshold.is_winner(weight) {
                continue;
            }
            strata.add(pair as u32, threshold.mass(weight), |stratum, members, masses| {
                let picked = chance.category(stratum, masses);
                counts[members[picked] as usize] += 1;
            });
        }
        let is_kept = |pair: usize| counts[pair] > 0 || threshold.is_winner(fixed[pair]);
        // A winner counts once.
        let scale = |pair: usize| scales::repeated(counts[pair].max(1), &threshold, fixed[pair]);
        Selection::marked(fixed.len(), threshold.winners, budget.get(), is_kept, scale)
    }
}
