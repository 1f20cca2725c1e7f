//! From log-norms to norms: positive, finite, and not too far from one another.
//!
//! They are bounded about the mean of what the last step brought, and not about their own: a batch may be padding for the
//! most part, whose guesses would draw their mean down, and the bound with it onto those that matter.
//!
//! All of it runs on vectors, so that it costs little beside the pass that reads H, and none of it calls a
//! mathematical library whose last bits differ between machines, but for one exponential.

use crate::lanes::on_widest_vectors;
use pulp::{Simd, WithSimd};

/// Farthest that the bounds' middle may lie from e⁰, so that with the clamp all norms are normal in f32.
const FARTHEST: f64 = 60.0;

/// How norms are made of log-norms: e^(level + clamp(excess + log)).
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    excess: f32,
    clamp: f32,
    /// e^level.
    unit: f32,
}

impl Bounds {
    /// For log-norms that lie `excess` below those about `level`.
    pub(super) fn new(excess: f64, level: f64, clamp: f64) -> Self {
        let unit = level.clamp(-FARTHEST, FARTHEST).exp() as f32;
        Self { excess: excess as f32, clamp: clamp as f32, unit }
    }

    /// Each of `logs`, which are finite, becomes a norm.
    pub(super) fn apply(self, logs: &mut [f32]) {
        on_widest_vectors(Exponentials { logs, bounds: self });
    }
}

struct Exponentials<'a> {
    logs: &'a mut [f32],
    bounds: Bounds,
}

impl WithSimd for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Bounds { excess, clamp, unit } = self.bounds;
        for log in self.logs {
            *log = unit * exponential((*log + excess).clamp(-clamp, clamp));
        }
    }
}

/// e^x within 2 units in the last place, for |x| ≤ 20, in operations that vectorise.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    // x = whole·ln 2 + rest. Adding the large number rounds to whole, and leaves it in the sum's lowest bits.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23
    // The upper bits of ln 2, so that their product with whole is exact, and what they lack.
    const LN_2_UPPER: f32 = 0.693_359_4;
    const LN_2_LOWER: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN_2_UPPER - whole * LN_2_LOWER;
    // Taylor's series: what it omits is below 1e-8 for |rest| ≤ ln 2/2.
    let inverse_factorials = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let series = inverse_factorials.into_iter().fold(1.0_f32 / 5040.0, |series, next| series * rest + next);
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_exponentials_within_the_bounds() {
        for (excess, level) in [(0.0, 0.0), (-1.25, 3.0), (2.0, -50.0), (100.0, 900.0), (0.0, -1e3)] {
            let logs: Vec<f32> = (0..1001).map(|i| (i as f32 - 500.0) / 40.0).chain([-1e9, 1e9, f32::MAX]).collect();
            let mut norms = logs.clone();
            Bounds::new(excess, level, 6.0).apply(&mut norms);
            for (norm, log) in norms.iter().zip(&logs) {
                let log = f64::from(*log + excess as f32).clamp(-6.0, 6.0) + level.clamp(-60.0, 60.0);
                assert!(norm.is_normal() && (f64::from(*norm) / log.exp() - 1.0).abs() < 1e-6, "{log} {norm}");
            }
        }
    }

    #[test]
    fn the_exponential_is_close() {
        for i in -20_000..=20_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(exponential(x)) / expected - 1.0).abs() < 2.4e-7, "{x}");
        }
        assert_eq!(exponential(0.0), 1.0);
    }

    #[test]
    fn every_width_of_vectors_gives_the_same_bits() {
        let mut wide: Vec<f32> = (0..777).map(|i| ((i * i) % 1009) as f32 / 50.0 - 9.0).collect();
        let mut narrow = wide.clone();
        let bounds = Bounds::new(-0.3, 0.7, 6.0);
        bounds.apply(&mut wide);
        Exponentials { logs: &mut narrow, bounds }.with_simd(pulp::Scalar);
        assert_eq!(wide, narrow);
    }
}
