//! Work on a matrix's rows, cut into tasks by its shape alone, and the transform that mixes them.

use crate::parallel;
use ndarray::{ArrayViewMut1, ArrayViewMut2, Axis, LinalgScalar};
use rayon::prelude::*;

/// Rows of about 64 Ki elements in all: enough work for one task.
pub(crate) fn rows_per_task(columns: usize) -> usize {
    (1_usize << 16).div_ceil(columns.max(1))
}

/// Calls `write` for every row with its number, on all cores.
pub(crate) fn for_each_row<T: Send>(
    mut rows: ArrayViewMut2<'_, T>,
    write: impl Fn(usize, ArrayViewMut1<'_, T>) + Sync,
) {
    let task_rows = rows_per_task(rows.ncols());
    let tasks: Vec<_> = rows.axis_chunks_iter_mut(Axis(0), task_rows).enumerate().collect();
    parallel::for_each(tasks.into_par_iter(), |(task, mut rows)| {
        for (i, row) in rows.rows_mut().into_iter().enumerate() {
            write(task * task_rows + i, row);
        }
    });
}

/// The unnormalised fast Walsh-Hadamard transform down each column of a matrix whose rows lie one after another, in place:
/// sums and differences of rows 1, 2, 4, … apart. The number of rows is a power of two.
pub(crate) fn walsh_hadamard<A: LinalgScalar>(rows: &mut [A], columns: usize) {
    let mut half = columns;
    while half < rows.len() {
        for pair in rows.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}
