use super::Design;
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use core::cmp::Reverse;

/// The k heaviest pairs with scale 1, for comparison: **biased**, whatever it drops is missing from every estimate.
///
/// Averaging over steps or over ranks does not mend it, which is why training with it can stall although its error in
/// a single step is small. Of equal weights the lower index is kept; pairs of weight zero never are.
///
/// # Guarantee
///
/// None but that it repeats: its error is the tail's sum, ‖Σ_tail X_i Y_i‖.
///
/// # Cost
///
/// O(n), no draws.
///
/// # Determinism
///
/// No randomness.
///
/// Source: Adelman et al., "Faster neural network training with approximate tensor operations", NeurIPS 2021.
#[derive(Clone, Copy, Debug, Default)]
pub struct TopK;

impl Design for TopK {
    fn name(&self) -> &'static str {
        "top-k"
    }

    fn draws(&self, _budget: Budget) -> u64 {
        0
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, _chance: &mut C) -> Selection {
        weights.check_fit(budget);
        let fixed = weights.fixed();
        let mut order: Vec<u32> = (0..fixed.len() as u32).filter(|&i| fixed[i as usize] > 0).collect();
        let kept = budget.get().min(order.len());
        if kept < order.len() {
            order.select_nth_unstable_by_key(kept, |&i| (Reverse(fixed[i as usize]), i));
            order.truncate(kept);
        }
        order.sort_unstable();
        let mut next = order.into_iter().peekable();
        Selection::collect(fixed.len(), kept, kept, |pair| next.next_if_eq(&(pair as u32)).map(|_| 1.0))
    }
}
