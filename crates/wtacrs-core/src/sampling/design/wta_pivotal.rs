use super::Design;
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use wtacrs_exact::duel::Duel;

/// Winners always, and k − |C| distinct pairs from the tail by pivotal sampling: a fixed binary tree of duels over the
/// pairs in their order. The default.
///
/// Every duel (see [`wtacrs_exact::duel`]) joins two neighbours' probability masses and decides for or against one pair.
/// A pair's inclusion probability is its mass, π_i = (k − |C|) w_i / Σ_tail w, and its scale is 1/π_i.
///
/// # Guarantee
///
/// Unbiased; exactly k distinct pairs (if so many have a positive weight); for any data and any stale weights of no
/// more variance than [`WtaIid`](super::WtaIid), for every linear functional of the product. Neighbours compete, so the
/// kept pairs are spread over the sequence, and where neighbours are alike the variance falls well below the bound.
///
/// # Cost
///
/// O(n) and one draw for each duel; a tree of depth ⌈log2 n⌉, whose levels are parallel. Memory: 16 bytes for two pairs.
///
/// # Determinism
///
/// With N the least power of two ≥ n, the duel of the nodes 2j and 2j + 1 of level l (the pairs are level 0) uses index
/// N/2^(l+1) + j, as in a binary heap. A node without an opponent moves up as it is.
///
/// Sources: Deville and Tillé 1998; Chauvet, "A comparison of pivotal sampling and unequal probability sampling with
/// replacement" (arXiv 1609.02688); docs/mathematics.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct WtaPivotal;

/// The pair that is still in, and its mass; none if the mass is zero.
#[derive(Clone, Copy)]
struct Node {
    mass: u64,
    pair: u32,
}

impl Design for WtaPivotal {
    fn name(&self) -> &'static str {
        "wta-pivotal"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.pairs().next_power_of_two() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let threshold = weights.threshold(budget);
        let fixed = weights.fixed();
        let unit = threshold.tail_mass;
        let mut kept: Vec<bool> = fixed.iter().map(|&w| threshold.is_winner(w)).collect();

        if threshold.tail_places > 0 {
            let leaf = |pair: usize| {
                let weight = fixed[pair];
                let mass = if threshold.is_winner(weight) { 0 } else { threshold.mass(weight) };
                Node { mass, pair: pair as u32 }
            };
            // The first duel of a level has the index N/2, N/4, …, 1.
            let mut first = fixed.len().next_power_of_two() as u64 / 2;
            let mut duel = |index: u64, a: Node, b: Node| {
                if a.mass == 0 || b.mass == 0 {
                    return if b.mass == 0 { a } else { b };
                }
                let duel = Duel::new(a.mass, b.mass, unit);
                let first_hits = chance.happens(index, duel.first, duel.whole);
                let (stays, leaves) = if duel.first_stays(first_hits) { (a, b) } else { (b, a) };
                kept[leaves.pair as usize] = duel.selects;
                Node { mass: duel.mass, pair: stays.pair }
            };
            let mut level: Vec<Node> = (0..fixed.len().div_ceil(2))
                .map(|j| match 2 * j + 1 < fixed.len() {
                    true => duel(first + j as u64, leaf(2 * j), leaf(2 * j + 1)),
                    false => leaf(2 * j),
                })
                .collect();
            while level.len() > 1 {
                first /= 2;
                let above = level.len().div_ceil(2);
                for j in 0..above {
                    level[j] = match level.get(2 * j + 1) {
                        Some(&b) => duel(first + j as u64, level[2 * j], b),
                        None => level[2 * j],
                    };
                }
                level.truncate(above);
            }
            debug_assert_eq!(level[0].mass, 0, "the masses add up to whole places");
        }
        Selection::collect(fixed.len(), threshold.winners, budget.get(), |pair| {
            kept[pair].then(|| threshold.scale(fixed[pair]))
        })
    }
}
