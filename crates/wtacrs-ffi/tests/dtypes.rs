//! Every pair of dtypes through the C interface gives core's bits, and layers that share H share its saved rows.

#[path = "common/calls.rs"]
mod calls;

use calls::{Memory, backward_options, check, context, plan_with};
use half::{bf16, f16};
use ndarray::Array2;
use std::ptr::{null, null_mut};
use wtacrs::*;
use wtacrs_core::Keep;
use wtacrs_core::Randomness;
use wtacrs_core::element::{Accumulator, Element};
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::layers::Linear;
use wtacrs_core::product::Update;

const TOKENS: usize = 70;
const IN: usize = 9;

/// One forward pass, and backward passes of two layers of different widths.
fn same<T: Element, U: Element<Accumulator = T::Accumulator>>(
    dtypes: [wtacrs_dtype; 3],
    from: (impl Fn(f64) -> T, impl Fn(f64) -> U),
) {
    let value = |i: usize, j: usize| ((i * 31 + j * 17 + i * j) % 33) as f64 / 16.0 - 1.0;
    let h = Array2::from_shape_fn((TOKENS, IN), |(i, j)| from.0(value(i, j) * (1 + i % 4) as f64));
    let linear = Linear::new(Keep::Fraction(0.3));
    let saved = linear.forward(h.view(), NormGuess::Unknown, Randomness::new(5, 6)).expect("fits");
    let context = context(WTACRS_DEVICE_CPU, 0);
    let mut memory = Memory::filled(0, 0xa5);
    for (out, is_first) in [(12, true), (5, false)] {
        let dz = Array2::from_shape_fn((TOKENS, out), |(i, j)| from.1(value(j, i) / (1 + i % 5) as f64));
        let one = T::Accumulator::from_f64(1.0);
        let mut expected = Array2::from_elem((IN, out), one);
        let norms = saved.backward(dz.view(), expected.view_mut(), Update::Accumulate).expect("fits");

        // SAFETY: a handle is never followed.
        let (plan, info) = plan_with(context, |layer| unsafe {
            check(wtacrs_layer_set_shape(layer, TOKENS, IN, out));
            check(wtacrs_layer_set_dtypes(layer, dtypes[0], dtypes[1], dtypes[2]));
            check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 0.3));
            check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT, 0.01));
        });
        let (mut dw, mut found) = (Array2::from_elem((IN, out), one), vec![0.0_f32; TOKENS]);
        let mut scratch = Memory::filled(info.backward_scratch_bytes, 0xa5);
        let (none, options) = (null_mut(), backward_options(1, found.as_mut_ptr(), null_mut()));
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            if is_first {
                memory = Memory::filled(info.saved_bytes, 0xa5);
                let (h, to) = (h.as_ptr().cast(), memory.at());
                check(wtacrs_plan_forward(plan, h, IN, 5, 6, null(), to, memory.bytes, none, 0, none));
            }
            let (saved, work) = (memory.at(), scratch.at());
            let (dz, dw) = (dz.as_ptr().cast(), dw.as_mut_ptr().cast());
            check(wtacrs_plan_backward(
                plan,
                saved,
                memory.bytes,
                dz,
                out,
                dw,
                out,
                &options,
                work,
                scratch.bytes,
                none,
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
    const F32: wtacrs_dtype = WTACRS_DTYPE_F32;
    const F16: wtacrs_dtype = WTACRS_DTYPE_F16;
    const BF16: wtacrs_dtype = WTACRS_DTYPE_BF16;
    let narrow = |v: f64| v as f32;
    same([F32, F32, F32], (narrow, narrow));
    same([F32, F16, F32], (narrow, f16::from_f64));
    same([F32, BF16, F32], (narrow, bf16::from_f64));
    same([F16, F32, F32], (f16::from_f64, narrow));
    same([F16, F16, F32], (f16::from_f64, f16::from_f64));
    same([F16, BF16, F32], (f16::from_f64, bf16::from_f64));
    same([BF16, F32, F32], (bf16::from_f64, narrow));
    same([BF16, F16, F32], (bf16::from_f64, f16::from_f64));
    same([BF16, BF16, F32], (bf16::from_f64, bf16::from_f64));
    same([WTACRS_DTYPE_F64; 3], (|v| v, |v| v));
}
