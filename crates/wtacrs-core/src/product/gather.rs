//! The kept rows of a matrix, as they are or times their scales.

use super::{ShapeError, check_size};
use crate::element::{Accumulator, Element};
use crate::rows::for_each_row;
use crate::sampling::Selection;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// The kept rows of `x` (pairs × columns), unchanged: kept × columns. This is what a layer saves.
///
/// # Errors
///
/// If `x` does not have one row for each pair of the selection.
pub fn gather<T: Element>(x: ArrayView2<'_, T>, selection: &Selection) -> Result<Array2<T>, ShapeError> {
    let mut kept = Array2::from_elem((selection.len(), x.ncols()), T::ZERO);
    gather_into(x, selection, kept.view_mut())?;
    Ok(kept)
}

/// [`gather`] into memory of the caller's, kept × columns.
///
/// # Errors
///
/// If a shape does not fit.
pub fn gather_into<T: Element>(
    x: ArrayView2<'_, T>,
    selection: &Selection,
    kept: ArrayViewMut2<'_, T>,
) -> Result<(), ShapeError> {
    check(&x, selection, &kept)?;
    let indices = selection.indices();
    for_each_row(kept, |at, mut row| row.assign(&x.row(indices[at] as usize)));
    Ok(())
}

/// The kept rows of `x` times their scales, in the accumulator's type: kept × columns. Scales are rounded to that type;
/// a product beyond its range is infinite.
///
/// # Errors
///
/// If `x` does not have one row for each pair of the selection.
pub fn gather_scaled<T: Element>(
    x: ArrayView2<'_, T>,
    selection: &Selection,
) -> Result<Array2<T::Accumulator>, ShapeError> {
    let mut kept = Array2::from_elem((selection.len(), x.ncols()), T::Accumulator::ZERO);
    gather_scaled_into(x, selection, kept.view_mut())?;
    Ok(kept)
}

/// [`gather_scaled`] into memory of the caller's, kept × columns.
///
/// # Errors
///
/// If a shape does not fit.
pub fn gather_scaled_into<T: Element>(
    x: ArrayView2<'_, T>,
    selection: &Selection,
    kept: ArrayViewMut2<'_, T::Accumulator>,
) -> Result<(), ShapeError> {
    check(&x, selection, &kept)?;
    for_each_row(kept, |at, mut row| {
        let scale = T::Accumulator::from_f64(selection.scales()[at]);
        row.zip_mut_with(&x.row(selection.indices()[at] as usize), |to, from| *to = from.widen() * scale);
    });
    Ok(())
}

fn check<T, U>(x: &ArrayView2<'_, T>, selection: &Selection, kept: &ArrayViewMut2<'_, U>) -> Result<(), ShapeError> {
    check_size("rows to gather from", x.nrows(), selection.pairs())?;
    check_size("rows for what is gathered", kept.nrows(), selection.len())?;
    check_size("columns for what is gathered", kept.ncols(), x.ncols())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use ndarray::array;

    #[test]
    fn rows_and_scales() {
        let x = array![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
        let selection = Selection::new(3, 1, vec![0, 2], vec![1.0, 2.5]).expect("valid");
        assert_eq!(gather(x.view(), &selection), Ok(array![[1.0, 2.0], [5.0, 6.0]]));
        assert_eq!(gather_scaled(x.view(), &selection), Ok(array![[1.0, 2.0], [12.5, 15.0]]));
        let columns = x.t().to_owned();
        assert_eq!(gather_scaled(columns.t(), &selection), Ok(array![[1.0, 2.0], [12.5, 15.0]]));
        let wrong = gather(x.slice(ndarray::s![..2, ..]), &selection);
        assert_eq!(wrong, Err(ShapeError { what: "rows to gather from", expected: 3, found: 2 }));
        assert!(gather_into(x.view(), &selection, Array2::zeros((2, 3)).view_mut()).is_err());
    }

    #[test]
    fn scales_beyond_a_half_do_not_overflow() {
        let x = array![[f16::from_f32(1000.0)]];
        let selection = Selection::new(1, 0, vec![0], vec![1e4]).expect("valid");
        assert_eq!(gather_scaled(x.view(), &selection), Ok(array![[1e7_f32]]));
    }
}
