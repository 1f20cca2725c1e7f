//! Counts → ascending indices and their scales.
//!
//! Warps count what their runs keep, a scan over warps tells where each begins, and ballots place the pairs of a row.

use super::problem::Problem;
use super::{Args, Design, tell_winners};
use wtacrs_core::scales;
use wtacrs_core::threshold::Threshold;
use wtacrs_simt::index::{block, lane, thread};
use wtacrs_simt::memory::store;
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
    fn scale(&self, problem: &Problem, pair: u32, count: u32) -> f64 {
        let (pairs, budget) = (problem.pairs as usize, problem.budget as usize);
        if self.design == Design::Uniform as u32 {
            scales::uniform(pairs, budget)
        } else if self.design == Design::TopK as u32 {
            1.0
        } else if self.design == Design::Crs as u32 {
            scales::crs(count, self.total, budget, problem.layout.weight(pair))
        } else {
            scales::repeated(count, &self.threshold, problem.layout.weight(pair))
        }
    }
}

/// Writes the selection, and how many pairs it has. Counts are those of the warp's own run, or the team has met since.
#[inline(always)]
pub(super) fn emit(problem: &mut Problem, args: &Args, scaling: &Scaling) {
    let run = problem.run;
    let first = block()[2] as usize * args.budget as usize;
    let layout = problem.layout;
    let load = |pair: u32| layout.count(pair);
    let mut kept = 0;
    run.rows(load, |_, held, count| kept += u64::from(ballot(FULL, held && count > 0).count_ones()));
    let found = problem.team.scan(kept, 0, u64::wrapping_add);
    if problem.team.rank == 0 && thread() == 0 {
        // SAFETY: the problem's own place.
        unsafe { store(args.count.wrapping_add(block()[2] as usize), found.total as u32) };
    }
    if scaling.design == Design::TopK as u32 {
        tell_winners(problem, args, found.total);
    }
    let mut place = first + found.before as usize;
    run.rows(load, |pair, held, count| {
        let keeps = ballot(FULL, held && count > 0);
        if held && count > 0 {
            let at = place + (keeps & ((1 << lane()) - 1)).count_ones() as usize;
            // SAFETY: no design selects more pairs than the budget.
            unsafe {
                store(args.indices.wrapping_add(at), pair);
                store(args.scales.wrapping_add(at), scaling.scale(problem, pair, count));
            }
        }
        place += keeps.count_ones() as usize;
    });
}
