//! Norms → integer weights, as `Weights` of wtacrs-core makes them, and their threshold.
//!
//! The largest weight over all blocks fixes the scale of the integers. A round of its own would tell every block that scale
//! before it sums. Instead a block sums by the scale of its own largest weight, and by those one and two octaves above: the
//! integers of a coarser scale are those of a finer one, shifted. So one round finds the largest weight, and the sum by its
//! scale. Only if some block's largest weight lies further below is there another pass, which sums again.
//!
//! Weights from a cache need two such sums over the warm pairs first, for the mix.
//!
//! All passes are turns of one loop, so that the code of a collective is there once: a launch runs it from a cold
//! instruction cache.

use super::problem::Problem;
use super::share::Share;
use super::values::Values;
use super::weigher::{MAGNITUDE, Quantity};
use crate::kernel::body::block::words::Words;
use crate::kernel::select::{Args, Design, SourceKind, WeightsArgs};
use core::ptr;
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::threshold::{Saturation, Split, Threshold};
use wtacrs_simt::index::block;
use wtacrs_simt::memory::store;
use wtacrs_simt::sync::warp_barrier;
use wtacrs_simt::warp::FULL;

/// Writes the weights themselves, which the selection's integers stand for: `Weights::value` of wtacrs-core. It needs no
/// scratch, since the integers lie where the weights go. So a problem has one block, however many pairs.
///
/// # Safety
///
/// A launch of [`weights_shape`](crate::kernel::select::weights_shape), and memory as [`WeightsArgs`] says.
#[inline(always)]
pub unsafe fn select_weights(args: &WeightsArgs) {
    let first = block()[2] as usize * args.pairs as usize;
    let of = Args {
        input_norms: args.input_norms,
        other: args.other,
        source: args.source,
        pairs: args.pairs,
        budget: args.pairs,
        mix: args.mix,
        clamp: args.clamp,
        seed: 0,
        offset: 0,
        further_offset: ptr::null(),
        first_stream: 0,
        stream_step: 0,
        indices: ptr::null_mut(),
        scales: ptr::null_mut(),
        count: ptr::null_mut(),
        winners: ptr::null_mut(),
        status: ptr::null_mut(),
        scratch: ptr::null_mut(),
        exchange: ptr::null_mut(),
    };
    // SAFETY: one block uses no exchange, and weighing no scratch but the place of the integers.
    let mut problem = unsafe { Problem::new(&of, Design::TopK as u32) };
    let weights = args.weights.wrapping_add(first);
    problem.weights = Values::new(problem.run, weights.cast());
    let weighed = weigh(&mut problem, false);
    let scale = problem.scale;
    problem.weights.rows(
        |_| (),
        |pair, in_run, integer, ()| {
            if in_run {
                let weight = if weighed.is_ok() { scale.value(integer) } else { f64::NAN };
                // SAFETY: the pair's own place.
                unsafe { store(weights.wrapping_add(pair as usize), weight) };
            }
        },
    );
}

/// The sum of the integer weights, and winners and tail.
pub(super) struct Weighed {
    pub(super) total: u64,
    /// Without winners, if it was not wanted.
    pub(super) threshold: Threshold,
}

