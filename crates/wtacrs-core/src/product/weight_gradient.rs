//! dW = Hᵀ dZ, exactly or from the kept rows: one multiplication for winners and tail.

use super::gather::gather_scaled_into;
use super::{ShapeError, check_size};
use crate::element::{Accumulator, Element, widen_into};
use crate::parallel;
use crate::sampling::Selection;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// Edge of an output tile, which one task computes.
const TILE: usize = 384;
/// Tiles are halved, down to a quarter, until there are so many.
const ENOUGH_TILES: usize = 8;

/// What becomes of the values that the output held before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// They are replaced, and never read.
    #[default]
    Overwrite,
    /// The product is added to them, as for gradients over several micro-batches.
    Accumulate,
}

/// Memory that a product needs while it runs: kept × out_features numbers. Kept from step to step, it spares a large
/// product the clearing of fresh memory, a hundredth of the exact product's time.
#[derive(Clone, Debug, Default)]
pub struct Scratch<A> {
    numbers: Vec<A>,
}

impl<A: Accumulator> Scratch<A> {
    /// Nothing yet: it grows with use.
    pub fn new() -> Self {
        Self { numbers: Vec::new() }
    }

    /// So many numbers of any value.
    pub(super) fn numbers(&mut self, count: usize) -> &mut [A] {
        if self.numbers.len() < count {
            self.numbers.resize(count, A::ZERO);
        }
        &mut self.numbers[..count]
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> ArrayViewMut2<'_, A> {
        matrix(self.numbers(rows * columns), rows, columns)
    }
}

/// The first rows × columns numbers as a matrix.
pub(super) fn matrix<A>(numbers: &mut [A], rows: usize, columns: usize) -> ArrayViewMut2<'_, A> {
    let numbers = &mut numbers[..rows * columns];
    ArrayViewMut2::from_shape((rows, columns), numbers).expect("as many numbers as the shape has")
}

/// The estimate of dW = Hᵀ dZ (in_features × out_features) from the kept rows of H.
///
/// `kept` (kept × in_features) are the rows that [`gather`](super::gather) gave; `dz` (pairs × out_features) is whole,
/// and of it only the kept pairs' rows are read, times the selection's scales.
///
/// # Errors
///
/// If a shape does not fit the selection.
pub fn weight_gradient<T, U>(
    kept: ArrayView2<'_, T>,
    dz: ArrayView2<'_, U>,
    selection: &Selection,
) -> Result<Array2<T::Accumulator>, ShapeError>
where
    T: Element,
    U: Element<Accumulator = T::Accumulator>,
{
    let mut dw = Array2::from_elem((kept.ncols(), dz.ncols()), T::Accumulator::ZERO);
    weight_gradient_into(kept, dz, selection, dw.view_mut(), Update::Overwrite, &mut Scratch::new())?;
    Ok(dw)
}

/// [`weight_gradient`] into memory of the caller's, of any strides: for a weight that is stored as
/// out_features × in_features, pass its transposed view.
///
/// # Errors
///
/// If a shape does not fit; `dw` is then untouched.
pub fn weight_gradient_into<T, U>(
    kept: ArrayView2<'_, T>,
    dz: ArrayView2<'_, U>,
    selection: &Selection,
    dw: ArrayViewMut2<'_, T::Accumulator>,
    update: Update,
    scratch: &mut Scratch<T::Accumulator>,
) -> Result<(), ShapeError>
where
    T: Element,
    U: Element<Accumulator = T::Accumulator>,
{
    check_inputs(&kept, &dz, selection)?;
    check_output(&kept, &dz, &dw)?;
    let mut scaled = scratch.matrix(selection.len(), dz.ncols());
    gather_scaled_into(dz, selection, scaled.view_mut())?;
    multiply(T::widen_view(kept).view(), scaled.view(), dw, update);
    Ok(())
}

