//! ‖row‖₂ of a matrix, in one pass.

use super::{ShapeError, check_size, rows_per_task};
use crate::element::{Accumulator, Element};
use crate::lanes::{Chunk, LANES, Sums, add_to_sums, chunks, on_widest_vectors};
use ndarray::{ArrayView1, ArrayView2, Axis, s};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Elements widened at a time; a multiple of `LANES`, so that cutting a row changes no sum.
const BLOCK: usize = 2048;
/// Rows whose lanes are summed before any of them is reduced to its norm, so that reading need not wait for reducing.
const STRIP: usize = 16;

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
/// they are, relative to `direction`'s norm. Both outputs have one entry for each row.
pub(crate) fn row_norms_and_components<T: Element>(
    x: ArrayView2<'_, T>,
    direction: &[T::Accumulator],
    norms: &mut [f32],
    components: &mut [f32],
) {
    debug_assert_eq!(x.ncols(), direction.len());
    let direction = &chunks(direction.iter().copied());
    let rows = rows_per_task(x.ncols());
    let outputs = norms.par_chunks_mut(rows).zip(components.par_chunks_mut(rows));
    outputs.enumerate().for_each(|(task, (norms, components))| {
        let x = x.slice(s![task * rows..task * rows + norms.len(), ..]);
        on_widest_vectors(NormsAndComponents { x, direction, norms, components });
    });
}

fn fill<T: Element>(x: ArrayView2<'_, T>, norms: &mut [f32]) {
    let rows = rows_per_task(x.ncols());
    norms.par_chunks_mut(rows).enumerate().for_each(|(task, norms)| {
        let x = x.slice(s![task * rows..task * rows + norms.len(), ..]);
        on_widest_vectors(Norms { x, norms });
    });
}

/// One task of [`row_norms`].
struct Norms<'a, T> {
    x: ArrayView2<'a, T>,
    norms: &'a mut [f32],
}

impl<T: Element> WithSimd for Norms<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut buffer = [T::Accumulator::ZERO; BLOCK];
        let mut sums = [[[T::Accumulator::ZERO; LANES]; 1]; STRIP];
        for (x, norms) in self.x.axis_chunks_iter(Axis(0), STRIP).zip(self.norms.chunks_mut(STRIP)) {
            for (row, sums) in x.outer_iter().zip(&mut sums) {
                sum_row(simd, row, &[], &mut buffer, sums);
            }
            for (i, (norm, [squares])) in norms.iter_mut().zip(&sums).enumerate() {
                *norm = norm_of(&x, i, halve(squares).to_f64());
            }
        }
    }
}

/// One task of [`row_norms_and_components`].
struct NormsAndComponents<'a, T: Element> {
    x: ArrayView2<'a, T>,
    direction: &'a [Chunk<T::Accumulator>],
    norms: &'a mut [f32],
    components: &'a mut [f32],
}

impl<T: Element> WithSimd for NormsAndComponents<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, direction, norms, components } = self;
        let mut buffer = [T::Accumulator::ZERO; BLOCK];
        let mut sums = [[[T::Accumulator::ZERO; LANES]; 2]; STRIP];
        let outputs = norms.chunks_mut(STRIP).zip(components.chunks_mut(STRIP));
        for (x, (norms, components)) in x.axis_chunks_iter(Axis(0), STRIP).zip(outputs) {
            for (row, sums) in x.outer_iter().zip(&mut sums) {
                sum_row(simd, row, direction, &mut buffer, sums);
            }
            let mut dots_of_strip = [0.0; STRIP];
            for (i, (norm, [squares, dots])) in norms.iter_mut().zip(&sums).enumerate() {
                let squares = halve(squares).to_f64();
                *norm = norm_of(&x, i, squares);
                let dot = if is_safe(squares) { halve(dots).to_f64() } else { rescued_dot(x.row(i), direction) };
                dots_of_strip[i] = dot;
            }
            // Apart, so that it runs on vectors.
            for ((component, dot), norm) in components.iter_mut().zip(&dots_of_strip).zip(&*norms) {
                let found = (dot / f64::from(*norm)) as f32;
                *component = if found.abs() <= f32::MAX { found } else { 0.0 };
            }
        }
    }
}

fn is_safe(sum_of_squares: f64) -> bool {
    (LEAST_SAFE_SUM..f64::INFINITY).contains(&sum_of_squares)
}

