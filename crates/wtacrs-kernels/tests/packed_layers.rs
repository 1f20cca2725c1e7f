//! Plans of packed rows that run: dW against exact arithmetic on unpacked rows, and against wtacrs-core's packed layers.

use crate::common::{Machine, for_each_machine};
use crate::matrices::{made_up, relative_error};
use crate::steps::{Data, Given, Outcome, run, run_columns};
use half::{bf16, f16};
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use safetensors::SafeTensors;
use std::num::NonZeroU32;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormGuess, NormPredictor, PredictorSettings};
use wtacrs_core::layers::{Contraction, Linear, TensorMul};
use wtacrs_core::product::{Kept, PackedView, Packing, Rows, Update, exact_weight_gradient};
use wtacrs_core::sampling::{Keep, Selection};
use wtacrs_exact::packing::{self, Bits, Groups, PackingBits};
use wtacrs_kernels::device::Device;
use wtacrs_kernels::kernel::predictor_update;
use wtacrs_kernels::plan::{
    DataType, DeviceRandomness, LinearPlan, LinearSettings, MatmulPlan, MatmulSettings, Memory, PredictorPlan, Spacing,
    Strides, UpdateBuffers,
};

/// Xᵀ·other of kept rows X of `x`, in exact arithmetic on unpacked rows, and how far sums of products that are rounded to a
/// relative error of `unit` may be away.
///
/// An element of the rotated product has n products and as many additions with those of the partial products: its error is
/// below ((1 + u)ⁿ − 1)·A with A the sum of magnitudes. Of a group of P elements, log₂ P additions add each; u of
/// those is f32's. Then all is doubled.
fn expected<T: Data>(
    x: ArrayView2<'_, T>,
    other: ArrayView2<'_, T>,
    outcome: &Outcome,
    bits: Bits,
    random: &PackingBits,
    splits: u32,
) -> (Array2<f64>, Array2<f64>) {
    let groups = Groups::new(x.ncols());
    let dim = (groups.padded(), other.ncols());
    let (mut sums, mut sizes) = (Array2::<f64>::zeros(dim), Array2::<f64>::zeros(dim));
    for (&index, &scale) in outcome.indices.iter().zip(&outcome.scales) {
        let row: Vec<f32> = x.row(index as usize).iter().map(|value| value.widen()).collect();
        let (mut codes, mut grids) = (vec![0; groups.words(bits)], vec![0; groups.count()]);
        packing::pack_row(&row, bits, random, index.into(), &mut codes, &mut grids).expect("finite");
        let mut y = vec![0.0; groups.padded()];
        packing::unpack_row(x.ncols(), bits, random, index.into(), &codes, &grids, &mut y);
        for (j, y) in y.into_iter().enumerate() {
            let y = f64::from(T::from_number(y * scale as f32).widen());
            for (k, other) in other.row(index as usize).iter().enumerate() {
                let product = y * f64::from(other.widen());
                sums[[j, k]] += product;
                sizes[[j, k]] += product.abs();
            }
        }
    }
    let unit = if T::TYPE == DataType::F32 { 2.0_f64.powi(-24) } else { 2.0_f64.powi(-22) };
    let of_sums = (1.0 + unit).powi((outcome.indices.len() as u32 + splits) as i32) * (1.0 + 2.0_f64.powi(-24)).powi(8);
    let (mut exact, mut bounds) = (Array2::zeros((x.ncols(), dim.1)), Array2::zeros((x.ncols(), dim.1)));
    let signs = random.signs();
    for group in 0..groups.count() {
        let (first, size) = (group * packing::GROUP, groups.size(group));
        for k in 0..dim.1 {
            let mut y: Vec<f64> = sums.slice(s![first..first + size, k]).to_vec();
            let size_of_all: f64 = sizes.slice(s![first..first + size, k]).sum();
            let mut apart = 1;
            while apart < size {
                for i in (0..size).filter(|i| i & apart == 0) {
                    (y[i], y[i + apart]) = (y[i] + y[i + apart], y[i] - y[i + apart]);
                }
                apart *= 2;
            }
            for (j, y) in y.into_iter().enumerate().take(x.ncols() - first) {
                let is_turned = signs[j / 32] >> (j % 32) & 1 == 1;
                exact[[first + j, k]] = if is_turned { -2.0 * y } else { 2.0 * y };
                bounds[[first + j, k]] = 2.0 * (of_sums - 1.0) * size_of_all;
            }
        }
    }
    (exact, bounds)
}

