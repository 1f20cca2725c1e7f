//! Batched products through the C interface give core's bits, exactly and sampled, with and without guesses.

#[path = "common/calls.rs"]
mod calls;

use calls::{Memory, check, context, product_with};
use half::bf16;
use ndarray::{Array3, Array4};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::*;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, TensorGuess, TensorMul};

fn pointer<T>(values: &[T]) -> *const c_void {
    values.as_ptr().cast()
}

#[test]
fn as_core_to_the_bit() {
    let (batch, heads, rows, inner, columns) = (3, 7, 20, 6, 15);
    let value = |seed: usize| {
        move |(i, j, k, l): (usize, usize, usize, usize)| {
            bf16::from_f32((((i * 31 + j * 17 + k * 7 + l * 3 + seed) * 37) % 23) as f32 / 8.0 - 1.4)
        }
    };
    let a = Array4::from_shape_fn((batch, heads, rows, inner), value(1));
    let b = Array4::from_shape_fn((batch, heads, inner, columns), value(2));
    let g = Array4::from_shape_fn((batch, heads, rows, columns), value(3)).mapv(bf16::to_f32);
    let row_guess = Array3::from_shape_fn((batch, heads, rows), |(i, j, k)| ((i + j + k) % 5) as f32);

    for (left, guess) in [(Contraction::Sampled(Keep::Rows(4)), Some(&row_guess)), (Contraction::Exact, None)] {
        let right = Contraction::Sampled(Keep::Fraction(0.3));
        let core = TensorMul::new(left, right);
        let tensor_guess = TensorGuess { rows: guess.map(|guess| guess.view()), columns: None };
        let saved = core.forward(a.view(), b.view(), tensor_guess, wtacrs_core::Randomness::new(9, 100)).expect("fits");
        let expected = saved.backward(g.view()).expect("fits");

        let (mut da, mut db) = (Array4::<f32>::zeros(a.dim()), Array4::<f32>::zeros(b.dim()));
        let (mut by_row, mut by_column) =
            (Array3::<f32>::zeros((batch, heads, rows)), Array3::<f32>::zeros((batch, heads, columns)));
        let context = context(WTACRS_DEVICE_CPU, 0);
        // SAFETY: a handle is never followed.
        let (plan, info) = product_with(context, |description| unsafe {
            check(wtacrs_tensor_mul_set_shape(description, batch, heads, rows, inner, columns));
            check(wtacrs_tensor_mul_set_dtypes(description, WTACRS_DTYPE_BF16, WTACRS_DTYPE_F32));
            check(match left {
                Contraction::Exact => {
                    wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_LEFT, WTACRS_BUDGET_EXACT, 0.0)
                }
                _ => wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 4.0),
            });
            check(wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, 0.3));
        });
        let (mut kept, mut scratch) =
            (Memory::filled(info.saved_bytes, 0), Memory::filled(info.backward_scratch_bytes, 0));
        let slice = |array: &Array4<bf16>| pointer(array.as_slice().expect("whole"));
        let guesses = wtacrs_tensor_mul_forward_options {
            row_guess: guess.map_or(null(), |guess| guess.as_ptr()),
            ..Default::default()
        };
        let wanted = wtacrs_tensor_mul_backward_options {
            row_norms: by_row.as_mut_ptr(),
            column_norms: by_column.as_mut_ptr(),
            ..Default::default()
        };
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            let (a, b, none) = (slice(&a), slice(&b), null_mut());
            let (saved, bytes) = (kept.at(), kept.bytes);
            check(wtacrs_tensor_mul_plan_forward(plan, a, b, 9, 100, &guesses, saved, bytes, none, 0, none));
            let (g, da, db) = (g.as_ptr().cast(), da.as_mut_ptr().cast(), db.as_mut_ptr().cast());
            let (work, room) = (scratch.at(), scratch.bytes);
            check(wtacrs_tensor_mul_plan_backward(plan, saved, bytes, g, da, db, &wanted, work, room, none));
            check(wtacrs_tensor_mul_plan_destroy(plan));
            check(wtacrs_context_destroy(context));
        }
        assert_eq!(Ok(info.draws), core.draws(rows, columns));
        assert_eq!(info.exact_bytes, 2 * (a.len() + b.len()));
        assert_eq!((da, db), (expected.left, expected.right));
        assert_eq!((by_row, by_column), (expected.row_norms, expected.column_norms));
    }
}

