//! Plans that run: whole layers forward and backward, on the emulator and on a GPU, against wtacrs-core on the CPU.

use crate::common::{Machine, for_each_machine};
use crate::matrices::{made_up, relative_error};
use crate::steps::{Data, Given, Outcome, run, run_columns};
use half::{bf16, f16};
use ndarray::{Array1, Array2, Array4, ArrayView2, s};
use safetensors::SafeTensors;
use std::num::NonZeroU32;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::layers::Linear;
use wtacrs_core::layers::{TensorGuess, TensorMul};
use wtacrs_core::product::{self, Update};
use wtacrs_core::sampling::PhiloxChance;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Selection, Weights};
use wtacrs_kernels::device::Device;
use wtacrs_kernels::kernel::predictor_update;
use wtacrs_kernels::plan::{
    DataType, DeviceRandomness, LinearPlan, LinearSettings, MatmulPlan, MatmulSettings, Memory, Part, Precision,
    PredictorPlan, Spacing, Strides, UpdateBuffers, WeightSource,
};

fn tensors(name: &str) -> Vec<u8> {
    let path = crate::common::testdata(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

struct Layer {
    h: Array2<f32>,
    dz: Array2<f32>,
    previous_norms: Vec<f32>,
}

/// 1024 tokens, 384 features on both sides.
fn real_layer() -> Layer {
    let bytes = tensors("minilm_l3_value_imdb_1024.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |key: &str| -> Vec<f32> {
        let (words, _) = file.tensor(key).expect(key).data().as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let matrix = |key| Array2::from_shape_vec((1024, 384), values(key)).expect("the shape of the data");
    Layer { h: matrix("h"), dz: matrix("dz"), previous_norms: values("dz_norm_prev") }
}

/// Asserts that the kept rows are those that core keeps with these weights, to the bit.
fn assert_selected(outcome: &Outcome, expected: &Selection, what: &str) {
    assert_eq!((outcome.status, outcome.count as usize), (0, expected.len()), "{what}");
    assert_eq!(outcome.indices, expected.indices(), "{what}");
    let bits = |scales: &[f64]| scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&outcome.scales), bits(expected.scales()), "{what}");
}

/// The layer in type T, with the norms of the samples' last visit as guess.
fn check_real_layer<T: Data>(machine: &mut Machine, layer: &Layer, precision: Precision, bound: f64) {
    let (h, dz) = (layer.h.mapv(T::from_number), layer.dz.mapv(T::from_number));
    let mut settings = LinearSettings::new(1024, 384, 384, Keep::Fraction(0.3)).of_type(T::TYPE);
    settings.weights = WeightSource::Norms;
    settings.weight_gradient = DataType::F32;
    settings.bias_gradient = true;
    settings.precision = precision;
    let plan = LinearPlan::new(settings, machine.device()).expect("valid");
    let given = Given::new(h.view(), dz.view(), &layer.previous_norms, DeviceRandomness::new(11, 1 << 40));
    let outcome = &run(machine, &plan, &given)[0];
    let what = format!("{:?}, {:?}, {precision:?}", machine, T::TYPE);

    let weights = Weights::from_norms(&outcome.input_norms, &layer.previous_norms).expect("valid");
    let budget = weights.budget(Keep::Fraction(0.3)).expect("fits");
    let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(11, 1 << 40));
    assert_selected(outcome, &selection, &what);
    // The CPU's own norms may differ in the last bit, and then the scales do; the rows are the same.
    let linear = Linear::new(Keep::Fraction(0.3));
    let cpu =
        linear.forward(h.view(), NormGuess::Norms(&layer.previous_norms), Randomness::new(11, 1 << 40)).expect("fits");
    assert_eq!(outcome.indices, cpu.selection().expect("chosen").indices(), "{what}");
    for (found, expected) in outcome.scales.iter().zip(cpu.selection().expect("chosen").scales()) {
        assert!((found / expected - 1.0).abs() < 1e-5, "{what}: {found} {expected}");
    }
    let mut expected = Array2::zeros((384, 384));
    let norms = cpu.backward(dz.view(), expected.view_mut(), Update::Overwrite).expect("fits");
    let error = relative_error(&outcome.dw, expected.view());
    assert!(error < bound, "{what}: {error}");
    assert!(outcome.dz_norms.iter().zip(&norms).all(|(found, norm)| (found - norm).abs() <= 1e-6 * norm), "{what}");
    let mut bias = Array1::zeros(384);
    product::column_sums_into(dz.view(), bias.view_mut(), Update::Overwrite).expect("fits");
    let bias = bias.into_shape_with_order((1, 384)).expect("one row");
    let error = relative_error(&outcome.bias, bias.view());
    assert!(error < 1e-5, "{what}: {error}");
}

