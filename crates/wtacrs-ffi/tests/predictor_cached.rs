//! Cached norms beside the predictor, through the C interface: core's bits, step after step, and sums of two ranks.

use ndarray::Array2;
use std::ptr::{null, null_mut};
use wtacrs::context::{wtacrs_context_create, wtacrs_context_destroy};
use wtacrs::dtype::*;
use wtacrs::layer::*;
use wtacrs::linear::wtacrs_forward;
use wtacrs::plan::*;
use wtacrs::predictor::*;
use wtacrs::saved::wtacrs_saved_selection;
use wtacrs::status::*;
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::product;
use wtacrs_core::sampling::{Keep, Weights, design::BuiltIn, design::Design};

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    _bytes: [u8; 64],
}

const TOKENS: usize = 96;
const IN: usize = 10;
const ROWS: usize = 30;

fn check(status: i32) {
    assert_eq!(status, WTACRS_OK);
}

fn plan(source: i32) -> *mut wtacrs_plan {
    let (mut context, mut layer, mut plan) = (null_mut(), null_mut(), null_mut());
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_context_create(WTACRS_CPU, 0, &mut context));
        check(wtacrs_layer_create(&mut layer));
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, 4));
        check(wtacrs_layer_set_budget_rows(layer, ROWS));
        check(wtacrs_layer_set_source(layer, source));
        check(wtacrs_plan_create(context, layer, &mut plan));
        check(wtacrs_layer_destroy(layer));
        check(wtacrs_context_destroy(context));
    }
    plan
}

fn created() -> *mut wtacrs_norm_predictor {
    let mut predictor = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_norm_predictor_create(IN, &mut predictor) });
    predictor
}

fn state(predictor: *const wtacrs_norm_predictor) -> Vec<u8> {
    let mut needed = 0;
    // SAFETY: an output of one number, and a buffer of the size that was asked for.
    unsafe {
        check(wtacrs_norm_predictor_save(predictor, null_mut(), 0, &mut needed));
        let mut bytes = vec![0_u8; needed];
        check(wtacrs_norm_predictor_save(predictor, bytes.as_mut_ptr().cast(), needed, &mut needed));
        bytes
    }
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

#[test]
fn it_is_cores_guess_with_cache() {
    let plan = plan(WTACRS_SOURCE_PREDICTED);
    let (mut saved_bytes, mut count) = (0, 0);
    // SAFETY: outputs of one number.
    unsafe {
        check(wtacrs_plan_saved_bytes(plan, &mut saved_bytes));
    }
    let mut saved = vec![Line { _bytes: [0; 64] }; saved_bytes.div_ceil(64)];
    let saved = saved.as_mut_ptr().cast::<core::ffi::c_void>();
    let (predictor, by_sums, without) = (created(), created(), created());
    // SAFETY: as above.
    check(unsafe { wtacrs_norm_predictor_statistics_count(predictor, &mut count) });
    let mut core = NormPredictor::new(IN, PredictorSettings::default()).expect("valid");
    for number in 0..6 {
        let (h, norms, cached) = step(number);
        let guess = core.guess(h.view(), Some(&known(&cached))).expect("fits");
        let weights = Weights::from_norms(&guess.input_norms, &guess.dz_norms).expect("valid");
        let budget = weights.budget(Keep::Rows(ROWS)).expect("fits");
        let expected = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(3, number as u64));

        let (mut indices, mut scales, mut kept) = (vec![0_u32; ROWS], vec![0.0_f64; ROWS], 0);
        let (x, stale, none) = (h.as_ptr().cast(), cached.as_ptr(), null_mut());
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            let offset = number as u64;
            check(wtacrs_forward(plan, x, IN, stale, predictor, 3, offset, saved, saved_bytes, none, 0, none));
            let (at, of) = (indices.as_mut_ptr(), scales.as_mut_ptr());
            check(wtacrs_saved_selection(plan, saved, saved_bytes, at, of, ROWS, &mut kept, null_mut()));
        }
        assert_eq!(indices[..kept as usize], *expected.indices(), "step {number}");
        assert_eq!(scales[..kept as usize], *expected.scales(), "step {number}");

        let rows = product::gather(h.view(), &expected).expect("fits");
        let of_kept = |of: &[f32]| -> Vec<f32> { expected.indices().iter().map(|&i| of[i as usize]).collect() };
        let cached_kept = known(&of_kept(&cached));
        core.update(rows.view(), &of_kept(&norms), expected.scales(), Some(&cached_kept)).expect("fits");
        let mut sums = vec![0.0_f64; count];
        // SAFETY: as above.
        unsafe {
            let (norms, sums) = (norms.as_ptr(), sums.as_mut_ptr());
            check(wtacrs_norm_predictor_statistics_cached(
                by_sums,
                plan,
                saved,
                saved_bytes,
                norms,
                stale,
                sums,
                count,
            ));
            check(wtacrs_norm_predictor_apply(by_sums, sums, count));
            check(wtacrs_norm_predictor_update_cached(predictor, plan, saved, saved_bytes, norms, stale));
            check(wtacrs_norm_predictor_update(without, plan, saved, saved_bytes, norms));
        }
        assert_eq!(state(predictor), core.to_bytes(), "step {number}");
        assert_eq!(state(by_sums), core.to_bytes(), "step {number}");
    }
    assert_ne!(state(predictor), state(without), "it has learnt from cached norms");
    // SAFETY: handles are never followed.
    unsafe {
        for predictor in [predictor, by_sums, without] {
            check(wtacrs_norm_predictor_destroy(predictor));
        }
        check(wtacrs_plan_destroy(plan));
    }
}

