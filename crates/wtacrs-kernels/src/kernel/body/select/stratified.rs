//! Stratified sampling: the tail's masses end to end, cut into strata of one place each, and a point in each stratum.
//!
//! A position is (stratum, place in the stratum). Positions add with a carry, so a scan of the masses finds the beginning of
//! every pair without a division. A pair is selected once for each point that falls on it.

use super::problem::Problem;
use crate::kernel::body::block::scan::{Prefix, warp_scan};
use wtacrs_exact::random::{Stream, point_below};
use wtacrs_exact::threshold::Threshold;
use wtacrs_simt::memory::{load, store};

/// Counts the winners and the pairs that the strata's points fall on.
#[inline(always)]
pub(super) fn select(problem: &mut Problem, stream: Stream, threshold: &Threshold) {
    let points: *mut u64 = problem.layout.own().cast();
    let size = threshold.tail_mass;
    let (thread, threads) = problem.team.thread();
    let mut stratum = u64::from(thread);
    while stratum < threshold.tail_places as u64 {
        let point = point_below(stream.bits(stratum), size);
        // SAFETY: one point for each stratum, of which there are no more than the budget.
        unsafe { store(points.wrapping_add(stratum as usize), point) };
        stratum += u64::from(threads);
    }

    let add = |a: [u64; 2], b: [u64; 2]| {
        let place = a[1] + b[1];
        let carry = place >= size;
        [a[0] + b[0] + u64::from(carry), if carry { place - size } else { place }]
    };
    let (run, layout) = (problem.run, problem.layout);
    let mass = |weight: u64| {
        if threshold.is_winner(weight) { 0 } else { threshold.mass(weight) }
    };
    let mut own = [0; 2];
    if size > 0 {
        run.for_each(|pair| layout.weight(pair), |_, weight| own = add(own, [0, mass(weight)]));
    }
    let of_warp = crate::kernel::body::block::reduce::warp_reduce(own, add);
    // All points are written afterwards.
    problem.team.synchronize();
    let mut at = problem.team.scan(of_warp, [0; 2], add).before;
    let mut row = 0;
    while row < run.rows {
        let pair = run.pair(row);
        let held = run.holds(pair);
        let weight = if held { layout.weight(pair) } else { 0 };
        let mass = if held && size > 0 { mass(weight) } else { 0 };
        let Prefix { before, total } = warp_scan([0, mass], [0; 2], add);
        let [stratum, place] = add(at, before);
        at = add(at, total);
        // SAFETY: a stratum in which some mass lies.
        let point = |stratum: u64| unsafe { load(points.wrapping_add(stratum as usize)) };
        let mut hits = 0;
        if mass > 0 {
            let here = point(stratum);
            let end = place + mass;
            hits = u32::from(here >= place && here < end);
            if end > size {
                hits += u32::from(point(stratum + 1) < end - size);
            }
        }
        if held {
            layout.set_count(pair, if threshold.is_winner(weight) { 1 } else { hits });
        }
        row += 1;
    }
}
