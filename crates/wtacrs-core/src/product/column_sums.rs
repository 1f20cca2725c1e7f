//! Σ_i x[i,:] of a matrix: the exact gradient of a bias, from the dZ that a weight gradient reads anyway.

use super::{ShapeError, Update, check_size, rows_per_task};
use crate::element::Element;
use ndarray::{ArrayView2, ArrayViewMut1, Axis, s};
use rayon::prelude::*;

/// Columns whose sums are one task.
const BAND: usize = 64;

/// Writes or adds the sum of the rows of `x` (rows × columns).
///
/// Sums are taken in the accumulator's type, first over runs of rows and then over the runs, in an order fixed by the
/// shape alone.
///
/// # Errors
///
/// If `sums` does not have one entry for each column; it is then untouched.
pub fn column_sums_into<T: Element>(
    x: ArrayView2<'_, T>,
    mut sums: ArrayViewMut1<'_, T::Accumulator>,
    update: Update,
) -> Result<(), ShapeError> {
    check_size("entries for column sums", sums.len(), x.ncols())?;
    let run = rows_per_task(x.ncols());
    let bands: Vec<_> = sums.axis_chunks_iter_mut(Axis(0), BAND).enumerate().collect();
    bands.into_par_iter().for_each(|(band, mut sums)| {
        let (first, width) = (band * BAND, sums.len());
        let mut total = [T::Accumulator::ZERO; BAND];
        for rows in x.slice(s![.., first..first + width]).axis_chunks_iter(Axis(0), run) {
            let mut part = [T::Accumulator::ZERO; BAND];
            for row in rows.rows() {
                part.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.widen());
            }
            total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        for (sum, total) in sums.iter_mut().zip(total) {
            match update {
                Update::Overwrite => *sum = total,
                Update::Accumulate => *sum += total,
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use ndarray::{Array1, Array2};

    #[test]
    fn columns_are_summed_in_any_strides() {
        // Halves of small integers: their sums are exact in any order.
        let x = Array2::from_shape_fn((700, 130), |(i, j)| bf16::from_f32(((i * 7 + j) % 9) as f32 / 2.0 - 2.0));
        let expected = x.mapv(bf16::to_f32).sum_axis(Axis(0));
        let mut sums = Array1::from_elem(130, f32::NAN);
        column_sums_into(x.view(), sums.view_mut(), Update::Overwrite).expect("fits");
        assert_eq!(sums, expected);
        let turned = x.t().as_standard_layout().into_owned();
        column_sums_into(turned.t(), sums.view_mut(), Update::Accumulate).expect("fits");
        assert_eq!(sums, &expected * 2.0);
        column_sums_into(x.slice(s![..0, ..]), sums.view_mut(), Update::Overwrite).expect("fits");
        assert!(sums.iter().all(|&sum| sum == 0.0));
        assert!(column_sums_into(x.view(), sums.slice_mut(s![1..]), Update::Overwrite).is_err());
    }
}
