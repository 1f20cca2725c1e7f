//! Batched products through the C interface give core's bits, exactly and sampled, with and without guesses.

use half::bf16;
use ndarray::{Array3, Array4};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::context::{wtacrs_context_create, wtacrs_context_destroy};
use wtacrs::dtype::{WTACRS_BF16, WTACRS_F32, WTACRS_TOP_K, WTACRS_UNIFORM, WTACRS_WTA_PIVOTAL};
use wtacrs::status::WTACRS_OK;
use wtacrs::tensor_mul::*;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, TensorGuess, TensorMul};

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line {
    bytes: [u8; 64],
}

fn memory(bytes: usize) -> Vec<Line> {
    vec![Line { bytes: [0; 64] }; bytes.div_ceil(64)]
}

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
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        unsafe {
            let (mut context, mut description, mut plan) = (null_mut(), null_mut(), null_mut());
            let (mut saved_bytes, mut scratch_bytes, mut draws) = (0, 0, 0);
            let mut results = vec![
                wtacrs_context_create(0, 0, &mut context),
                wtacrs_tensor_mul_create(&mut description),
                wtacrs_tensor_mul_set_shape(description, batch, heads, rows, inner, columns),
                wtacrs_tensor_mul_set_dtypes(description, WTACRS_BF16, WTACRS_F32),
                match left {
                    Contraction::Exact => wtacrs_tensor_mul_set_exact(description, WTACRS_LEFT),
                    _ => wtacrs_tensor_mul_set_budget_rows(description, WTACRS_LEFT, 4),
                },
                wtacrs_tensor_mul_set_budget_fraction(description, WTACRS_RIGHT, 0.3),
                wtacrs_tensor_mul_plan_create(context, description, &mut plan),
                wtacrs_tensor_mul_destroy(description),
                wtacrs_tensor_mul_plan_memory(plan, &mut saved_bytes, null_mut(), &mut scratch_bytes, null_mut()),
                wtacrs_tensor_mul_plan_draws(plan, &mut draws),
            ];
            let (mut kept, mut scratch) = (memory(saved_bytes), memory(scratch_bytes));
            let (kept, scratch) = (kept.as_mut_ptr().cast::<c_void>(), scratch.as_mut_ptr().cast::<c_void>());
            let slice = |array: &Array4<bf16>| pointer(array.as_slice().expect("whole"));
            let guess = guess.map_or(null(), |guess| guess.as_ptr());
            results.extend([
                wtacrs_tensor_mul_forward(
                    plan,
                    slice(&a),
                    slice(&b),
                    guess,
                    null(),
                    9,
                    100,
                    kept,
                    saved_bytes,
                    null_mut(),
                    0,
                    null_mut(),
                ),
                wtacrs_tensor_mul_backward(
                    plan,
                    kept,
                    saved_bytes,
                    g.as_ptr().cast(),
                    da.as_mut_ptr().cast(),
                    db.as_mut_ptr().cast(),
                    0,
                    by_row.as_mut_ptr(),
                    by_column.as_mut_ptr(),
                    scratch,
                    scratch_bytes,
                    null_mut(),
                ),
                wtacrs_tensor_mul_plan_destroy(plan),
                wtacrs_context_destroy(context),
            ]);
            assert!(results.iter().all(|&status| status == WTACRS_OK), "{results:?}");
            assert_eq!(Ok(draws), core.draws(rows, columns));
        }
        assert_eq!((da, db), (expected.left, expected.right));
        assert_eq!((by_row, by_column), (expected.row_norms, expected.column_norms));
    }
}

/// What a forward pass saves of fixed A and B under a setting, given guesses of norms or none, from an offset on.
fn saved(
    set: impl FnOnce(*mut wtacrs_tensor_mul) -> i32,
    guesses: Option<(&[f32], &[f32])>,
    offset: u64,
) -> Vec<[u8; 64]> {
    let value = |i: usize| ((i * 37) % 23) as f32 / 8.0 - 1.4;
    let (a, b): (Vec<f32>, Vec<f32>) =
        ((0..2 * ROWS * 6).map(value).collect(), (0..2 * 6 * COLUMNS).map(value).collect());
    let (mut context, mut description, mut plan, mut bytes) = (null_mut(), null_mut(), null_mut(), 0);
    let (row_guess, column_guess) =
        guesses.map_or((null(), null()), |(rows, columns)| (rows.as_ptr(), columns.as_ptr()));
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    unsafe {
        let mut results = vec![
            wtacrs_context_create(0, 0, &mut context),
            wtacrs_tensor_mul_create(&mut description),
            wtacrs_tensor_mul_set_shape(description, 1, 2, ROWS, 6, COLUMNS),
            wtacrs_tensor_mul_set_budget_rows(description, WTACRS_LEFT, 5),
            wtacrs_tensor_mul_set_budget_rows(description, WTACRS_RIGHT, 7),
            set(description),
            wtacrs_tensor_mul_plan_create(context, description, &mut plan),
            wtacrs_tensor_mul_plan_memory(plan, &mut bytes, null_mut(), null_mut(), null_mut()),
        ];
        let mut kept = memory(bytes);
        let (a, b, to) = (pointer(&a), pointer(&b), kept.as_mut_ptr().cast());
        results.extend([
            wtacrs_tensor_mul_forward(
                plan,
                a,
                b,
                row_guess,
                column_guess,
                9,
                offset,
                to,
                bytes,
                null_mut(),
                0,
                null_mut(),
            ),
            wtacrs_tensor_mul_plan_destroy(plan),
            wtacrs_tensor_mul_destroy(description),
            wtacrs_context_destroy(context),
        ]);
        assert!(results.iter().all(|&status| status == WTACRS_OK), "{results:?}");
        kept.iter().map(|line| line.bytes).collect()
    }
}

const ROWS: usize = 20;
const COLUMNS: usize = 15;

#[test]
fn the_design_and_the_further_offset_are_those_that_were_set() {
    let default = saved(|_| WTACRS_OK, None, 100);
    // SAFETY: handles are looked up, never followed; the number lives until the passes are done.
    let designed = |design, offset| saved(|it| unsafe { wtacrs_tensor_mul_set_design(it, design) }, None, offset);
    assert_eq!(designed(WTACRS_WTA_PIVOTAL, 100), default);
    assert_ne!(designed(WTACRS_UNIFORM, 100), default);
    assert_ne!(designed(WTACRS_TOP_K, 100), default);
    assert_eq!(designed(WTACRS_TOP_K, 7), designed(WTACRS_TOP_K, 100), "nothing is drawn");
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
        saved(|_| WTACRS_OK, Some((&rows, &columns)), 100)
    };
    let none = saved(|_| WTACRS_OK, None, 100);
    assert_eq!(guessed(&|_| -1.0), none);
    // Nothing but zeros is known, or something is.
    assert_eq!(guessed(&|i| if i % 2 == 0 { -3.0 } else { 0.0 }), none);
    assert_ne!(guessed(&|i| if i % 2 == 0 { -3.0 } else { i as f32 }), none);
}
