//! From log-norms to norms: positive, finite, and not too far from one another.
//!
//! All of it runs on vectors, so that it costs little beside the pass that reads H, and none of it calls a
//! mathematical library whose last bits differ between machines, but for one exponential of the centre.

use crate::lanes::on_widest_vectors;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Farthest that the guesses' geometric mean may lie from e⁰, so that with the clamp all of them are normal in f32.
const FARTHEST_CENTRE: f64 = 60.0;

/// Log-norms whose exponentials are one task: fewer are not worth waking another thread for.
const TASK: usize = 1 << 14;

/// Partial sums kept side by side: fixed, so that every machine adds in the same order.
const LANES: usize = 16;

/// Each of `logs` ← e^(offset + log), held within e^±clamp of the results' geometric mean; all logs are finite.
pub(super) fn bound(logs: &mut [f32], offset: f64, clamp: f64) {
    let centre = centre(logs, clamp);
    let unit = (offset + centre).clamp(-FARTHEST_CENTRE, FARTHEST_CENTRE).exp() as f32;
    let (centre, clamp) = (centre as f32, clamp as f32);
    let exponentials = |logs: &mut [f32]| on_widest_vectors(Exponentials { logs, centre, clamp, unit });
    if logs.len() <= TASK { exponentials(logs) } else { logs.par_chunks_mut(TASK).for_each(exponentials) }
}

/// The m with Σ clamp(log_i − m) = 0: the mean of what is left after clamping around it.
fn centre(logs: &[f32], clamp: f64) -> f64 {
    if logs.is_empty() {
        return 0.0;
    }
    let Extent { low, high, sum } = on_widest_vectors(ExtentOf { logs });
    let (mut low, mut high) = (f64::from(low), f64::from(high));
    let mut middle = (sum / logs.len() as f64).clamp(low, high);
    if middle - low <= clamp && high - middle <= clamp {
        return middle;
    }
    // The sum falls as m grows, in straight pieces: Newton's method, kept within the bounds known so far.
    for round in 0..MOST_STEPS {
        let Clamped { sum, inside } = on_widest_vectors(ClampedAbout { logs, middle: middle as f32, clamp: clamp as f32 });
        if sum > 0.0 { low = middle } else { high = middle }
        if sum.abs() <= ENOUGH * inside.max(1.0) {
            break;
        }
        let next = middle + sum / inside;
        // Every third step halves, so that all the others need not get anywhere.
        middle = if round % 3 < 2 && next > low && next < high { next } else { f64::midpoint(low, high) };
    }
    middle
}

/// Some more than it takes: Newton's method is exact once it knows which logs are clamped.
const MOST_STEPS: usize = 96;
/// A step that no weight shows.
const ENOUGH: f64 = 1e-7;

/// The least and the greatest number, and the sum.
struct Extent {
    low: f32,
    high: f32,
    sum: f64,
}

struct ExtentOf<'a> {
    logs: &'a [f32],
}

impl WithSimd for ExtentOf<'_> {
    type Output = Extent;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Extent {
        let (mut low, mut high, mut sum) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0.0; LANES]);
        let (chunks, rest) = self.logs.as_chunks::<LANES>();
        let mut add = |lane: usize, log: f32| {
            // Not `min` and `max`, whose care for NaN takes three instructions.
            low[lane] = if log < low[lane] { log } else { low[lane] };
            high[lane] = if log > high[lane] { log } else { high[lane] };
            sum[lane] += f64::from(log);
        };
        for chunk in chunks {
            (0..LANES).for_each(|lane| add(lane, chunk[lane]));
        }
        rest.iter().enumerate().for_each(|(lane, &log)| add(lane, log));
        Extent {
            low: low.into_iter().fold(f32::INFINITY, f32::min),
            high: high.into_iter().fold(f32::NEG_INFINITY, f32::max),
            sum: sum.into_iter().sum(),
        }
    }
}

/// Σ clamp(log − middle), and how many logs are not clamped.
struct Clamped {
    sum: f64,
    inside: f64,
}

struct ClampedAbout<'a> {
    logs: &'a [f32],
    middle: f32,
    clamp: f32,
}