#[test]
fn bad_cached_norms_are_refused() {
    let (plan, input_plan) = (plan(WTACRS_SOURCE_PREDICTED), plan(WTACRS_SOURCE_INPUT));
    let predictor = created();
    let mut saved_bytes = 0;
    // SAFETY: an output of one number.
    check(unsafe { wtacrs_plan_saved_bytes(plan, &mut saved_bytes) });
    let mut memory = vec![Line { _bytes: [0; 64] }; saved_bytes.div_ceil(64)];
    let saved = memory.as_mut_ptr().cast::<core::ffi::c_void>();
    let (h, norms, mut cached) = step(0);
    let (x, none, before) = (h.as_ptr().cast(), null_mut(), state(predictor));
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns, or refused.
    unsafe {
        let forward = |plan, cached: &[f32], predictor| {
            wtacrs_forward(plan, x, IN, cached.as_ptr(), predictor, 1, 0, saved, saved_bytes, none, 0, none)
        };
        let update =
            |cached| wtacrs_norm_predictor_update_cached(predictor, plan, saved, saved_bytes, norms.as_ptr(), cached);
        assert_eq!(forward(input_plan, &cached, null()), WTACRS_INVALID_ARGUMENT);
        assert_eq!(update(cached.as_ptr()), WTACRS_CORRUPTED, "nothing has been saved yet");
        check(forward(plan, &cached, predictor));
        assert_eq!(update(null()), WTACRS_NULL_POINTER);
        assert_eq!(update(cached.as_ptr().cast::<u8>().wrapping_add(1).cast()), WTACRS_MISALIGNED);
        cached.fill(f32::NAN);
        assert_eq!(forward(plan, &cached, predictor), WTACRS_INVALID_WEIGHTS);
        assert_eq!(update(cached.as_ptr()), WTACRS_INVALID_WEIGHTS);
        assert_eq!(state(predictor), before);
        let mut sum = 0.0;
        let (norms, cached) = (norms.as_ptr(), cached.as_ptr());
        assert_eq!(
            wtacrs_norm_predictor_statistics_cached(predictor, plan, saved, saved_bytes, norms, norms, &mut sum, 1),
            WTACRS_BUFFER_TOO_SMALL
        );
        assert_eq!(
            wtacrs_norm_predictor_statistics_cached(predictor, plan, saved, saved_bytes, norms, cached, &mut sum, 1),
            WTACRS_INVALID_WEIGHTS
        );
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_plan_destroy(plan));
        check(wtacrs_plan_destroy(input_plan));
    }
}
