//! The kept rows of a matrix, as they are or times their scales.

use super::{ShapeError, check_size, rows_per_task};
use crate::Selection;
use crate::element::{Accumulator, Element};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

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
    let (indices, scales) = (selection.indices(), selection.scales());
    for_each_row(kept, |at, mut row| {
        let scale = T::Accumulator::from_f64(scales[at]);
        row.zip_mut_with(&x.row(indices[at] as usize), |to, from| *to = from.widen() * scale);
    });
    Ok(())
}

/// The whole matrix in the accumulator's type.
pub(crate) fn widened<T: Element>(x: ArrayView2<'_, T>) -> Array2<T::Accumulator> {
    let mut wide = Array2::from_elem(x.dim(), T::Accumulator::ZERO);
    widen_into(x, wide.view_mut());
    wide
}

/// [`widened`] into memory of the caller's, of x's shape.
pub(super) fn widen_into<T: Element>(x: ArrayView2<'_, T>, wide: ArrayViewMut2<'_, T::Accumulator>) {
    for_each_row(wide, |at, mut row| match (x.row(at).to_slice(), row.as_slice_mut()) {
        (Some(from), Some(to)) => {
            T::widen_block(from, to);
        }
        _ => row.zip_mut_with(&x.row(at), |to, from| *to = from.widen()),
    });
}

fn check<T, U>(
    x: &ArrayView2<'_, T>,
    selection: &Selection,
    kept: &ArrayViewMut2<'_, U>,
) -> Result<(), ShapeError> {
    check_size("rows to gather from", x.nrows(), selection.pairs())?;
    check_size("rows for what is gathered", kept.nrows(), selection.len())?;
    check_size("columns for what is gathered", kept.ncols(), x.ncols())
}

fn for_each_row<T: Send>(
    mut rows: ArrayViewMut2<'_, T>,
    write: impl Fn(usize, ndarray::ArrayViewMut1<'_, T>) + Sync,
) {
    let task_rows = rows_per_task(rows.ncols());
    let tasks: Vec<_> = rows.axis_chunks_iter_mut(Axis(0), task_rows).enumerate().collect();
    tasks.into_par_iter().for_each(|(task, mut rows)| {
        for (i, row) in rows.rows_mut().into_iter().enumerate() {
            write(task * task_rows + i, row);
        }
    });
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