/// Writes the problem's integer weights to its scratch, and finds their threshold if it is wanted. Returns the first pair
/// with an invalid norm, if there is one.
///
/// A pass of the search is one collective, so each also tries a guess: see `wtacrs_exact::threshold`.
#[inline(always)]
pub(super) fn weigh(problem: &mut Problem, wants_threshold: bool) -> Result<Weighed, u32> {
    let mut weigher = problem.weigher;
    let mut quantity = if weigher.is(SourceKind::Cached) { Quantity::WarmWeight } else { Quantity::Weight };
    let mut search = Saturation::new(problem.budget as usize);
    let mut total = 0;
    let mut is_new = true;
    loop {
        let (cut, guess) = (search.cut(), search.guess());
        let (mut largest, mut sums) = (0, [0_u64; 3]);
        if is_new {
            let mut weigh = |pair: u32, magnitude: Option<u64>| {
                largest = largest.max(magnitude.unwrap_or(invalid(pair)));
                magnitude.unwrap_or(0)
            };
            let load = |pair| weigher.load(pair);
            // All threads take the same branch: within the passes, each pair would.
            if weigher.is(SourceKind::Cached) {
                problem.weights.set(load, |pair, norms| weigh(pair, weigher.of_cache(quantity, norms)));
            } else {
                problem.weights.set(load, |pair, norms| weigh(pair, weigher.of_norms(norms)));
            }
            largest = problem.team.max_in_block(largest);
            if largest <= MAGNITUDE {
                problem.scale = FixedPoint::new(f64::from_bits(largest), problem.pairs);
                let scale = problem.scale;
                problem.weights.replace(|magnitude| {
                    let integer = scale.quantize(f64::from_bits(magnitude));
                    let coarse = |octaves| FixedPoint::coarsen(integer, octaves);
                    sums = sums.plus([integer, coarse(1), coarse(2)]);
                    integer
                });
            }
        } else {
            // Pairs are fewer than 2^32, so one word counts the winners of both.
            problem.weights.rows(
                |_| (),
                |_, in_run, weight, ()| {
                    let (wins, guessed) = (u64::from(in_run & (weight >= cut)), u64::from(in_run & (weight >= guess)));
                    let tail = |wins: u64| if in_run { weight & wins.wrapping_sub(1) } else { 0 };
                    sums = sums.plus([wins | guessed << 32, tail(wins), tail(guessed)]);
                },
            );
        }
        let mut found = Share::of_all(&mut problem.team, largest, sums);
        if is_new {
            if found.largest > MAGNITUDE {
                return Err(u32::MAX - found.largest as u32);
            }
            is_new = false;
            let all_zero = found.largest == 0 && quantity == Quantity::Weight;
            let scale = FixedPoint::new(f64::from_bits(found.largest), problem.pairs);
            let octaves = problem.scale.octaves_to(scale);
            problem.scale = scale;
            if all_zero || octaves > 0 {
                problem.weights.replace(|integer| if all_zero { 1 } else { FixedPoint::coarsen(integer, octaves) });
            }
            if found.is_unknown() {
                // No weight reaches the first cut, so the next pass sums all.
                continue;
            }
            let sum = if all_zero { u64::from(problem.pairs) } else { found.sums[0] };
            found.sums = [0, sum, sum];
        }
        let [winners, by_cut, by_guess] = found.sums;
        if quantity != Quantity::Weight {
            let sum = problem.scale.value(by_cut);
            if quantity == Quantity::WarmWeight && by_cut > 0 {
                (weigher.warm, quantity) = (sum, Quantity::WarmInput);
            } else {
                if quantity == Quantity::WarmInput {
                    weigher.warm /= sum;
                } else {
                    // No pair is warm, or all cached norms are zero.
                    weigher.source = SourceKind::Input as u32;
                }
                quantity = Quantity::Weight;
            }
            is_new = true;
            continue;
        }
        if cut == u64::MAX {
            total = by_cut;
        }
        let split = |winners: u64, tail_mass| Split { winners: winners as u32 as usize, tail_mass };
        let threshold = search.learn_both(split(winners, by_cut), split(winners >> 32, by_guess));
        if !wants_threshold {
            // Beyond the run a lane reads the run's last weight, which another lane has written: nothing else comes between.
            warp_barrier(FULL);
            return Ok(Weighed {
                total,
                threshold: Threshold { cut: u64::MAX, winners: 0, tail_mass: 0, tail_places: 0 },
            });
        }
        if let Some(threshold) = threshold {
            return Ok(Weighed { total, threshold });
        }
    }
}

/// An invalid pair as a number: above all magnitudes, and the higher the lower its index.
const fn invalid(pair: u32) -> u64 {
    1 << 63 | (u32::MAX - pair) as u64
}
