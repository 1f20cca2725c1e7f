//! Activation functions with their slopes, the exponential behind them, and sums of rows.

/// Partial sums of a row: one for each lane of a warp.
pub const LANES: usize = 32;

/// e^x, with a relative error below 2⁻²²; 0 below [`LEAST_EXPONENT`], and for a NaN.
#[inline(always)]
pub const fn exp(x: f32) -> f32 {
    // The nearest integer to x/ln 2 is left in the low bits of a number between 2²³ and 2²⁴.
    const ROUNDER: f32 = 12_582_912.0;
    // ln 2 in two parts: products of the first with integers below 2⁹ are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let is_tiny = x < LEAST_EXPONENT || x.is_nan();
    let bounded = if is_tiny { 0.0 } else { x };
    let bounded = if bounded > 88.0 { 88.0 } else { bounded };
    let rounded = bounded * core::f32::consts::LOG2_E + ROUNDER;
    let whole = rounded - ROUNDER;
    let r = (bounded - whole * LN_2[0]) - whole * LN_2[1];
    // Minimax on |r| ≤ ln 2/2 (Cephes, expf).
    let p = 1.987_569_2e-4_f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let mantissa = p * (r * r) + r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits());
    let scaled = mantissa * f32::from_bits(exponent.wrapping_add(127) << 23);
    if is_tiny { 0.0 } else { scaled }
}

/// The least x whose [`exp`] is not 0. From there on e^x is a normal number.
pub const LEAST_EXPONENT: f32 = -87.3;

/// 1/(1 + e^−x); 0 below [`LEAST_EXPONENT`].
#[inline(always)]
pub const fn sigmoid(x: f32) -> f32 {
    let found = 1.0 / (1.0 + exp(-x));
    if x < LEAST_EXPONENT { 0.0 } else { found }
}

/// The normal law at x: its cumulative probability Φ and its density φ. Φ has a relative error below 2⁻¹⁸ for x ≥ −5, and
/// both are 0 below −13.3.
#[inline(always)]
pub const fn normal(x: f32) -> [f32; 2] {
    /// 1/√2π.
    const DENSITY: f32 = 0.398_942_3;
    // erfcx(z)/t as a polynomial in t = 1/(1 + 0.3 z), z = |x|/√2, to 2·10⁻⁸ of its value for z ≤ 12.
    const ERFCX: [f32; 9] = [
        0.169_189_35,
        0.170_691,
        0.148_520_25,
        0.214_187_22,
        -0.092_843_965,
        0.544_998_97,
        -0.509_805_44,
        0.484_320_05,
        -0.129_257_44,
    ];
    let size = x.abs();
    let bell = exp(-0.5 * (size * size));
    let t = 1.0 / (1.0 + 0.3 * core::f32::consts::FRAC_1_SQRT_2 * size);
    let mut p = ERFCX[8];
    let mut i = 8;
    while i > 0 {
        i -= 1;
        p = p * t + ERFCX[i];
    }
    let tail = 0.5 * bell * (p * t);
    [if x < 0.0 { tail } else { 1.0 - tail }, DENSITY * bell]
}

/// A function with its slope at one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// g(x).
    pub value: f32,
    /// g′(x).
    pub slope: f32,
}

/// x for x > 0, else 0. The slope at 0 is 0.
#[inline(always)]
pub const fn relu(x: f32) -> Point {
    // A NaN stays one.
    let value = if x <= 0.0 { 0.0 } else { x };
    Point { value, slope: if x > 0.0 { 1.0 } else { 0.0 } }
}

/// x Φ(x), by the normal law.
#[inline(always)]
pub const fn gelu(x: f32) -> Point {
    let [below, density] = normal(x);
    let bounded = x.clamp(-20.0, 20.0);
    Point { value: x * below, slope: below + bounded * density }
}

/// x (1 + tanh(√(2/π) (x + 0.044715 x³)))/2 = x σ(2√(2/π) (x + 0.044715 x³)).
#[inline(always)]
pub const fn gelu_tanh(x: f32) -> Point {
    /// 2√(2/π).
    const SCALE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    let bounded = x.clamp(-20.0, 20.0);
    let square = bounded * bounded;
    let below = sigmoid(SCALE * (bounded + CUBE * (square * bounded)));
    let inner = SCALE * (1.0 + 3.0 * CUBE * square);
    Point { value: x * below, slope: below + bounded * (below * (1.0 - below) * inner) }
}

