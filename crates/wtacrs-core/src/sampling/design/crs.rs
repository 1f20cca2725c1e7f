use super::{Design, independent_counts};
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use wtacrs_exact::scales;

/// Column-row sampling: k independent draws with probabilities p_i = w_i / Σw, with replacement.
///
/// A pair drawn c times is kept once, with scale c / (k p_i).
///
/// # Guarantee
///
/// Unbiased. With exact weights no other fixed p has less variance, (1/k) · ((Σw)² − ‖X·Y‖²_F).
///
/// # Cost
///
/// O(n) for the alias table and O(1) for each draw; at most k draws.
///
/// # Determinism
///
/// Draw j uses index j.
///
/// Source: Drineas, Kannan and Mahoney, "Fast Monte Carlo algorithms for matrices I", SIAM J. Comput. 36 (2006);
/// eq. 2 of Liu et al., NeurIPS 2023.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crs;

impl Design for Crs {
    fn name(&self) -> &'static str {
        "crs"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.get() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        weights.check_fit(budget);
        let (fixed, places) = (weights.fixed(), budget.get());
        let total = weights.total();
        let counts = independent_counts(fixed, places, chance);
        let scale = |pair: usize| scales::crs(counts[pair], total, places, fixed[pair]);
        Selection::marked(fixed.len(), 0, places, |pair| counts[pair] > 0, scale)
    }
}
