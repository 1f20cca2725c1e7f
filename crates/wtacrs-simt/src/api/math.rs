//! Arithmetic that rounds the same on both bodies. All conversions and operations round to nearest, ties to even.

use crate::body;

/// a·b + c, rounded once.
#[inline(always)]
pub fn fma_f32(a: f32, b: f32, c: f32) -> f32 {
    body::math::fma_f32(a, b, c)
}

/// a·b + c, rounded once.
#[inline(always)]
pub fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
    body::math::fma_f64(a, b, c)
}

/// a·b in 64 bits, in one instruction even where the compiler would widen a factor outside of a loop.
#[inline(always)]
pub fn multiply_wide(a: u32, b: u32) -> u64 {
    body::math::multiply_wide(a, b)
}

/// √x.
#[inline(always)]
pub fn sqrt_f32(x: f32) -> f32 {
    body::math::sqrt_f32(x)
}

/// √x.
#[inline(always)]
pub fn sqrt_f64(x: f64) -> f64 {
    body::math::sqrt_f64(x)
}

/// bf16 bits to f32, exactly.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    body::math::bf16_to_f32(bits)
}

/// f16 bits to f32, exactly.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    body::math::f16_to_f32(bits)
}

/// f32 to bf16 bits.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    body::math::f32_to_bf16(x)
}

/// f32 to f16 bits.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    body::math::f32_to_f16(x)
}

/// Two f32 to the bits of two bf16, `low` in the lower half.
#[inline(always)]
pub fn f32_pair_to_bf16(low: f32, high: f32) -> u32 {
    body::math::f32_pair_to_bf16(low, high)
}

/// Two f32 to the bits of two f16, `low` in the lower half.
#[inline(always)]
pub fn f32_pair_to_f16(low: f32, high: f32) -> u32 {
    body::math::f32_pair_to_f16(low, high)
}

/// f32 to the nearest tf32, ties away from zero (cvt.rna.tf32), as f32 bits.
#[inline(always)]
pub fn f32_to_tf32(x: f32) -> u32 {
    body::math::f32_to_tf32(x)
}
