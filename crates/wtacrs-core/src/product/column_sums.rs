//! Σ_i x[i,:] of a matrix: the exact gradient of a bias, from the dZ that a weight gradient reads anyway.

use super::multiply::Update;
use super::norms::row_norms_into;
use super::{ShapeError, check_size};
use crate::element::{Accumulator, Element};
use crate::parallel;
use crate::rows::rows_per_task;
use ndarray::{ArrayView2, ArrayViewMut1, Axis, s};
use rayon::prelude::*;

/// Columns whose sums are one task, or are summed together.
const BAND: usize = 64;
/// Runs of rows whose sums lie beside one another until they are added up: as many tasks, and little memory.
const RUNS: usize = 64;

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
    parallel::for_each(bands.into_par_iter(), |(band, sums)| {
        let (first, width) = (band * BAND, sums.len());
        let mut total = [T::Accumulator::ZERO; BAND];
        for rows in x.slice(s![.., first..first + width]).axis_chunks_iter(Axis(0), run) {
            total.iter_mut().zip(band_sums(rows)).for_each(|(sum, part)| *sum += part);
        }
        store(sums, &total, update);
    });
    Ok(())
}

/// [`row_norms_into`] and [`column_sums_into`] in one pass over `x`, to the same bits: each run of rows is short enough to
/// stay in a core's cache from its norms to its sums.
///
/// # Errors
///
/// If `norms` does not have one entry for each row, or `sums` one for each column; both are then untouched.
pub fn row_norms_and_column_sums_into<T: Element>(
    x: ArrayView2<'_, T>,
    norms: &mut [f32],
    sums: ArrayViewMut1<'_, T::Accumulator>,
    update: Update,
) -> Result<(), ShapeError> {
    check_size("entries for norms", norms.len(), x.nrows())?;
    check_size("entries for column sums", sums.len(), x.ncols())?;
    let run = rows_per_task(x.ncols());
    let mut total = vec![T::Accumulator::ZERO; x.ncols()];
    for (x, norms) in x.axis_chunks_iter(Axis(0), RUNS * run).zip(norms.chunks_mut(RUNS * run)) {
        let parts = parallel::map(norms.par_chunks_mut(run).enumerate(), |(task, norms)| {
            let rows = x.slice(s![task * run..task * run + norms.len(), ..]);
            row_norms_into(rows, norms)?;
            let bands = rows.axis_chunks_iter(Axis(1), BAND);
            Ok(bands.flat_map(|band| band_sums(band).into_iter().take(band.ncols())).collect::<Vec<_>>())
        });
        for part in parts.into_iter().collect::<Result<Vec<_>, _>>()? {
            total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    store(sums, &total, update);
    Ok(())
}

/// The sums of at most [`BAND`] columns; behind them zeros.
fn band_sums<T: Element>(rows: ArrayView2<'_, T>) -> [T::Accumulator; BAND] {
    let mut sums = [T::Accumulator::ZERO; BAND];
    for row in rows.rows() {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.widen());
    }
    sums
}

fn store<A: Accumulator>(sums: ArrayViewMut1<'_, A>, totals: &[A], update: Update) {
    for (sum, &total) in sums.into_iter().zip(totals) {
        match update {
            Update::Overwrite => *sum = total,
            Update::Accumulate => *sum += total,
        }
    }
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

    #[test]
    fn norms_and_sums_of_one_pass_are_those_of_two() {
        // More runs than are added up at a time, and a last one that is shorter.
        let columns = 130;
        let rows = RUNS * rows_per_task(columns) + 700;
        let x = Array2::from_shape_fn((rows, columns), |(i, j)| {
            bf16::from_f32(((i * 31 + j * 17) % 1009) as f32 / 97.0 - 5.0)
        });
        let check = |x: ArrayView2<'_, bf16>| {
            let mut alone = Array1::from_elem(x.ncols(), 0.7);
            column_sums_into(x, alone.view_mut(), Update::Accumulate).expect("fits");
            let run = |threads| {
                let (mut norms, mut sums) = (vec![f32::NAN; x.nrows()], Array1::from_elem(x.ncols(), 0.7));
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| row_norms_and_column_sums_into(x, &mut norms, sums.view_mut(), Update::Accumulate))
                    .expect("fits");
                (norms, sums)
            };
            assert_eq!(run(1), (super::super::row_norms(x), alone));
            assert_eq!(run(3), run(1));
        };
        check(x.view());
        check(x.slice(s![..700, ..]).reversed_axes());
        check(x.slice(s![..0, ..]));
        check(x.slice(s![..5, ..0]));
        let (mut norms, mut sums) = ([7.0; 4], Array1::from_elem(columns, 7.0));
        let mut refused = |norms: &mut [f32], columns| {
            let x = x.slice(s![..4, ..columns]);
            row_norms_and_column_sums_into(x, norms, sums.view_mut(), Update::Overwrite).is_err()
        };
        assert!(refused(&mut norms[1..], columns) && refused(&mut norms, columns - 1));
        assert!(norms.iter().chain(&sums).all(|&number| number == 7.0));
    }
}
