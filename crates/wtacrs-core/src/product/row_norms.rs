//! ‖row‖₂ of a matrix, in one pass.

use super::{ShapeError, check_size, rows_per_task};
use crate::element::{Accumulator, Element};
use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Partial sums kept side by side: fixed, so that every machine adds in the same order.
const LANES: usize = 32;
/// Elements widened at a time; a multiple of `LANES`, so that cutting a row changes no sum.
const BLOCK: usize = 512;
/// Lanes of both sums that are summed over a block at a time: all of them at once would not fit 16 vector registers.
const GROUP: usize = 8;

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

/// `‖x[i,:]‖₂`, and a function of it and of `x[i,:]·direction`, for every row, in one pass over `x`. The norms are those
/// of [`row_norms`] to the bit; the dot products are as precise as they are, relative to the product of both norms.
pub(crate) fn row_norms_and_dots<T: Element>(
    x: ArrayView2<'_, T>,
    direction: &[T::Accumulator],
    of: impl Fn(f32, f64) -> f64 + Sync,
) -> Vec<(f32, f64)> {
    debug_assert_eq!(x.ncols(), direction.len());
    let mut found = vec![(0.0, 0.0); x.nrows()];
    for_each_row(x, &mut found, |row, buffer| {
        let zero = T::Accumulator::ZERO;
        let mut sums = SquaresAndDots { squares: [zero; LANES], dots: [zero; LANES], direction };
        add_row(row, buffer, &mut sums);
        let (squares, dot) = (halve(sums.squares).to_f64(), halve(sums.dots).to_f64());
        if is_safe(squares) {
            let norm = squares.sqrt() as f32;
            return (norm, of(norm, dot));
        }
        let dot = row.iter().zip(direction).map(|(v, d)| v.widen().to_f64() * d.to_f64()).sum();
        let norm = rescued_norm(row, squares);
        (norm, of(norm, dot))
    });
    found
}

fn fill<T: Element>(x: ArrayView2<'_, T>, norms: &mut [f32]) {
    for_each_row(x, norms, |row, buffer| {
        let mut squares = [T::Accumulator::ZERO; LANES];
        add_row(row, buffer, &mut squares);
        let sum = halve(squares).to_f64();
        if is_safe(sum) { sum.sqrt() as f32 } else { rescued_norm(row, sum) }
    });
}

fn for_each_row<T: Element, R: Send>(
    x: ArrayView2<'_, T>,
    results: &mut [R],
    of: impl Fn(ArrayView1<'_, T>, &mut [T::Accumulator; BLOCK]) -> R + Sync,
) {
    let rows = rows_per_task(x.ncols());
    results.par_chunks_mut(rows).enumerate().for_each(|(task, results)| {
        let mut buffer = [T::Accumulator::ZERO; BLOCK];
        for (i, result) in results.iter_mut().enumerate() {
            *result = of(x.index_axis(Axis(0), task * rows + i), &mut buffer);
        }
    });
}

fn is_safe(sum_of_squares: f64) -> bool {
    (LEAST_SAFE_SUM..f64::INFINITY).contains(&sum_of_squares)
}

/// The norm of a row whose sum of squares has left the accumulator's safe range.
fn rescued_norm<T: Element>(row: ArrayView1<'_, T>, sum: f64) -> f32 {
    if sum == 0.0 && row.iter().all(|&v| v == T::ZERO) {
        return 0.0;
    }
    row.iter().map(|v| v.widen().to_f64()).map(|v| v * v).sum::<f64>().sqrt() as f32
}

/// Sums that a row's elements are added to, lane by lane.
trait LaneSums<A> {
    /// Adds the elements from column `first` on; a multiple of `LANES` of them, except at the end of a row.
    fn add(&mut self, first: usize, values: &[A]);
}

impl<A: Accumulator> LaneSums<A> for [A; LANES] {
    #[inline]
    fn add(&mut self, _first: usize, values: &[A]) {
        add_squares(self, values);
    }
}

struct SquaresAndDots<'a, A> {
    squares: [A; LANES],
    dots: [A; LANES],
    direction: &'a [A],
}

