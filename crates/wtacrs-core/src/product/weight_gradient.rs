//! dW = Hᵀ dZ, exactly or from the kept rows: one multiplication for winners and tail.

use super::kept::Kept;
use super::multiply::{Plain, Precision, Scaled, Update, multiply};
use super::{ShapeError, check_size};
use crate::element::Element;
use crate::sampling::Selection;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

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
    weight_gradient_into(kept, dz, selection, dw.view_mut(), Update::Overwrite, Precision::default())?;
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
    precision: Precision,
) -> Result<(), ShapeError>
where
    T: Element,
    U: Element<Accumulator = T::Accumulator>,
{
    check_inputs(&kept, &dz, selection)?;
    check_output(&kept, &dz, &dw)?;
    multiply(&Plain(kept), &Scaled { x: dz, kept: Kept::Selected(selection) }, dw, update, precision);
    Ok(())
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
    multiply(&Plain(h), &Plain(dz), dw, update, Precision::Native);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Accumulator;
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
            Precision::Native,
        )
        .expect("fits");
        assert_eq!(transposed.t(), expected);

        let mut spaced = Array2::from_elem((802, 39), 1.0);
        let target = spaced.slice_mut(s![..;2, ..;3]);
        weight_gradient_into(kept.view(), dz.view(), &selection, target, Update::Accumulate, Precision::Native)
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
            Precision::Native,
        )
        .expect("fits");
        assert_eq!(dw, Array2::<f32>::zeros((3, 2)));
        let mut dw = Array2::<f32>::ones((3, 2));
        weight_gradient_into(
            h.slice(s![..0, ..]),
            dz.view(),
            &none,
            dw.view_mut(),
            Update::Accumulate,
            Precision::Native,
        )
        .expect("fits");
        assert_eq!(dw, Array2::<f32>::ones((3, 2)));
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
            weight_gradient_into(kept, dz, &selection, dw.view_mut(), Update::Overwrite, Precision::Native)
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
}
