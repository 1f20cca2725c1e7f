//! The expected squared error, as C gets it, against the mean over many estimates through the same interface.

#[path = "common/calls.rs"]
mod calls;

use calls::{DESIGNS, Memory, check, context, forward_options, plan_info, plan_with};
use ndarray::{Array2, s};
use std::ptr::{null, null_mut};
use wtacrs::*;

const TOKENS: usize = 40;
const IN: usize = 5;
const OUT: usize = 3;
const ESTIMATES: u64 = 20_000;

fn plan(design: wtacrs_design, tokens: usize, rows: usize) -> *mut wtacrs_plan {
    packed_plan(design, tokens, rows, WTACRS_PACKING_NATIVE)
}

fn packed_plan(design: wtacrs_design, tokens: usize, rows: usize, packing: wtacrs_packing) -> *mut wtacrs_plan {
    let context = context(WTACRS_DEVICE_CPU, 0);
    // SAFETY: a handle is never followed.
    let (plan, _) = plan_with(context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, tokens, IN, OUT));
        check(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F64, WTACRS_DTYPE_F64, WTACRS_DTYPE_F64));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, rows as f64));
        check(wtacrs_layer_set_design(layer, design));
        check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_NORMS, 0.0));
        check(wtacrs_layer_set_packing(layer, packing));
    });
    // SAFETY: as above.
    check(unsafe { wtacrs_context_destroy(context) });
    plan
}

fn matrices() -> (Array2<f64>, Array2<f64>) {
    let value = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) % 19) as f64 / 9.0 - 1.05;
    // A few heavy tokens, so that there are winners and a tail.
    let h = Array2::from_shape_fn((TOKENS, IN), |(i, j)| value(i, j) * if i % 8 == 3 { 6.0 } else { 1.0 });
    let dz = Array2::from_shape_fn((TOKENS, OUT), |(i, j)| value(j, i) / (1 + i % 7) as f64);
    (h, dz)
}

struct Expected {
    squared_error: f64,
    exact: bool,
    squared_norm: f64,
}

fn expected(plan: *const wtacrs_plan, h: &Array2<f64>, dz: &Array2<f64>, weights: *const f64) -> Expected {
    let (mut squared_error, mut exact, mut squared_norm) = (f64::NAN, -1, f64::NAN);
    let (h, dz) = (h.as_ptr().cast(), dz.as_ptr().cast());
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    check(unsafe {
        wtacrs_plan_expected_error(plan, h, IN, dz, OUT, weights, &mut squared_error, &mut exact, &mut squared_norm)
    });
    assert!(exact == 0 || exact == 1, "{exact}");
    Expected { squared_error, exact: exact == 1, squared_norm }
}

/// The mean squared error of many estimates with exact weights, and the standard error of that mean.
fn measured(plan: *const wtacrs_plan, h: &Array2<f64>, dz: &Array2<f64>) -> (f64, f64) {
    let exact = h.t().dot(dz);
    let mut scratch = Memory::filled(plan_info(plan).estimate_scratch_bytes, 0);
    let mut out = Array2::<f64>::zeros((IN, OUT));
    let (mut sum, mut squares) = (0.0, 0.0);
    for seed in 0..ESTIMATES {
        let (x, y) = (h.as_ptr().cast(), dz.as_ptr().cast());
        let (to, work, bytes) = (out.as_mut_ptr().cast(), scratch.at(), scratch.bytes);
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        check(unsafe { wtacrs_plan_estimate(plan, x, IN, y, OUT, seed, 0, to, OUT, work, bytes, null_mut()) });
        let error = (&out - &exact).mapv(|v| v * v).sum();
        sum += error;
        squares += error * error;
    }
    let mean = sum / ESTIMATES as f64;
    (mean, ((squares / ESTIMATES as f64 - mean * mean).max(0.0) / ESTIMATES as f64).sqrt())
}

#[test]
fn it_is_what_estimates_show() {
    let (h, dz) = matrices();
    let norm = h.t().dot(&dz).mapv(|v| v * v).sum();
    let mut iid = f64::NAN;
    for design in DESIGNS {
        let plan = plan(design, TOKENS, 14);
        let found = expected(plan, &h, &dz, null());
        let (mean, error) = measured(plan, &h, &dz);
        assert!((found.squared_norm - norm).abs() < 1e-9 * norm);
        assert_eq!(found.exact, design != WTACRS_DESIGN_WTA_PIVOTAL);
        if found.exact {
            let apart = (found.squared_error - mean).abs();
            assert!(
                apart < 5.0 * error + 1e-9 * mean,
                "design {design}: {} expected, {mean} ± {error}",
                found.squared_error
            );
        } else {
            assert_eq!(found.squared_error, iid, "the bound is that of independent draws");
            assert!(mean + 5.0 * error < found.squared_error, "{mean} ± {error} is below the bound");
        }
        if design == WTACRS_DESIGN_WTA_IID {
            iid = found.squared_error;
        }
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_plan_destroy(plan) });
    }
}

