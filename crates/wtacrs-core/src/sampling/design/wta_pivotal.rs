use super::Design;
use crate::lanes::vectorised;
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use wtacrs_exact::duel::Duel;
use wtacrs_exact::threshold::Threshold;

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
/// O(n) and one draw for each duel; a tree of depth ⌈log2 n⌉, whose levels are parallel. Memory: 14 bytes for two pairs.
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

/// Duels that are fought together, on vectors.
const TOGETHER: usize = 64;

/// Neighbours on one level of the tree, of which each has its mass and the pair that is still in; with no mass, none is.
struct Duels {
    first: Sides,
    second: Sides,
}

#[derive(Clone, Copy)]
struct Sides {
    masses: [u64; TOGETHER],
    pairs: [u32; TOGETHER],
}

/// What duels ask of chance, and what they leave: [`Duel`]s, part by part.
struct Outcomes {
    parts: [u64; TOGETHER],
    wholes: [u64; TOGETHER],
    masses: [u64; TOGETHER],
    selects: [bool; TOGETHER],
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
        // Of the tail.
        let mut kept = vec![false; fixed.len()];
        if threshold.tail_places > 0 {
            play(fixed, &threshold, &mut kept, chance);
        }
        let is_kept = |pair: usize| kept[pair] | threshold.is_winner(fixed[pair]);
        let scale = |pair: usize| threshold.scale(fixed[pair]);
        Selection::marked(fixed.len(), threshold.winners, budget.get(), is_kept, scale)
    }
}

/// Marks the tail's pairs that are selected.
fn play<C: Chance>(fixed: &[u64], threshold: &Threshold, kept: &mut [bool], chance: &mut C) {
    let unit = threshold.tail_mass;
    // The first duel of a level has the index N/2, N/4, …, 1.
    let mut first = fixed.len().next_power_of_two() as u64 / 2;
    let mut count = fixed.len().div_ceil(2);
    let (mut masses, mut pairs) = (vec![0; count], vec![0; count]);
    for at in (0..count).step_by(TOGETHER) {
        let here = at..count.min(at + TOGETHER);
        let duels = Duels::of_leaves(fixed, threshold, at);
        duels.fight(first + at as u64, unit, kept, chance, &mut masses[here.clone()], &mut pairs[here]);
    }
    while count > 1 {
        first /= 2;
        let below = count;
        count = below.div_ceil(2);
        for at in (0..count).step_by(TOGETHER) {
            let here = at..count.min(at + TOGETHER);
            // Read before they are overwritten, since 2j ≥ j.
            let duels = Duels::of_nodes(&masses[2 * at..below], &pairs[2 * at..below]);
            duels.fight(first + at as u64, unit, kept, chance, &mut masses[here.clone()], &mut pairs[here]);
        }
    }
    debug_assert_eq!(masses.first(), Some(&0), "the masses add up to whole places");
}

impl Duels {
    const NONE: Self = {
        let sides = Sides { masses: [0; TOGETHER], pairs: [0; TOGETHER] };
        Self { first: sides, second: sides }
    };

    /// Of the pairs from number 2 · `at` on. Winners have no mass.
    #[inline(always)]
    fn of_leaves(fixed: &[u64], threshold: &Threshold, at: usize) -> Self {
        let mut duels = Self::NONE;
        let mass = |weight| if threshold.is_winner(weight) { 0 } else { threshold.mass(weight) };
        for (i, both) in fixed[2 * at..].chunks(2).take(TOGETHER).enumerate() {
            let pair = 2 * (at + i) as u32;
            duels.set(i, (mass(both[0]), pair), both.get(1).map(|&weight| (mass(weight), pair + 1)));
        }
        duels
    }

    /// Of the first nodes of those that are left of the level below.
    #[inline(always)]
    fn of_nodes(masses: &[u64], pairs: &[u32]) -> Self {
        let mut duels = Self::NONE;
        for (i, (masses, pairs)) in masses.chunks(2).zip(pairs.chunks(2)).take(TOGETHER).enumerate() {
            duels.set(i, (masses[0], pairs[0]), masses.get(1).copied().zip(pairs.get(1).copied()));
        }
        duels
    }

    /// Who has no opponent meets a node without mass.
    #[inline(always)]
    fn set(&mut self, i: usize, (mass, pair): (u64, u32), second: Option<(u64, u32)>) {
        (self.first.masses[i], self.first.pairs[i]) = (mass, pair);
        (self.second.masses[i], self.second.pairs[i]) = second.unwrap_or((0, pair));
    }

    /// Decides for or against a pair of each duel, and leaves the level above. Where a side has no mass, the other stays as it
    /// is, since its event has probability 1 or 0.
    #[inline(always)]
    fn fight<C: Chance>(
        &self,
        first: u64,
        unit: u64,
        kept: &mut [bool],
        chance: &mut C,
        masses: &mut [u64],
        pairs: &mut [u32],
    ) {
        let mut outcomes =
            Outcomes { parts: [0; TOGETHER], wholes: [0; TOGETHER], masses: [0; TOGETHER], selects: [false; TOGETHER] };
        weigh_up(self, unit, &mut outcomes);
        let count = masses.len();
        let mut first_hits = [false; TOGETHER];
        chance.happen_all(first, &outcomes.parts[..count], &outcomes.wholes[..count], &mut first_hits[..count]);
        masses.copy_from_slice(&outcomes.masses[..count]);
        for (i, pair) in pairs.iter_mut().enumerate() {
            let both = [self.second.pairs[i], self.first.pairs[i]];
            let first_stays = first_hits[i] != outcomes.selects[i];
            // Found by number: a branch would be guessed wrong half the time.
            *pair = both[usize::from(first_stays)];
            kept[both[usize::from(!first_stays)] as usize] = outcomes.selects[i];
        }
    }
}

vectorised! {
    fn weigh_up<'a>(duels: &'a Duels, unit: u64, outcomes: &'a mut Outcomes) {
        for i in 0..TOGETHER {
            let duel = Duel::new(duels.first.masses[i], duels.second.masses[i], unit);
            outcomes.parts[i] = duel.first;
            outcomes.wholes[i] = duel.whole;
            outcomes.masses[i] = duel.mass;
            outcomes.selects[i] = duel.selects;
        }
    }
}