impl WithSimd for ClampedAbout<'_> {
    type Output = Clamped;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Clamped {
        let Self { logs, middle, clamp } = self;
        let (mut sum, mut inside) = ([0.0; LANES], [0.0; LANES]);
        let (chunks, rest) = logs.as_chunks::<LANES>();
        let mut add = |lane: usize, log: f32| {
            let difference = log - middle;
            sum[lane] += f64::from(difference.clamp(-clamp, clamp));
            inside[lane] += if difference.abs() < clamp { 1.0 } else { 0.0 };
        };
        for chunk in chunks {
            (0..LANES).for_each(|lane| add(lane, chunk[lane]));
        }
        rest.iter().enumerate().for_each(|(lane, &log)| add(lane, log));
        Clamped { sum: sum.into_iter().sum(), inside: inside.into_iter().sum() }
    }
}

/// Each log ← unit · e^clamp(log − centre).
struct Exponentials<'a> {
    logs: &'a mut [f32],
    centre: f32,
    clamp: f32,
    unit: f32,
}

impl WithSimd for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { logs, centre, clamp, unit } = self;
        for log in logs {
            *log = unit * exponential((*log - centre).clamp(-clamp, clamp));
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

    fn bounded(logs: &[f32], offset: f64) -> Vec<f32> {
        let mut norms = logs.to_vec();
        bound(&mut norms, offset, 6.0);
        norms
    }

    #[test]
    fn the_centre_is_the_mean_of_what_clamping_leaves() {
        for logs in [
            vec![0.0, 1.0, 2.0],
            vec![-100.0, 1.0, 1.0, 1.5],
            vec![-1e9, 1e9],
            vec![700.0, 701.0, 900.0],
            vec![-900.0; 3],
            (0..1000).map(|i| (i % 37) as f32 - (i % 5) as f32 * 7.0).collect(),
        ] {
            let norms = bounded(&logs, 0.0);
            assert!(norms.iter().all(|norm| norm.is_normal() && *norm > 0.0), "{logs:?} {norms:?}");
            let mean = norms.iter().map(|norm| f64::from(*norm).ln()).sum::<f64>() / norms.len() as f64;
            assert!((mean - centre(&logs, 6.0).clamp(-60.0, 60.0)).abs() < 1e-4, "{logs:?} {norms:?}");
            assert!(norms.iter().all(|norm| (f64::from(*norm).ln() - mean).abs() < 6.0001), "{logs:?} {norms:?}");
        }
        assert!(bounded(&[], 0.0).is_empty());
        assert_eq!(bounded(&[0.0; 3], 0.0), [1.0; 3]);
    }

    #[test]
    fn an_offset_moves_all_and_many_are_cut_into_tasks() {
        let logs: Vec<f32> = (0..3 * TASK + 7).map(|i| (i % 101) as f32 / 50.0).collect();
        for (norm, log) in bounded(&logs, -1.25).iter().zip(&logs) {
            assert!((f64::from(*norm) / (f64::from(*log) - 1.25).exp() - 1.0).abs() < 1e-6);
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
        let logs: Vec<f32> = (0..777).map(|i| ((i * i) % 1009) as f32 / 50.0 - 9.0).collect();
        let wide = on_widest_vectors(ClampedAbout { logs: &logs, middle: 0.3, clamp: 6.0 });
        let narrow = ClampedAbout { logs: &logs, middle: 0.3, clamp: 6.0 }.with_simd(pulp::Scalar);
        assert_eq!((wide.sum, wide.inside), (narrow.sum, narrow.inside));
        let sum = ExtentOf { logs: &logs }.with_simd(pulp::Scalar).sum;
        assert_eq!(on_widest_vectors(ExtentOf { logs: &logs }).sum, sum);
        let (mut wide, mut narrow) = (logs.clone(), logs);
        on_widest_vectors(Exponentials { logs: &mut wide, centre: 0.3, clamp: 6.0, unit: 0.7 });
        Exponentials { logs: &mut narrow, centre: 0.3, clamp: 6.0, unit: 0.7 }.with_simd(pulp::Scalar);
        assert_eq!(wide, narrow);
    }
}