/// The mean squared error of many forward and backward passes.
fn measured_by_passes(plan: *const wtacrs_plan, h: &Array2<f64>, dz: &Array2<f64>) -> f64 {
    let exact = h.t().dot(dz);
    let norms: Vec<f32> = dz.rows().into_iter().map(|row| row.dot(&row).sqrt() as f32).collect();
    let info = plan_info(plan);
    let (mut saved, mut scratch) =
        (Memory::filled(info.saved_bytes, 0), Memory::filled(info.backward_scratch_bytes, 0));
    let mut dw = Array2::<f64>::zeros((IN, OUT));
    let options = forward_options(norms.as_ptr(), null());
    let mut sum = 0.0;
    for seed in 0..ESTIMATES {
        let (x, y, to) = (h.as_ptr().cast(), dz.as_ptr().cast(), dw.as_mut_ptr().cast());
        let (kept, bytes, work, room) = (saved.at(), saved.bytes, scratch.at(), scratch.bytes);
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            check(wtacrs_plan_forward(plan, x, IN, seed, 0, &options, kept, bytes, null_mut(), 0, null_mut()));
            check(wtacrs_plan_backward(plan, kept, bytes, y, OUT, to, OUT, null(), work, room, null_mut()));
        }
        sum += (&dw - &exact).mapv(|v| v * v).sum();
    }
    sum / ESTIMATES as f64
}

/// Of each design, and of all rows, for which packing makes the whole error.
#[test]
fn packed_rows_add_their_noise() {
    let (h, dz) = matrices();
    let all = (WTACRS_DESIGN_WTA_PIVOTAL, TOKENS);
    for (design, rows) in DESIGNS.into_iter().map(|design| (design, 14)).chain([all]) {
        let (native, packed) = (plan(design, TOKENS, rows), packed_plan(design, TOKENS, rows, WTACRS_PACKING_BITS2));
        let (sampling, found) = (expected(native, &h, &dz, null()), expected(packed, &h, &dz, null()));
        let mean = measured_by_passes(packed, &h, &dz);
        assert!(!found.exact && found.squared_norm == sampling.squared_norm);
        let noise = found.squared_error - sampling.squared_error;
        assert!(noise > 0.0 && (rows < TOKENS || sampling.squared_error == 0.0), "{noise}");
        // A row's elements are filled up to 16, whose noise counts as well; signs differ from pass to pass.
        let ratio = found.squared_error / mean;
        let most = if design == WTACRS_DESIGN_WTA_PIVOTAL && rows < TOKENS { f64::INFINITY } else { 16.0 / IN as f64 };
        assert!(ratio > 0.85 && ratio < most, "design {design}, {rows} rows: {ratio} of {mean}, {noise} of it noise");
        // SAFETY: handles are never followed.
        check(unsafe { wtacrs_plan_destroy(native) });
        // SAFETY: as above.
        check(unsafe { wtacrs_plan_destroy(packed) });
    }
}

/// Pairs of weight zero are lost to designs that draw by weight, and that is part of the error.
#[test]
fn what_is_never_drawn_counts() {
    let (h, dz) = matrices();
    let mut weights = [1.0; TOKENS];
    weights[5..11].fill(0.0);
    let lost = h.slice(s![5..11, ..]).t().dot(&dz.slice(s![5..11, ..])).mapv(|v| v * v).sum();
    for design in DESIGNS.into_iter().filter(|&design| design != WTACRS_DESIGN_UNIFORM) {
        // Room for all the others: nothing else is lost, but to crs, which draws with replacement.
        let plan = plan(design, TOKENS, TOKENS - 6);
        let found = expected(plan, &h, &dz, weights.as_ptr()).squared_error;
        match design {
            WTACRS_DESIGN_CRS => assert!(found > lost * (1.0 + 1e-9)),
            _ => assert!((found - lost).abs() < 1e-9 * lost, "design {design}: {found}, not {lost}"),
        }
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_plan_destroy(plan) });
    }
}

#[test]
fn no_tokens_and_a_whole_budget_have_no_error() {
    let (h, dz) = matrices();
    for design in DESIGNS.into_iter().filter(|&design| design != WTACRS_DESIGN_CRS) {
        let whole = plan(design, TOKENS, TOKENS);
        assert_eq!(expected(whole, &h, &dz, null()).squared_error, 0.0, "design {design}");
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_plan_destroy(whole) });
    }
}

#[test]
fn bad_input_is_refused_and_outputs_stay() {
    let (mut h, dz) = matrices();
    let plan = plan(WTACRS_DESIGN_WTA_PIVOTAL, TOKENS, 14);
    let (mut error, mut exact) = (7.0, 7);
    let mut call = |h: &Array2<f64>, weights: *const f64| {
        let (h, dz) = (h.as_ptr().cast(), dz.as_ptr().cast());
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        let status =
            unsafe { wtacrs_plan_expected_error(plan, h, IN, dz, OUT, weights, &mut error, &mut exact, null_mut()) };
        (status, error, exact)
    };
    let mut weights = [1.0; TOKENS];
    weights[3] = -1.0;
    assert_eq!(call(&h, weights.as_ptr()), (WTACRS_STATUS_INVALID_WEIGHTS, 7.0, 7));
    // SAFETY: the address alone is used, and refused.
    assert_eq!(call(&h, weights.as_ptr().cast::<u8>().wrapping_add(1).cast()), (WTACRS_STATUS_MISALIGNED, 7.0, 7));
    h[[9, 2]] = f64::NAN;
    weights[3] = 1.0;
    assert_eq!(call(&h, weights.as_ptr()), (WTACRS_STATUS_INVALID_WEIGHTS, 7.0, 7));
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_plan_destroy(plan) });
}
