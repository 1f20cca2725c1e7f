//! One problem of a batch, as a thread sees it.

use super::Args;
use super::layout::{self, Layout};
use super::weights::Weigher;
use crate::block::words::Words;
use crate::kernel::team::{Run, Team, board_words};
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::random::{Randomness, Stream};
use wtacrs_exact::threshold::{Saturation, Split, Threshold};
use wtacrs_simt::index::{block, grid};
use wtacrs_simt::memory::load_constant;

pub(super) struct Problem {
    pub(super) pairs: u32,
    pub(super) budget: u32,
    pub(super) mix: f64,
    pub(super) weigher: Weigher,
    pub(super) layout: Layout,
    pub(super) team: Team,
    pub(super) run: Run,
    pub(super) stream: Stream,
    /// What makes integers of the weights, once they are weighed.
    pub(super) scale: FixedPoint,
}

impl Problem {
    /// # Safety
    ///
    /// The promises of [`super::select`].
    #[inline(always)]
    pub(super) unsafe fn new(args: &Args, design: u32) -> Self {
        let problem = block()[2];
        let bytes = layout::bytes(args.pairs, args.budget, design);
        let layout = Layout::new(args.scratch, args.pairs, problem, bytes);
        let boards = problem as usize * board_words(grid()[0]) as usize;
        let team = Team::new(args.pairs, args.boards.wrapping_add(boards));
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

    /// Winners and tail of the weights, whose sum is `total`: see `wtacrs_exact::threshold`. One collective for a pass, so
    /// each pass tries a guess as well.
    #[inline(always)]
    pub(super) fn threshold(&mut self, total: u64) -> Threshold {
        let mut search = Saturation::new(self.budget as usize);
        // The first pass, in which nobody wins, has been made with the weights.
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
