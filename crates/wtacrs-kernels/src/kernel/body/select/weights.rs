//! Norms → integer weights, as `Weights` of wtacrs-core makes them: check, find the largest, quantise.
//!
//! Two passes where a weight needs its pair's norms alone. Weights from a cache need sums over all pairs first.

use super::problem::Problem;
use super::weigher::{MAGNITUDE, Weigher};
use crate::kernel::select::{Args, Design, SourceKind, WeightsArgs};
use core::ptr;
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::weighing::CacheMix;
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
    let weights = args.weights.wrapping_add(block()[2] as usize * args.pairs as usize);
    problem.layout.weights = weights.cast();
    let weighed = weigh(&mut problem);
    let (layout, scale) = (problem.layout, problem.scale);
    problem.run.rows(
        // The thread that reads a pair's integer wrote it.
        |pair| if weighed.is_ok() { layout.weight(pair) } else { 0 },
        |pair, held, integer| {
            // Beyond the run a lane has loaded the run's last integer, which another lane replaces.
            warp_barrier(FULL);
            if held {
                let weight = if weighed.is_ok() { scale.value(integer) } else { f64::NAN };
                // SAFETY: the pair's own place.
                unsafe { store(weights.wrapping_add(pair as usize), weight) };
            }
        },
    );
}

/// Writes the problem's integer weights to its scratch and returns their sum, or the first pair with an invalid norm.
#[inline(always)]
pub(super) fn weigh(problem: &mut Problem) -> Result<u64, u32> {
    let mut weigher = problem.weigher;
    let (run, pairs) = (problem.run, problem.pairs);
    let mut largest = 0;
    let by_pair = !weigher.is(SourceKind::Cached);
    let load = |pair: u32| weigher.load(pair);
    run.for_each(load, |pair, norms| {
        let found = if by_pair { weigher.magnitude(norms) } else { 0 };
        largest = largest.max(if weigher.is_valid(norms) { found } else { invalid(pair) });
    });
    largest = problem.team.max(largest);
    if largest > MAGNITUDE {
        return Err(u32::MAX - largest as u32);
    }
    if !by_pair {
        mix_cache(problem, &mut weigher);
        run.for_each(|pair| weigher.load(pair), |_, norms| largest = largest.max(weigher.magnitude(norms)));
        largest = problem.team.max(largest);
    }

    let scale = FixedPoint::new(f64::from_bits(largest), pairs);
    problem.scale = scale;
    let mut sum = 0_u64;
    run.for_each(
        |pair| weigher.load(pair),
        |pair, norms| {
            let weight = if largest == 0 { 1 } else { scale.quantize(weigher.weight(norms)) };
            sum = sum.wrapping_add(weight);
            // SAFETY: the pair's own place.
            unsafe { store(problem.layout.weights.wrapping_add(pair as usize), weight) };
        },
    );
    Ok(problem.team.sum(sum))
}

/// Sets the cache's mix from exact sums over the warm pairs, as `Weights::from_cache` does.
#[inline(always)]
fn mix_cache(problem: &mut Problem, weigher: &mut Weigher) {
    let run = problem.run;
    let mut largest = [0_u64; 2];
    run.for_each(
        |pair| weigher.load(pair),
        |_, norms| {
            let warm = norms.warm();
            largest[0] = largest[0].max(warm[0].to_bits() & MAGNITUDE);
            largest[1] = largest[1].max(warm[1].to_bits() & MAGNITUDE);
        },
    );
    largest = problem.team.max(largest);
    let products = FixedPoint::new(f64::from_bits(largest[0]), problem.pairs);
    let inputs = FixedPoint::new(f64::from_bits(largest[1]), problem.pairs);
    let mut sums = [0_u64; 2];
    run.for_each(
        |pair| weigher.load(pair),
        |_, norms| {
            let warm = norms.warm();
            sums[0] = sums[0].wrapping_add(products.quantize(warm[0]));
            sums[1] = sums[1].wrapping_add(inputs.quantize(warm[1]));
        },
    );
    sums = problem.team.sum(sums);
    if sums[0] == 0 {
        // No pair is warm, or all cached norms are zero.
        weigher.source = SourceKind::Input as u32;
    } else {
        weigher.mix = CacheMix::new(problem.mix, products.value(sums[0]), inputs.value(sums[1]));
    }
}

/// An invalid pair as a number: above all magnitudes, and the higher the lower its index.
const fn invalid(pair: u32) -> u64 {
    1 << 63 | (u32::MAX - pair) as u64
}