/// Asserts that dW, which was added to an old value, is within its bounds, with room for the last addition.
fn assert_close(found: &[f32], old: f32, (exact, bounds): &(Array2<f64>, Array2<f64>), what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for ((at, exact), &found) in exact.indexed_iter().zip(found) {
        let expected = exact + f64::from(old);
        let bound = bounds[at] + 2.0_f64.powi(-23) * expected.abs() + 1e-30;
        assert!((f64::from(found) - expected).abs() <= bound, "{what}: {found} {expected} ± {bound} at {at:?}");
    }
}

const ALL_BITS: [Packing; 3] = [Packing::Bits8, Packing::Bits4, Packing::Bits2];

/// A layer of odd sizes, with a bias gradient, dW added to old values.
fn check<T: Data>(
    machine: &mut Machine,
    [batch, tokens, in_features, out_features]: [usize; 4],
    keep: usize,
    packing: Packing,
    old_dw: f32,
    multiprocessors: u32,
) {
    let mut settings = LinearSettings::new(tokens, in_features, out_features, Keep::Rows(keep)).of_type(T::TYPE);
    settings.weight_gradient = DataType::F32;
    settings.packing = packing;
    settings.batch = batch;
    settings.bias_gradient = true;
    let device = Device { multiprocessors, ..machine.device().clone() };
    let plan = LinearPlan::new(settings, &device).expect("valid");
    let bits = packing.bits().expect("packed");
    assert_eq!(plan.keeps_all(), keep == tokens);
    let h = made_up(batch * tokens, in_features, 1).mapv(T::from_number);
    let dz = made_up(batch * tokens, out_features, 2).mapv(T::from_number);
    let further = machine.upload(&[1_u64 << 40]);
    let randomness = DeviceRandomness { further_offset: further.pointer(), ..DeviceRandomness::new(5, 9) };
    let mut given = Given::new(h.view(), dz.view(), &[], randomness);
    given.old_dw = old_dw;
    let outcomes = run(machine, &plan, &given);
    for (b, outcome) in outcomes.iter().enumerate() {
        let what = format!("{machine:?}, {:?}, {b}: {tokens} × {in_features} × {out_features}, {packing}", T::TYPE);
        assert_eq!((outcome.status, outcome.count as usize), (0, keep), "{what}");
        let rows = s![b * tokens..(b + 1) * tokens, ..];
        let random = PackingBits::new(Randomness::new(5, 9 + (1 << 40)), b as u32);
        let dw = expected(h.slice(rows), dz.slice(rows), outcome, bits, &random, plan.splits());
        assert_close(&outcome.dw, old_dw, &dw, &what);
        for (j, &bias) in outcome.bias.iter().enumerate() {
            let column = dz.slice(rows).column(j).mapv(|value| f64::from(value.widen()));
            let bound = 1e-5 * (column.mapv(f64::abs).sum() + f64::from(old_dw));
            assert!((f64::from(bias) - f64::from(old_dw) - column.sum()).abs() <= bound, "{what}");
        }
        assert!(outcome.dw_between.iter().all(|&value| old_dw == 0.0 || value == old_dw), "{what}");
    }
}

#[test]
fn odd_sizes() {
    for_each_machine(|machine| {
        for (i, [in_features, out_features]) in
            [[1, 1], [16, 5], [17, 33], [40, 64], [64, 8], [65, 7], [129, 40], [200, 1], [300, 16]]
                .into_iter()
                .enumerate()
        {
            let packing = ALL_BITS[i % 3];
            check::<f32>(machine, [1, 23, in_features, out_features], 9, packing, 0.0, 4);
            check::<bf16>(machine, [2, 20, in_features, out_features], 20, packing, 1.5, 4);
            check::<f16>(machine, [1, 21, in_features, out_features], 21 - i, packing, 1.5, 4);
        }
    });
}

