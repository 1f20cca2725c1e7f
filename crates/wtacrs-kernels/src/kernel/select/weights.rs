//! Norms → integer weights, as `Weights` of wtacrs-core makes them: check, find the largest, quantise.
//!
//! Two passes for weights that need the pair's norms alone; a cache's and a predictor's need sums over the pairs before.

use super::guess::Centre;
use super::problem::Problem;
use super::{Args, Source};
use wtacrs_core::fixed_point::FixedPoint;
use wtacrs_core::weighing::{CacheMix, product};
use wtacrs_simt::memory::{load_constant, store};

/// A valid weight's bits without the sign of −0: their order is the weights' order.
const MAGNITUDE: u64 = !(1 << 63);

/// What a pair's weight is made of.
#[derive(Clone, Copy)]
pub(super) struct Weigher {
    input_norms: *const f32,
    other: *const f32,
    source: u32,
    mix: CacheMix,
    centre: Centre,
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
            centre: Centre::new(args.clamp),
        }
    }

    #[inline(always)]
    fn is(&self, source: Source) -> bool {
        self.source == source as u32
    }

    #[inline(always)]
    fn input_norm(&self, pair: u32) -> f32 {
        // SAFETY: one norm for each pair.
        unsafe { load_constant(self.input_norms.wrapping_add(pair as usize)) }
    }

    #[inline(always)]
    pub(super) fn other(&self, pair: u32) -> f32 {
        // SAFETY: one number for each pair, unless weights are of the input alone.
        unsafe { load_constant(self.other.wrapping_add(pair as usize)) }
    }

    #[inline(always)]
    fn cached(&self, pair: u32) -> Option<f32> {
        let norm = self.other(pair);
        if norm < 0.0 { None } else { Some(norm) }
    }

    #[inline(always)]
    fn is_valid(&self, pair: u32) -> bool {
        let valid = is_norm(self.input_norm(pair));
        if self.is(Source::Input) {
            return valid;
        }
        let other = self.other(pair);
        let other_valid = if self.is(Source::Norms) {
            is_norm(other)
        } else if self.is(Source::Cached) {
            other < 0.0 || is_norm(other)
        } else {
            is_norm(other.abs())
        };
        valid & other_valid
    }

    #[inline(always)]
    fn weight(&self, pair: u32) -> f64 {
        let input_norm = self.input_norm(pair);
        if self.is(Source::Input) {
            f64::from(input_norm)
        } else if self.is(Source::Norms) {
            product(input_norm, self.other(pair))
        } else if self.is(Source::Cached) {
            self.mix.weight(input_norm, self.cached(pair))
        } else {
            product(input_norm, self.centre.norm(self.other(pair)))
        }
    }

    /// ‖H_i‖ · ‖dZ_i‖_cached and ‖H_i‖ of a warm pair.
    #[inline(always)]
    fn warm(&self, pair: u32) -> [f64; 2] {
        match self.cached(pair) {
            Some(norm) => {
                let input_norm = self.input_norm(pair);
                [product(input_norm, norm), f64::from(input_norm)]
            }
            None => [0.0; 2],
        }
    }

    #[inline(always)]
    fn magnitude(&self, pair: u32) -> u64 {
        self.weight(pair).to_bits() & MAGNITUDE
    }
}

#[inline(always)]
fn is_norm(value: f32) -> bool {
    value >= 0.0 && value < f32::INFINITY
}

/// The problem's integer weights, in its scratch, and their sum; or the first pair whose norms are no weight.
#[inline(always)]
pub(super) fn weigh(problem: &mut Problem) -> Result<u64, u32> {
    let mut weigher = problem.weigher;
    let (run, pairs) = (problem.run, problem.pairs);
    let mut first_invalid = u64::MAX;
    let mut largest = 0;
    let by_pair = weigher.is(Source::Input) | weigher.is(Source::Norms);
    run.for_each(|pair| {
        if !weigher.is_valid(pair) {
            first_invalid = first_invalid.min(u64::from(pair));
        }
        if by_pair {
            largest = largest.max(weigher.magnitude(pair));
        }
    });
    let found = problem.team.reduce([first_invalid, largest], [u64::MAX, 0], |a, b| [a[0].min(b[0]), a[1].max(b[1])]);
    [first_invalid, largest] = found;
    if first_invalid != u64::MAX {
        return Err(first_invalid as u32);
    }
    if !by_pair {
        if weigher.is(Source::Cached) {
            mix_cache(problem, &mut weigher);
        } else {
            weigher.centre = weigher.centre.find(problem, &weigher);
        }
        run.for_each(|pair| largest = largest.max(weigher.magnitude(pair)));
        largest = problem.team.reduce(largest, 0, Ord::max);
    }

    let scale = FixedPoint::new(f64::from_bits(largest), pairs);
    let mut sum = 0_u64;
    run.for_each(|pair| {
        let weight = if largest == 0 { 1 } else { scale.quantize(weigher.weight(pair)) };
        sum = sum.wrapping_add(weight);
        // SAFETY: the pair's own place.
        unsafe { store(problem.layout.weights.wrapping_add(pair as usize), weight) };
    });
    Ok(problem.team.reduce(sum, 0, u64::wrapping_add))
}

/// The cache's mix from exact sums over the warm pairs, as `Weights::from_cache` takes them.
#[inline(always)]
fn mix_cache(problem: &mut Problem, weigher: &mut Weigher) {
    let run = problem.run;
    let mut largest = [0_u64; 2];
    run.for_each(|pair| {
        let warm = weigher.warm(pair);
        largest[0] = largest[0].max(warm[0].to_bits() & MAGNITUDE);
        largest[1] = largest[1].max(warm[1].to_bits() & MAGNITUDE);
    });
    largest = problem.team.reduce(largest, [0; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
    let products = FixedPoint::new(f64::from_bits(largest[0]), problem.pairs);
    let norms = FixedPoint::new(f64::from_bits(largest[1]), problem.pairs);
    let mut sums = [0_u64; 2];
    run.for_each(|pair| {
        let warm = weigher.warm(pair);
        sums[0] = sums[0].wrapping_add(products.quantize(warm[0]));
        sums[1] = sums[1].wrapping_add(norms.quantize(warm[1]));
    });
    sums = problem.team.reduce(sums, [0; 2], |a, b| [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])]);
    if sums[0] == 0 {
        // Nothing is warm, or all that is remembered is zero.
        weigher.source = Source::Input as u32;
    } else {
        weigher.mix = CacheMix::new(problem.mix, products.value(sums[0]), norms.value(sums[1]));
    }
}
