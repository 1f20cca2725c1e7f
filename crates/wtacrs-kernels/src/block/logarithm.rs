//! The natural logarithm in f64, in arithmetic that is the same on both bodies.
//!
//! x = m·2^e with m in [√½, √2), and with s = (m − 1)/(m + 1): ln x = e·ln 2 + 2(s + s³/3 + s⁵/5 + …).

use wtacrs_simt::math::fma_f64;

/// ln 2 in two parts: the first has 32 trailing zeros, so that its product with an exponent is exact.
const LN_2_UPPER: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN_2_LOWER: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);

/// 1/21, 1/19, …, 1/3: what is left out is below s²³/23 < 1e−18, as |s| < 0.172.
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

/// ln x of a positive, finite x, with an error below 4 units in the last place.
#[inline(always)]
pub fn ln(x: f32) -> f64 {
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

/// ln x of a norm: −∞ for 0.
#[inline(always)]
pub fn ln_norm(x: f32) -> f64 {
    if x > 0.0 { ln(x) } else { f64::NEG_INFINITY }
}

const MANTISSA: u64 = (1 << 52) - 1;
const HALF_ROOT: u64 = core::f64::consts::FRAC_1_SQRT_2.to_bits();
