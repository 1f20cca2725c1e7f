//! The number types that matrices come in, and the type that sums over them are taken in.

use crate::lanes::{Lanes, vectorised};
use core::ops::AddAssign;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::LinalgScalar;

/// An element of an input matrix: f32, f16 and bf16, accumulated in f32; f64, accumulated in f64, for references.
pub trait Element: Copy + Send + Sync + PartialEq + core::fmt::Debug + 'static {
    /// What products and sums of this type are taken in.
    type Accumulator: Accumulator;
    /// Zero.
    const ZERO: Self;
    /// Whether this type is its own accumulator.
    const IS_ACCUMULATOR: bool;

    /// The values as bf16, if this is that type.
    fn as_bf16(source: &[Self]) -> Option<&[bf16]>;

    /// The values of `source` in the accumulator's type: `source` itself if it already is, else converted into
    /// `buffer`, which is at least as long.
    fn widen_block<'a>(source: &'a [Self], buffer: &'a mut [Self::Accumulator]) -> &'a [Self::Accumulator];

    /// Writes the values of `source` in the accumulator's type times `scale` to `to`, which is as long.
    fn scale_block(source: &[Self], scale: Self::Accumulator, to: &mut [Self::Accumulator]);

    /// The value in the accumulator's type.
    fn widen(self) -> Self::Accumulator;

    /// The value in f32: rounded from f64, exact from the others.
    fn single(self) -> f32;

    /// The values of `source` in f32: `source` itself if it already is, else converted into `buffer`, which is at least
    /// as long.
    fn single_block<'a>(source: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32];

    /// Writes the values of `source` in f32, rounded from f64, to `to`, which is as long.
    fn to_singles(source: &[Self], to: &mut [f32]);

    /// Writes f32 values, rounded to this type, to `to`, which is as long.
    fn from_singles(source: &[f32], to: &mut [Self]);
}

/// A type that products and sums are taken in.
pub trait Accumulator: Element<Accumulator = Self> + LinalgScalar + AddAssign + Lanes + Default {
    /// From f64, rounded.
    fn from_f64(value: f64) -> Self;
    /// To f64, exactly.
    fn to_f64(self) -> f64;
    /// From f32, exactly.
    fn from_f32(value: f32) -> Self;
}

macro_rules! own_accumulator {
    ($type:ty, $single_block:expr, $scale:ident) => {
        impl Element for $type {
            type Accumulator = Self;
            const ZERO: Self = 0.0;
            const IS_ACCUMULATOR: bool = true;

            fn as_bf16(_source: &[Self]) -> Option<&[bf16]> {
                None
            }

            #[inline]
            fn widen_block<'a>(source: &'a [Self], _buffer: &'a mut [Self]) -> &'a [Self] {
                source
            }

            fn scale_block(source: &[Self], scale: Self, to: &mut [Self]) {
                $scale(source, scale, to);
            }

            #[inline]
            fn widen(self) -> Self {
                self
            }

            #[inline]
            fn single(self) -> f32 {
                self as f32
            }

            #[inline]
            fn single_block<'a>(source: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
                $single_block(source, buffer)
            }

            #[inline]
            fn to_singles(source: &[Self], to: &mut [f32]) {
                to.iter_mut().zip(source).for_each(|(to, &from)| *to = from as f32);
            }

            #[inline]
            fn from_singles(source: &[f32], to: &mut [Self]) {
                to.iter_mut().zip(source).for_each(|(to, &from)| *to = from.into());
            }
        }

        impl Accumulator for $type {
            #[inline]
            fn from_f64(value: f64) -> Self {
                value as Self
            }

            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline]
            fn from_f32(value: f32) -> Self {
                value.into()
            }
        }
    };
}

own_accumulator!(f32, own_block, scale_f32);
own_accumulator!(f64, rounded_block, scale_f64);

fn own_block<'a>(source: &'a [f32], _buffer: &'a mut [f32]) -> &'a [f32] {
    source
}

