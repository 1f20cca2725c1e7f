//! One problem of a batch, as a thread sees it.

use super::Args;
use super::layout::{self, Layout};
use super::weights::Weigher;
use crate::kernel::team::{Run, Team};
use wtacrs_core::chance::Stream;
use wtacrs_core::threshold::{Saturation, Threshold};
use wtacrs_simt::index::block;
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
        let team = Team::new(args.pairs, layout.exchange, args.meeting.wrapping_add(problem as usize));
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
            stream: Stream::new(args.seed, args.offset.wrapping_add(further), stream),
        }
    }

    /// Winners and tail of the weights, whose sum is `total`: see `wtacrs_core::threshold`. One collective for a pass.
    #[inline(always)]
    pub(super) fn threshold(&mut self, total: u64) -> Threshold {
        let mut search = Saturation::new(self.budget as usize);
        // The first pass, in which nobody wins, has been made with the weights.
        let mut split = [0, total];
        loop {
            if let Some(found) = search.learn(split[0] as usize, split[1]) {
                return found;
            }
            let cut = search.cut();
            split = [0, 0];
            self.run.for_each(
                |pair| self.layout.weight(pair),
                |_, weight| {
                    let wins = u64::from(weight >= cut);
                    split[0] += wins;
                    split[1] = split[1].wrapping_add(weight & wins.wrapping_sub(1));
                },
            );
            split = self.team.sum(split);
        }
    }
}
