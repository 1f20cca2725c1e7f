//! Kept rows in 8, 4 or 2 bits an element: what [`wtacrs_exact::packing`] defines, on vectors and all cores.
//!
//! [`pack`](self::pack) makes codes and grids of a matrix's rows, which a [`PackedView`] holds. [`unpack`](self::unpack)
//! makes rotated values of some columns of a row, for the product of [`gradient`](self::gradient), which is turned back once.

mod gradient;
mod pack;
mod rows;
mod unpack;
mod view;

pub use self::pack::PackError;
pub(super) use self::rows::PackedRows;
pub use self::rows::Rows;
pub use self::view::PackedView;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::{Kept, Precision, Saved, Update, weight_gradient};
    use crate::sampling::{Randomness, Selection};
    use half::bf16;
    use ndarray::{Array2, s};
    use wtacrs_exact::packing::{self, Bits, Groups, PackingBits};

    const ALL: [Bits; 3] = [Bits::Bits8, Bits::Bits4, Bits::Bits2];

    fn values(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| {
            let value = ((i * 31 + j * 17 + i * j) % 61) as f32 / 30.0 - 1.0;
            // Outliers, as activations have them.
            if j % 37 == 5 { 20.0 * value } else { value }
        })
    }

    fn random() -> PackingBits {
        PackingBits::new(Randomness::new(7, 1000), 2)
    }

    fn selection(pairs: usize) -> Selection {
        let indices: Vec<u32> = (0..pairs as u32).filter(|i| i % 3 != 1).collect();
        let scales = indices.iter().map(|&i| 1.0 + f64::from(i % 4)).collect();
        Selection::new(pairs, 0, indices, scales).expect("valid")
    }

    /// The rows packed one by one, by definition.
    fn by_definition(x: &Array2<f32>, kept: Kept<'_>, bits: Bits) -> (Vec<u32>, Vec<u32>) {
        let (words, groups) = PackedView::sizes(kept.len(), x.ncols(), bits);
        let (mut codes, mut grids) = (vec![0; words], vec![0; groups]);
        let of_row = Groups::new(x.ncols());
        for at in 0..kept.len() {
            let index = kept.index(at);
            let row: Vec<f32> = x.row(index).to_vec();
            let codes = &mut codes[at * of_row.words(bits)..][..of_row.words(bits)];
            let grids = &mut grids[at * of_row.count()..][..of_row.count()];
            packing::pack_row(&row, bits, &random(), index as u64, codes, grids).expect("finite");
        }
        (codes, grids)
    }

    #[test]
    fn codes_are_those_of_the_definition_for_every_type_stride_and_width() {
        let selection = selection(20);
        for columns in (1..70).chain([127, 128, 129, 191, 200, 255, 300, 384, 1100]) {
            let x = values(20, columns).mapv(|v| bf16::from_f32(v).to_f32());
            for (bits, kept) in
                ALL.into_iter().zip([Kept::Selected(&selection), Kept::All(20), Kept::Selected(&selection)])
            {
                let expected = by_definition(&x, kept, bits);
                let found = |view: Result<PackedView<'_>, PackError>| {
                    let view = view.expect("finite");
                    (view.codes().to_vec(), view.grids().to_vec())
                };
                let (words, groups) = PackedView::sizes(kept.len(), columns, bits);
                let (codes, grids) = (&mut vec![9; words], &mut vec![9; groups]);
                assert_eq!(found(PackedView::pack(x.view(), kept, bits, random(), codes, grids)), expected);
                let turned = x.t().to_owned();
                assert_eq!(found(PackedView::pack(turned.t(), kept, bits, random(), codes, grids)), expected);
                let wide = x.mapv(f64::from);
                assert_eq!(found(PackedView::pack(wide.view(), kept, bits, random(), codes, grids)), expected);
                let half = x.mapv(bf16::from_f32);
                assert_eq!(found(PackedView::pack(half.view(), kept, bits, random(), codes, grids)), expected);
                assert_eq!(
                    found(PackedView::pack(half.t().to_owned().t(), kept, bits, random(), codes, grids)),
                    expected
                );
            }
        }
    }

    #[test]
    fn the_product_is_that_of_the_rows_read_back() {
        let selection = selection(700);
        for (in_features, out_features) in [(1, 1), (40, 7), (128, 65), (200, 500), (700, 130)] {
            let h = values(700, in_features);
            let dz = values(700, out_features).mapv(|v| bf16::from_f32(v * 0.1));
            for bits in ALL {
                for kept in [Kept::Selected(&selection), Kept::All(700)] {
                    let rows = Saved::pack(h.view(), kept.selection().cloned(), bits, random()).expect("finite");
                    let packed = rows.rows().packed().expect("packed");
                    let all = Selection::everything(700);
                    let selection = kept.selection().unwrap_or(&all);
                    let read = packed.unpack();
                    assert_eq!(read.row(packed.kept().len() - 1).to_vec(), packed.unpack_row(packed.kept().len() - 1));
                    let expected = weight_gradient(read.view(), dz.view(), selection).expect("fits");
                    let size = weight_gradient(
                        read.mapv(f32::abs).view(),
                        dz.mapv(|v| bf16::from_f32(v.to_f32().abs())).view(),
                        selection,
                    )
                    .expect("fits");
                    let mut dw = Array2::from_elem((out_features, in_features), f32::NAN);
                    let transposed = dw.view_mut().reversed_axes();
                    packed
                        .weight_gradient_into(dz.view(), transposed, Update::Overwrite, Precision::Wide)
                        .expect("fits");
                    let scale = size.iter().fold(0.0_f32, |a, &b| a.max(b));
                    for (found, expected) in dw.t().iter().zip(&expected) {
                        assert!((found - expected).abs() <= 2e-6 * scale, "{found} {expected} {scale}");
                    }
                    let mut sum = dw.t().to_owned();
                    rows.backward_with(dz.view(), sum.view_mut(), Update::Accumulate, Precision::Wide).expect("fits");
                    assert_eq!(sum, &dw.t() + &dw.t());
                    let mut spaced = Array2::zeros((2 * in_features, 3 * out_features));
                    let target = spaced.slice_mut(s![..;2, ..;3]);
                    rows.backward_with(dz.view(), target, Update::Overwrite, Precision::Wide).expect("fits");
                    assert_eq!(spaced.slice(s![..;2, ..;3]), dw.t());
                }
            }
        }
    }

    #[test]
    fn f64_is_a_reference_of_the_same_codes() {
        let (h, dz) = (values(50, 200), values(50, 9));
        let single = Saved::pack(h.view(), None, Bits::Bits4, random()).expect("finite");
        let double = Saved::pack(h.mapv(f64::from).view(), None, Bits::Bits4, random()).expect("finite");
        let (mut dw32, mut dw64) = (Array2::zeros((200, 9)), Array2::zeros((200, 9)));
        single.backward(dz.view(), dw32.view_mut(), Update::Overwrite).expect("fits");
        double.backward(dz.mapv(f64::from).view(), dw64.view_mut(), Update::Overwrite).expect("fits");
        assert!(dw32.iter().zip(&dw64).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-3));
        let mut large = h.mapv(f64::from);
        large[[30, 150]] = 1e39;
        let error = Saved::pack(large.view(), None, Bits::Bits4, random()).expect_err("refused");
        assert_eq!(error, PackError::NotFinite { row: 30 });
    }

    #[test]
    fn the_first_row_that_is_not_finite_is_named() {
        let mut h = values(3000, 130);
        for row in [2900, 1700, 1600] {
            h[[row, 129]] = f32::NAN;
        }
        let error = Saved::pack(h.view(), None, Bits::Bits2, random()).expect_err("refused");
        assert_eq!(error.to_string(), "row 1600 has an element that is not finite, or that is beyond f32's range");
        // A row that is not kept is not read.
        let without = Selection::new(3000, 0, vec![1, 1599, 1601], vec![1.0; 3]).expect("valid");
        Saved::pack(h.view(), Some(without), Bits::Bits2, random()).expect("finite");
    }

    #[test]
    fn nothing_kept_and_nothing_there() {
        let none = Selection::new(4, 0, vec![], vec![]).expect("valid");
        for (columns, outputs, selection) in [(3, 2, Some(none)), (0, 2, None), (3, 0, None), (0, 0, None)] {
            let saved = Saved::pack(values(4, columns).view(), selection, Bits::Bits4, random()).expect("finite");
            let mut dw = Array2::from_elem((columns, outputs), 1.0_f32);
            saved.backward(values(4, outputs).view(), dw.view_mut(), Update::Accumulate).expect("fits");
            if outputs == 2 {
                assert_eq!(dw, Array2::from_elem((columns, outputs), 1.0_f32));
            }
        }
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let (h, dz, selection) = (values(900, 700), values(900, 300), selection(900));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let saved = Saved::pack(h.view(), Some(selection.clone()), Bits::Bits4, random()).expect("finite");
                let mut dw = Array2::zeros((700, 300));
                saved.backward(dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
                (saved, dw)
            })
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one && run(7) == one);
    }

    #[test]
    fn a_rows_variance_is_that_of_its_steps() {
        let h = values(40, 300).mapv(|v| v * 3.0);
        let trials = 400;
        let mut found = [0.0; 40];
        let mut expected = [0.0; 40];
        for trial in 0..trials {
            let random = PackingBits::new(Randomness::new(3, 40 * trial), 0);
            let saved = Saved::pack(h.view(), None, Bits::Bits2, random).expect("finite");
            let packed = saved.rows().packed().expect("packed");
            let error = packed.unpack() - &h;
            for at in 0..40 {
                found[at] += error.row(at).mapv(f64::from).mapv(|v| v * v).sum() / trials as f64;
                expected[at] += packed.row_variance(at) / trials as f64;
            }
        }
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 0.1, "{found} {expected}");
        }
    }

    #[test]
    fn shapes_are_checked_and_the_output_is_left_alone() {
        let h = values(5, 3);
        let saved = Saved::pack(h.view(), None, Bits::Bits4, random()).expect("finite");
        let mut dw = Array2::from_elem((3, 2), 7.0_f32);
        let mut what = |rows, columns: usize, out: usize| {
            let out = dw.slice_mut(s![..out, ..]);
            saved.backward(values(rows, columns).view(), out, Update::Overwrite).expect_err("refused").what
        };
        assert_eq!(what(4, 2, 3), "rows of dz");
        assert_eq!(what(5, 1, 3), "columns of dw (out_features)");
        assert_eq!(what(5, 2, 2), "rows of dw (in_features)");
        assert_eq!(dw, Array2::from_elem((3, 2), 7.0));
        let short = PackedView::new(3, Kept::All(5), Bits::Bits4, random(), &[0; 9], &[0; 5]);
        assert_eq!(short.expect_err("refused").to_string(), "words of codes: expected 10, found 9");
    }
}
