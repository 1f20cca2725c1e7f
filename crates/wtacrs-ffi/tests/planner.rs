//! The planner through the C interface: core's budgets from the same observations, ranks, checkpoints, what it refuses; and the
//! weights of forward passes, which it observes.

#[path = "common/calls.rs"]
mod calls;
#[path = "../../wtacrs-kernels/tests/common/mod.rs"]
mod machine;

use calls::{Memory, check, context, forward_options, last_error, plan_with, predictor, predictor_bytes};
use machine::Machine;
use ndarray::Array2;
use std::ptr::{null, null_mut};
use wtacrs::stand_in::use_emulator;
use wtacrs::*;
use wtacrs_core::Weights;
use wtacrs_core::allocation::{LayerBudget, Observation, Planner, Target, row_noise};
use wtacrs_core::guesses::{NormGuess, NormPredictor};
use wtacrs_core::layers::Linear;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::Keep;

const TOKENS: usize = 96;
const IN: usize = 256;
const LAYERS: usize = 3;
const PACKINGS: [Packing; 4] = [Packing::Native, Packing::Bits8, Packing::Bits4, Packing::Bits2];

fn created() -> *mut wtacrs_planner {
    let mut planner = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_planner_create(&mut planner) });
    for number in 0..LAYERS {
        let mut layer = usize::MAX;
        // SAFETY: an output of one number.
        check(unsafe { wtacrs_planner_add_layer(planner, IN, WTACRS_DTYPE_F32, &mut layer) });
        assert_eq!(layer, number);
    }
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_planner_share_input(planner, 2, 1) });
    planner
}

fn of_core() -> Planner {
    let mut planner = Planner::new();
    for _ in 0..LAYERS {
        planner.add_layer(IN, 4);
    }
    planner.share_input(2, 1).expect("alike");
    planner
}

/// Norms of H and of dZ, and guesses of their products; layers differ in how much their tokens do.
fn step(layer: usize, number: usize) -> [Vec<f32>; 3] {
    let value = |i: usize, j: usize| ((i * 37 + j * 11 + number * 5 + i * j) % 23) as f32 / 11.0 - 1.0;
    let of = |j: usize| (0..TOKENS).map(|i| (value(i, j) * (1 + 2 * layer) as f32).exp()).collect();
    [of(1), of(2), of(3)]
}

fn observation(norms: &[Vec<f32>; 2], weights: Option<&[f64]>, change: f64) -> wtacrs_observation {
    wtacrs_observation {
        tokens: TOKENS,
        weights: weights.map_or(null(), <[f64]>::as_ptr),
        input_norms: norms[0].as_ptr(),
        dz_norms: norms[1].as_ptr(),
        budget_rows: 40,
        packing: WTACRS_PACKING_BITS4,
        squared_norm: 500.0,
        squared_change: change,
        ..Default::default()
    }
}

fn statistics(planner: *const wtacrs_planner) -> Vec<f64> {
    let mut count = 0;
    // SAFETY: an output of one number, and room for as many as it says.
    unsafe {
        check(wtacrs_planner_statistics_count(planner, &mut count));
        let mut sums = vec![f64::NAN; count];
        check(wtacrs_planner_statistics(planner, sums.as_mut_ptr(), count));
        sums
    }
}

fn apply(planner: *mut wtacrs_planner, sums: &[f64]) {
    // SAFETY: so many numbers.
    check(unsafe { wtacrs_planner_apply(planner, sums.as_ptr(), sums.len()) });
}

fn budget(planner: *const wtacrs_planner, layer: usize) -> wtacrs_planned {
    let mut planned = wtacrs_planned { size: size_of::<wtacrs_planned>(), ..Default::default() };
    // SAFETY: an output of the size that it says.
    check(unsafe { wtacrs_planner_get_budget(planner, layer, &mut planned) });
    planned
}

fn destroy(planner: *mut wtacrs_planner) {
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_planner_destroy(planner) });
}

