//! The threshold τ and the winners, without a sort.
//!
//! τ solves Σ min(1, w_i/τ) = k. The winners C = {w_i ≥ τ} are kept always; the other pairs, the tail, share the
//! k − |C| remaining places in proportion to their weights: π_i = (k − |C|) · w_i / Σ_tail w. The same C minimises
//! (1 − P_C)/(k − |C|), the factor in front of the tail's variance (docs/mathematics.md has the proof).
//!
//! **Idea.** Start with no winners. Every pair with (k − |C|) · w_i ≥ Σ_tail w must be one. Admit these pairs, and repeat:
//! the bound never rises, so C only grows, and the search ends at the least fixed point. No weights need more than
//! 3 + (62 + 3 log2 k)/2.75 passes (proof there as well).
//!
//! All of it is integer arithmetic on fixed-point weights, so every device finds the same winners. Equal weights are
//! winners together or not at all.

/// Where the winners end and the tail begins, in fixed-point units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Least integer weight that wins: ⌈τ⌉.
    pub cut: u64,
    /// How many pairs win, |C|.
    pub winners: usize,
    /// Σ of the tail's integer weights; 0 if every positive pair is a winner.
    pub tail_mass: u64,
    /// Places left for the tail, k − |C|; 0 if the tail is empty.
    pub tail_places: usize,
}

impl Threshold {
    /// Splits integer weights (sum at most 2^62) for a budget of at least one pair.
    ///
    /// With no more positive weights than places, every positive pair is a winner. Cost: a few passes over the
    /// weights, O(n) each; no memory.
    ///
    /// # Panics
    ///
    /// If the budget is 0.
    pub fn find(weights: &[u64], budget: usize) -> Self {
        Self::saturate(weights, budget).0
    }

    /// The threshold, and how many passes over the weights it took.
    fn saturate(weights: &[u64], budget: usize) -> (Self, u32) {
        assert!(budget > 0, "the budget is 0");
        let mut search = Saturation::new(budget);
        let mut passes = 0;
        loop {
            let [Split { winners, tail_mass }] = split(weights, [search.cut()]);
            passes += 1;
            if let Some(found) = search.learn(winners, tail_mass) {
                return (found, passes);
            }
        }
    }

    /// [`Self::find`] by a caller's own passes, each of which splits the weights by two cuts, as [`split`] does. It may need fewer
    /// passes; the threshold is the same.
    ///
    /// # Panics
    ///
    /// If the budget is 0.
    pub fn find_by(budget: usize, mut split: impl FnMut([u64; 2]) -> [Split; 2]) -> Self {
        assert!(budget > 0, "the budget is 0");
        let mut search = Saturation::new(budget);
        loop {
            let [by_cut, by_guess] = split([search.cut(), search.guess()]);
            if let Some(found) = search.learn_both(by_cut, by_guess) {
                return found;
            }
        }
    }

    /// Whether a pair of this integer weight is always kept.
    #[inline]
    pub const fn is_winner(&self, weight: u64) -> bool {
        weight >= self.cut
    }

    /// The probability mass of a tail pair, in units of which `tail_mass` is probability one. It is less than
    /// `tail_mass`, and over the tail the masses add up to exactly `tail_places` ones.
    #[inline]
    pub const fn mass(&self, weight: u64) -> u64 {
        weight * self.tail_places as u64
    }

    /// 1/π of a pair of positive weight: 1 for a winner, `tail_mass / mass` otherwise.
    #[inline]
    pub const fn scale(&self, weight: u64) -> f64 {
        if self.is_winner(weight) { 1.0 } else { self.tail_mass as f64 / self.mass(weight) as f64 }
    }

    /// π of a pair.
    #[inline]
    pub const fn inclusion(&self, weight: u64) -> f64 {
        if weight == 0 {
            0.0
        } else if self.is_winner(weight) {
            1.0
        } else {
            self.mass(weight) as f64 / self.tail_mass as f64
        }
    }
}

