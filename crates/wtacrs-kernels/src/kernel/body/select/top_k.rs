//! The k heaviest pairs of positive weight; of equal weights the lower indices.
//!
//! The k-th largest weight is found two bits at a time, from the top, by counting the weights that reach it.

use super::problem::Problem;
use wtacrs_exact::fixed_point::SUM_BITS;
use wtacrs_simt::index::lane;
use wtacrs_simt::warp::{FULL, ballot};

/// Counts the pairs that are kept.
#[inline(always)]
pub(super) fn select(problem: &mut Problem) {
    let budget = u64::from(problem.budget);
    let run = problem.run;
    let layout = problem.layout;
    let load = |pair: u32| layout.weight(pair);
    let add = |a: [u64; 2], b: [u64; 2]| [a[0] + b[0], a[1] + b[1]];

    // The largest weight that at least `budget` pairs reach; 0 if fewer are positive.
    let mut least = 0_u64;
    let mut shift = SUM_BITS;
    while shift > 0 {
        shift -= 2;
        // Pairs are fewer than 2^32, so one word counts for two bounds.
        let mut reached = [0; 2];
        run.for_each(load, |_, weight| {
            let digits = weight >> shift;
            let least = least >> shift;
            reached[0] += u64::from(digits > least) | u64::from(digits > least + 1) << 32;
            reached[1] += u64::from(digits > least + 2);
        });
        reached = problem.team.sum(reached);
        let digit = u64::from(reached[0] & 0xffff_ffff >= budget)
            + u64::from(reached[0] >> 32 >= budget)
            + u64::from(reached[1] >= budget);
        least |= digit << shift;
    }

    // Heavier pairs are kept all, equal ones in order of their index as long as places are left.
    let mut heavier = 0_u64;
    let mut equal = 0_u64;
    run.for_each(load, |_, weight| {
        heavier += u64::from(weight > least);
        equal += u64::from(weight == least);
    });
    let of_warp = crate::kernel::body::block::reduce::warp_reduce([heavier, equal], add);
    let found = problem.team.scan(of_warp, [0; 2], add);
    let places = if least == 0 { 0 } else { budget - found.total[0] };
    let mut ties = found.before[1];
    run.rows(load, |pair, held, weight| {
        let tied = ballot(FULL, held && weight == least);
        let rank = ties + u64::from((tied & ((1 << lane()) - 1)).count_ones());
        ties += u64::from(tied.count_ones());
        if held {
            layout.set_count(pair, u32::from(weight > least || (weight == least && rank < places)));
        }
    });
}