/// The same steps in the planner of the C interface and in core's: layers 0 and 1, and 2 where it is wanted.
fn observed(layers: usize, steps: usize) -> (*mut wtacrs_planner, Planner) {
    let (planner, mut core) = (created(), of_core());
    for number in 0..steps {
        for layer in 0..layers {
            let [h, dz, guess] = step(layer, number);
            let weights: Vec<f64> = guess.iter().map(|&guess| guess.into()).collect();
            // Without weights the products of the norms are.
            let given = (layer != 1).then_some(&weights[..]);
            let of_core = match given {
                Some(weights) => Weights::new(weights).expect("valid"),
                None => Weights::from_norms(&h, &dz).expect("valid"),
            };
            let squares: Vec<f64> = h.iter().zip(&dz).map(|(&h, &dz)| (f64::from(h) * f64::from(dz)).powi(2)).collect();
            let norms = [h, dz];
            let change = if number == 0 { -1.0 } else { 900.0 };
            let seen = observation(&norms, given, change);
            // SAFETY: so many numbers of each.
            check(unsafe { wtacrs_planner_observe(planner, layer, &seen) });
            let seen = Observation {
                weights: &of_core,
                squares: &squares,
                budget: LayerBudget { rows: 40, packing: Packing::Bits4 },
                squared_norm: 500.0,
                squared_change: (number > 0).then_some(900.0),
            };
            core.observe(layer, seen).expect("valid");
        }
        let sums = statistics(planner);
        assert_eq!(sums, core.pending());
        apply(planner, &sums);
        core.apply(&sums).expect("its own");
    }
    (planner, core)
}

#[test]
fn budgets_are_cores() {
    let (planner, core) = observed(LAYERS, 3);
    for (number, target, share) in [
        (WTACRS_TARGET_MEMORY, Target::Memory as fn(f64) -> Target, 0.03),
        (WTACRS_TARGET_MEMORY, Target::Memory, 0.3),
        (WTACRS_TARGET_NOISE, Target::Noise, 0.01),
        (WTACRS_TARGET_NOISE, Target::Noise, 2.0),
    ] {
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_planner_solve(planner, number, share) });
        let expected = core.solve(target(share)).expect("observed");
        let mut packings = vec![];
        for (layer, expected) in expected.into_iter().enumerate() {
            let (found, expected) = (budget(planner, layer), expected.expect("observed"));
            assert_eq!((found.share, found.tokens), (expected.share(), TOKENS));
            assert_eq!(PACKINGS[found.packing as usize], expected.budget.packing);
            assert_eq!(found.squared_error, expected.squared_error);
            packings.push((found.share, found.packing));
        }
        assert_eq!(packings[1], packings[2], "they share an input");
        if share == 0.03 {
            assert_ne!(packings[0], packings[1], "layers that differ, and little memory");
        }
    }
    destroy(planner);
}

#[test]
fn ranks_agree_and_checkpoints_go_on() {
    let (first, second, third) = (observed(2, 1).0, created(), created());
    let [h, dz, _] = step(0, 9);
    let norms = [h, dz];
    let seen = observation(&norms, None, -1.0);
    // SAFETY: so many numbers of each.
    unsafe {
        check(wtacrs_planner_observe(second, 0, &seen));
        check(wtacrs_planner_observe(third, 1, &seen));
    }
    let total: Vec<f64> = statistics(second).iter().zip(statistics(third)).map(|(a, b)| a + b).collect();
    for planner in [second, third] {
        apply(planner, &total);
        assert!(statistics(planner).iter().all(|&sum| sum == 0.0));
    }
    let found = |planner| {
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_planner_solve(planner, WTACRS_TARGET_MEMORY, 0.1) });
        (0..LAYERS).map(|layer| (budget(planner, layer).share, budget(planner, layer).packing)).collect::<Vec<_>>()
    };
    assert_eq!(found(second), found(third));
    let (mut restored, mut needed) = (null_mut(), 0);
    // SAFETY: a buffer of the size that was asked for, and outputs of one value.
    unsafe {
        check(wtacrs_planner_observe(second, 1, &seen));
        check(wtacrs_planner_save(second, null_mut(), 0, &mut needed));
        let mut bytes = vec![0_u8; needed];
        let to = bytes.as_mut_ptr().cast();
        assert_eq!(wtacrs_planner_save(second, to, needed - 1, &mut needed), WTACRS_STATUS_BUFFER_TOO_SMALL);
        check(wtacrs_planner_save(second, to, needed, &mut needed));
        check(wtacrs_planner_load(bytes.as_ptr().cast(), needed, &mut restored));
        bytes[40] ^= 1;
        let mut none = null_mut();
        assert_eq!(wtacrs_planner_load(bytes.as_ptr().cast(), needed, &mut none), WTACRS_STATUS_CORRUPTED);
        assert!(none.is_null());
    }
    for planner in [second, restored] {
        apply(planner, &statistics(planner));
    }
    assert_eq!(found(restored), found(second));
    [first, second, third, restored].into_iter().for_each(destroy);
}