/// What a forward pass saves of fixed A and B under a setting, given guesses of norms or none, from an offset on.
fn saved(
    set: impl FnOnce(*mut wtacrs_tensor_mul) -> wtacrs_status,
    guesses: Option<(&[f32], &[f32])>,
    offset: u64,
) -> Vec<u8> {
    let value = |i: usize| ((i * 37) % 23) as f32 / 8.0 - 1.4;
    let (a, b): (Vec<f32>, Vec<f32>) =
        ((0..2 * ROWS * 6).map(value).collect(), (0..2 * 6 * COLUMNS).map(value).collect());
    let context = context(WTACRS_DEVICE_CPU, 0);
    // SAFETY: a handle is never followed.
    let (plan, info) = product_with(context, |description| unsafe {
        check(wtacrs_tensor_mul_set_shape(description, 1, 2, ROWS, 6, COLUMNS));
        check(wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 5.0));
        check(wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 7.0));
        check(set(description));
    });
    let mut options = wtacrs_tensor_mul_forward_options::default();
    if let Some((rows, columns)) = guesses {
        (options.row_guess, options.column_guess) = (rows.as_ptr(), columns.as_ptr());
    }
    let mut kept = Memory::filled(info.saved_bytes, 0);
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    unsafe {
        let (a, b, to, none) = (pointer(&a), pointer(&b), kept.at(), null_mut());
        check(wtacrs_tensor_mul_plan_forward(plan, a, b, 9, offset, &options, to, kept.bytes, none, 0, none));
        check(wtacrs_tensor_mul_plan_destroy(plan));
        check(wtacrs_context_destroy(context));
    }
    kept.contents()
}

const ROWS: usize = 20;
const COLUMNS: usize = 15;

#[test]
fn the_design_and_the_further_offset_are_those_that_were_set() {
    let default = saved(|_| WTACRS_STATUS_OK, None, 100);
    // SAFETY: handles are looked up, never followed; the number lives until the passes are done.
    let designed = |design, offset| saved(|it| unsafe { wtacrs_tensor_mul_set_design(it, design) }, None, offset);
    assert_eq!(designed(WTACRS_DESIGN_WTA_PIVOTAL, 100), default);
    assert_ne!(designed(WTACRS_DESIGN_UNIFORM, 100), default);
    assert_ne!(designed(WTACRS_DESIGN_TOP_K, 100), default);
    assert_eq!(designed(WTACRS_DESIGN_TOP_K, 7), designed(WTACRS_DESIGN_TOP_K, 100), "nothing is drawn");
    let further = 88_u64;
    // SAFETY: as above.
    let with_further = |offset| saved(|it| unsafe { wtacrs_tensor_mul_set_further_offset(it, &further) }, None, offset);
    assert_eq!(with_further(12), default);
    assert_ne!(with_further(100), default);
}

#[test]
fn negative_guesses_are_not_known() {
    let guessed = |rows: &dyn Fn(usize) -> f32| {
        let (rows, columns): (Vec<f32>, Vec<f32>) = ((0..2 * ROWS).map(rows).collect(), vec![-1.0; 2 * COLUMNS]);
        saved(|_| WTACRS_STATUS_OK, Some((&rows, &columns)), 100)
    };
    let none = saved(|_| WTACRS_STATUS_OK, None, 100);
    assert_eq!(guessed(&|_| -1.0), none);
    // Nothing but zeros is known, or something is.
    assert_eq!(guessed(&|i| if i % 2 == 0 { -3.0 } else { 0.0 }), none);
    assert_ne!(guessed(&|i| if i % 2 == 0 { -3.0 } else { i as f32 }), none);
}
