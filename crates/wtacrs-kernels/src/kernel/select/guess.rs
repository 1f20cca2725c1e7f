//! Log-norms, as a predictor guesses them, to norms up to a common factor: e^(log − centre), within e^±clamp.
//!
//! The centre is the c with Σ clamp(log_i − c) = 0, as in the predictor of wtacrs-core. Logs count in units of 2^−16
//! and up to ±2^15, so that sums are integers and the centre is the same for every number of threads and blocks.

use super::problem::Problem;
use super::weights::Weigher;
use wtacrs_simt::math::fma_f32;

/// Units of one.
const UNITS: f32 = 65536.0;

/// The largest log that sums count, in units.
const FARTHEST: f32 = 32768.0;

/// Beyond this a norm would not be normal in f32.
const STEEPEST: f64 = 80.0;

/// Where the guesses' middle is, and how far from it they may be.
#[derive(Clone, Copy)]
pub(super) struct Centre {
    centre: i64,
    clamp: f64,
}

impl Centre {
    #[inline(always)]
    pub(super) fn new(clamp: f64) -> Self {
        Self { centre: 0, clamp: clamp.min(STEEPEST) }
    }

    /// e^(log − centre), clamped.
    #[inline(always)]
    pub(super) fn norm(&self, log: f32) -> f32 {
        let distance = f64::from(log) - self.centre as f64 / f64::from(UNITS);
        exp(distance.max(-self.clamp).min(self.clamp) as f32)
    }

    /// Finds the centre: the mean if no guess is farther from it than the clamp, else by bisection, with Newton's step
    /// every other time, since few guesses are clamped.
    #[inline(always)]
    pub(super) fn find(self, problem: &mut Problem, weigher: &Weigher) -> Self {
        let run = problem.run;
        let clamp = (self.clamp * f64::from(UNITS)) as i64;
        let load = |pair: u32| weigher.load(pair).other;
        let units = |log: f32| (log.clamp(-FARTHEST, FARTHEST) * UNITS) as i64;
        let mut found = [0, ordered(i64::MIN), ordered(i64::MIN)];
        run.for_each(load, |_, log| {
            let log = units(log);
            found = widen(found, [log as u64, ordered(log), ordered(-log)]);
        });
        found = problem.team.reduce(found, [0, ordered(i64::MIN), ordered(i64::MIN)], widen);
        let (mut high, mut low) = (signed(found[1]), -signed(found[2]));
        let mean = (found[0] as i64).checked_div(i64::from(problem.pairs)).unwrap_or(0);
        if mean - low <= clamp && high - mean <= clamp {
            return Self { centre: mean, ..self };
        }
        // Σ clamp(log − c) falls as c grows: it is positive at `low` and not at `high`, which becomes the least such c.
        let mut next = mean;
        let mut newton = true;
        while high - low > 1 {
            let at = if newton && low < next && next < high { next } else { low + (high - low) / 2 };
            newton = !newton;
            let mut sums = [0_u64; 2];
            run.for_each(load, |_, log| {
                let distance = units(log) - at;
                let clamped = distance.max(-clamp).min(clamp);
                sums = [sums[0].wrapping_add(clamped as u64), sums[1] + u64::from(clamped == distance)];
            });
            sums = problem.team.sum(sums);
            let sum = sums[0] as i64;
            if sum > 0 {
                low = at;
            } else {
                high = at;
            }
            next = at + sum.checked_div(sums[1] as i64).unwrap_or(0);
        }
        Self { centre: high, ..self }
    }
}

/// Sum, largest, and largest negative.
#[inline(always)]
fn widen(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    [a[0].wrapping_add(b[0]), a[1].max(b[1]), a[2].max(b[2])]
}

/// Unsigned integers in the order of signed ones.
#[inline(always)]
const fn ordered(value: i64) -> u64 {
    value as u64 ^ 1 << 63
}

#[inline(always)]
const fn signed(ordered: u64) -> i64 {
    (ordered ^ 1 << 63) as i64
}

/// e^x for |x| ≤ 80, to 2^−22 of it and the same on every device: e^x = 2^n · e^r with |r| ≤ ln 2 / 2, and Taylor's
/// series of e^r, whose rest after r⁷ is below 2^−27.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 · 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, of which the first has so few bits that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let n = fma_f32(x, core::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = fma_f32(n, -LN_2_LOW, fma_f32(n, -LN_2_HIGH, x));
    let mut sum = 1.0 / 5040.0;
    sum = fma_f32(sum, r, 1.0 / 720.0);
    sum = fma_f32(sum, r, 1.0 / 120.0);
    sum = fma_f32(sum, r, 1.0 / 24.0);
    sum = fma_f32(sum, r, 1.0 / 6.0);
    sum = fma_f32(sum, r, 0.5);
    sum = fma_f32(sum, r, 1.0);
    sum = fma_f32(sum, r, 1.0);
    sum * f32::from_bits(((n as i32 + 127) as u32) << 23)
}
