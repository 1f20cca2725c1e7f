//! e^x, the same on every device.

use wtacrs_simt::math::fma_f32;

/// Farthest from 0 that [`exp`] goes: beyond, not all results would be normal.
pub const FARTHEST: f32 = 80.0;

/// e^x for |x| ≤ 80, to 2^−22 of it: e^x = 2^n · e^r with |r| ≤ ln 2 / 2, and Taylor's
/// series of e^r, whose rest after r⁷ is below 2^−27.
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