/// [`weight_gradient_into`] in memory of the caller's alone: `workspace` holds at least [`workspace_len`] numbers of any
/// value.
///
/// # Errors
///
/// If a shape does not fit or the workspace is too small; `dw` is then untouched.
pub fn weight_gradient_within<T, U>(
    kept: ArrayView2<'_, T>,
    dz: ArrayView2<'_, U>,
    selection: &Selection,
    dw: ArrayViewMut2<'_, T::Accumulator>,
    update: Update,
    workspace: &mut [T::Accumulator],
) -> Result<(), ShapeError>
where
    T: Element,
    U: Element<Accumulator = T::Accumulator>,
{
    check_inputs(&kept, &dz, selection)?;
    check_output(&kept, &dz, &dw)?;
    let needed = workspace_len::<T>(kept.nrows(), kept.ncols(), dz.ncols());
    if workspace.len() < needed {
        return Err(ShapeError { what: "numbers of workspace", expected: needed, found: workspace.len() });
    }
    let (scaled, wide) = workspace[..needed].split_at_mut(kept.nrows() * dz.ncols());
    let mut scaled = matrix(scaled, kept.nrows(), dz.ncols());
    gather_scaled_into(dz, selection, scaled.view_mut())?;
    if T::IS_ACCUMULATOR {
        // Borrowed, not copied.
        multiply(T::widen_view(kept).view(), scaled.view(), dw, update);
    } else {
        let mut wide = matrix(wide, kept.nrows(), kept.ncols());
        widen_into(kept, wide.view_mut());
        multiply(wide.view(), scaled.view(), dw, update);
    }
    Ok(())
}

/// Numbers of the accumulator's type that [`weight_gradient_within`] works in: the scaled rows of dZ, and the kept rows
/// of H in that type if they are in another.
pub const fn workspace_len<T: Element>(kept: usize, in_features: usize, out_features: usize) -> usize {
    kept * out_features + if T::IS_ACCUMULATOR { 0 } else { kept * in_features }
}

/// The exact dW = Hᵀ dZ, by the same multiplication: what estimates are measured against.
///
/// # Errors
///
/// If a shape does not fit; `dw` is then untouched.
pub fn exact_weight_gradient<T, U>(
    h: ArrayView2<'_, T>,
    dz: ArrayView2<'_, U>,
    dw: ArrayViewMut2<'_, T::Accumulator>,
    update: Update,
) -> Result<(), ShapeError>
where
    T: Element,
    U: Element<Accumulator = T::Accumulator>,
{
    check_size("rows of dz", dz.nrows(), h.nrows())?;
    check_output(&h, &dz, &dw)?;
    multiply(T::widen_view(h).view(), U::widen_view(dz).view(), dw, update);
    Ok(())
}

fn check_inputs<T, U>(
    kept: &ArrayView2<'_, T>,
    dz: &ArrayView2<'_, U>,
    selection: &Selection,
) -> Result<(), ShapeError> {
    check_size("kept rows", kept.nrows(), selection.len())?;
    check_size("rows of dz", dz.nrows(), selection.pairs())
}

fn check_output<T, U, A>(
    h: &ArrayView2<'_, T>,
    dz: &ArrayView2<'_, U>,
    dw: &ArrayViewMut2<'_, A>,
) -> Result<(), ShapeError> {
    check_size("rows of dw (in_features)", dw.nrows(), h.ncols())?;
    check_size("columns of dw (out_features)", dw.ncols(), dz.ncols())
}

/// output ← (output +) leftᵀ · right, tile by tile. Every element is a sum over the rows in one fixed order.
pub(crate) fn multiply<A: Accumulator>(
    left: ArrayView2<'_, A>,
    right: ArrayView2<'_, A>,
    output: ArrayViewMut2<'_, A>,
    update: Update,
) {
    let beta = match update {
        Update::Overwrite => A::zero(),
        Update::Accumulate => A::one(),
    };
    let mut output = output;
    if left.nrows() == 0 {
        if update == Update::Overwrite {
            output.fill(A::zero());
        }
        return;
    }
    let (rows, columns) = tile_shape(output.dim());
    let mut tiles = Vec::new();
    for (i, band) in output.axis_chunks_iter_mut(Axis(0), rows).enumerate() {
        let mut rest = band;
        let mut first_column = 0;
        while rest.ncols() > 0 {
            let width = columns.min(rest.ncols());
            let (tile, behind) = rest.split_at(Axis(1), width);
            tiles.push((i * rows, first_column, tile));
            first_column += columns;
            rest = behind;
        }
    }
    parallel::for_each(tiles.into_par_iter().with_max_len(1), |(row, column, mut tile)| {
        let left = left.slice(ndarray::s![.., row..row + tile.nrows()]);
        let right = right.slice(ndarray::s![.., column..column + tile.ncols()]);
        general_mat_mul(A::one(), &left.t(), &right, beta, &mut tile);
    });
}

