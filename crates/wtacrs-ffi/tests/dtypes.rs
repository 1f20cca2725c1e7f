//! Every pair of dtypes through the C interface gives core's bits, and layers that share H share its saved rows.

use half::{bf16, f16};
use ndarray::Array2;
use std::ptr::{null, null_mut};
use wtacrs::context::{wtacrs_context, wtacrs_context_create, wtacrs_context_destroy};
use wtacrs::dtype::*;
use wtacrs::layer::*;
use wtacrs::linear::{wtacrs_backward, wtacrs_forward};
use wtacrs::plan::*;
use wtacrs::status::WTACRS_OK;
use wtacrs_core::Keep;
use wtacrs_core::Randomness;
use wtacrs_core::element::{Accumulator, Element};
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::layers::Linear;
use wtacrs_core::product::Update;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    _bytes: [u8; 64],
}

const TOKENS: usize = 70;
const IN: usize = 9;

fn check(status: i32) {
    assert_eq!(status, WTACRS_OK);
}

fn plan(context: *const wtacrs_context, out: usize, dtypes: [i32; 3]) -> *mut wtacrs_plan {
    let (mut layer, mut plan) = (null_mut(), null_mut());
    // SAFETY: every pointer is to memory that lives until the call returns.
    unsafe {
        check(wtacrs_layer_create(&mut layer));
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, out));
        check(wtacrs_layer_set_dtypes(layer, dtypes[0], dtypes[1], dtypes[2]));
        check(wtacrs_layer_set_budget_fraction(layer, 0.3));
        check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT));
        check(wtacrs_plan_create(context, layer, &mut plan));
        check(wtacrs_layer_destroy(layer));
    }
    plan
}

/// One forward pass, and backward passes of two layers of different widths.
fn same<T: Element, U: Element<Accumulator = T::Accumulator>>(
    dtypes: [i32; 3],
    from: (impl Fn(f64) -> T, impl Fn(f64) -> U),
) {
    let value = |i: usize, j: usize| ((i * 31 + j * 17 + i * j) % 33) as f64 / 16.0 - 1.0;
    let h = Array2::from_shape_fn((TOKENS, IN), |(i, j)| from.0(value(i, j) * (1 + i % 4) as f64));
    let linear = Linear::new(Keep::Fraction(0.3));
    let saved = linear.forward(h.view(), NormGuess::Unknown, Randomness::new(5, 6)).expect("fits");
    let mut context = null_mut();
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_context_create(WTACRS_CPU, 0, &mut context) });
    let mut memory: Vec<Line> = vec![];
    for (out, forward) in [(12, true), (5, false)] {
        let dz = Array2::from_shape_fn((TOKENS, out), |(i, j)| from.1(value(j, i) / (1 + i % 5) as f64));
        let one = T::Accumulator::from_f64(1.0);
        let mut expected = Array2::from_elem((IN, out), one);
        let norms = saved.backward(dz.view(), expected.view_mut(), Update::Accumulate).expect("fits");

        let plan = plan(context, out, dtypes);
        let (mut saved_bytes, mut scratch_bytes) = (0, 0);
        let (mut dw, mut found) = (Array2::from_elem((IN, out), one), vec![0.0_f32; TOKENS]);
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            check(wtacrs_plan_memory(plan, &mut saved_bytes, &mut scratch_bytes, null_mut()));
            let mut scratch = vec![Line { _bytes: [0xa5; 64] }; scratch_bytes.div_ceil(64)];
            if forward {
                memory = vec![Line { _bytes: [0xa5; 64] }; saved_bytes.div_ceil(64)];
                let saved = memory.as_mut_ptr().cast();
                let (h, none) = (h.as_ptr().cast(), null_mut());
                check(wtacrs_forward(plan, h, IN, null(), null(), 5, 6, saved, saved_bytes, none, 0, none));
            }
            let (saved, scratch) = (memory.as_ptr().cast(), scratch.as_mut_ptr().cast());
            let (dz, dw, norms) = (dz.as_ptr().cast(), dw.as_mut_ptr().cast(), found.as_mut_ptr());
            check(wtacrs_backward(
                plan,
                saved,
                saved_bytes,
                dz,
                out,
                dw,
                out,
                1,
                norms,
                null_mut(),
                scratch,
                scratch_bytes,
                null_mut(),
            ));
            check(wtacrs_plan_destroy(plan));
        }
        assert_eq!(dw, expected, "{dtypes:?}");
        assert_eq!(found, norms, "{dtypes:?}");
    }
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}

#[test]
fn every_pair_of_dtypes() {
    let narrow = |v: f64| v as f32;
    same([WTACRS_F32, WTACRS_F32, WTACRS_F32], (narrow, narrow));
    same([WTACRS_F32, WTACRS_F16, WTACRS_F32], (narrow, f16::from_f64));
    same([WTACRS_F32, WTACRS_BF16, WTACRS_F32], (narrow, bf16::from_f64));
    same([WTACRS_F16, WTACRS_F32, WTACRS_F32], (f16::from_f64, narrow));
    same([WTACRS_F16, WTACRS_F16, WTACRS_F32], (f16::from_f64, f16::from_f64));
    same([WTACRS_F16, WTACRS_BF16, WTACRS_F32], (f16::from_f64, bf16::from_f64));
    same([WTACRS_BF16, WTACRS_F32, WTACRS_F32], (bf16::from_f64, narrow));
    same([WTACRS_BF16, WTACRS_F16, WTACRS_F32], (bf16::from_f64, f16::from_f64));
    same([WTACRS_BF16, WTACRS_BF16, WTACRS_F32], (bf16::from_f64, bf16::from_f64));
    same([WTACRS_F64, WTACRS_F64, WTACRS_F64], (|v| v, |v| v));
}
