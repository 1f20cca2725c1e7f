//! Norms → integer weights, as `Weights` of wtacrs-core makes them: check, find the largest, quantise.
//!
//! Two passes for weights that need the pair's numbers alone; a cache's need sums over the pairs before.

use super::problem::Problem;
use super::{Args, Source};
use crate::block::exponential::{FARTHEST, exp};
use wtacrs_exact::fixed_point::FixedPoint;
use wtacrs_exact::weighing::{CacheMix, product};
use wtacrs_simt::memory::{load_constant, store};

/// All bits but the sign.
const MAGNITUDE: u64 = !(1 << 63);

/// An invalid pair, above all magnitudes, and the first above all others.
const fn invalid(pair: u32) -> u64 {
    1 << 63 | (u32::MAX - pair) as u64
}

/// What a pair's weight is made of.
#[derive(Clone, Copy)]
pub(super) struct Weigher {
    input_norms: *const f32,
    other: *const f32,
    source: u32,
    mix: CacheMix,
    clamp: f32,
}

impl Weigher {
    #[inline(always)]
    pub(super) fn new(args: &Args, problem: u32) -> Self {
        let first = problem as usize * args.pairs as usize;
        Self {
            input_norms: args.input_norms.wrapping_add(first),
            other: args.other.wrapping_add(first),
            source: args.source,
            // No pair is warm: what is remembered weighs nothing.
            mix: CacheMix::new(0.0, 1.0, 1.0),
            clamp: (args.clamp as f32).min(FARTHEST),
        }
    }

    #[inline(always)]
    fn is(&self, source: Source) -> bool {
        self.source == source as u32
    }

    #[inline(always)]
    pub(super) fn load(&self, pair: u32) -> Norms {
        // SAFETY: one norm for each pair.
        let input = unsafe { load_constant(self.input_norms.wrapping_add(pair as usize)) };
        let other = if self.is(Source::Input) {
            1.0
        } else {
            // SAFETY: one number for each pair.
            unsafe { load_constant(self.other.wrapping_add(pair as usize)) }
        };
        Norms { input, other }
    }

    #[inline(always)]
    fn is_valid(&self, norms: Norms) -> bool {
        let other = if self.is(Source::Predicted) { norms.other.abs() } else { norms.other };
        is_norm(norms.input) & (is_norm(other) | (self.is(Source::Cached) & (other < 0.0)))
    }

    /// The weight's bits without the sign of −0: their order is the weights' order.
    #[inline(always)]
    fn magnitude(&self, norms: Norms) -> u64 {
        self.weight(norms).to_bits() & MAGNITUDE
    }

    #[inline(always)]
    fn weight(&self, norms: Norms) -> f64 {
        if self.is(Source::Input) | self.is(Source::Norms) {
            product(norms.input, norms.other)
        } else if self.is(Source::Cached) {
            self.mix.weight(norms.input, norms.cached())
        } else {
            product(norms.input, exp(norms.other.max(-self.clamp).min(self.clamp)))
        }
    }
}

/// A pair's two numbers.
#[derive(Clone, Copy)]
pub(super) struct Norms {
    input: f32,
    pub(super) other: f32,
}

impl Norms {
    #[inline(always)]
    fn cached(self) -> Option<f32> {
        if self.other < 0.0 { None } else { Some(self.other) }
    }

    /// ‖H_i‖ · ‖dZ_i‖_cached and ‖H_i‖ of a warm pair.
    #[inline(always)]
    fn warm(self) -> [f64; 2] {
        match self.cached() {
            Some(norm) => [product(self.input, norm), f64::from(self.input)],
            None => [0.0; 2],
        }
    }
}

#[inline(always)]
fn is_norm(value: f32) -> bool {
    (0.0..f32::INFINITY).contains(&value)
}

/// The problem's integer weights, in its scratch, and their sum; or the first pair whose norms are no weight.
#[inline(always)]
pub(super) fn weigh(problem: &mut Problem) -> Result<u64, u32> {
    let mut weigher = problem.weigher;
    let (run, pairs) = (problem.run, problem.pairs);
    let mut largest = 0;
    let by_pair = !weigher.is(Source::Cached);
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

/// The cache's mix from exact sums over the warm pairs, as `Weights::from_cache` takes them.
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
        // Nothing is warm, or all that is remembered is zero.
        weigher.source = Source::Input as u32;
    } else {
        weigher.mix = CacheMix::new(problem.mix, products.value(sums[0]), inputs.value(sums[1]));
    }
}