#[test]
fn sums_that_are_cut() {
    for_each_machine(|machine| {
        check::<f32>(machine, [1, 300, 40, 40], 300, Packing::Bits4, 0.0, 132);
        check::<f32>(machine, [2, 300, 150, 24], 250, Packing::Bits8, 0.5, 132);
        check::<bf16>(machine, [1, 700, 64, 64], 650, Packing::Bits2, 0.0, 132);
    });
}

/// dW in 16 bits is rounded once, and lies between other data; H and dZ lie between others, too.
#[test]
fn strides_and_a_rounded_gradient() {
    const TOKENS: usize = 30;
    const IN: usize = 21;
    const OUT: usize = 10;
    let (wide, wide_dz) = (made_up(TOKENS, 25, 3).mapv(bf16::from_f32), made_up(TOKENS, 13, 4).mapv(bf16::from_f32));
    let (h, dz) = (wide.slice(s![.., ..IN]).to_owned(), wide_dz.slice(s![.., ..OUT]).to_owned());
    for_each_machine(|machine| {
        for keep in [11, TOKENS] {
            let mut settings = LinearSettings::new(TOKENS, IN, OUT, Keep::Rows(keep));
            settings.packing = Packing::Bits4;
            let dense = LinearPlan::new(settings, machine.device()).expect("valid");
            let strides = [Strides::even(25, 0), Strides::even(13, 0), Strides::even(17, 0)].map(Some);
            let strided = dense.with_strides(strides).expect("no overlap");
            let randomness = DeviceRandomness::new(1, 2);
            let expected = run(machine, &dense, &Given::new(h.view(), dz.view(), &[], randomness));
            let found = run(machine, &strided, &Given::new(wide.view(), wide_dz.view(), &[], randomness));
            assert_eq!((&found[0].dw, &found[0].indices), (&expected[0].dw, &expected[0].indices), "{machine:?}");
            assert!(found[0].dw_between.iter().all(|value| value.to_bits() == u32::MAX), "{machine:?}");
        }
    });
}

/// Both gradients of C = A·B for heads that lie between one another, some pairs or all of them.
#[test]
fn both_gradients_of_a_product() {
    const HEADS: usize = 2;
    const ROWS: usize = 26;
    const INNER: usize = 40;
    const COLUMNS: usize = 19;
    let heads = |columns: usize, rows: usize| {
        let heads = NonZeroU32::new(HEADS as u32).expect("not 0");
        Strides {
            row: HEADS * columns,
            matrices: Spacing { sample: (rows * HEADS * columns) as u64, head: columns as u64, heads },
        }
    };
    let side_by_side = |of: &[Array2<f32>]| {
        concatenate(Axis(1), &of.iter().map(|of| of.view()).collect::<Vec<_>>()).expect("equal rows")
    };
    let items = |rows, columns, seed| [0, 1].map(|head: u64| made_up(rows, columns, seed + head));
    let (a, b, g) = (items(ROWS, INNER, 1), items(COLUMNS, INNER, 3), items(ROWS, COLUMNS, 5));
    for_each_machine(|machine| {
        for (packing, left, right) in [(Packing::Bits4, 7, 9), (Packing::Bits2, COLUMNS, ROWS)] {
            let mut settings = MatmulSettings::new([1, HEADS, ROWS, INNER, COLUMNS]);
            (settings.input, settings.gradient) = (DataType::F32, DataType::F32);
            (settings.left, settings.right) = (Some(Keep::Rows(left)), Some(Keep::Rows(right)));
            settings.packing = packing;
            settings.a_strides = Some(heads(INNER, ROWS));
            settings.b_transposed_strides = Some(heads(INNER, COLUMNS));
            settings.gradient_strides = Some(heads(COLUMNS, ROWS));
            settings.da_strides = Some(heads(INNER, ROWS));
            settings.db_strides = Some(heads(COLUMNS, INNER));
            let plan = MatmulPlan::new(&settings, machine.device()).expect("valid");
            let of_core = |rows| Contraction::Sampled(Keep::Rows(rows));
            let core = TensorMul::new(of_core(left), of_core(right)).with_packing(packing);
            assert_eq!(plan.draws(), core.draws(ROWS, COLUMNS).expect("fits"));
            let randomness = DeviceRandomness::new(8, 64);
            let (a_all, b_all, g_all) = (side_by_side(&a), side_by_side(&b), side_by_side(&g));
            let (of_right, of_left) = (plan.right().expect("sampled"), plan.left().expect("sampled"));
            let right = run(machine, of_right, &Given::new(a_all.view(), g_all.view(), &[], randomness));
            let given = Given::new(b_all.view(), g_all.view(), &[], randomness);
            let left = run_columns(machine, of_left, &given, [HEADS, COLUMNS, ROWS, INNER], settings.da_strides);
            let bits = packing.bits().expect("packed");
            for head in 0..HEADS {
                let what = format!("{machine:?}, {packing}, head {head}");
                let random = |stream: usize| PackingBits::new(Randomness::new(8, 64), stream as u32);
                let of = &right[head];
                assert_eq!(of.count as usize, of_right.kept_rows(), "{what}");
                let db = expected(a[head].view(), g[head].view(), of, bits, &random(2 * head + 1), of_right.splits());
                assert_close(&of.dw, 0.0, &db, &what);
                let of = &left[head];
                assert_eq!(of.count as usize, of_left.kept_columns(), "{what}");
                let (exact, bounds) = expected(b[head].view(), g[head].t(), of, bits, &random(2 * head), 8);
                let turned = (exact.t().to_owned(), bounds.t().to_owned());
                assert_close(&of.dw, 0.0, &turned, &what);
            }
        }
    });
}

