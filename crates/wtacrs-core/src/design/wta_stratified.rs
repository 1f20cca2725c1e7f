use super::Design;
use crate::draws::Draws;
use crate::scales;
use crate::{Budget, Selection, Weights};

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

    fn select<D: Draws>(&self, weights: &Weights, budget: Budget, draws: &mut D) -> Selection {
        let threshold = weights.threshold(budget);
        let fixed = weights.fixed();
        let mut counts = vec![0_u32; fixed.len()];
        let mut strata = Strata::new(threshold.tail_mass);
        for (pair, &weight) in fixed.iter().enumerate() {
            if weight == 0 || threshold.is_winner(weight) {
                continue;
            }
            strata.add(pair as u32, threshold.mass(weight), |stratum, members, masses| {
                let picked = draws.category(stratum, masses);
                counts[members[picked] as usize] += 1;
            });
        }
        Selection::collect(fixed.len(), threshold.winners, budget.get(), |pair| match counts[pair] {
            0 => threshold.is_winner(fixed[pair]).then_some(1.0),
            count => Some(scales::repeated(count, &threshold, fixed[pair])),
        })
    }
}

/// Masses laid end to end, cut into strata of equal size.
pub(crate) struct Strata {
    size: u64,
    index: u64,
    filled: u64,
    members: Vec<u32>,
    masses: Vec<u64>,
}

impl Strata {
    pub(crate) fn new(size: u64) -> Self {
        Self { size, index: 0, filled: 0, members: Vec::new(), masses: Vec::new() }
    }

    /// Adds a pair of mass less than the strata's size, and hands over the stratum that this fills, if it does: its
    /// index, its pairs and how much of each lies in it.
    #[inline]
    pub(crate) fn add(&mut self, pair: u32, mass: u64, full: impl FnOnce(u64, &[u32], &[u64])) {
        let room = self.size - self.filled;
        self.members.push(pair);
        self.masses.push(mass.min(room));
        if mass < room {
            self.filled += mass;
            return;
        }
        full(self.index, &self.members, &self.masses);
        self.index += 1;
        self.members.clear();
        self.masses.clear();
        self.filled = mass - room;
        if self.filled > 0 {
            self.members.push(pair);
            self.masses.push(self.filled);
        }
    }
}
