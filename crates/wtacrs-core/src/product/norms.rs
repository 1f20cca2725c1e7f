//! ‖row‖₂ of a matrix, in one pass.

use super::{ShapeError, check_size};
use crate::element::{Accumulator, Element};
use crate::lanes::{Chunk, LANES, add_to_sums, chunks, on_widest_vectors, totals, totals_of_rows};
use crate::parallel;
use crate::rows::rows_per_task;
use ndarray::{ArrayView1, ArrayView2, Axis, s};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Elements widened at a time, of all rows together; for each row a multiple of `LANES`, so that cutting it changes no sum.
const BLOCK: usize = 2048;
/// Rows whose sums are found before norms are made of them, on vectors.
const STRIP: usize = 64;
/// Rows that share each load of the direction, where there are registers for their sums. They come from as many parts of
/// a task's rows, each read from its begin to its end: rows that are neighbours would be read by jumps, which costs
/// more than the loads that are saved.
const PARTS: usize = 4;
/// Rows that a part should have: an odd number, since rows that are read together and lie whole pages apart are taken for
/// one another by caches and prefetchers.
const ROWS_OF_PART: usize = 99;
/// Registers for the sums of [`PARTS`] rows and what is added to them.
const REGISTERS_FOR_PARTS: usize = 32;

/// Squares below this lose digits to underflow, so that such a row is summed again in f64.
const LEAST_SAFE_SUM: f64 = 1e-30;

/// `‖x[i,:]‖₂` for every row of `x` (rows × columns), in the elements' unit.
///
/// Sums are taken in the accumulator's type, in an order fixed by the number of columns alone. Finite rows have a
/// correct norm, even where squares overflow or vanish in f32, as long as the norm itself is in f32's range; a row with
/// an infinity or a NaN has a norm that is not finite. Rows of no columns have norm 0.
pub fn row_norms<T: Element>(x: ArrayView2<'_, T>) -> Vec<f32> {
    let mut norms = vec![0.0; x.nrows()];
    fill(x, &mut norms);
    norms
}

/// [`row_norms`] into memory of the caller's, one entry for each row.
///
/// # Errors
///
/// If `norms` does not have one entry for each row.
pub fn row_norms_into<T: Element>(x: ArrayView2<'_, T>, norms: &mut [f32]) -> Result<(), ShapeError> {
    check_size("entries for norms", norms.len(), x.nrows())?;
    fill(x, norms);
    Ok(())
}

/// `‖x[:,j]‖₂` for every column of `x`: the row norms of its transpose.
pub fn column_norms<T: Element>(x: ArrayView2<'_, T>) -> Vec<f32> {
    row_norms(x.reversed_axes())
}

/// √(Σ_l ‖row_i of l‖²): the norms of rows that several layers' gradients form together, for a shared input.
///
/// # Errors
///
/// If the layers' lengths differ.
pub fn joint_norms(layers: &[&[f32]]) -> Result<Vec<f32>, ShapeError> {
    let rows = layers.first().map_or(0, |layer| layer.len());
    for layer in layers {
        check_size("a layer's norms", layer.len(), rows)?;
    }
    let squares = |i: usize| layers.iter().map(move |layer| f64::from(layer[i])).map(|norm| norm * norm);
    let joint = |i: usize| squares(i).sum::<f64>().sqrt();
    Ok((0..rows).map(|i| joint(i) as f32).collect())
}

/// `norms` ← `‖x[i,:]‖₂` and `components` ← `x[i,:]·direction/‖x[i,:]‖₂` for every row, in one pass over `x`; a component
/// that would not be finite is 0. The norms are those of [`row_norms`] to the bit; the components are as precise as
/// they are, relative to `direction`'s norm. Both outputs have one entry for each row. `finish` is given each task's
/// components, with the number of the first row, while they are in its core's cache.
pub(crate) fn row_norms_and_components<T: Element>(
    x: ArrayView2<'_, T>,
    direction: &[f64],
    norms: &mut [f32],
    components: &mut [f32],
    finish: impl Fn(usize, &mut [f32]) + Sync,
) {
    debug_assert_eq!(x.ncols(), direction.len());
    let direction = &chunks(direction, T::Accumulator::from_f64);
    let rows = rows_of_long_tasks(x.dim());
    let outputs = norms.par_chunks_mut(rows).zip(components.par_chunks_mut(rows));
    parallel::for_each(outputs.enumerate(), |(task, (norms, components))| {
        let x = x.slice(s![task * rows..task * rows + norms.len(), ..]);
        on_widest_vectors(Task::<_, 2> { x, direction, norms, components: &mut *components });
        finish(task * rows, components);
    });
}