/// The search for a threshold, for a caller that passes over the weights itself: split them by [`Self::cut`], hand the
/// outcome to [`Self::learn`], and repeat until it returns the threshold.
#[derive(Clone, Copy, Debug)]
pub struct Saturation {
    budget: usize,
    cut: u64,
    winners: usize,
    tail_places: usize,
    /// By how much the cut fell last.
    fall: u64,
}

impl Saturation {
    /// For a budget of at least one pair.
    #[inline]
    pub const fn new(budget: usize) -> Self {
        Self { budget, cut: u64::MAX, winners: usize::MAX, tail_places: 0, fall: 0 }
    }

    /// The least weight that counts as a winner in the next pass. In the first pass none does.
    #[inline]
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// A cut that is not above [`Self::cut`] and that the next pass may try as well, for [`Self::learn_both`]. Any positive
    /// one would do; the bound mostly falls by a small part of what it fell before, so a cut a little lower is likely to save
    /// the last pass, in which nothing changes.
    #[inline]
    pub const fn guess(&self) -> u64 {
        let (part, most) = (self.fall / 32, self.cut / 4);
        self.cut - if part < most { part } else { most }
    }

    /// As [`Self::learn`], for a pass that has split the weights by [`Self::cut`] and by [`Self::guess`]. The threshold is
    /// the same.
    ///
    /// A guess whose winners all saturate, guess · (k − |C|) ≥ Σ_tail w, admits true winners only, so the search continues
    /// from there. If no weight lies between the two cuts, and the next cut is not below the guess, then no weight lies
    /// between the next cut and the first one either. The pass that would show this is not needed.
    #[inline]
    pub const fn learn_both(&mut self, by_cut: Split, by_guess: Split) -> Option<Threshold> {
        let guess = self.guess();
        if let Some(found) = self.learn(by_cut.winners, by_cut.tail_mass) {
            return Some(found);
        }
        let Split { winners, tail_mass } = by_guess;
        let none_between = winners == by_cut.winners && self.cut >= guess;
        let saturates = winners < self.budget
            && winners > by_cut.winners
            && guess as u128 * (self.budget - winners) as u128 >= tail_mass as u128;
        if none_between || saturates { self.learn(winners, tail_mass) } else { None }
    }

    /// Takes in how many weights reach the cut and what the others weigh.
    #[inline]
    pub const fn learn(&mut self, winners: usize, tail_mass: u64) -> Option<Threshold> {
        if tail_mass == 0 {
            return Some(Threshold { cut: 1, winners, tail_mass: 0, tail_places: 0 });
        }
        // Positive: c winners weigh at least c/k of all, so c = k would leave nothing to the tail.
        let tail_places = self.budget - winners;
        if winners == self.winners {
            return Some(Threshold { cut: self.cut, winners, tail_mass, tail_places: self.tail_places });
        }
        self.winners = winners;
        self.tail_places = tail_places;
        // ⌈tail_mass / tail_places⌉, in a form that has no way to panic.
        let cut = match (tail_mass - 1).checked_div(tail_places as u64) {
            Some(quotient) => quotient + 1,
            None => u64::MAX,
        };
        self.fall = self.cut - cut;
        self.cut = cut;
        None
    }
}

/// How many weights reach a cut, and what the others weigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// How many reach it.
    pub winners: usize,
    /// Σ of the others.
    pub tail_mass: u64,
}