#[test]
fn an_invalid_row_is_reported_and_keeps_nothing() {
    let (mut h, mut dz) = (made_up(50, 8, 5), made_up(50, 8, 6));
    h[[17, 3]] = f32::NAN;
    h[[40, 3]] = f32::INFINITY;
    // As gradients are when an input is.
    dz.fill(f32::NAN);
    for_each_machine(|machine| {
        for keep in [10, 50] {
            let mut settings = LinearSettings::new(50, 8, 8, Keep::Rows(keep)).of_type(DataType::F32);
            settings.packing = Packing::Bits4;
            let plan = LinearPlan::new(settings, machine.device()).expect("valid");
            let outcome = &run(machine, &plan, &Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(0, 0)))[0];
            assert_eq!((outcome.status, outcome.count), (18, 0), "{machine:?}");
            assert!(outcome.dw.iter().all(|&value| value == 0.0), "{machine:?}");
        }
    });
}

/// A predictor learns from packed rows what the CPU's learns from them, to the bit, over several tiles of a row.
#[test]
fn a_predictor_learns_from_packed_rows() {
    const TOKENS: usize = 24;
    for_each_machine(|machine| {
        for (in_features, keep, packing) in
            [(33, 9, Packing::Bits4), (300, TOKENS, Packing::Bits2), (4500, 3, Packing::Bits8)]
        {
            let mut settings = LinearSettings::new(TOKENS, in_features, 5, Keep::Rows(keep)).of_type(DataType::F32);
            settings.packing = packing;
            let layer = LinearPlan::new(settings, machine.device()).expect("valid");
            let of_predictor = PredictorSettings::default().with_features(32);
            let plan = PredictorPlan::new(&layer, of_predictor).expect("valid");
            let cpu = NormPredictor::new(in_features, of_predictor).expect("valid");
            let state = machine.upload(&PredictorPlan::first_bytes(&cpu).expect("few features"));
            let sums = machine.unwritten::<f64>(plan.sums_len() as usize);
            let scratch = machine.unwritten::<u8>(plan.scratch_bytes() as usize);
            let status = machine.unwritten::<u32>(2);
            let memory = |at: *mut u8, bytes: usize| Memory { at, bytes: bytes as u64 };
            let learn = |machine: &mut Machine, saved: Memory, dz_norms: *const f32| {
                let buffers = UpdateBuffers {
                    saved,
                    gradient_norms: dz_norms,
                    cached_norms: std::ptr::null(),
                    state: memory(state.bytes(), state.len()),
                    sums: memory(sums.bytes(), 8 * sums.len()),
                    status: status.pointer(),
                    scratch: memory(scratch.bytes(), scratch.len()),
                };
                // SAFETY: all buffers have the plan's sizes.
                unsafe { plan.update(machine, &buffers) }.expect("launches");
            };
            let (h, dz) = (made_up(TOKENS, in_features, 7), made_up(TOKENS, 5, 8));
            let mut given = Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(1, 50));
            given.then = Some(&learn);
            let outcome = &run(machine, &layer, &given)[0];
            let what = format!("{machine:?}, {in_features} features");
            assert_eq!(machine.download(&status), [predictor_update::Outcome::Learned as u32, 0], "{what}");

            let selection = Selection::new(TOKENS, 0, outcome.indices.clone(), outcome.scales.clone()).expect("valid");
            let (bits, random) = (packing.bits().expect("packed"), PackingBits::new(Randomness::new(1, 50), 0));
            let kept = if layer.keeps_all() { Kept::All(TOKENS) } else { Kept::Selected(&selection) };
            let (words, grids) = PackedView::sizes(keep, in_features, bits);
            let (mut words, mut grids) = (vec![0; words], vec![0; grids]);
            let rows = PackedView::pack(h.view(), kept, bits, random, &mut words, &mut grids).expect("fits");
            let kept_norms: Vec<f32> = outcome.indices.iter().map(|&i| outcome.dz_norms[i as usize]).collect();
            let expected =
                cpu.statistics(Rows::<f32>::Packed(rows), &kept_norms, &outcome.scales, None).expect("valid");
            assert_eq!(machine.download(&sums), expected.sums(), "{what}");
        }
    });
}

