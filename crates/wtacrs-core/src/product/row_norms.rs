//! ‖row‖₂ of a matrix, in one pass.

use super::{ShapeError, check_size, rows_per_task};
use crate::element::{Accumulator, Element};
use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Partial sums kept side by side: fixed, so that every machine adds in the same order.
const LANES: usize = 32;
/// Elements widened at a time; a multiple of `LANES`, so that cutting a row changes no sum.
const BLOCK: usize = 256;

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

fn fill<T: Element>(x: ArrayView2<'_, T>, norms: &mut [f32]) {
    let rows = rows_per_task(x.ncols());
    norms.par_chunks_mut(rows).enumerate().for_each(|(task, norms)| {
        for (i, norm) in norms.iter_mut().enumerate() {
            *norm = row_norm(x.index_axis(Axis(0), task * rows + i));
        }
    });
}

fn row_norm<T: Element>(row: ArrayView1<'_, T>) -> f32 {
    let sum = sum_of_squares(row).to_f64();
    let sum = if (LEAST_SAFE_SUM..f64::INFINITY).contains(&sum) || sum == 0.0 && row.iter().all(|&v| v == T::ZERO) {
        sum
    } else {
        row.iter().map(|v| v.widen().to_f64()).map(|v| v * v).sum()
    };
    sum.sqrt() as f32
}

fn sum_of_squares<T: Element>(row: ArrayView1<'_, T>) -> T::Accumulator {
    let zero = T::Accumulator::ZERO;
    let mut lanes = [zero; LANES];
    let mut widened = [zero; BLOCK];
    match row.as_slice() {
        Some(row) => {
            for block in row.chunks(BLOCK) {
                add_squares(&mut lanes, T::widen_block(block, &mut widened));
            }
        }
        None => {
            for block in row.axis_chunks_iter(Axis(0), BLOCK) {
                let widened = &mut widened[..block.len()];
                widened.iter_mut().zip(block).for_each(|(to, from)| *to = from.widen());
                add_squares(&mut lanes, widened);
            }
        }
    }
    // Pairwise, halving.
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