#[test]
fn a_real_layer_in_f32() {
    let layer = real_layer();
    for_each_machine(|machine| check_real_layer::<f32>(machine, &layer, Precision::Exact, 1e-5));
}

#[test]
fn a_real_layer_in_tf32() {
    let layer = real_layer();
    for_each_machine(|machine| check_real_layer::<f32>(machine, &layer, Precision::Tf32, 1e-3));
}

#[test]
fn a_real_layer_in_half_precision() {
    let layer = real_layer();
    for_each_machine(|machine| {
        check_real_layer::<bf16>(machine, &layer, Precision::Exact, 1e-2);
        check_real_layer::<f16>(machine, &layer, Precision::Exact, 2e-3);
    });
}

#[test]
fn a_batch_of_odd_sizes_between_other_data() {
    // Each problem's matrices are parts of wider ones; dW's old values are added to.
    const BATCH: usize = 3;
    const TOKENS: usize = 77;
    const IN: usize = 13;
    const OUT: usize = 9;
    let mut settings = LinearSettings::new(TOKENS, IN, OUT, Keep::Rows(20)).of_type(DataType::F32);
    settings.weights = WeightSource::Cached { mix: 0.25 };
    settings.design = BuiltIn::WtaStratified;
    settings.bias_gradient = true;
    settings.batch = BATCH;
    settings.input_strides = Some(Strides::even(17, TOKENS * 17 + 5));
    settings.gradient_strides = Some(Strides::even(OUT, TOKENS * OUT + 1));
    settings.weight_gradient_strides = Some(Strides::even(11, IN * 11 + 3));
    let h = made_up(BATCH, TOKENS * 17 + 5, 1);
    let dz = made_up(BATCH, TOKENS * OUT + 1, 2);
    let matrix = |of: &Array2<f32>, b: usize, rows: usize, stride: usize, columns: usize| {
        Array2::from_shape_fn((rows, columns), |(i, j)| of[[b, i * stride + j]])
    };
    let cached: Vec<f32> =
        (0..BATCH * TOKENS).map(|i| if i % 5 == 0 { -1.0 } else { 1.0 / (1 + i % 7) as f32 }).collect();
    for_each_machine(|machine| {
        let plan = LinearPlan::new(settings.clone(), machine.device()).expect("valid");
        let mut given = Given::new(h.view(), dz.view(), &cached, DeviceRandomness::new(5, 1000));
        given.old_dw = 2.5;
        let outcomes = run(machine, &plan, &given);
        for (b, outcome) in outcomes.iter().enumerate() {
            let what = format!("{machine:?}, problem {b}");
            let (h, dz) = (matrix(&h, b, TOKENS, 17, IN), matrix(&dz, b, TOKENS, OUT, OUT));
            let of_problem = &cached[b * TOKENS..][..TOKENS];
            let known: Vec<Option<f32>> = of_problem.iter().map(|&norm| (norm >= 0.0).then_some(norm)).collect();
            let weights = Weights::from_cache(&outcome.input_norms, &known, 0.25).expect("valid");
            let budget = weights.budget(Keep::Rows(20)).expect("fits");
            let mut draws = PhiloxChance::with_stream(Randomness::new(5, 1000), b as u32);
            let selection = BuiltIn::WtaStratified.select(&weights, budget, &mut draws);
            assert_selected(outcome, &selection, &what);
            let kept = product::gather(h.view(), &selection).expect("fits");
            let expected = product::weight_gradient(kept.view(), dz.view(), &selection).expect("fits") + 2.5;
            assert!(relative_error(&outcome.dw, expected.view()) < 1e-5, "{what}");
            let bias = Array2::from_shape_fn((1, OUT), |(_, j)| 2.5 + dz.column(j).sum());
            assert!(relative_error(&outcome.bias, bias.view()) < 1e-5, "{what}");
            assert!(outcome.dw_between.iter().all(|&value| value == 2.5), "{what}: only dW is written");
        }
    });
}

