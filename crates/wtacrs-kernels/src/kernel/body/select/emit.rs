//! Counts → ascending indices and their scales.
//!
//! Warps count the pairs that their runs keep, a scan over warps gives each its first place, and ballots place the pairs of a
//! row.

use super::problem::Problem;
use crate::kernel::body::block::scan::Prefix;
use crate::kernel::select::{Args, Design};
use wtacrs_exact::scales;
use wtacrs_exact::threshold::Threshold;
use wtacrs_simt::index::{block, lane, thread};
use wtacrs_simt::memory::store;
use wtacrs_simt::sync::warp_barrier;
use wtacrs_simt::warp::{FULL, ballot};

/// How counts become scales.
pub(super) struct Scaling {
    pub(super) design: u32,
    pub(super) threshold: Threshold,
    /// Σ of the weights.
    pub(super) total: u64,
}

impl Scaling {
    #[inline(always)]
    fn scale(&self, problem: &Problem, weight: u64, count: u32) -> f64 {
        let (pairs, budget) = (problem.pairs as usize, problem.budget as usize);
        if self.design == Design::Uniform as u32 {
            scales::uniform(pairs, budget)
        } else if self.design == Design::TopK as u32 {
            1.0
        } else if self.design == Design::Crs as u32 {
            scales::crs(count, self.total, budget, weight)
        } else {
            scales::repeated(count, &self.threshold, weight)
        }
    }
}

/// How many pairs the warp's run keeps, in all lanes. The warp itself set the counts, or the block has had a barrier since
/// they were set.
#[inline(always)]
pub(super) fn kept(problem: &Problem) -> u64 {
    // Beyond the run a lane loads the run's last count, which is another lane's.
    warp_barrier(FULL);
    let mut kept = 0;
    problem.run.rows(
        |pair| problem.layout.count(pair),
        |_, held, count| kept += u64::from(ballot(FULL, held && count > 0).count_ones()),
    );
    kept
}

/// The first place of each warp's kept pairs in the selection, and how many pairs are kept. One collective.
#[inline(always)]
pub(super) fn place(problem: &mut Problem) -> Prefix<u64> {
    let kept = kept(problem);
    problem.team.scan(kept, 0, u64::wrapping_add)
}

/// Writes the selection and its length.
#[inline(always)]
pub(super) fn emit(problem: &Problem, args: &Args, scaling: &Scaling, places: Prefix<u64>) {
    let first = block()[2] as usize * args.budget as usize;
    let layout = problem.layout;
    if problem.team.rank == 0 && thread() == 0 {
        // SAFETY: the problem's own place.
        unsafe { store(args.count.wrapping_add(block()[2] as usize), places.total as u32) };
    }
    if scaling.design == Design::TopK as u32 {
        write_winners(problem, args, places.total);
    }
    let mut place = first + places.before as usize;
    // In registers the weights would be in the way of the draws. They are loaded again, beside the counts.
    let load = |pair: u32| (layout.count(pair), layout.weight(pair));
    problem.run.rows(load, |pair, in_run, (count, weight)| {
        let keeps = ballot(FULL, in_run && count > 0);
        if in_run && count > 0 {
            let at = place + (keeps & ((1 << lane()) - 1)).count_ones() as usize;
            // SAFETY: no design selects more pairs than the budget.
            unsafe {
                store(args.indices.wrapping_add(at), pair);
                store(args.scales.wrapping_add(at), scaling.scale(problem, weight, count));
            }
        }
        place += keeps.count_ones() as usize;
    });
}

/// Writes the number of winners, if it is wanted. Called as soon as the number is known: until the end it would take a
/// register from the draws.
#[inline(always)]
pub(super) fn write_winners(problem: &Problem, args: &Args, winners: u64) {
    if !args.winners.is_null() && problem.team.rank == 0 && thread() == 0 {
        // SAFETY: the problem's own place.
        unsafe { store(args.winners.wrapping_add(block()[2] as usize), winners) };
    }
}