fn rounded_block<'a>(source: &'a [f64], buffer: &'a mut [f32]) -> &'a [f32] {
    let buffer = &mut buffer[..source.len()];
    buffer.iter_mut().zip(source).for_each(|(to, &from)| *to = from as f32);
    buffer
}

macro_rules! half_precision {
    ($type:ty, $as_bf16:expr, $widen:ident, $scale:ident) => {
        impl Element for $type {
            type Accumulator = f32;
            const ZERO: Self = Self::ZERO;
            const IS_ACCUMULATOR: bool = false;

            fn as_bf16(source: &[Self]) -> Option<&[bf16]> {
                $as_bf16(source)
            }

            fn widen_block<'a>(source: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
                let buffer = &mut buffer[..source.len()];
                $widen(source, buffer);
                buffer
            }

            fn scale_block(source: &[Self], scale: f32, to: &mut [f32]) {
                $scale(source, scale, to);
            }

            #[inline]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline]
            fn single(self) -> f32 {
                self.to_f32()
            }

            fn single_block<'a>(source: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
                Self::widen_block(source, buffer)
            }

            fn to_singles(source: &[Self], to: &mut [f32]) {
                $widen(source, to);
            }

            fn from_singles(source: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(source);
            }
        }
    };
}

half_precision!(f16, |_| None, widen_f16, scale_f16);
half_precision!(bf16, Some, widen_bf16, scale_bf16);

/// The value of an f16 by operations that vectors have.
#[inline(always)]
fn single_of_f16(number: f16) -> f32 {
    const LEAST_NORMAL: u32 = (127 - 14) << 23;
    let bits = u32::from(number.to_bits());
    // The exponent is 112 below that of f32.
    let magnitude = (bits & 0x7fff) << 13;
    let subnormal = f32::from_bits(magnitude + LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL);
    let found = match bits & 0x7c00 {
        0 => subnormal.to_bits(),
        0x7c00 => magnitude | 0x7f80_0000,
        _ => magnitude + (112 << 23),
    };
    f32::from_bits(found | (bits & 0x8000) << 16)
}

vectorised! {
    fn scale_f32<'a>(source: &'a [f32], scale: f32, to: &'a mut [f32]) {
        to.iter_mut().zip(source).for_each(|(to, from)| *to = from * scale);
    }

    fn scale_f64<'a>(source: &'a [f64], scale: f64, to: &'a mut [f64]) {
        to.iter_mut().zip(source).for_each(|(to, from)| *to = from * scale);
    }

    fn widen_bf16<'a>(source: &'a [bf16], to: &'a mut [f32]) {
        to.iter_mut().zip(source).for_each(|(to, from)| *to = from.to_f32());
    }

    fn scale_bf16<'a>(source: &'a [bf16], scale: f32, to: &'a mut [f32]) {
        to.iter_mut().zip(source).for_each(|(to, from)| *to = from.to_f32() * scale);
    }

    fn widen_f16<'a>(source: &'a [f16], to: &'a mut [f32]) {
        to.iter_mut().zip(source).for_each(|(to, &from)| *to = single_of_f16(from));
    }

    fn scale_f16<'a>(source: &'a [f16], scale: f32, to: &'a mut [f32]) {
        to.iter_mut().zip(source).for_each(|(to, &from)| *to = single_of_f16(from) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_has_its_value() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let (mut wide, mut scaled) = (vec![f32::NAN; all.len()], vec![f32::NAN; all.len()]);
        f16::widen_block(&all, &mut wide);
        f16::scale_block(&all, 3.0, &mut scaled);
        for ((number, wide), scaled) in all.into_iter().zip(wide).zip(scaled) {
            let expected = number.to_f32();
            assert!(wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan(), "{number:?}");
            assert!(scaled == 3.0 * expected || scaled.is_nan() && expected.is_nan(), "{number:?}");
        }
    }
}