#[inline(always)]
fn norm_of<T: Element>(x: &ArrayView2<'_, T>, row: usize, sum_of_squares: f64) -> f32 {
    if is_safe(sum_of_squares) { sum_of_squares.sqrt() as f32 } else { rescued_norm(x.row(row), sum_of_squares) }
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

/// `sums` ← Σ v², and with two of them Σ v·direction, of a row's elements v, lane by lane.
#[inline(always)]
fn sum_row<S: Simd, T: Element, const COUNT: usize>(
    simd: S,
    row: ArrayView1<'_, T>,
    direction: &[Chunk<T::Accumulator>],
    buffer: &mut [T::Accumulator; BLOCK],
    sums: &mut Sums<T::Accumulator, COUNT>,
) {
    if row.is_empty() {
        sums.fill([T::Accumulator::ZERO; LANES]);
    }
    match row.as_slice() {
        Some(row) => {
            for (i, block) in row.chunks(BLOCK).enumerate() {
                sum_block(simd, i, T::widen_block(block, buffer), direction, sums);
            }
        }
        None => {
            for (i, block) in row.axis_chunks_iter(Axis(0), BLOCK).enumerate() {
                let widened = &mut buffer[..block.len()];
                widened.iter_mut().zip(block).for_each(|(to, from)| *to = from.widen());
                sum_block(simd, i, widened, direction, sums);
            }
        }
    }
}

#[inline(always)]
fn sum_block<S: Simd, A: Accumulator, const COUNT: usize>(
    simd: S,
    index: usize,
    values: &[A],
    direction: &[Chunk<A>],
    sums: &mut Sums<A, COUNT>,
) {
    let direction = if COUNT > 1 { &direction[index * BLOCK / LANES..] } else { direction };
    add_to_sums(simd, sums, index == 0, values, direction);
}

/// The lanes' sum: pairwise, halving.
#[inline(always)]
fn halve<A: Accumulator>(lanes: &[A; LANES]) -> A {
    let lanes: [A; LANES / 2] = fold_in_half(lanes);
    let lanes: [A; LANES / 4] = fold_in_half(&lanes);
    let lanes: [A; LANES / 8] = fold_in_half(&lanes);
    let lanes: [A; LANES / 16] = fold_in_half(&lanes);
    lanes[0] + lanes[1]
}

#[inline(always)]
fn fold_in_half<A: Accumulator, const N: usize, const HALF: usize>(lanes: &[A; N]) -> [A; HALF] {
    let mut sums = [A::ZERO; HALF];
    for lane in 0..HALF {
        sums[lane] = lanes[lane] + lanes[lane + HALF];
    }
    sums
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

    fn found<T: Element>(x: ArrayView2<'_, T>, direction: &[T::Accumulator]) -> (Vec<f32>, Vec<f32>) {
        let mut outputs = (vec![0.0; x.nrows()], vec![0.0; x.nrows()]);
        row_norms_and_components(x, direction, &mut outputs.0, &mut outputs.1);
        outputs
    }

    #[test]
    fn components_come_with_the_same_norms() {
        let x = Array2::from_shape_fn((9, 301), |(i, j)| ((i * 31 + j * 17) % 23) as f32 / 8.0 - 1.0);
        let direction: Vec<f32> = (0..301).map(|j| (j % 7) as f32 - 3.0).collect();
        let (norms, components) = found(x.view(), &direction);
        assert_eq!(norms, row_norms(x.view()));
        // Integers over eight: every order of summation gives the same.
        let dots = x.dot(&ndarray::ArrayView1::from(&direction));
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
        let direction: Vec<f32> = (0..1101).map(|j| ((j % 13) as f32 - 5.3) / 3.0).collect();
        let expected = found(x.view(), &direction);
        let padded = chunks(direction.iter().copied());
        let narrow = |simd| {
            let mut outputs = (vec![0.0; 7], vec![0.0; 7]);
            let (norms, components) = (&mut outputs.0[..], &mut outputs.1[..]);
            NormsAndComponents { x: x.view(), direction: &padded, norms, components }.with_simd(simd);
            outputs
        };
        assert_eq!(narrow(pulp::Scalar128b), expected);
        let mut norms = vec![0.0; 7];
        Norms { x: x.view(), norms: &mut norms }.with_simd(pulp::Scalar);
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
