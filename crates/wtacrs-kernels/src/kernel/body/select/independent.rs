//! Independent draws with replacement, from the tail (wta-iid) or from all pairs (crs), counted by atomics on integers.
//!
//! A slot of the alias table is computed when a draw picks it: see [`crate::kernel::body::alias`].

use super::problem::{Layout, Problem};
use crate::kernel::body::alias::{Prefixes, Shares};
use wtacrs_exact::alias::slot_of;
use wtacrs_exact::random::Stream;
use wtacrs_simt::atomic::atomic_add;

/// Counts the `certain` pairs once, and the others as often as `draws` draws hit them; a pair's mass is its weight, `total`
/// is the sum of the masses.
#[inline(always)]
pub(super) fn select(problem: &mut Problem, stream: Stream, draws: u64, total: u64, certain: impl Fn(u64) -> bool) {
    let (run, layout) = (problem.run, problem.layout);
    run.for_each(|pair| layout.weight(pair), |pair, weight| layout.set_count(pair, u32::from(certain(weight))));
    if draws == 0 {
        return;
    }
    let shares = Shares::new(total, problem.pairs);
    let prefixes = Prefixes::new(layout.own(), shares);
    let mass = |layout: &Layout, pair: u32| {
        let weight = layout.weight(pair);
        if certain(weight) { 0 } else { weight }
    };
    prefixes.fill(run, &mut problem.team, |pair| mass(&layout, pair));
    problem.team.synchronize();
    let (thread, threads) = problem.team.thread();
    let mut draw = u64::from(thread);
    while draw < draws {
        let bits = stream.bits(draw);
        let slot = slot_of(bits, u64::from(problem.pairs)) as u32;
        let entry = prefixes.slot(slot, mass(&layout, slot)).pick(bits, slot, total);
        // SAFETY: a pair's count, set before the team synchronized.
        unsafe { atomic_add(layout.counts().wrapping_add(entry as usize), 1) };
        draw += u64::from(threads);
    }
    problem.team.synchronize();
}
