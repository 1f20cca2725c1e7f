//! The element types of matrices in device memory.

use wtacrs_simt::math;
use wtacrs_simt::memory::Word;

/// An element type. Arithmetic on it is in f32.
pub trait Element: Copy + 'static {
    /// Its bits in memory.
    type Bits: Word;

    /// To f32, exactly.
    fn widen(bits: Self::Bits) -> f32;

    /// From f32, to nearest even.
    fn narrow(value: f32) -> Self::Bits;
}

/// IEEE single precision.
#[derive(Clone, Copy, Debug)]
pub struct F32;

/// IEEE half precision.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// bfloat16.
#[derive(Clone, Copy, Debug)]
pub struct Bf16;

impl Element for F32 {
    type Bits = f32;

    #[inline(always)]
    fn widen(bits: f32) -> f32 {
        bits
    }

    #[inline(always)]
    fn narrow(value: f32) -> f32 {
        value
    }
}

impl Element for F16 {
    type Bits = u16;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        math::f16_to_f32(bits)
    }

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        math::f32_to_f16(value)
    }
}

impl Element for Bf16 {
    type Bits = u16;

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        math::bf16_to_f32(bits)
    }

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        math::f32_to_bf16(value)
    }
}
