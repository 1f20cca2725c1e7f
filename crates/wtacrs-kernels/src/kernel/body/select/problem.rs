//! One problem of a batch, as a thread sees it: its weights, scratch, team and randomness.

use super::values::Values;
use super::weigher::Weigher;
use crate::kernel::body::team::{Run, Team};
use crate::kernel::select::{Args, counts_at, own_at, scratch_bytes_of};
use crate::kernel::team::exchange_words;
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::random::{Randomness, Stream};
use wtacrs_simt::index::{block, grid};
use wtacrs_simt::memory::{load, load_constant, store};

pub(super) struct Problem {
    pub(super) pairs: u32,
    pub(super) budget: u32,
    pub(super) weigher: Weigher,
    pub(super) layout: Layout,
    pub(super) team: Team,
    pub(super) run: Run,
    /// The integer weights of this thread's pairs, once they are known.
    pub(super) weights: Values,
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
        let run = team.run();
        Self {
            pairs: args.pairs,
            budget: args.budget,
            weigher: Weigher::new(args, problem),
            layout,
            run,
            weights: Values::new(run, layout.weights()),
            team,
            scale: FixedPoint::new(0.0, args.pairs),
        }
    }

    /// The problem's random bits. Found behind the weights, from which it would take registers.
    ///
    /// # Safety
    ///
    /// As for [`Self::new`].
    #[inline(always)]
    pub(super) unsafe fn stream(args: &Args) -> Stream {
        let further = if args.further_offset.is_null() {
            0
        } else {
            // SAFETY: a number in device memory.
            unsafe { load_constant(args.further_offset) }
        };
        let stream = args.first_stream.wrapping_add(block()[2].wrapping_mul(args.stream_step));
        Stream::new(Randomness::new(args.seed, args.offset).next(further), stream)
    }
}

/// A problem's scratch. Its parts are found where they are used: as pointers they would take registers from the weights.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    first: *mut u8,
    pairs: u32,
}

impl Layout {
    #[inline(always)]
    fn new(scratch: *mut u8, pairs: u32, problem: u32, bytes: u64) -> Self {
        Self { first: scratch.wrapping_add((u64::from(problem) * bytes) as usize), pairs }
    }

    /// The integer weights.
    #[inline(always)]
    pub(super) fn weights(&self) -> *mut u64 {
        self.first.cast()
    }

    #[inline(always)]
    pub(super) fn counts(&self) -> *mut u32 {
        self.first.wrapping_add(counts_at(self.pairs) as usize).cast()
    }

    /// The part that only one design needs.
    #[inline(always)]
    pub(super) fn own(&self) -> *mut u8 {
        self.first.wrapping_add(own_at(self.pairs) as usize)
    }

    /// A pair's integer weight, once weights are written.
    #[inline(always)]
    pub(super) fn weight(&self, pair: u32) -> u64 {
        // SAFETY: a pair, written by the block's own threads before a barrier, or before the team synchronized.
        unsafe { load(self.weights().wrapping_add(pair as usize)) }
    }

    /// How often a pair is selected.
    #[inline(always)]
    pub(super) fn count(&self, pair: u32) -> u32 {
        // SAFETY: a pair, counted by the block's own threads before a barrier, or before the team synchronized.
        unsafe { load(self.counts().wrapping_add(pair as usize)) }
    }

    #[inline(always)]
    pub(super) fn set_count(&self, pair: u32, count: u32) {
        // SAFETY: a pair that no other thread counts at the same time.
        unsafe { store(self.counts().wrapping_add(pair as usize), count) }
    }
}