#[test]
fn a_bias_gradient_beside_partial_products() {
    const TOKENS: usize = 500;
    const OUT: usize = 40;
    let (h, dz) = (made_up(2 * TOKENS, 24, 12), made_up(2 * TOKENS, OUT, 13));
    for_each_machine(|machine| {
        let mut settings = LinearSettings::new(TOKENS, 24, OUT, Keep::Fraction(0.9));
        settings.batch = 2;
        let device = Device { multiprocessors: 132, ..machine.device().clone() };
        let run = |machine: &mut Machine, bias_gradient| {
            let mut settings = settings.clone().of_type(DataType::F32);
            settings.bias_gradient = bias_gradient;
            let plan = LinearPlan::new(settings, &device).expect("valid");
            assert!(plan.splits() > 1);
            run(machine, &plan, &Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(1, 2)))
        };
        let (with, without) = (run(machine, true), run(machine, false));
        for (b, (with, without)) in with.iter().zip(&without).enumerate() {
            assert_eq!(with.dw, without.dw, "{machine:?}, problem {b}");
            let dz = dz.slice(s![b * TOKENS..(b + 1) * TOKENS, ..]);
            let bias = Array2::from_shape_fn((1, OUT), |(_, j)| dz.column(j).sum());
            assert!(relative_error(&with.bias, bias.view()) < 1e-5, "{machine:?}, problem {b}");
        }
    });
}

#[test]
fn every_design_and_the_least_sizes() {
    let (h, dz) = (made_up(40, 6, 3), made_up(40, 5, 4));
    for_each_machine(|machine| {
        for design in BuiltIn::ALL {
            for (tokens, kept) in [(1, 1), (40, 1), (40, 40), (37, 12)] {
                let mut settings = LinearSettings::new(tokens, 6, 5, Keep::Rows(kept)).of_type(DataType::F32);
                settings.design = design;
                let plan = LinearPlan::new(settings, machine.device()).expect("valid");
                let (h, dz) = (h.slice(s![..tokens, ..]), dz.slice(s![..tokens, ..]));
                let given = Given::new(h, dz, &[], DeviceRandomness::new(9, 77));
                let outcome = &run(machine, &plan, &given)[0];
                let weights = Weights::from_input(&outcome.input_norms).expect("valid");
                let budget = weights.budget(Keep::Rows(kept)).expect("fits");
                let selection = design.select_seeded(&weights, budget, Randomness::new(9, 77));
                let what = format!("{machine:?}, {design}, {kept} of {tokens}");
                assert_selected(outcome, &selection, &what);
                let rows = product::gather(h, &selection).expect("fits");
                let expected = product::weight_gradient(rows.view(), dz, &selection).expect("fits");
                assert!(relative_error(&outcome.dw, expected.view()) < 1e-5, "{what}");
            }
        }
    });
}

#[test]
fn an_invalid_row_is_reported_and_keeps_nothing() {
    let (mut h, dz) = (made_up(50, 8, 5), made_up(50, 8, 6));
    h[[17, 3]] = f32::NAN;
    for_each_machine(|machine| {
        let settings = LinearSettings::new(50, 8, 8, Keep::Rows(10)).of_type(DataType::F32);
        let plan = LinearPlan::new(settings, machine.device()).expect("valid");
        let outcome = &run(machine, &plan, &Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(0, 0)))[0];
        assert_eq!((outcome.status, outcome.count), (18, 0), "{machine:?}");
        assert!(outcome.dw.iter().all(|&value| value == 0.0), "{machine:?}");
    });
}

#[test]
fn more_tokens_than_a_block_has_and_an_offset_in_device_memory() {
    const TOKENS: usize = 70_000;
    let (h, dz) = (made_up(TOKENS, 4, 7), made_up(TOKENS, 4, 8));
    for_each_machine(|machine| {
        let settings = LinearSettings::new(TOKENS, 4, 4, Keep::Rows(500)).of_type(DataType::F32);
        let plan = LinearPlan::new(settings, machine.device()).expect("valid");
        let further = machine.upload(&[(1_u64 << 33) + 5]);
        let randomness = DeviceRandomness { further_offset: further.pointer(), ..DeviceRandomness::new(3, 7) };
        let outcome = &run(machine, &plan, &Given::new(h.view(), dz.view(), &[], randomness))[0];
        let weights = Weights::from_input(&outcome.input_norms).expect("valid");
        let budget = weights.budget(Keep::Rows(500)).expect("fits");
        let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(3, (1 << 33) + 12));
        assert_selected(outcome, &selection, &format!("{machine:?}"));
    });
}