/// 1024 tokens, 384 features on both sides.
fn real_layer(name: &str) -> [Array2<f32>; 2] {
    let path = crate::common::testdata(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    ["h", "dz"].map(|key| {
        let (words, _) = file.tensor(key).expect(key).data().as_chunks::<4>();
        let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        Array2::from_shape_vec((1024, 384), values).expect("the shape of the data")
    })
}

/// A layer's dW is that of wtacrs-core's packed layer, up to the arithmetic of the product.
fn check_real_layer<T: Data>(
    machine: &mut Machine,
    [h, dz]: &[Array2<f32>; 2],
    keep: Keep,
    packing: Packing,
    bound: f64,
) -> f64 {
    let (h, dz) = (h.mapv(T::from_number), dz.mapv(T::from_number));
    let mut settings = LinearSettings::new(1024, 384, 384, keep).of_type(T::TYPE);
    settings.weight_gradient = DataType::F32;
    settings.packing = packing;
    let plan = LinearPlan::new(settings, machine.device()).expect("valid");
    let linear = Linear::new(keep).with_packing(packing);
    assert_eq!(plan.draws(), linear.draws(1024).expect("fits"));
    let given = Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(11, 1 << 40));
    let outcome = &run(machine, &plan, &given)[0];
    let cpu = linear.forward(h.view(), NormGuess::Unknown, Randomness::new(11, 1 << 40)).expect("fits");
    if let Some(selection) = cpu.selection() {
        assert_eq!(outcome.indices, selection.indices());
    }
    let mut expected = Array2::zeros((384, 384));
    cpu.backward(dz.view(), expected.view_mut(), Update::Overwrite).expect("fits");
    let error = relative_error(&outcome.dw, expected.view());
    assert!(error < bound, "{machine:?}, {:?}, {packing}: {error}", T::TYPE);
    exact_weight_gradient(h.view(), dz.view(), expected.view_mut(), Update::Overwrite).expect("fits");
    relative_error(&outcome.dw, expected.view())
}

#[test]
fn real_layers() {
    let padded = real_layer("minilm_l3_value_padded_1024.safetensors");
    let layer = real_layer("minilm_l3_value_imdb_1024.safetensors");
    for_each_machine(|machine| {
        check_real_layer::<f32>(machine, &padded, Keep::Fraction(0.1), Packing::Bits4, 1e-5);
        check_real_layer::<f16>(machine, &layer, Keep::Fraction(0.3), Packing::Bits2, 2e-3);
        // All rows, and all that packing costs.
        let error = check_real_layer::<bf16>(machine, &layer, Keep::Fraction(1.0), Packing::Bits4, 1e-2);
        assert!((0.03..0.04).contains(&error), "{machine:?}: {error}");
    });
}
