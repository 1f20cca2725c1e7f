//! One problem of a batch, as a thread sees it: its weights, scratch, team and randomness.

use super::weigher::Weigher;
use crate::kernel::body::block::words::Words;
use crate::kernel::body::team::{Run, Team};
use crate::kernel::select::{Args, counts_at, own_at, scratch_bytes_of};
use crate::kernel::team::exchange_words;
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::random::{Randomness, Stream};
use wtacrs_exact::threshold::{Saturation, Split, Threshold};
use wtacrs_simt::index::{block, grid};
use wtacrs_simt::memory::{load, load_constant, store};

pub(super) struct Problem {
    pub(super) pairs: u32,
    pub(super) budget: u32,
    pub(super) mix: f64,
    pub(super) weigher: Weigher,
    pub(super) layout: Layout,
    pub(super) team: Team,
    pub(super) run: Run,
    pub(super) stream: Stream,
    /// The scale that turns weights into integers, once the largest weight is known.
    pub(super) scale: FixedPoint,
}

impl Problem {
    /// # Safety
    ///
    /// The promises of [`super::select`].
    #[inline(always)]
    pub(super) unsafe fn new(args: &Args, design: u32) -> Self {
        let problem = block()[2];
        let bytes = scratch_bytes_of(args.pairs, args.budget, design);
        let layout = Layout::new(args.scratch, args.pairs, problem, bytes);
        let exchange = problem as usize * exchange_words(grid()[0]) as usize;
        let team = Team::new(args.pairs, args.exchange.wrapping_add(exchange));
        let further = if args.further_offset.is_null() {
            0
        } else {
            // SAFETY: a number in device memory.
            unsafe { load_constant(args.further_offset) }
        };
        let stream = args.first_stream.wrapping_add(problem.wrapping_mul(args.stream_step));
        Self {
            pairs: args.pairs,
            budget: args.budget,
            mix: args.mix,
            weigher: Weigher::new(args, problem),
            layout,
            run: team.run(),
            team,
            stream: Stream::new(Randomness::new(args.seed, args.offset).next(further), stream),
            scale: FixedPoint::new(0.0, args.pairs),
        }
    }

    /// Winners and tail of the weights, whose sum is `total`: see `wtacrs_exact::threshold`. A pass is one collective, so each
    /// pass also tries a guess.
    #[inline(always)]
    pub(super) fn threshold(&mut self, total: u64) -> Threshold {
        let mut search = Saturation::new(self.budget as usize);
        // The first pass, without winners, was made with the weights.
        let mut found = search.learn(0, total);
        loop {
            if let Some(found) = found {
                return found;
            }
            let (cut, guess) = (search.cut(), search.guess());
            // Pairs are fewer than 2^32, so one word counts the winners of both.
            let mut split = [0; 3];
            self.run.for_each(
                |pair| self.layout.weight(pair),
                |_, weight| {
                    let (wins, guessed) = (u64::from(weight >= cut), u64::from(weight >= guess));
                    let tail = |wins: u64| weight & wins.wrapping_sub(1);
                    split = split.plus([wins | guessed << 32, tail(wins), tail(guessed)]);
                },
            );
            let [winners, by_cut, by_guess] = self.team.sum(split);
            found = search.learn_both(
                Split { winners: winners as u32 as usize, tail_mass: by_cut },
                Split { winners: (winners >> 32) as usize, tail_mass: by_guess },
            );
        }
    }
}

/// A problem's scratch.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) weights: *mut u64,
    pub(super) counts: *mut u32,
    /// The part that only one design needs.
    pub(super) own: *mut u8,
}

impl Layout {
    #[inline(always)]
    pub(super) fn new(scratch: *mut u8, pairs: u32, problem: u32, bytes: u64) -> Self {
        let at = |offset: u64| scratch.wrapping_add((u64::from(problem) * bytes + offset) as usize);
        Self { weights: at(0).cast(), counts: at(counts_at(pairs)).cast(), own: at(own_at(pairs)) }
    }

    /// A pair's integer weight, once weights are written.
    #[inline(always)]
    pub(super) fn weight(&self, pair: u32) -> u64 {
        // SAFETY: a pair, written by the block's own threads before a barrier, or before the team synchronized.
        unsafe { load(self.weights.wrapping_add(pair as usize)) }
    }

    /// How often a pair is selected.
    #[inline(always)]
    pub(super) fn count(&self, pair: u32) -> u32 {
        // SAFETY: a pair, counted by the block's own threads before a barrier, or before the team synchronized.
        unsafe { load(self.counts.wrapping_add(pair as usize)) }
    }

    #[inline(always)]
    pub(super) fn set_count(&self, pair: u32, count: u32) {
        // SAFETY: a pair that no other thread counts at the same time.
        unsafe { store(self.counts.wrapping_add(pair as usize), count) }
    }
}
