//! e^x in f32 and ln x in f64, in arithmetic that gives the same bits on every device.

use wtacrs_simt::math::{fma_f32, fma_f64};

/// The largest |x| that [`exp`] takes: beyond it, results would leave the normal numbers.
pub const LARGEST_EXPONENT: f32 = 80.0;

/// e^x for |x| ≤ 80, with a relative error below 2^−22: e^x = 2^n · e^r with |r| ≤ ln 2 / 2, and Taylor's series of e^r,
/// whose rest after r⁷ is below 2^−27.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
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

/// ln x of a positive, finite x, with an error below 4 units in the last place: x = m·2^e with m in [√½, √2), and with
/// s = (m − 1)/(m + 1), ln x = e·ln 2 + 2(s + s³/3 + s⁵/5 + …).
#[inline(always)]
pub fn ln(x: f32) -> f64 {
    // ln 2 in two parts: the first has 32 trailing zeros, so that its product with an exponent is exact.
    const LN_2_UPPER: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN_2_LOWER: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const MANTISSA: u64 = (1 << 52) - 1;
    const HALF_ROOT: u64 = core::f64::consts::FRAC_1_SQRT_2.to_bits();
    let bits = f64::from(x).to_bits();
    // Moves the exponent's step from 1 to √½, so that m lies around 1.
    let moved = bits.wrapping_sub(HALF_ROOT);
    let exponent = f64::from((moved as i64 >> 52) as i32);
    let m = f64::from_bits((moved & MANTISSA).wrapping_add(HALF_ROOT));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 0.0;
    let mut i = 0;
    while i < SERIES.len() {
        series = fma_f64(series, square, SERIES[i]);
        i += 1;
    }
    // 2s + 2s·s²·series, the large part added last.
    let small = fma_f64(exponent, LN_2_LOWER, 2.0 * s * square * series);
    fma_f64(exponent, LN_2_UPPER, fma_f64(2.0, s, small))
}

/// 1/21, 1/19, …, 1/3: the rest is below s²³/23 < 1e−18, as |s| < 0.172.
const SERIES: [f64; 10] = [
    1.0 / 21.0,
    1.0 / 19.0,
    1.0 / 17.0,
    1.0 / 15.0,
    1.0 / 13.0,
    1.0 / 11.0,
    1.0 / 9.0,
    1.0 / 7.0,
    1.0 / 5.0,
    1.0 / 3.0,
];

/// ln x of a norm: −∞ for 0.
#[inline(always)]
pub fn ln_norm(x: f32) -> f64 {
    if x > 0.0 { ln(x) } else { f64::NEG_INFINITY }
}
