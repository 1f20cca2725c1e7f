//! Simple random sampling: pair i is taken if its point below n − i is less than the number of places left.
//!
//! The places left depend on all pairs before, but weakly. So every warp guesses their number at the beginning of its run
//! and walks the run. Then it walks again with the number that the walks of the other warps leave, until no walk changes.
//! The first run begins with the right number, and each round makes the number of at least one more run right. So the
//! rounds end, with the result of a sequential walk. Within a row of 32 pairs, lanes do the same.

use super::problem::Problem;
use wtacrs_exact::random::{Stream, point_below};
use wtacrs_simt::index::lane;
use wtacrs_simt::memory::{load, store};
use wtacrs_simt::sync::warp_barrier;
use wtacrs_simt::warp::{FULL, ballot};

/// Counts the pairs that are taken.
#[inline(always)]
pub(super) fn select(problem: &mut Problem, stream: Stream) {
    let points: *mut u32 = problem.layout.own().cast();
    let run = problem.run;
    run.for_each(
        |_| (),
        |pair, ()| {
            let point = point_below(stream.bits(u64::from(pair)), u64::from(problem.pairs - pair));
            // SAFETY: a place for each pair, which its own thread alone reads.
            unsafe { store(points.wrapping_add(pair as usize), point as u32) };
        },
    );

    // Beyond its run a lane loads the run's last point, which is another lane's.
    warp_barrier(FULL);

    let places = u64::from(problem.budget);
    let after = u64::from(problem.pairs.saturating_sub(run.first()));
    let mut left = (places * after).checked_div(u64::from(problem.pairs)).unwrap_or(0);
    let mut taken_before = u64::MAX;
    loop {
        let mut taken = 0;
        // SAFETY: as above.
        let load = |pair: u32| unsafe { load(points.wrapping_add(pair as usize)) };
        run.rows(load, |pair, held, point| {
            let takes = take(if held { u64::from(point) } else { u64::MAX }, left.saturating_sub(taken));
            taken += u64::from(takes.count_ones());
            if held {
                problem.layout.set_count(pair, takes >> lane() & 1);
            }
        });
        let changed = u64::from(taken != taken_before);
        taken_before = taken;
        let found = problem.team.scan([taken, changed], [0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        if found.total[1] == 0 {
            return;
        }
        left = places.saturating_sub(found.before[0]);
    }
}

/// The lanes that take theirs, if so many places are left before the first lane.
#[inline(always)]
fn take(point: u64, left: u64) -> u32 {
    let below = (1 << lane()) - 1;
    let mut takes = ballot(FULL, point < left);
    loop {
        let before = u64::from((takes & below).count_ones());
        let next = ballot(FULL, point.saturating_add(before) < left);
        if next == takes {
            return takes;
        }
        takes = next;
    }
}