/// The shape of a tile follows from the output's shape alone, never from the number of threads.
fn tile_shape((rows, columns): (usize, usize)) -> (usize, usize) {
    let (mut tile_rows, mut tile_columns) = (TILE, TILE);
    while rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns) < ENOUGH_TILES && tile_columns > TILE / 4 {
        if tile_rows >= tile_columns {
            tile_rows /= 2;
        } else {
            tile_columns /= 2;
        }
    }
    (tile_rows, tile_columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::gather;
    use half::{bf16, f16};
    use ndarray::s;

    fn sixteenths(rows: usize, columns: usize, seed: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17 + seed * 7 + i * j) % 33) as f64 / 16.0 - 1.0)
    }

    /// Σ_i scale_i · `H[i,:]ᵀ dZ[i,:]`, written out.
    fn by_definition(h: &Array2<f64>, dz: &Array2<f64>, selection: &Selection) -> Array2<f64> {
        let mut dw = Array2::zeros((h.ncols(), dz.ncols()));
        for (pair, scale) in selection.iter() {
            for ((a, b), v) in dw.indexed_iter_mut() {
                *v += scale * h[[pair, a]] * dz[[pair, b]];
            }
        }
        dw
    }

    fn every_third(pairs: usize) -> Selection {
        let indices: Vec<u32> = (0..pairs as u32).step_by(3).collect();
        let scales = indices.iter().map(|&i| 1.0 + f64::from(i % 4)).collect();
        Selection::new(pairs, 0, indices, scales).expect("valid")
    }

    #[test]
    fn equals_the_definition_for_every_type_and_stride() {
        // Sixteenths and small scales are exact in every type and in sums over these few rows.
        let (h, dz) = (sixteenths(31, 401, 1), sixteenths(31, 13, 2));
        let selection = every_third(31);
        let expected = by_definition(&h, &dz, &selection);

        fn run<T: Element, U: Element<Accumulator = T::Accumulator>>(
            h: &Array2<T>,
            dz: &Array2<U>,
            selection: &Selection,
        ) -> Array2<f64> {
            let kept = gather(h.view(), selection).expect("fits");
            weight_gradient(kept.view(), dz.view(), selection).expect("fits").mapv(Accumulator::to_f64)
        }
        let (h32, dz32) = (h.mapv(|v| v as f32), dz.mapv(|v| v as f32));
        assert_eq!(run(&h, &dz, &selection), expected);
        assert_eq!(run(&h32, &dz32, &selection), expected);
        assert_eq!(run(&h.mapv(f16::from_f64), &dz32, &selection), expected);
        assert_eq!(run(&h.mapv(bf16::from_f64), &dz.mapv(f16::from_f64), &selection), expected);

        // Left from a larger product: its old numbers must not matter.
        let mut scratch = Scratch { numbers: vec![f64::NAN; 10_000] };
        let kept = gather(h.view(), &selection).expect("fits");
        let (kept_by_columns, dz_by_columns) = (kept.t().to_owned(), dz.t().to_owned());
        let mut transposed = Array2::from_elem((13, 401), f64::NAN);
        let target = transposed.view_mut().reversed_axes();
        weight_gradient_into(
            kept_by_columns.t(),
            dz_by_columns.t(),
            &selection,
            target,
            Update::Overwrite,
            &mut scratch,
        )
        .expect("fits");
        assert_eq!(transposed.t(), expected);

        let mut spaced = Array2::from_elem((802, 39), 1.0);
        let target = spaced.slice_mut(s![..;2, ..;3]);
        weight_gradient_into(kept.view(), dz.view(), &selection, target, Update::Accumulate, &mut scratch)
            .expect("fits");
        assert_eq!(spaced.slice(s![..;2, ..;3]), expected.mapv(|v| v + 1.0));
        assert!(spaced.slice(s![1..;2, ..]).iter().all(|&v| v == 1.0));
    }

    #[test]
    fn nothing_kept_and_nothing_there() {
        let none = Selection::new(4, 0, vec![], vec![]).expect("valid");
        let (h, dz) = (Array2::<f32>::ones((4, 3)), Array2::<f32>::ones((4, 2)));
        let mut dw = Array2::from_elem((3, 2), f32::NAN);
        weight_gradient_into(
            h.slice(s![..0, ..]),
            dz.view(),
            &none,
            dw.view_mut(),
            Update::Overwrite,
            &mut Scratch::new(),
        )
        .expect("fits");
        assert_eq!(dw, Array2::zeros((3, 2)));
        let mut dw = Array2::ones((3, 2));
        weight_gradient_into(
            h.slice(s![..0, ..]),
            dz.view(),
            &none,
            dw.view_mut(),
            Update::Accumulate,
            &mut Scratch::new(),
        )
        .expect("fits");
        assert_eq!(dw, Array2::ones((3, 2)));
        for (inputs, outputs) in [(0, 2), (3, 0), (0, 0)] {
            let (h, dz) = (Array2::<f32>::ones((4, inputs)), Array2::<f32>::ones((4, outputs)));
            let mut dw = Array2::zeros((inputs, outputs));
            exact_weight_gradient(h.view(), dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
        }
    }

    #[test]
    fn shapes_are_checked_and_the_output_is_left_alone() {
        let selection = every_third(4);
        let (kept, dz) = (Array2::<f32>::ones((2, 3)), Array2::<f32>::ones((4, 2)));
        let mut dw = Array2::from_elem((3, 2), 7.0);
        let run = |kept: ArrayView2<'_, f32>, dz: ArrayView2<'_, f32>, dw: &mut Array2<f32>| {
            weight_gradient_into(kept, dz, &selection, dw.view_mut(), Update::Overwrite, &mut Scratch::new())
                .expect_err("refused")
                .what
        };
        assert_eq!(run(kept.slice(s![..1, ..]), dz.view(), &mut dw), "kept rows");
        assert_eq!(run(kept.view(), dz.slice(s![..3, ..]), &mut dw), "rows of dz");
        assert_eq!(run(kept.view(), dz.slice(s![.., ..1]), &mut dw), "columns of dw (out_features)");
        assert_eq!(run(kept.slice(s![.., ..1]), dz.view(), &mut dw), "rows of dw (in_features)");
        assert_eq!(dw, Array2::from_elem((3, 2), 7.0));
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let (h, dz) = (sixteenths(200, 700, 3).mapv(|v| (v * 1.1) as f32), sixteenths(200, 500, 4).mapv(|v| v as f32));
        let selection = every_third(200);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let kept = gather(h.view(), &selection).expect("fits");
                (crate::product::row_norms(h.view()), weight_gradient(kept.view(), dz.view(), &selection))
            })
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one && run(7) == one);
    }

    #[test]
    fn a_workspace_of_the_callers_gives_the_same_bits() {
        fn same<T: Element<Accumulator = f32>>(h: &Array2<T>) {
            let dz = sixteenths(50, 9, 5).mapv(f16::from_f64);
            let selection = Selection::new(50, 0, vec![3, 8, 49], vec![1.0, 2.5, 7.0]).expect("valid");
            let kept = gather(h.view(), &selection).expect("fits");
            let mut dw = Array2::from_elem((20, 9), f32::NAN);
            let mut workspace = vec![f32::NAN; workspace_len::<T>(3, 20, 9)];
            let within = |dw: ArrayViewMut2<'_, f32>, update, workspace: &mut [f32]| {
                weight_gradient_within(kept.view(), dz.view(), &selection, dw, update, workspace)
            };
            within(dw.view_mut(), Update::Overwrite, &mut workspace).expect("fits");
            assert_eq!(dw, weight_gradient(kept.view(), dz.view(), &selection).expect("fits"));
            let before = dw.clone();
            let short = workspace.len() - 1;
            assert!(within(dw.view_mut(), Update::Accumulate, &mut workspace[..short]).is_err());
            assert_eq!(dw, before);
        }
        let h = sixteenths(50, 20, 4);
        same(&h.mapv(|v| v as f32));
        same(&h.mapv(bf16::from_f64));
    }
}
