//! The norm predictor through the C interface: core's bits, step after step, with cached norms beside it and without; sums of
//! ranks; and what came of each step.

#[path = "common/calls.rs"]
mod calls;

use calls::{Memory, check, context, forward_options, plan_with, predictor_bytes, predictor_outcome, selection};
use ndarray::Array2;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::*;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::product;
use wtacrs_core::sampling::{Keep, Weights, design::BuiltIn, design::Design};

const TOKENS: usize = 96;
const IN: usize = 10;
const ROWS: usize = 30;

fn plan(source: wtacrs_source) -> (*mut wtacrs_plan, Memory) {
    let context = context(WTACRS_DEVICE_CPU, 0);
    // SAFETY: a handle is never followed.
    let (plan, info) = plan_with(context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, 4));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, ROWS as f64));
        check(wtacrs_layer_set_source(layer, source, 0.01));
    });
    // SAFETY: as above.
    check(unsafe { wtacrs_context_destroy(context) });
    (plan, Memory::filled(info.saved_bytes, 0))
}

fn created() -> *mut wtacrs_norm_predictor {
    let context = context(WTACRS_DEVICE_CPU, 0);
    let predictor = calls::predictor(context, IN);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
    predictor
}

/// H of a step, the norms of its dZ, and the cached norms: every third is not known, the others are a little stale.
fn step(number: usize) -> (Array2<f32>, Vec<f32>, Vec<f32>) {
    let value = |i: usize, j: usize| ((i * 37 + j * 11 + number * 5 + i * j) % 23) as f32 / 11.0 - 1.0;
    let h = Array2::from_shape_fn((TOKENS, IN), |(i, j)| value(i, j));
    let norms: Vec<f32> = (0..TOKENS).map(|i| (value(i, 1) * 2.0).exp()).collect();
    let stale = |(i, norm): (usize, &f32)| if i % 3 == 0 { -1.0 } else { norm * (1.0 + value(i, 3) / 4.0) };
    let cached = norms.iter().enumerate().map(stale).collect();
    (h, norms, cached)
}

fn known(norms: &[f32]) -> Vec<Option<f32>> {
    norms.iter().map(|&norm| Some(norm).filter(|&norm| norm >= 0.0)).collect()
}

/// Core's predictor beside those of the C interface, which learn at once and by way of sums, with cached norms or without.
fn steps_as_core(is_cached: bool) -> Vec<u8> {
    let (plan, mut memory) = plan(WTACRS_SOURCE_PREDICTED);
    let (saved, saved_bytes) = (memory.at(), memory.bytes);
    let (predictor, by_sums, mut count) = (created(), created(), 0);
    // SAFETY: an output of one number.
    check(unsafe { wtacrs_norm_predictor_statistics_count(predictor, &mut count) });
    let mut core = NormPredictor::new(IN, PredictorSettings::default()).expect("valid");
    for number in 0..6 {
        let (h, norms, cached) = step(number);
        let of_core = is_cached.then(|| known(&cached));
        let guess = core.guess(h.view(), of_core.as_deref()).expect("fits");
        let weights = Weights::from_norms(&guess.input_norms, &guess.dz_norms).expect("valid");
        let budget = weights.budget(Keep::Rows(ROWS)).expect("fits");
        let expected = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(3, number as u64));

        let (mut indices, mut scales, mut kept) = (vec![0_u32; ROWS], vec![0.0_f64; ROWS], 0);
        let (x, none) = (h.as_ptr().cast(), null_mut());
        let stale = if is_cached { cached.as_ptr() } else { null() };
        let options = forward_options(stale, predictor);
        let found = selection(indices.as_mut_ptr(), scales.as_mut_ptr(), ROWS, &mut kept, null_mut());
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            let offset = number as u64;
            check(wtacrs_plan_forward(plan, x, IN, 3, offset, &options, saved, saved_bytes, none, 0, none));
            check(wtacrs_plan_saved_selection(plan, saved, saved_bytes, &found));
        }
        assert_eq!(indices[..kept as usize], *expected.indices(), "step {number}");
        assert_eq!(scales[..kept as usize], *expected.scales(), "step {number}");

        let rows = product::gather(h.view(), &expected).expect("fits");
        let of_kept = |of: &[f32]| -> Vec<f32> { expected.indices().iter().map(|&i| of[i as usize]).collect() };
        let cached_kept = is_cached.then(|| known(&of_kept(&cached)));
        core.update(rows.view(), &of_kept(&norms), expected.scales(), cached_kept.as_deref()).expect("fits");
        let mut sums = vec![0.0_f64; count];
        // SAFETY: as above.
        unsafe {
            let (norms, sums) = (norms.as_ptr(), sums.as_mut_ptr());
            check(wtacrs_norm_predictor_statistics(by_sums, plan, saved, saved_bytes, norms, stale, sums, count, none));
            check(wtacrs_norm_predictor_apply(by_sums, sums, count, none));
            check(wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms, stale, none));
        }
        assert_eq!(predictor_bytes(predictor), core.to_bytes(), "step {number}");
        assert_eq!(predictor_bytes(by_sums), core.to_bytes(), "step {number}");
        assert_eq!([predictor, by_sums].map(|it| predictor_outcome(it)), [LEARNED; 2], "step {number}");
    }
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_norm_predictor_destroy(by_sums));
        check(wtacrs_plan_destroy(plan));
    }
    core.to_bytes()
}