/// x σ(x).
#[inline(always)]
pub const fn silu(x: f32) -> Point {
    let below = sigmoid(x);
    let bounded = x.clamp(-100.0, 100.0);
    Point { value: x * below, slope: below + bounded * (below * (1.0 - below)) }
}

/// The sum of a row: lane l adds elements l, l + 32, …, then the upper half of the lanes is added to the lower, five times.
/// This is the definition; devices do the same with vectors or warps.
pub fn lane_sum(row: impl Iterator<Item = f32>) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (j, x) in row.enumerate() {
        sums[j % LANES] += x;
    }
    total(sums)
}

/// The upper half of the lanes is added to the lower, five times.
#[inline(always)]
pub fn total(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use statrs::distribution::{Continuous, ContinuousCDF, Normal};

    fn points() -> impl Iterator<Item = f32> {
        (-30_000..=30_000).map(|i| i as f32 * 5e-4)
    }

    fn sigmoid64(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn exp_is_the_exponential() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let error = f64::from(exp(x)) / f64::from(x).exp() - 1.0;
            assert!(error.abs() < 2.0_f64.powi(-22), "{x} {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-88.0), exp(f32::NEG_INFINITY), exp(f32::NAN)], [0.0; 3]);
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn the_normal_law_is_the_normal_law() {
        let law = Normal::standard();
        for x in points() {
            let [below, density] = normal(x);
            let exact = f64::from(x);
            assert!((f64::from(below) - law.cdf(exact)).abs() < 2e-7, "{x} {below}");
            assert!((f64::from(density) - law.pdf(exact)).abs() < 1e-7, "{x} {density}");
            if x > -5.0 {
                assert!((f64::from(below) / law.cdf(exact) - 1.0).abs() < 2.0_f64.powi(-18), "{x} {below}");
            }
        }
    }

    #[test]
    fn functions_and_slopes() {
        let law = Normal::standard();
        let inner = |x: f64| 2.0 * (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        let slope_of_inner = |x: f64| 2.0 * (2.0 / core::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
        for point in points() {
            let x = f64::from(point);
            let s = sigmoid64(inner(x));
            let of_tanh = [x * s, s + x * s * (1.0 - s) * slope_of_inner(x)];
            let s = sigmoid64(x);
            let cases = [
                (gelu(point), [x * law.cdf(x), law.cdf(x) + x * law.pdf(x)]),
                (gelu_tanh(point), of_tanh),
                (silu(point), [x * s, s + x * s * (1.0 - s)]),
                (relu(point), if x > 0.0 { [x, 1.0] } else { [0.0, 0.0] }),
            ];
            for (found, [value, slope]) in cases {
                assert!((f64::from(found.value) - value).abs() < 4e-7 * (1.0 + x.abs()), "{x} {found:?} {value}");
                assert!((f64::from(found.slope) - slope).abs() < 2e-6, "{x} {found:?} {slope}");
            }
        }
    }

    #[test]
    fn far_out_functions_are_straight_lines() {
        for function in [relu, gelu, gelu_tanh, silu] {
            for x in [100.0, 1e30, f32::INFINITY] {
                assert_eq!(function(x), Point { value: x, slope: 1.0 }, "{x}");
                let left = function(-x);
                assert!(left.value == 0.0 || x.is_infinite(), "{left:?}");
                assert_eq!(left.slope, 0.0);
            }
            assert!(function(f32::NAN).value.is_nan());
        }
    }

    #[test]
    fn sums_have_one_order() {
        let row = |length: usize| (0..length).map(|j| ((j * 37 % 101) as f32).sqrt());
        assert_eq!(lane_sum(row(0)), 0.0);
        assert_eq!(lane_sum((0..100).map(|j| j as f32)), 4950.0);
        let mut lanes = [0.0; LANES];
        for (lane, sum) in lanes.iter_mut().enumerate() {
            for j in (lane..1000).step_by(LANES) {
                *sum += row(1000).nth(j).expect("an element");
            }
        }
        for half in [16, 8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        assert_eq!(lane_sum(row(1000)), lanes[0]);
    }
}