#[test]
fn a_predictor_learns_and_guesses() {
    const TOKENS: usize = 96;
    const IN: usize = 24;
    let mut settings = LinearSettings::new(TOKENS, IN, 16, Keep::Rows(32)).of_type(DataType::F32);
    settings.weights = WeightSource::Predicted { clamp: PredictorSettings::default().clamp };
    for_each_machine(|machine| {
        let layer = LinearPlan::new(settings.clone(), machine.device()).expect("valid");
        let plan = PredictorPlan::new(&layer, PredictorSettings::default()).expect("valid");
        let mut cpu = NormPredictor::new(IN, PredictorSettings::default()).expect("valid");
        let state = machine.upload(&PredictorPlan::first_bytes(&cpu).expect("few features"));
        assert_eq!(state.len() as u64, plan.state_bytes());
        let sums = machine.unwritten::<f64>(plan.sums_len() as usize);
        let scratch = machine.unwritten::<u8>(plan.scratch_bytes() as usize);
        let status = machine.unwritten::<u32>(2);
        let memory = |at: *mut u8, bytes: usize| Memory { at, bytes: bytes as u64 };
        for step in 0..3 {
            let h = made_up(TOKENS, IN, 20 + step);
            // The predictor can learn that gradients grow with the first feature's share of a row.
            let shares: Vec<f32> = h.rows().into_iter().map(|row| row[0] / row.dot(&row).sqrt()).collect();
            let noise = made_up(TOKENS, 16, 40 + step);
            let dz =
                Array2::from_shape_fn((TOKENS, 16), |(i, j)| (3.0 * shares[i]).exp() * (1.0 + 0.1 * noise[[i, j]]));
            let mut given = Given::new(h.view(), dz.view(), &[], DeviceRandomness::new(1, 1000 * step));
            let part = |part: Part| state.bytes().wrapping_add(part.offset as usize);
            given.predictor = Some((part(plan.theta()).cast(), part(plan.placement()).cast()));
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
            given.then = Some(&learn);
            let outcome = &run(machine, &layer, &given)[0];
            assert_eq!(machine.download(&status), [predictor_update::Outcome::Learned as u32, 0], "{machine:?}");

            // The CPU's predictor, taught the same rows, has learned the same.
            let selection = Selection::new(TOKENS, 0, outcome.indices.clone(), outcome.scales.clone()).expect("valid");
            let kept = product::gather(h.view(), &selection).expect("fits");
            let kept_norms: Vec<f32> = outcome.indices.iter().map(|&i| outcome.dz_norms[i as usize]).collect();
            cpu.update(kept.view(), &kept_norms, &outcome.scales, None).expect("valid");
            let mut gpu = cpu.clone();
            PredictorPlan::restore(&mut gpu, &machine.download(&state)).expect("finite");
            let (on_cpu, on_gpu) = (cpu.guess(h.view(), None).expect("fits"), gpu.guess(h.view(), None).expect("fits"));
            for (cpu, gpu) in on_cpu.dz_norms.iter().zip(&on_gpu.dz_norms) {
                assert!((gpu / cpu - 1.0).abs() < 1e-3, "{machine:?}, step {step}: {gpu} {cpu}");
            }
        }
    });
}

fn attention(key: &str) -> Array4<bf16> {
    let bytes = tensors("minilm_attn2_imdb_1_bf16.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = file.tensor(key).expect(key);
    let (words, _) = tensor.data().as_chunks::<2>();
    let values: Vec<bf16> = words.iter().map(|word| bf16::from_le_bytes(*word)).collect();
    let &[a, b, c, d] = tensor.shape() else { panic!("four axes") };
    Array4::from_shape_vec((a, b, c, d), values).expect("the shape of the data")
}

/// Heads one below the other.
fn flat(of: &Array4<bf16>) -> Array2<bf16> {
    let (a, b, c, d) = of.dim();
    of.to_shape((a * b, c * d)).expect("standard layout").to_owned()
}

#[test]
fn attention_s_scores() {
    let (q, k, g) = (attention("q"), attention("k"), attention("dscores"));
    let (_, heads, rows, inner) = q.dim();
    let columns = k.dim().2;
    let keep = Keep::Fraction(0.3);
    let mut settings = MatmulSettings::new([1, heads, rows, inner, columns]);
    settings.left = Some(keep);
    settings.right = Some(keep);
    let core = TensorMul::scores(keep);
    let transposed = k.view().permuted_axes([0, 1, 3, 2]);
    let saved = core.forward(q.view(), transposed, TensorGuess::default(), Randomness::new(8, 64)).expect("fits");
    let expected = saved.backward(g.view()).expect("fits");
    let (q, k, g) = (flat(&q), flat(&k), flat(&g));
    for_each_machine(|machine| {
        let plan = MatmulPlan::new(&settings, machine.device()).expect("valid");
        assert_eq!(plan.draws(), core.draws(rows, columns).expect("fits"));
        let right = run(
            machine,
            plan.right().expect("sampled"),
            &Given::new(q.view(), g.view(), &[], DeviceRandomness::new(8, 64)),
        );
        let left = run_columns(
            machine,
            plan.left().expect("sampled"),
            &Given::new(k.view(), g.view(), &[], DeviceRandomness::new(8, 64)),
            [heads, columns, rows, inner],
            None,
        );
        for head in 0..heads {
            let what = format!("{machine:?}, head {head}");
            let close = |outcome: &Outcome, selection: &Selection, gradient: ArrayView2<'_, f32>, norms: &[f32]| {
                assert_eq!(outcome.indices, selection.indices(), "{what}");
                assert!(relative_error(&outcome.dw, gradient) < 1e-2, "{what}");
                let is_close = |(found, norm): (&f32, &f32)| (found - norm).abs() <= 1e-6 * norm;
                assert!(outcome.dz_norms.iter().zip(norms).all(is_close), "{what}");
            };
            let norms = expected.row_norms.slice(s![0, head, ..]).to_vec();
            close(
                &right[head],
                saved.right_selection(0, head).expect("chosen"),
                expected.right.slice(s![0, head, .., ..]),
                &norms,
            );
            let norms = expected.column_norms.slice(s![0, head, ..]).to_vec();
            close(
                &left[head],
                saved.left_selection(0, head).expect("chosen"),
                expected.left.slice(s![0, head, .., ..]),
                &norms,
            );
        }
    });
}

