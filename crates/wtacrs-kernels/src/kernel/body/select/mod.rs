//! Selection: the weights, then the design's threshold and draws, then the output.

mod emit;
mod independent;
mod pivotal;
mod problem;
mod share;
mod stratified;
mod top_k;
mod uniform;
mod values;
mod weigher;
mod weights;

pub use self::weights::select_weights;

use self::emit::{Scaling, emit, place, write_winners};
use self::problem::Problem;
use self::weights::Weighed;
use super::block::scan::Prefix;
use crate::kernel::select::{Args, Design};
use wtacrs_exact::random::Stream;
use wtacrs_exact::threshold::Threshold;
use wtacrs_simt::index::{block, thread};
use wtacrs_simt::memory::store;

/// Selects. Collectives for n pairs: one for the weights, one for each pass of the threshold, and one for the output. Each has
/// one barrier, that of the weights two; with several blocks it has another, and a round of the exchange. The tree of
/// wta-pivotal has a barrier for each level of more than 32 duels and one at its end, twice if there are several blocks.
///
/// # Safety
///
/// A launch of [`shape`](crate::kernel::select::shape) or [`shape_with`](crate::kernel::select::shape_with), and memory as
/// [`Args`] says.
#[inline(always)]
pub unsafe fn select<const DESIGN: u32>(args: &Args) {
    // SAFETY: the caller's promise.
    let mut problem = unsafe { Problem::new(args, DESIGN) };
    let has_threshold =
        DESIGN != Design::Uniform as u32 && DESIGN != Design::Crs as u32 && DESIGN != Design::TopK as u32;
    let weighed = weights::weigh(&mut problem, has_threshold);
    if problem.team.rank == 0 && thread() == 0 {
        let at = block()[2] as usize;
        // SAFETY: the problem's own places.
        unsafe {
            store(args.status.wrapping_add(at), weighed.as_ref().map_or_else(|invalid| invalid + 1, |_| 0));
            if weighed.is_err() {
                store(args.count.wrapping_add(at), 0);
            }
        }
        if weighed.is_err() {
            write_winners(&problem, args, 0);
        }
    }
    if let Ok(Weighed { total, threshold }) = weighed {
        // SAFETY: the caller's promise.
        let stream = unsafe { Problem::stream(args) };
        let places = choose(&mut problem, args, DESIGN, stream, total, &threshold);
        emit(&problem, args, &Scaling { design: DESIGN, threshold, total }, places);
    }
}

/// Counts how often each pair is selected. Returns the place of the warp's pairs in the output.
#[inline(always)]
fn choose(
    problem: &mut Problem,
    args: &Args,
    design: u32,
    stream: Stream,
    total: u64,
    threshold: &Threshold,
) -> Prefix<u64> {
    if design == Design::Uniform as u32 {
        write_winners(problem, args, if problem.budget == problem.pairs { u64::from(problem.pairs) } else { 0 });
        uniform::select(problem, stream);
        return place(problem);
    }
    if design == Design::TopK as u32 {
        top_k::select(problem);
        return place(problem);
    }
    write_winners(problem, args, threshold.winners as u64);
    if design == Design::WtaPivotal as u32 {
        return pivotal::select(problem, stream, threshold);
    }
    if design == Design::WtaStratified as u32 {
        stratified::select(problem, stream, threshold);
    } else if design == Design::Crs as u32 {
        independent::select(problem, stream, u64::from(problem.budget), total, |_| false);
    } else {
        let (draws, mass) = (threshold.tail_places as u64, threshold.tail_mass);
        independent::select(problem, stream, draws, mass, |weight| threshold.is_winner(weight));
    }
    place(problem)
}