impl<A: Accumulator> LaneSums<A> for SquaresAndDots<'_, A> {
    #[inline]
    fn add(&mut self, first: usize, values: &[A]) {
        let direction = &self.direction[first..first + values.len()];
        for first_lane in (0..LANES).step_by(GROUP) {
            let lanes = first_lane..first_lane + GROUP;
            let (mut squares, mut dots) = ([A::ZERO; GROUP], [A::ZERO; GROUP]);
            squares.copy_from_slice(&self.squares[lanes.clone()]);
            dots.copy_from_slice(&self.dots[lanes.clone()]);
            for (values, direction) in values.chunks_exact(LANES).zip(direction.chunks_exact(LANES)) {
                let (values, direction) = (&values[lanes.clone()], &direction[lanes.clone()]);
                for lane in 0..GROUP {
                    let value = values[lane];
                    squares[lane] += value * value;
                    dots[lane] += value * direction[lane];
                }
            }
            self.squares[lanes.clone()].copy_from_slice(&squares);
            self.dots[lanes].copy_from_slice(&dots);
        }
        let whole = values.len() / LANES * LANES;
        let lanes = self.squares.iter_mut().zip(&mut self.dots);
        for ((square, dot), (&value, &direction)) in lanes.zip(values[whole..].iter().zip(&direction[whole..])) {
            *square += value * value;
            *dot += value * direction;
        }
    }
}

#[inline]
fn add_squares<A: Accumulator>(lanes: &mut [A; LANES], values: &[A]) {
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += value * value;
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += value * value;
    }
}

fn add_row<T: Element>(
    row: ArrayView1<'_, T>,
    buffer: &mut [T::Accumulator; BLOCK],
    sums: &mut impl LaneSums<T::Accumulator>,
) {
    match row.as_slice() {
        Some(row) => {
            for (i, block) in row.chunks(BLOCK).enumerate() {
                sums.add(i * BLOCK, T::widen_block(block, buffer));
            }
        }
        None => {
            for (i, block) in row.axis_chunks_iter(Axis(0), BLOCK).enumerate() {
                let widened = &mut buffer[..block.len()];
                widened.iter_mut().zip(block).for_each(|(to, from)| *to = from.widen());
                sums.add(i * BLOCK, widened);
            }
        }
    }
}

/// The lanes' sum: pairwise, halving.
fn halve<A: Accumulator>(mut lanes: [A; LANES]) -> A {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] += other;
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use ndarray::{Array2, s};

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

    #[test]
    fn dots_come_with_the_same_norms() {
        let x = Array2::from_shape_fn((9, 301), |(i, j)| ((i * 31 + j * 17) % 23) as f32 / 8.0 - 1.0);
        let direction: Vec<f32> = (0..301).map(|j| (j % 7) as f32 - 3.0).collect();
        let expected = x.dot(&ndarray::ArrayView1::from(&direction));
        let found = row_norms_and_dots(x.view(), &direction, |_, dot| dot);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), row_norms(x.view()));
        // Integers over eight: every order of summation gives the same.
        assert_eq!(found.iter().map(|f| f.1 as f32).collect::<Vec<_>>(), expected.to_vec());
        assert_eq!(row_norms_and_dots(x.mapv(bf16::from_f32).view(), &direction, |_, dot| dot), found);
        let transposed = x.t().to_owned();
        assert_eq!(row_norms_and_dots(transposed.t(), &direction, |_, dot| dot), found);

        let extreme = ndarray::array![[3e30_f32, 4e30], [3e-30, 4e-30], [0.0, 0.0]];
        let found = row_norms_and_dots(extreme.view(), &[1e10, -1.0], |_, dot| dot);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), row_norms(extreme.view()));
        assert!((found[0].1 / 3e40 - 1.0).abs() < 1e-6 && (found[1].1 / 3e-20 - 1.0).abs() < 1e-6);
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