/// A framework's view (batch, heads, seq, dim) of a (batch, seq, heads, dim) buffer has the results of dense matrices.
#[test]
fn attention_between_other_heads() {
    const BATCH: usize = 2;
    const HEADS: usize = 3;
    const ROWS: usize = 40;
    const INNER: usize = 8;
    const COLUMNS: usize = 24;
    const ITEMS: usize = BATCH * HEADS;
    let heads = |columns: usize, rows: usize| Strides {
        row: HEADS * columns,
        matrices: Spacing {
            sample: (rows * HEADS * columns) as u64,
            head: columns as u64,
            heads: NonZeroU32::new(HEADS as u32).expect("not 0"),
        },
    };
    let mut dense = MatmulSettings::new([BATCH, HEADS, ROWS, INNER, COLUMNS]);
    dense.left = Some(Keep::Rows(9));
    dense.right = Some(Keep::Rows(11));
    dense.input = DataType::F32;
    dense.gradient = DataType::F32;
    let mut interleaved = dense.clone();
    interleaved.a_strides = Some(heads(INNER, ROWS));
    interleaved.b_transposed_strides = Some(heads(INNER, COLUMNS));
    interleaved.gradient_strides = Some(heads(COLUMNS, ROWS));
    interleaved.da_strides = Some(heads(INNER, ROWS));
    interleaved.db_strides = Some(heads(COLUMNS, INNER));
    /// (batch, heads, rows, columns), one below the other, as (batch, rows, heads, columns).
    fn turned(of: &Array2<f32>, rows: usize) -> Array2<f32> {
        let four = of.to_shape((BATCH, HEADS, rows, of.ncols())).expect("as many elements");
        let turned = four.view().permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned();
        turned.into_shape_with_order(of.dim()).expect("as many elements")
    }
    let (a, b) = (made_up(ITEMS * ROWS, INNER, 1), made_up(ITEMS * COLUMNS, INNER, 2));
    let g = made_up(ITEMS * ROWS, COLUMNS, 3);
    let found = |machine: &mut Machine, settings: &MatmulSettings, [a, b, g]: [&Array2<f32>; 3]| {
        let plan = MatmulPlan::new(settings, machine.device()).expect("valid");
        let randomness = DeviceRandomness::new(8, 64);
        let right = plan.right().expect("sampled");
        let right = run(machine, right, &Given::new(a.view(), g.view(), &[], randomness));
        let left = plan.left().expect("sampled");
        let given = Given::new(b.view(), g.view(), &[], randomness);
        let left = run_columns(machine, left, &given, [ITEMS, COLUMNS, ROWS, INNER], settings.da_strides);
        let results = |outcome: &Outcome| (outcome.indices.clone(), outcome.dz_norms.clone(), outcome.dw.clone());
        right.iter().chain(&left).map(results).collect::<Vec<_>>()
    };
    for_each_machine(|machine| {
        let expected = found(machine, &dense, [&a, &b, &g]);
        let turned = [&turned(&a, ROWS), &turned(&b, COLUMNS), &turned(&g, ROWS)];
        assert_eq!(found(machine, &interleaved, turned), expected, "{machine:?}");
    });
}