/// As the header numbers outcomes.
const LEARNED: u32 = 0;
const NOTHING_TO_LEARN: u32 = 1;
const LEVEL_LOST: u32 = 2;

#[test]
fn it_is_cores_guess() {
    steps_as_core(false);
}

#[test]
fn it_is_cores_guess_with_cache() {
    assert_ne!(steps_as_core(true), steps_as_core(false), "it has learned from cached norms");
}

#[test]
fn every_outcome_of_a_step() {
    let (plan, mut memory) = plan(WTACRS_SOURCE_PREDICTED);
    let (saved, saved_bytes, none) = (memory.at(), memory.bytes, null_mut());
    let (predictor, (h, norms, _)) = (created(), step(0));
    let options = forward_options(null(), predictor);
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    let forward = || unsafe {
        check(wtacrs_plan_forward(plan, h.as_ptr().cast(), IN, 1, 0, &options, saved, saved_bytes, none, 0, none));
    };
    // SAFETY: as above.
    let learn = |norms: &[f32]| unsafe {
        wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms.as_ptr(), null(), none)
    };
    assert_eq!(predictor_outcome(predictor), NOTHING_TO_LEARN, "no step so far");
    forward();
    check(learn(&[0.0; TOKENS]));
    assert_eq!(predictor_outcome(predictor), NOTHING_TO_LEARN);
    check(learn(&norms));
    assert_eq!(predictor_outcome(predictor), LEARNED);
    let (mut outcome, mut row) = (9, 9);
    // SAFETY: outputs of one number, or none.
    unsafe {
        check(wtacrs_norm_predictor_outcome(predictor, &mut outcome, &mut row));
        assert_eq!((outcome, row), (LEARNED, 0), "the row is a GPU's");
        check(wtacrs_norm_predictor_outcome(predictor, null_mut(), null_mut()));
        assert_eq!(wtacrs_norm_predictor_outcome(predictor, &mut row, &mut row), WTACRS_STATUS_OVERLAP);
    }
    // A step that is refused is none.
    assert_eq!(learn(&[f32::NAN; TOKENS]), WTACRS_STATUS_INVALID_WEIGHTS);
    assert_eq!(predictor_outcome(predictor), LEARNED);
    // Every norm falls by more than the clamp: nothing is learned from the step, and the next one finds the new level.
    let small: Vec<f32> = norms.iter().map(|norm| norm * 1e-8).collect();
    let before = predictor_bytes(predictor);
    check(learn(&small));
    assert_eq!(predictor_outcome(predictor), LEVEL_LOST);
    assert_ne!(predictor_bytes(predictor), before, "the level is gone");
    check(learn(&small));
    assert_eq!(predictor_outcome(predictor), LEARNED);
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_plan_destroy(plan));
    }
}

#[test]
fn bad_cached_norms_are_refused() {
    let ((plan, mut memory), (input_plan, _)) = (plan(WTACRS_SOURCE_PREDICTED), plan(WTACRS_SOURCE_INPUT));
    let predictor = created();
    let (saved, saved_bytes): (*mut c_void, _) = (memory.at(), memory.bytes);
    let (h, norms, mut cached) = step(0);
    let (x, none, before) = (h.as_ptr().cast(), null_mut(), predictor_bytes(predictor));
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns, or refused.
    unsafe {
        let forward = |plan, cached: &[f32], predictor| {
            let options = forward_options(cached.as_ptr(), predictor);
            wtacrs_plan_forward(plan, x, IN, 1, 0, &options, saved, saved_bytes, none, 0, none)
        };
        let update =
            |cached| wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms.as_ptr(), cached, none);
        assert_eq!(forward(input_plan, &cached, null()), WTACRS_STATUS_INVALID_ARGUMENT);
        assert_eq!(update(cached.as_ptr()), WTACRS_STATUS_CORRUPTED, "nothing has been saved yet");
        check(forward(plan, &cached, predictor));
        assert_eq!(update(cached.as_ptr().cast::<u8>().wrapping_add(1).cast()), WTACRS_STATUS_MISALIGNED);
        cached.fill(f32::NAN);
        assert_eq!(forward(plan, &cached, predictor), WTACRS_STATUS_INVALID_WEIGHTS);
        assert_eq!(update(cached.as_ptr()), WTACRS_STATUS_INVALID_WEIGHTS);
        assert_eq!(predictor_bytes(predictor), before);
        let mut sum = 0.0;
        let mut statistics = |cached| {
            let norms = norms.as_ptr();
            wtacrs_norm_predictor_statistics(predictor, plan, saved, saved_bytes, norms, cached, &mut sum, 1, none)
        };
        assert_eq!(statistics(norms.as_ptr()), WTACRS_STATUS_BUFFER_TOO_SMALL);
        let mut count = 0;
        check(wtacrs_norm_predictor_statistics_count(predictor, &mut count));
        let mut sums = vec![7.0; count];
        let (norms, cached, to) = (norms.as_ptr(), cached.as_ptr(), sums.as_mut_ptr());
        assert_eq!(
            wtacrs_norm_predictor_statistics(predictor, plan, saved, saved_bytes, norms, cached, to, count, none),
            WTACRS_STATUS_INVALID_WEIGHTS
        );
        assert!(sums.iter().all(|&sum| sum == 7.0), "sums stay as they were");
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_plan_destroy(plan));
        check(wtacrs_plan_destroy(input_plan));
    }
}