/// Rows of a task whose parts are long enough that reading gets into its stride, as long as every thread gets some. Such
/// tasks are few, so that each thread gets as many.
fn rows_of_long_tasks((rows, columns): (usize, usize)) -> usize {
    let threads = parallel::threads();
    let long = rows_per_task(columns).max((rows / threads).min(PARTS * ROWS_OF_PART));
    match rows / long / threads {
        0 => long,
        tasks_of_thread => rows.div_ceil(tasks_of_thread * threads),
    }
}

fn fill<T: Element>(x: ArrayView2<'_, T>, norms: &mut [f32]) {
    let rows = rows_per_task(x.ncols());
    parallel::for_each(norms.par_chunks_mut(rows).enumerate(), |(task, norms)| {
        let x = x.slice(s![task * rows..task * rows + norms.len(), ..]);
        on_widest_vectors(Task::<_, 1> { x, direction: &[], norms, components: &mut [] });
    });
}

/// One task: norms, and with a `COUNT` of 2 what rows have of `direction`.
struct Task<'a, T: Element, const COUNT: usize> {
    x: ArrayView2<'a, T>,
    direction: &'a [Chunk<T::Accumulator>],
    norms: &'a mut [f32],
    components: &'a mut [f32],
}

impl<T: Element, const COUNT: usize> WithSimd for Task<'_, T, COUNT> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.x.nrows() / PARTS;
        if COUNT == 1 || S::REGISTER_COUNT < REGISTERS_FOR_PARTS || rows == 0 {
            return side_by_side(simd, [self]);
        }
        let rows = if rows.is_multiple_of(2) { rows - 1 } else { rows };
        let (first, others) = self.split_at(2 * rows);
        let (second, rest) = others.split_at(2 * rows);
        let ((a, b), (c, d)) = (first.split_at(rows), second.split_at(rows));
        side_by_side(simd, [a, b, c, d]);
        side_by_side(simd, [rest]);
    }
}

impl<'a, T: Element, const COUNT: usize> Task<'a, T, COUNT> {
    /// The task of the first rows, and that of the others.
    fn split_at(self, row: usize) -> (Self, Self) {
        let direction = self.direction;
        let (x, other_x) = self.x.split_at(Axis(0), row);
        let (norms, other_norms) = self.norms.split_at_mut(row);
        let (components, other_components) = self.components.split_at_mut(row);
        (
            Self { x, direction, norms, components },
            Self { x: other_x, direction, norms: other_norms, components: other_components },
        )
    }

    /// Norms and components of the rows from `first` on, from their sums.
    #[inline(always)]
    fn finish(&mut self, first: usize, sums: &[[T::Accumulator; STRIP]; COUNT]) {
        let mut all_safe = true;
        let norms = &mut self.norms[first..];
        for (norm, squares) in norms.iter_mut().zip(&sums[0]) {
            let squares = squares.to_f64();
            all_safe &= is_safe(squares);
            *norm = squares.sqrt() as f32;
        }
        if COUNT > 1 {
            for ((component, norm), dot) in self.components[first..].iter_mut().zip(norms).zip(&sums[1]) {
                let dot = dot.to_f64() as f32;
                all_safe &= dot.abs() <= f32::MAX;
                *component = dot / *norm;
            }
        }
        if !all_safe {
            self.rescue(first, sums);
        }
    }

