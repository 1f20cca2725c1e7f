//! The exact weight gradient of a layer, and whether f32, in which estimates are made, has the digits for it.

use super::error::MeasureError;
use super::terms::{BLOCK, Terms};
use crate::statistics::Reference;
use ndarray::{Array2, ArrayView2};
use std::hint::black_box;
use wtacrs_core::element::Element;
use wtacrs_core::product::Packing;

/// Where f32 rounds more than this share of ‖g‖ away, the last digit of a table's errors would be rounding. An error
/// below it may be rounding, too, and is looked at.
pub(crate) const MOST_ROUNDING: f64 = 1e-3;

/// The sum of all terms, of which `rounded` is the product in the arithmetic of estimates.
///
/// # Errors
///
/// A gradient to which no error can be relative: it is zero, or f32 does not hold it.
pub(crate) fn reference<T, U>(terms: &Terms<'_, T, U>, rounded: ArrayView2<'_, f32>) -> Result<Reference, MeasureError>
where
    T: Element<Accumulator = f32>,
    U: Element<Accumulator = f32>,
{
    let reference = Reference::new(terms.sum()?, rounded);
    if !reference.is_finite() {
        return Err(MeasureError::Overflow);
    }
    if reference.squared_norm() == 0.0 {
        return Err(MeasureError::ZeroGradient);
    }
    if reference.relative_rounding() > MOST_ROUNDING {
        return Err(lost_to_rounding(&reference, terms, terms.tokens() * rounded.len()));
    }
    Ok(reference)
}

/// Refuses a layer for whose measurement there is no memory: the first allocation that fails would end the command without
/// a word on what is needed. `kept` are the rows that estimates keep, and how they are saved.
pub(crate) fn check_memory<T: Element, U: Element>(
    h: &Array2<T>,
    dz: &Array2<U>,
    kept: &[(usize, Packing)],
) -> Result<(), MeasureError> {
    let (tokens, in_features, out_features) = (h.nrows(), h.ncols(), dz.ncols());
    let bytes = |numbers: [usize; 3]| numbers.iter().fold(1_usize, |product, &size| product.saturating_mul(size));
    let wide = |is_wide: bool, rows, columns| if is_wide { 0 } else { bytes([rows, columns, size_of::<f32>()]) };
    // The exact product in f64 and f32, the sum of the errors, an estimate, and one in f64.
    let products = bytes([in_features, out_features, 3 * size_of::<f64>() + 2 * size_of::<f32>()]);
    let block = bytes([BLOCK.min(tokens), in_features.saturating_add(out_features), size_of::<f64>()]);
    let sum = |parts: &[usize]| parts.iter().fold(0_usize, |sum, &part| sum.saturating_add(part));
    // For the exact product H and dZ in f32; after it, the kept rows of H, saved and in f32, and those of dZ.
    let exact = sum(&[wide(T::IS_ACCUMULATOR, tokens, in_features), wide(U::IS_ACCUMULATOR, tokens, out_features)]);
    let mut most = exact;
    for &(kept, packing) in kept {
        let row_bytes = usize::try_from(packing.row_bytes(in_features, size_of::<T>())).unwrap_or(usize::MAX);
        most = most.max(sum(&[
            bytes([kept, row_bytes, 1]),
            wide(T::IS_ACCUMULATOR && !packing.is_packed(), kept, in_features),
            bytes([kept, out_features, size_of::<f32>()]),
        ]));
    }
    let bytes = sum(&[products, block, most]);
    // Else the compiler may see that nothing is done with it, and ask nobody.
    match black_box(&mut Vec::<u8>::new()).try_reserve_exact(bytes) {
        Ok(()) => Ok(()),
        Err(_) => Err(MeasureError::NotEnoughMemory { bytes }),
    }
}

/// Why f32 has no digits left for the exact product: each of its roundings, so many, is either of a tiny number or of a
/// large sum.
fn lost_to_rounding<T, U>(reference: &Reference, terms: &Terms<'_, T, U>, roundings: usize) -> MeasureError
where
    T: Element<Accumulator = f32>,
    U: Element<Accumulator = f32>,
{
    let sum_of_norms = terms.sum_of_norms();
    let of_tiny_numbers = f64::from(f32::MIN_POSITIVE) * f64::from(f32::EPSILON) * (roundings as f64).sqrt();
    if of_tiny_numbers > f64::from(f32::EPSILON) * sum_of_norms {
        MeasureError::Underflow { largest: reference.largest() }
    } else {
        MeasureError::Cancelled { norm: reference.squared_norm().sqrt(), sum_of_norms }
    }
}