#[test]
fn rows_tell_the_noise_of_packing() {
    let planner = created();
    let h = Array2::from_shape_fn((16, IN), |(i, j)| ((i * 31 + j * 17) % 29) as f32 - 3.0);
    // SAFETY: a matrix of that size.
    check(unsafe {
        wtacrs_planner_observe_rows(planner, 1, WTACRS_DTYPE_F32, h.nrows(), h.as_ptr().cast(), h.ncols())
    });
    let mut core = of_core();
    core.observe_noise(1, row_noise(h.view()).expect("finite")).expect("valid");
    assert_eq!(statistics(planner), core.pending());
    assert!(statistics(planner).iter().any(|&sum| sum > 0.0));
    destroy(planner);
}

#[test]
fn bad_input_is_named_and_nothing_is_noted() {
    let planner = created();
    let before = statistics(planner);
    let [h, dz, _] = step(0, 0);
    let norms = [h, dz];
    let seen = observation(&norms, None, -1.0);
    // SAFETY: so many numbers of each, or refused.
    let observe = |layer, seen: &wtacrs_observation| unsafe { wtacrs_planner_observe(planner, layer, seen) };
    assert_eq!(observe(LAYERS, &seen), WTACRS_STATUS_INVALID_ARGUMENT);
    assert!(last_error().ends_with("no layer 3: there are 3"), "{}", last_error());
    for budget_rows in [0, TOKENS + 1] {
        let refused = observe(0, &wtacrs_observation { budget_rows, ..seen });
        assert_eq!(refused, WTACRS_STATUS_INVALID_BUDGET);
    }
    assert_eq!(observe(0, &wtacrs_observation { tokens: 0, ..seen }), WTACRS_STATUS_INVALID_ARGUMENT);
    assert_eq!(observe(0, &wtacrs_observation { packing: 4, ..seen }), WTACRS_STATUS_INVALID_ENUM);
    assert_eq!(observe(0, &wtacrs_observation { dz_norms: null(), ..seen }), WTACRS_STATUS_NULL_POINTER);
    assert_eq!(observe(0, &wtacrs_observation { size: 8, ..seen }), WTACRS_STATUS_INVALID_ARGUMENT);
    for value in [f64::NAN, f64::INFINITY] {
        let [norm, change] =
            [wtacrs_observation { squared_norm: value, ..seen }, wtacrs_observation { squared_change: value, ..seen }];
        assert_eq!([observe(0, &norm), observe(0, &change)], [WTACRS_STATUS_INVALID_ARGUMENT; 2]);
    }
    let mut bad = norms.clone();
    bad[1][7] = f32::NAN;
    assert_eq!(observe(0, &observation(&bad, None, -1.0)), WTACRS_STATUS_INVALID_WEIGHTS);
    assert!(last_error().contains('7'), "{}", last_error());
    let mut weights = vec![1.0; TOKENS];
    weights[5] = -1.0;
    assert_eq!(observe(0, &observation(&norms, Some(&weights), -1.0)), WTACRS_STATUS_INVALID_WEIGHTS);
    assert_eq!(statistics(planner), before);

    let (mut number, mut sum) = (7, 0.0);
    let mut short = wtacrs_planned { size: 8, ..Default::default() };
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns, or refused.
    unsafe {
        assert_eq!(wtacrs_planner_observe(planner, 0, null()), WTACRS_STATUS_NULL_POINTER);
        assert_eq!(wtacrs_planner_add_layer(planner, 0, 0, &mut number), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(wtacrs_planner_add_layer(planner, 8, 9, &mut number), WTACRS_STATUS_INVALID_ENUM);
        assert_eq!(wtacrs_planner_add_layer(planner, usize::MAX, 0, &mut number), WTACRS_STATUS_SIZE_OVERFLOW);
        assert_eq!(number, 7);
        assert_eq!(wtacrs_planner_share_input(planner, 0, 1), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(wtacrs_planner_share_input(planner, 0, 9), WTACRS_STATUS_INVALID_ARGUMENT);
        check(wtacrs_planner_add_layer(planner, 8, 0, &mut number));
        assert_eq!(wtacrs_planner_share_input(planner, number, 0), WTACRS_STATUS_SHAPE_MISMATCH);
        let rows = [f32::NAN; IN];
        let observe_rows = |layer, rows: *const f32, count, leading| {
            wtacrs_planner_observe_rows(planner, layer, WTACRS_DTYPE_F32, count, rows.cast(), leading)
        };
        assert_eq!(observe_rows(0, rows.as_ptr(), 1, IN), WTACRS_STATUS_INVALID_WEIGHTS);
        assert_eq!(observe_rows(0, rows.as_ptr(), 0, IN), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(observe_rows(0, rows.as_ptr(), 1, IN - 1), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(observe_rows(9, rows.as_ptr(), 1, IN), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(observe_rows(0, null(), 1, IN), WTACRS_STATUS_NULL_POINTER);
        assert_eq!(wtacrs_planner_statistics(planner, &mut sum, 1), WTACRS_STATUS_BUFFER_TOO_SMALL);
        assert_eq!(wtacrs_planner_apply(planner, &sum, 1), WTACRS_STATUS_SHAPE_MISMATCH);
        let infinite = vec![f64::INFINITY; statistics(planner).len()];
        assert_eq!(wtacrs_planner_apply(planner, infinite.as_ptr(), infinite.len()), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(wtacrs_planner_solve(planner, WTACRS_TARGET_MEMORY, 0.1), WTACRS_STATUS_INVALID_ARGUMENT);
        assert!(last_error().ends_with("no layer has been observed yet"), "{}", last_error());
        assert_eq!(wtacrs_planner_solve(planner, 2, 0.1), WTACRS_STATUS_INVALID_ENUM);
        assert_eq!(wtacrs_planner_get_budget(planner, 9, &mut short), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(wtacrs_planner_get_budget(planner, 0, &mut short), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(wtacrs_planner_get_budget(planner, 0, null_mut()), WTACRS_STATUS_NULL_POINTER);
    }
    assert_eq!((budget(planner, 0).share, budget(planner, 0).is_planned), (0.0, 0), "nothing is planned");
    check(observe(0, &seen));
    apply(planner, &statistics(planner));
    // SAFETY: a handle is never followed.
    let solve = |target, share| unsafe { wtacrs_planner_solve(planner, target, share) };
    assert_eq!(solve(WTACRS_TARGET_NOISE, 0.1), WTACRS_STATUS_INVALID_ARGUMENT);
    assert!(last_error().contains("observed twice"), "{}", last_error());
    for share in [0.0, -1.0, 1.5, f64::NAN] {
        assert_eq!(solve(WTACRS_TARGET_MEMORY, share), WTACRS_STATUS_INVALID_ARGUMENT);
    }
    assert_eq!(solve(WTACRS_TARGET_MEMORY, 1e-6), WTACRS_STATUS_INVALID_BUDGET);
    check(solve(WTACRS_TARGET_MEMORY, 0.1));
    assert_eq!([0, 1].map(|layer| budget(planner, layer).is_planned), [1, 0]);
    destroy(planner);
}

/// A plan of a source that keeps a share of the rows, natively or in 4 bits.
fn plan(context: *const wtacrs_context, source: wtacrs_source, share: f64) -> (*mut wtacrs_plan, wtacrs_plan_info) {
    // SAFETY: a handle is never followed.
    plan_with(context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, 8));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
        check(wtacrs_layer_set_packing(layer, WTACRS_PACKING_BITS4));
        check(wtacrs_layer_set_source(layer, source, 0.01));
    })
}

fn h() -> Array2<f32> {
    Array2::from_shape_fn((TOKENS, IN), |(i, j)| ((i * 37 + j * 11 + i * j) % 23) as f32 / 11.0 - (i % 3) as f32)
}

/// A predictor that has learned something, as bytes.
fn learned() -> Vec<u8> {
    let context = context(WTACRS_DEVICE_CPU, 0);
    let predictor = predictor(context, IN);
    let (on, info) = plan(context, WTACRS_SOURCE_PREDICTED, 0.3);
    let (h, mut memory, [_, norms, _]) = (h(), Memory::filled(info.saved_bytes, 0), step(0, 2));
    let (saved, bytes, none) = (memory.at(), info.saved_bytes, null_mut());
    let options = forward_options(null(), predictor);
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    unsafe {
        check(wtacrs_plan_forward(on, h.as_ptr().cast(), IN, 1, 0, &options, saved, bytes, none, 0, none));
        check(wtacrs_norm_predictor_update(predictor, on, saved, bytes, norms.as_ptr(), null(), none));
    }
    let found = predictor_bytes(predictor);
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_plan_destroy(on));
        check(wtacrs_context_destroy(context));
    }
    found
}

fn loaded(context: *const wtacrs_context, bytes: &[u8]) -> *mut wtacrs_norm_predictor {
    let mut predictor = null_mut();
    // SAFETY: so many bytes, and an output of one pointer.
    check(unsafe { wtacrs_norm_predictor_load(context, bytes.as_ptr().cast(), bytes.len(), &mut predictor) });
    predictor
}

#[test]
fn weights_of_a_pass_are_what_it_chooses_by() {
    let (context, bytes, h) = (context(WTACRS_DEVICE_CPU, 0), learned(), h());
    let core = NormPredictor::from_bytes(&bytes).expect("its own");
    let predictor = loaded(context, &bytes);
    let [_, cached, _] = step(0, 3);
    let known: Vec<Option<f32>> = cached.iter().map(|&norm| Some(norm)).collect();
    let linear = Linear::new(Keep::Fraction(0.3));
    for share in [0.3, 1.0] {
        for (source, guess, predictor, of_core) in [
            (WTACRS_SOURCE_INPUT, null(), null(), NormGuess::Unknown),
            (WTACRS_SOURCE_CACHED, cached.as_ptr(), null(), NormGuess::Cached(&known)),
            (WTACRS_SOURCE_PREDICTED, null(), predictor.cast_const(), NormGuess::Predicted(&core)),
        ] {
            let (on, info) = plan(context, source, share);
            let pass = |weights: *mut f64| {
                let mut memory = Memory::filled(info.saved_bytes, 0);
                let options = wtacrs_forward_options { weights, ..forward_options(guess, predictor) };
                let (to, none) = (memory.at(), null_mut());
                // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
                check(unsafe {
                    let h = h.as_ptr().cast();
                    wtacrs_plan_forward(on, h, IN, 3, 4, &options, to, info.saved_bytes, none, 0, none)
                });
                memory.contents()
            };
            let mut weights = vec![f64::NAN; TOKENS];
            let saved = pass(weights.as_mut_ptr());
            assert_eq!(saved, pass(null_mut()), "the pass is the same");
            let expected = linear.weigh(h.view(), of_core).expect("valid");
            assert_eq!(weights, (0..TOKENS).map(|i| expected.value(i)).collect::<Vec<_>>());
            // SAFETY: a handle is never followed.
            check(unsafe { wtacrs_plan_destroy(on) });
        }
    }
    let (on, info) = plan(context, WTACRS_SOURCE_INPUT, 0.3);
    let mut memory = Memory::filled(info.saved_bytes, 0);
    let options = wtacrs_forward_options { weights: memory.at().cast(), ..Default::default() };
    let (to, none) = (memory.at(), null_mut());
    // SAFETY: refused, or as above.
    unsafe {
        let x = h.as_ptr().cast();
        let refused = wtacrs_plan_forward(on, x, IN, 3, 4, &options, to, info.saved_bytes, none, 0, none);
        assert_eq!(refused, WTACRS_STATUS_OVERLAP);
        // Options of the first version end before the weights.
        let first = wtacrs_forward_options { size: 24, weights: null_mut::<f64>().wrapping_add(1), ..options };
        check(wtacrs_plan_forward(on, x, IN, 3, 4, &first, to, info.saved_bytes, none, 0, none));
        check(wtacrs_plan_destroy(on));
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_context_destroy(context));
    }
}

/// Those of a machine with a GPU's kernels, against the CPU's.
fn weights_on(machine: &Machine, context: *const wtacrs_context) {
    let (bytes, h, [_, cached, _]) = (learned(), h(), step(0, 3));
    let core = NormPredictor::from_bytes(&bytes).expect("its own");
    let known: Vec<Option<f32>> = cached.iter().map(|&norm| Some(norm)).collect();
    let (predictor, linear) = (loaded(context, &bytes), Linear::new(Keep::Fraction(0.3)));
    let (h_there, cached_there) = (machine.upload(h.as_slice().expect("dense")), machine.upload(&cached));
    for (source, guess, predictor, of_core) in [
        (WTACRS_SOURCE_INPUT, null(), null(), NormGuess::Unknown),
        (WTACRS_SOURCE_CACHED, cached_there.bytes().cast_const().cast(), null(), NormGuess::Cached(&known)),
        (WTACRS_SOURCE_PREDICTED, null(), predictor.cast_const(), NormGuess::Predicted(&core)),
    ] {
        let (on, info) = plan(context, source, 0.3);
        let room = |bytes| machine.filled::<u8>(bytes, 0xff);
        let (saved, scratch) = (room(info.saved_bytes), room(info.forward_scratch_bytes));
        let weights = machine.filled::<f64>(TOKENS, 0xff);
        let options = wtacrs_forward_options { weights: weights.bytes().cast(), ..forward_options(guess, predictor) };
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        check(unsafe {
            let (to, work) = (saved.bytes().cast(), scratch.bytes().cast());
            let (h, room) = (h_there.bytes().cast_const().cast(), info.forward_scratch_bytes);
            wtacrs_plan_forward(on, h, IN, 3, 4, &options, to, info.saved_bytes, work, room, null_mut())
        });
        let expected = linear.weigh(h.view(), of_core).expect("valid");
        let found = machine.download(&weights);
        // A predictor's level is a factor of all, and a GPU leaves it out.
        let factor = found[0] / expected.value(0);
        for (i, found) in found.into_iter().enumerate() {
            let expected = factor * expected.value(i);
            assert!((found / expected - 1.0).abs() < 1e-5, "source {source}, token {i}: {found} for {expected}");
        }
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_plan_destroy(on) });
    }
    let (on, info) = plan(context, WTACRS_SOURCE_INPUT, 1.0);
    let (saved, weights) = (machine.filled::<u8>(info.saved_bytes, 0), machine.filled::<f64>(TOKENS, 0));
    let options = wtacrs_forward_options { weights: weights.bytes().cast(), ..Default::default() };
    // SAFETY: refused before anything is read.
    unsafe {
        let (h, to, none) = (h_there.bytes().cast_const().cast(), saved.bytes().cast(), null_mut());
        let refused = wtacrs_plan_forward(on, h, IN, 3, 4, &options, to, info.saved_bytes, none, 0, none);
        assert_eq!(refused, WTACRS_STATUS_UNSUPPORTED);
        check(wtacrs_plan_destroy(on));
        check(wtacrs_norm_predictor_destroy(predictor));
    }
}

#[test]
fn weights_of_a_pass_on_the_emulator() {
    use_emulator();
    let context = context(WTACRS_DEVICE_CUDA, 0);
    weights_on(&Machine::emulator(0), context);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}

/// Skipped with a message if there is no GPU; with WTACRS_REQUIRE_GPU=1 it fails instead.
#[test]
fn weights_of_a_pass_on_a_gpu() {
    let Some(machine) = Machine::gpu() else { return };
    let context = context(WTACRS_DEVICE_CUDA, -1);
    weights_on(&machine, context);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}
