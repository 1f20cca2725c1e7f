//! The host's arithmetic, which rounds as a GPU's does.

use half::{bf16, f16};

#[inline(always)]
pub(crate) fn multiply_wide(a: u32, b: u32) -> u64 {
    u64::from(a) * u64::from(b)
}

#[inline(always)]
pub(crate) fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

#[inline(always)]
pub(crate) fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

#[inline(always)]
pub(crate) fn sqrt_f32(x: f32) -> f32 {
    x.sqrt()
}

#[inline(always)]
pub(crate) fn sqrt_f64(x: f64) -> f64 {
    x.sqrt()
}

#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    bf16::from_f32(x).to_bits()
}

#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    f16::from_f32(x).to_bits()
}

pub(crate) fn f32_pair_to_bf16(low: f32, high: f32) -> u32 {
    u32::from(f32_to_bf16(low)) | u32::from(f32_to_bf16(high)) << 16
}

pub(crate) fn f32_pair_to_f16(low: f32, high: f32) -> u32 {
    u32::from(f32_to_f16(low)) | u32::from(f32_to_f16(high)) << 16
}

/// Adding half of the last kept place to the magnitude rounds ties away from zero. Infinities and NaN keep their bits,
/// except those that are dropped.
#[inline(always)]
pub(crate) fn f32_to_tf32(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = if x.is_finite() { bits + 0x1000 } else { bits };
    let rounded = if x.is_nan() { rounded | 1 << 22 } else { rounded };
    rounded & !0x1FFF
}