    /// The same for rows whose sums have left the accumulator's safe range.
    #[cold]
    fn rescue(&mut self, first: usize, sums: &[[T::Accumulator; STRIP]; COUNT]) {
        for (i, (at, squares)) in (first..self.norms.len()).zip(sums[0].iter().enumerate()) {
            let row = self.x.row(i);
            let squares = squares.to_f64();
            let is_dot_safe = sums.get(1).is_none_or(|dots| (dots[at].to_f64() as f32).abs() <= f32::MAX);
            if is_safe(squares) && is_dot_safe {
                continue;
            }
            if !is_safe(squares) {
                self.norms[i] = rescued_norm(row, squares);
            }
            if COUNT > 1 {
                let component = (rescued_dot(row, self.direction) / f64::from(self.norms[i])) as f32;
                self.components[i] = if component.abs() <= f32::MAX { component } else { 0.0 };
            }
        }
    }
}

/// Runs tasks with one direction and equally many rows, a row of each at a time.
#[inline(always)]
fn side_by_side<S: Simd, T: Element, const COUNT: usize, const ROWS: usize>(
    simd: S,
    tasks: [Task<'_, T, COUNT>; ROWS],
) {
    let lie_in_memory = tasks.iter().all(|task| task.x.ncols() <= 1 || task.x.stride_of(Axis(1)) == 1);
    if T::IS_ACCUMULATOR && lie_in_memory {
        by_strips::<S, T, COUNT, ROWS, true>(simd, tasks, &mut []);
    } else {
        by_strips::<S, T, COUNT, ROWS, false>(simd, tasks, &mut [T::Accumulator::ZERO; BLOCK]);
    }
}

/// The same where it is known whether rows can be read as they are, or are widened into `buffer`. Not with a closure that
/// reads them, which may not be inlined and then does not run on vectors.
#[inline(always)]
fn by_strips<S: Simd, T: Element, const COUNT: usize, const ROWS: usize, const AS_THEY_ARE: bool>(
    simd: S,
    mut tasks: [Task<'_, T, COUNT>; ROWS],
    buffer: &mut [T::Accumulator],
) {
    let direction = tasks[0].direction;
    let rows = tasks[0].x.nrows();
    let mut sums = [[[T::Accumulator::ZERO; STRIP]; COUNT]; ROWS];
    for first in (0..rows).step_by(STRIP) {
        for i in 0..STRIP.min(rows - first) {
            let mut rows = [tasks[0].x.row(first + i); ROWS];
            for (row, task) in rows.iter_mut().zip(&tasks) {
                *row = task.x.row(first + i);
            }
            let found: [[T::Accumulator; COUNT]; ROWS] = if AS_THEY_ARE {
                // Not `map`, which is not inlined here.
                let mut values = [&[][..]; ROWS];
                for (values, row) in values.iter_mut().zip(&rows) {
                    debug_assert!(row.as_slice().is_some());
                    *values = T::widen_block(row.as_slice().unwrap_or_default(), &mut []);
                }
                totals_of_rows(simd, values, direction)
            } else {
                totals_by_blocks(simd, rows, direction, buffer)
            };
            for (sums, found) in sums.iter_mut().zip(found) {
                for (sums, found) in sums.iter_mut().zip(found) {
                    sums[i] = found;
                }
            }
        }
        for (task, sums) in tasks.iter_mut().zip(&sums) {
            task.finish(first, sums);
        }
    }
}

#[inline(always)]
fn is_safe(sum_of_squares: f64) -> bool {
    (LEAST_SAFE_SUM..f64::INFINITY).contains(&sum_of_squares)
}

/// The norm of a row whose sum of squares has left the accumulator's safe range.
#[cold]
fn rescued_norm<T: Element>(row: ArrayView1<'_, T>, sum: f64) -> f32 {
    if sum == 0.0 && row.iter().all(|&v| v == T::ZERO) {
        return 0.0;
    }
    row.iter().map(|v| v.widen().to_f64()).map(|v| v * v).sum::<f64>().sqrt() as f32
}

/// The dot product of such a row.
#[cold]
fn rescued_dot<T: Element>(row: ArrayView1<'_, T>, direction: &[Chunk<T::Accumulator>]) -> f64 {
    row.iter().zip(direction.iter().flat_map(|chunk| chunk.0)).map(|(v, d)| v.widen().to_f64() * d.to_f64()).sum()
}

/// Σ v² and, with two, Σ v·direction of each row's elements v, which are widened a block at a time.
#[inline(always)]
fn totals_by_blocks<S: Simd, T: Element, const COUNT: usize, const ROWS: usize>(
    simd: S,
    rows: [ArrayView1<'_, T>; ROWS],
    direction: &[Chunk<T::Accumulator>],
    buffer: &mut [T::Accumulator],
) -> [[T::Accumulator; COUNT]; ROWS] {
    let columns = rows[0].len();
    let mut sums = [[Chunk([T::Accumulator::ZERO; LANES]); COUNT]; ROWS];
    let width = BLOCK / ROWS;
    for first in (0..columns).step_by(width) {
        let block = first..columns.min(first + width);
        let mut buffers = buffer.chunks_exact_mut(width);
        // Not `map`, which is not inlined here.
        let mut values = [&[][..]; ROWS];
        for (values, row) in values.iter_mut().zip(&rows) {
            *values = widened(row, block.clone(), buffers.next().unwrap_or_default());
        }
        let direction = if COUNT > 1 { &direction[first / LANES..] } else { direction };
        add_to_sums(simd, &mut sums, first == 0, values, direction);
    }
    let mut found = [[T::Accumulator::ZERO; COUNT]; ROWS];
    for (found, sums) in found.iter_mut().zip(&sums) {
        *found = totals(simd, sums);
    }
    found
}

/// Some of a row's elements in the accumulator's type, in `buffer` unless they lie so in memory.
#[inline(always)]
fn widened<'a, T: Element>(
    row: &'a ArrayView1<'_, T>,
    columns: Range<usize>,
    buffer: &'a mut [T::Accumulator],
) -> &'a [T::Accumulator] {
    match row.as_slice() {
        Some(row) => T::widen_block(&row[columns], buffer),
        None => {
            let buffer = &mut buffer[..columns.len()];
            buffer.iter_mut().zip(row.slice(s![columns])).for_each(|(to, from)| *to = from.widen());
            buffer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use ndarray::Array2;

    fn close(found: f32, expected: f64) {
        assert!((f64::from(found) - expected).abs() <= 1e-6 * expected, "{found} {expected}");
    }

    #[test]
    fn equals_the_definition_for_every_type_and_stride() {
        let exact = Array2::from_shape_fn((37, 301), |(i, j)| ((i * 31 + j * 17) % 23) as f64 / 8.0 - 1.0);
        let expected: Vec<f64> = exact.rows().into_iter().map(|r| r.dot(&r).sqrt()).collect();
        let single = exact.mapv(|v| v as f32);
        let found = row_norms(single.view());
        for (i, &norm) in expected.iter().enumerate() {
            close(found[i], norm);
        }
        // Eighths are exact in all of these, so that the sums must agree to the bit.
        assert_eq!(row_norms(exact.mapv(f16::from_f64).view()), found);
        assert_eq!(row_norms(exact.mapv(bf16::from_f64).view()), found);
        let transposed = single.t().to_owned();
        assert_eq!(row_norms(transposed.t()), found);
        assert_eq!(column_norms(transposed.view()), found);
        let mut wide = Array2::zeros((74, 602));
        wide.slice_mut(s![..;2, ..;2]).assign(&single);
        assert_eq!(row_norms(wide.slice(s![..;2, ..;2])), found);
        let flipped = single.slice(s![..;-1, ..]);
        assert_eq!(row_norms(flipped), found.iter().rev().copied().collect::<Vec<_>>());
    }

    fn found<T: Element>(x: ArrayView2<'_, T>, direction: &[f64]) -> (Vec<f32>, Vec<f32>) {
        let mut outputs = (vec![0.0; x.nrows()], vec![0.0; x.nrows()]);
        row_norms_and_components(x, direction, &mut outputs.0, &mut outputs.1, |_, _| {});
        outputs
    }

    #[test]
    fn components_come_with_the_same_norms() {
        let x = Array2::from_shape_fn((9, 301), |(i, j)| ((i * 31 + j * 17) % 23) as f32 / 8.0 - 1.0);
        let direction: Vec<f64> = (0..301).map(|j| (j % 7) as f64 - 3.0).collect();
        let (norms, components) = found(x.view(), &direction);
        assert_eq!(norms, row_norms(x.view()));
        // Integers over eight: every order of summation gives the same.
        let dots = x.dot(&ndarray::Array1::from_iter(direction.iter().map(|&d| d as f32)));
        let expected = dots.iter().zip(&norms).map(|(&dot, &norm)| (f64::from(dot) / f64::from(norm)) as f32);
        assert_eq!(components, expected.collect::<Vec<_>>());
        assert_eq!(found(x.mapv(bf16::from_f32).view(), &direction), (norms.clone(), components.clone()));
        let transposed = x.t().to_owned();
        assert_eq!(found(transposed.t(), &direction), (norms, components));

        let extreme = ndarray::array![[3e30_f32, 4e30], [3e-30, 4e-30], [0.0, 0.0], [f32::INFINITY, 0.0]];
        let (norms, components) = found(extreme.view(), &[1e10, -1.0]);
        assert_eq!(norms, row_norms(extreme.view()));
        assert!(components[..2].iter().all(|component| (component / 6e9 - 1.0).abs() < 1e-6), "{components:?}");
        assert_eq!(components[2..], [0.0; 2]);
    }

    #[test]
    fn every_width_of_vectors_gives_the_same_bits() {
        let x = Array2::from_shape_fn((7, 1101), |(i, j)| (((i * 31 + j * 17) % 23) as f32 - 9.7).exp2());
        let direction: Vec<f64> = (0..1101).map(|j| ((j % 13) as f64 - 5.3) / 3.0).collect();
        let expected = found(x.view(), &direction);
        let padded = chunks(&direction, |d| d as f32);
        let found = |simd: &dyn Fn(Task<'_, f32, 2>)| {
            let mut outputs = (vec![0.0; 7], vec![0.0; 7]);
            let (norms, components) = (&mut outputs.0[..], &mut outputs.1[..]);
            simd(Task { x: x.view(), direction: &padded, norms, components });
            outputs
        };
        assert_eq!(found(&|task| task.with_simd(pulp::Scalar)), expected);
        assert_eq!(found(&|task| task.with_simd(pulp::Scalar128b)), expected);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            assert_eq!(found(&|task| Simd::vectorize(simd, task)), expected);
        }
        let mut norms = vec![0.0; 7];
        Task::<_, 1> { x: x.view(), direction: &[], norms: &mut norms, components: &mut [] }.with_simd(pulp::Scalar);
        assert_eq!(norms, expected.0);
    }

    #[test]
    fn extremes() {
        let x = ndarray::array![[3e30_f32, 4e30], [3e-30, 4e-30], [3e-21, 4e-21], [0.0, 0.0], [1e-45, 0.0]];
        let found = row_norms(x.view());
        close(found[0], 5e30);
        close(found[1], 5e-30);
        close(found[2], 5e-21);
        assert_eq!(found[3..], [0.0, 1e-45]);
        assert!(!row_norms(ndarray::array![[f32::NAN]].view())[0].is_finite());
        assert!(!row_norms(ndarray::array![[f32::NEG_INFINITY]].view())[0].is_finite());
        assert_eq!(row_norms(Array2::<f32>::zeros((2, 0)).view()), [0.0; 2]);
        assert!(row_norms(Array2::<f32>::zeros((0, 2)).view()).is_empty());
        assert!(row_norms_into(x.view(), &mut [0.0; 3]).is_err());
    }

    #[test]
    fn joint_norms_add_in_squares() {
        assert_eq!(joint_norms(&[&[3.0, 0.0], &[4.0, 0.0]]), Ok(vec![5.0, 0.0]));
        assert_eq!(joint_norms(&[&[3e30], &[4e30]]), Ok(vec![5e30]));
        assert!(joint_norms(&[&[3.0], &[4.0, 0.0]]).is_err());
        assert_eq!(joint_norms(&[]), Ok(vec![]));
    }
}
