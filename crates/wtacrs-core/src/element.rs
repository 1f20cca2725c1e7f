//! The number types that matrices come in, and the type that sums over them are taken in.

use crate::lanes::Lanes;
use crate::rows::for_each_row;
use core::ops::AddAssign;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, CowArray, Ix2, LinalgScalar};

/// An element of an input matrix: f32, f16 and bf16, accumulated in f32; f64, accumulated in f64, for references.
pub trait Element: Copy + Send + Sync + PartialEq + core::fmt::Debug + 'static {
    /// What products and sums of this type are taken in.
    type Accumulator: Accumulator;
    /// Zero.
    const ZERO: Self;
    /// Whether this type is its own accumulator.
    const IS_ACCUMULATOR: bool;

    /// The values of `source` in the accumulator's type: `source` itself if it already is, else converted into
    /// `buffer`, which is at least as long.
    fn widen_block<'a>(source: &'a [Self], buffer: &'a mut [Self::Accumulator]) -> &'a [Self::Accumulator];

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

    /// The matrix in the accumulator's type; borrowed if it already is.
    fn widen_view(view: ArrayView2<'_, Self>) -> CowArray<'_, Self::Accumulator, Ix2>;
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

/// Writes `x` in the accumulator's type into memory of the caller's, of x's shape.
pub(crate) fn widen_into<T: Element>(x: ArrayView2<'_, T>, wide: ArrayViewMut2<'_, T::Accumulator>) {
    for_each_row(wide, |at, mut row| match (x.row(at).to_slice(), row.as_slice_mut()) {
        (Some(from), Some(to)) => {
            T::widen_block(from, to);
        }
        _ => row.zip_mut_with(&x.row(at), |to, from| *to = from.widen()),
    });
}

macro_rules! own_accumulator {
    ($type:ty, $single_block:expr) => {
        impl Element for $type {
            type Accumulator = Self;
            const ZERO: Self = 0.0;
            const IS_ACCUMULATOR: bool = true;

            #[inline]
            fn widen_block<'a>(source: &'a [Self], _buffer: &'a mut [Self]) -> &'a [Self] {
                source
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

            fn widen_view(view: ArrayView2<'_, Self>) -> CowArray<'_, Self, Ix2> {
                view.into()
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

own_accumulator!(f32, own_block);
own_accumulator!(f64, rounded_block);

fn own_block<'a>(source: &'a [f32], _buffer: &'a mut [f32]) -> &'a [f32] {
    source
}

fn rounded_block<'a>(source: &'a [f64], buffer: &'a mut [f32]) -> &'a [f32] {
    let buffer = &mut buffer[..source.len()];
    buffer.iter_mut().zip(source).for_each(|(to, &from)| *to = from as f32);
    buffer
}

macro_rules! half_precision {
    ($type:ty) => {
        impl Element for $type {
            type Accumulator = f32;
            const ZERO: Self = Self::ZERO;
            const IS_ACCUMULATOR: bool = false;

            fn widen_block<'a>(source: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
                let buffer = &mut buffer[..source.len()];
                source.convert_to_f32_slice(buffer);
                buffer
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
                source.convert_to_f32_slice(to);
            }

            fn from_singles(source: &[f32], to: &mut [Self]) {
                to.convert_from_f32_slice(source);
            }

            fn widen_view(view: ArrayView2<'_, Self>) -> CowArray<'_, f32, Ix2> {
                let mut wide = Array2::zeros(view.dim());
                widen_into(view, wide.view_mut());
                wide.into()
            }
        }
    };
}

half_precision!(f16);
half_precision!(bf16);