/// How many weights reach each cut, and the sum of the others: in one pass, by operations that vectors have.
#[inline(always)]
pub fn split<const CUTS: usize>(weights: &[u64], cuts: [u64; CUTS]) -> [Split; CUTS] {
    let (mut winners, mut tail_mass) = ([0_u64; CUTS], [0_u64; CUTS]);
    for &weight in weights {
        for side in 0..CUTS {
            let wins = u64::from(weight >= cuts[side]);
            winners[side] += wins;
            tail_mass[side] += weight & wins.wrapping_sub(1);
        }
    }
    core::array::from_fn(|side| Split { winners: winners[side] as usize, tail_mass: tail_mass[side] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(weights: &[u64], budget: usize) -> (usize, u64, usize) {
        let t = Threshold::find(weights, budget);
        (t.winners, t.tail_mass, t.tail_places)
    }

    #[test]
    fn small_cases_by_hand() {
        assert_eq!(find(&[1, 1, 1, 1], 2), (0, 4, 2));
        assert_eq!(find(&[1, 1, 1, 1], 4), (4, 0, 0));
        assert_eq!(find(&[9, 1, 1, 1], 2), (1, 3, 1));
        // 4 ≥ 8/2 is an exact tie with the bound: a winner.
        assert_eq!(find(&[4, 2, 1, 1], 2), (1, 4, 1));
        // The second winner is seen only once the first has left the tail.
        assert_eq!(find(&[100, 10, 1, 1, 1], 3), (2, 3, 1));
        assert_eq!(find(&[5, 0, 3, 0], 3), (2, 0, 0));
        assert_eq!(find(&[5, 0, 3, 0], 1), (0, 8, 1));
        assert_eq!(find(&[7], 1), (1, 0, 0));
    }

    /// Each pass admits a third of the places, just below the bound before: the slowest fall that weights can force.
    #[test]
    fn a_staircase_stays_within_the_proven_number_of_passes() {
        let budget = 3_usize.pow(7);
        let mut places = budget as u64;
        let mut tail = (1_u64 << 60) / places * places;
        let mut weight = 2 * (tail / places);
        let mut weights = vec![];
        while places > 2 && places / 3 * weight < tail {
            let bound = tail / places;
            weights.extend((0..places / 3).map(|_| weight));
            tail -= places / 3 * weight;
            places -= places / 3;
            weight = bound - 1;
        }
        // The tail itself, in weights too light to win.
        let light = tail / places / 2;
        weights.extend((0..tail / light).map(|_| light));
        let (found, passes) = Threshold::saturate(&weights, budget);
        assert_eq!(by_guesses(&weights, budget), found);
        assert_eq!(found.winners, by_definition(&weights, budget));
        let most = 3.0 + (62.0 + 3.0 * (budget as f64).log2()) / 2.75;
        assert!((15..=most as u32).contains(&passes), "{passes} passes");
    }

    /// The search with a guess in each pass.
    fn by_guesses(weights: &[u64], budget: usize) -> Threshold {
        Threshold::find_by(budget, |cuts| {
            assert!(cuts[1] <= cuts[0]);
            split(weights, cuts)
        })
    }

    /// |C| = the least c for which no pair outside the c heaviest saturates.
    fn by_definition(weights: &[u64], budget: usize) -> usize {
        let mut sorted = weights.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        (0..budget)
            .find(|&c| {
                let tail: u128 = sorted[c..].iter().map(|&w| u128::from(w)).sum();
                (budget - c) as u128 * u128::from(sorted[c]) < tail
            })
            .unwrap_or(budget)
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut rng = crate::philox::Philox4x32_10::new(1, 0);
        use rand_core::Rng;
        for round in 0..2000 {
            let n = 1 + rng.next_u32() as usize % 40;
            let spread = 1 + round % 40;
            let weights: Vec<u64> = (0..n).map(|_| 1 + (rng.next_u64() >> (64 - spread))).collect();
            for budget in 1..=n {
                let found = Threshold::find(&weights, budget);
                assert_eq!(by_guesses(&weights, budget), found, "{weights:?} {budget}");
                assert_eq!(found.winners, by_definition(&weights, budget), "{weights:?} {budget}");
                assert_eq!(found.winners, weights.iter().filter(|&&w| found.is_winner(w)).count());
                let places: u64 = weights.iter().filter(|&&w| !found.is_winner(w)).map(|&w| found.mass(w)).sum();
                assert_eq!(places, found.tail_mass * found.tail_places as u64);
            }
        }
    }
}
