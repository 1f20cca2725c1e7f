//! What a plan reports about its calls is what they require, and an exact budget is exact: on the CPU, and on the emulator,
//! whose memory is the host's.

#[path = "common/calls.rs"]
mod calls;

use calls::{
    DESIGNS, Floats, IN, Memory, OUT, PRODUCT, TOKENS, check, context, forward_options, last_error, plan, plan_with,
    product_with, selection,
};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::stand_in::use_emulator;
use wtacrs::*;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, Linear, TensorMul};
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::BuiltIn;

const DEVICES: [wtacrs_device; 2] = [WTACRS_DEVICE_CPU, WTACRS_DEVICE_CUDA];
/// Runs a test on a context of each device; the second argument is the device as DLPack has it.
fn on_each_device(test: impl Fn(*mut wtacrs_context, (i32, i32))) {
    use_emulator();
    for device in DEVICES {
        let context = context(device, 0);
        test(context, (device + 1, 0));
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_context_destroy(context) });
    }
}

/// Whole numbers, so small that sums of products are exact in every dtype and order.
fn whole_numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 11 * seed) % 7) as f32 - 3.0).collect()
}

/// A block with room for more than a call requires, and what it must be aligned to.
struct Room {
    what: &'static str,
    memory: Memory,
    required: usize,
    alignment: usize,
}

impl Room {
    const UNUSED: u8 = 0x5a;

    fn new(what: &'static str, required: usize, alignment: usize) -> Self {
        Self { what, memory: Memory::filled(required + 2 * alignment, Self::UNUSED), required, alignment }
    }

    /// A call works with exactly so much and writes nowhere else; one byte less, or another alignment, is refused.
    fn is_what_is_required(&mut self, call: impl Fn(*mut c_void, usize) -> wtacrs_status) {
        let at = self.memory.at();
        let &mut Self { what, required, alignment, .. } = self;
        if required > 0 {
            assert_eq!(call(at, required - 1), WTACRS_STATUS_BUFFER_TOO_SMALL, "{what}");
            assert!(last_error().contains(what), "{}", last_error());
            let aside = at.wrapping_byte_add(alignment / 2);
            assert_eq!(call(aside, required), WTACRS_STATUS_MISALIGNED, "{what}");
            assert_eq!(call(null_mut(), required), WTACRS_STATUS_NULL_POINTER, "{what}");
        }
        check(call(at, required));
        assert!(self.memory.contents()[required..].iter().all(|&byte| byte == Self::UNUSED), "{what} ends earlier");
        check(call(at.wrapping_byte_add(alignment), required + 1));
    }
}

/// `wtacrs memory --tokens 200 --in-features 40 --budget 0.3` counts the same, as its test `the_bytes_of_a_plan` expects, and
/// with `--bits` what its test `packed_rows` expects.
#[test]
fn plan_info_reports_the_bytes_that_the_command_counts() {
    let context = context(WTACRS_DEVICE_CPU, 0);
    let (plan, info) = plan(context, WTACRS_SOURCE_NORMS, WTACRS_DTYPE_BF16, WTACRS_PRECISION_F32);
    assert_eq!((TOKENS, IN, info.saved_bytes), (200, 40, 5632));
    let some = 64 + 1216 + 2432 + 3648 + 300 * 40 * 4;
    let all = 64 + 12_032 + 1000 * 40 * 4;
    for (share, bytes) in [(0.3, some), (1.0, all)] {
        // SAFETY: a handle is never followed.
        let (plan, info) = plan_with(context, |layer| unsafe {
            check(wtacrs_layer_set_shape(layer, 1000, 300, OUT));
            check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_layer_set_packing(layer, WTACRS_PACKING_BITS4));
        });
        assert_eq!(info.saved_bytes, bytes);
        // SAFETY: as above.
        check(unsafe { wtacrs_plan_destroy(plan) });
    }
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_plan_destroy(plan));
        check(wtacrs_context_destroy(context));
    }
}

#[test]
fn layers_need_what_their_plans_report() {
    for dtype in [WTACRS_DTYPE_F32, WTACRS_DTYPE_F16, WTACRS_DTYPE_BF16] {
        for (packing, share) in WAYS {
            on_each_device(|context, _| layer_needs_what_its_plan_reports(context, dtype, packing, share));
        }
    }
}

/// How rows are saved, and how many.
const WAYS: [(wtacrs_packing, f64); 4] = [
    (WTACRS_PACKING_NATIVE, 0.3),
    (WTACRS_PACKING_BITS4, 0.3),
    (WTACRS_PACKING_BITS8, 1.0),
    (WTACRS_PACKING_BITS2, 1.0),
];

fn layer_needs_what_its_plan_reports(
    context: *const wtacrs_context,
    dtype: wtacrs_dtype,
    packing: wtacrs_packing,
    share: f64,
) {
    // SAFETY: a handle is never followed.
    let (plan, info) = plan_with(context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
        check(wtacrs_layer_set_dtypes(layer, dtype, dtype, WTACRS_DTYPE_F32));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
        check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_NORMS, 0.0));
        check(wtacrs_layer_set_packing(layer, packing));
    });
    assert_eq!(info.size, size_of::<wtacrs_plan_info>());
    let element = if dtype == WTACRS_DTYPE_F32 { 4 } else { 2 };
    assert_eq!((info.exact_bytes, info.budget_rows), (TOKENS * IN * element, (share * TOKENS as f64) as usize));
    let (h, dz) = (vec![0_u8; TOKENS * IN * element], vec![0_u8; TOKENS * OUT * element]);
    let (x, y): (*const c_void, *const c_void) = (h.as_ptr().cast(), dz.as_ptr().cast());
    let (norms, mut dw) = (vec![1_f32; TOKENS], vec![0_f32; IN * OUT]);
    let (dw, none, options) = (dw.as_mut_ptr().cast(), null_mut(), forward_options(norms.as_ptr(), null()));
    let room = |what, required| Room::new(what, required, info.alignment);
    let mut saved = room("saved", info.saved_bytes);
    let forward = |saved, saved_bytes, scratch, scratch_bytes| {
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns, or refused.
        unsafe { wtacrs_plan_forward(plan, x, IN, 1, 2, &options, saved, saved_bytes, scratch, scratch_bytes, none) }
    };
    let backward = |saved, saved_bytes, scratch, scratch_bytes| {
        // SAFETY: as above.
        unsafe { wtacrs_plan_backward(plan, saved, saved_bytes, y, OUT, dw, OUT, null(), scratch, scratch_bytes, none) }
    };
    let mut scratch = room("scratch", info.forward_scratch_bytes.max(info.backward_scratch_bytes));
    let (work, bytes) = (scratch.memory.at(), scratch.required);
    saved.is_what_is_required(|at, room| forward(at, room, work, bytes));
    // What it read is what the last of those passes has written, behind the first place.
    let (kept, kept_bytes) = (saved.memory.at().wrapping_byte_add(info.alignment), info.saved_bytes);
    assert_eq!(backward(kept, kept_bytes - 1, work, bytes), WTACRS_STATUS_BUFFER_TOO_SMALL);
    room("scratch", info.forward_scratch_bytes).is_what_is_required(|at, room| forward(kept, kept_bytes, at, room));
    room("scratch", info.backward_scratch_bytes).is_what_is_required(|at, room| backward(kept, kept_bytes, at, room));

    // SAFETY: as above.
    let estimate = |work, room| unsafe { wtacrs_plan_estimate(plan, x, IN, y, OUT, 1, 2, dw, OUT, work, room, none) };
    room("scratch", info.estimate_scratch_bytes).is_what_is_required(estimate);
    let budget = info.budget_rows;
    let (mut indices, mut scales, mut kept, mut winners) = (vec![0_u32; budget], vec![0.0; budget], 0, 0);
    let mut chosen = selection(indices.as_mut_ptr(), scales.as_mut_ptr(), budget, &mut kept, &mut winners);
    let select = |chosen: &wtacrs_selection, work, room| {
        let norms = norms.as_ptr();
        // SAFETY: as above.
        unsafe { wtacrs_plan_select(plan, norms, norms, 1, 2, 0, chosen, work, room, none) }
    };
    if share == 1.0 {
        assert_eq!(select(&chosen, work, bytes), WTACRS_STATUS_UNSUPPORTED);
        // SAFETY: a handle is never followed.
        return check(unsafe { wtacrs_plan_destroy(plan) });
    }
    room("scratch", info.forward_scratch_bytes).is_what_is_required(|work, room| select(&chosen, work, room));
    assert_eq!(kept as usize, budget);
    let rows = vec![0_u8; budget * IN * element];
    let gradient = |work, room| {
        let rows = rows.as_ptr().cast();
        // SAFETY: as above.
        unsafe { wtacrs_plan_weight_gradient(plan, rows, IN, &chosen, y, OUT, dw, OUT, 0, work, room, none) }
    };
    match packing {
        WTACRS_PACKING_NATIVE => {
            room("scratch", info.weight_gradient_scratch_bytes).is_what_is_required(gradient);
        }
        _ => {
            assert_eq!(info.weight_gradient_scratch_bytes, 0);
            assert_eq!(gradient(work, bytes), WTACRS_STATUS_UNSUPPORTED);
        }
    }
    chosen.capacity = budget - 1;
    assert_eq!(select(&chosen, work, bytes), WTACRS_STATUS_BUFFER_TOO_SMALL);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_plan_destroy(plan) });
}

#[test]
fn products_need_what_their_plans_report() {
    for (packing, share) in WAYS {
        products_need_what_plans_report(packing, share);
    }
}

fn products_need_what_plans_report(packing: wtacrs_packing, share: f64) {
    let [batch, heads, rows, inner, columns] = PRODUCT;
    let items = batch * heads;
    let (mut a, mut b, g) = (
        whole_numbers(items * rows * inner, 3),
        whole_numbers(items * inner * columns, 5),
        whole_numbers(items * rows * columns, 2),
    );
    let (mut da, mut db) = (vec![0_f32; a.len()], vec![0_f32; b.len()]);
    let (from_a, from_b, to_a, to_b) = (a.as_mut_ptr(), b.as_mut_ptr(), da.as_mut_ptr(), db.as_mut_ptr());
    on_each_device(|context, device| {
        // SAFETY: a handle is never followed.
        let (plan, info) = product_with(context, |product| unsafe {
            check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
            check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_tensor_mul_set_packing(product, packing));
        });
        assert_eq!(info.size, size_of::<wtacrs_tensor_mul_plan_info>());
        assert_eq!(info.exact_bytes, 4 * items * (rows + columns) * inner);
        let strides = [heads * columns * inner, columns * inner, 1, inner];
        let a = Floats::new(device, from_a, &[batch, heads, rows, inner], None);
        let b = Floats::new(device, from_b, &[batch, heads, inner, columns], Some(&strides));
        let none = null_mut();
        let forward = |saved, saved_bytes, work, bytes| {
            let (a, b) = (a.pointer(), b.pointer());
            // SAFETY: every pointer is to memory of the documented size that lives until the call returns, or refused.
            unsafe {
                wtacrs_tensor_mul_plan_forward_dl(plan, a, b, 1, 2, null(), saved, saved_bytes, work, bytes, none)
            }
        };
        let backward = |saved, saved_bytes, work, bytes| {
            let (g, da, db) = (g.as_ptr().cast(), to_a.cast(), to_b.cast());
            // SAFETY: as above.
            unsafe { wtacrs_tensor_mul_plan_backward(plan, saved, saved_bytes, g, da, db, null(), work, bytes, none) }
        };
        let room = |what, required| Room::new(what, required, info.alignment);
        let mut scratch = room("scratch", info.forward_scratch_bytes);
        let (work, bytes, mut saved) = (scratch.memory.at(), scratch.required, room("saved", info.saved_bytes));
        saved.is_what_is_required(|at, room| forward(at, room, work, bytes));
        let (kept, kept_bytes) = (saved.memory.at().wrapping_byte_add(info.alignment), info.saved_bytes);
        assert_eq!(backward(kept, kept_bytes - 1, work, bytes), WTACRS_STATUS_BUFFER_TOO_SMALL);
        room("scratch", info.forward_scratch_bytes).is_what_is_required(|at, room| forward(kept, kept_bytes, at, room));
        room("scratch", info.backward_scratch_bytes)
            .is_what_is_required(|at, room| backward(kept, kept_bytes, at, room));
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_tensor_mul_plan_destroy(plan) });
    });
}

#[test]
fn draws_are_those_of_core() {
    on_each_device(|context, _| {
        let packings = [WTACRS_PACKING_NATIVE, WTACRS_PACKING_BITS4].into_iter().zip([Packing::Native, Packing::Bits4]);
        let designs = DESIGNS.into_iter().zip(BuiltIn::ALL);
        for ((design, built_in), (number, packing)) in
            designs.flat_map(|design| packings.clone().map(move |p| (design, p)))
        {
            // SAFETY: a handle is never followed.
            let (plan, info) = plan_with(context, |layer| unsafe {
                check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
                check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 0.3));
                check(wtacrs_layer_set_design(layer, design));
                check(wtacrs_layer_set_packing(layer, number));
            });
            let core = Linear::new(Keep::Fraction(0.3)).with_design(built_in).with_packing(packing);
            assert_eq!(Ok(info.draws), core.draws(TOKENS), "{built_in:?}");
            let [batch, heads, rows, inner, columns] = PRODUCT;
            // SAFETY: as above.
            let (product, of_product) = product_with(context, |product| unsafe {
                check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
                check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 7.0));
                check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 9.0));
                check(wtacrs_tensor_mul_set_design(product, design));
                check(wtacrs_tensor_mul_set_packing(product, number));
            });
            let [left, right] = [7, 9].map(|rows| Contraction::Sampled(Keep::Rows(rows)));
            let core = TensorMul::new(left, right).with_design(built_in).with_packing(packing);
            assert_eq!(Ok(of_product.draws), core.draws(rows, columns), "{built_in:?}");
            // SAFETY: as above.
            unsafe {
                check(wtacrs_plan_destroy(plan));
                check(wtacrs_tensor_mul_plan_destroy(product));
            }
        }
    });
}

/// A row of H that is not finite: the CPU's forward pass returns it, and a GPU's leaves it in saved memory.
#[test]
fn the_saved_status_is_where_the_plan_reports() {
    status_of_a_layer(WTACRS_PACKING_NATIVE, 0.3);
    status_of_a_layer(WTACRS_PACKING_BITS4, 0.3);
    status_of_a_layer(WTACRS_PACKING_BITS4, 1.0);
}

/// The first word that is not 0.
fn first_status(bytes: &[u8]) -> u32 {
    let mut words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    words.find(|&word| word != 0).unwrap_or(0)
}

fn status_of_a_layer(packing: wtacrs_packing, share: f64) {
    const ROW: usize = 150;
    let (mut h, dz) = (whole_numbers(TOKENS * IN, 3), whole_numbers(TOKENS * OUT, 5));
    h[ROW * IN + 4] = f32::NAN;
    h[(ROW + 30) * IN] = f32::INFINITY;
    on_each_device(|context, (device, _)| {
        // SAFETY: a handle is never followed.
        let (plan, info) = plan_with(context, |layer| unsafe {
            check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
            check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT, 0.0));
            check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_layer_set_packing(layer, packing));
        });
        let mut saved = Memory::filled(info.saved_bytes, 0xff);
        let bytes = info.forward_scratch_bytes.max(info.backward_scratch_bytes);
        let (kept, mut scratch, none) = (saved.at(), Memory::filled(bytes, 0xff), null_mut());
        let (work, x, y) = (scratch.at(), h.as_ptr().cast(), dz.as_ptr().cast());
        let mut dw = vec![9_f32; IN * OUT];
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        let status = unsafe { wtacrs_plan_forward(plan, x, IN, 1, 2, null(), kept, saved.bytes, work, bytes, none) };
        if device == 1 {
            assert_eq!(status, WTACRS_STATUS_INVALID_WEIGHTS);
            assert_eq!((info.saved_status_offset, info.saved_status_words), (usize::MAX, 0));
            assert!(last_error().contains(&format!(" {ROW} ")), "{}", last_error());
            assert!(saved.contents().iter().all(|&byte| byte == 0xff), "nothing is saved");
        } else {
            check(status);
            let contents = saved.contents();
            let words = &contents[info.saved_status_offset..][..4 * info.saved_status_words];
            assert_eq!(first_status(words), ROW as u32 + 1);
            assert!(share == 1.0 || words.len() == 4, "{words:?}");
            let is_refused = || {
                let mut rows = 9;
                let counts = selection(none.cast(), none.cast(), 0, &mut rows, none.cast());
                // SAFETY: as above.
                let found = unsafe { wtacrs_plan_saved_selection(plan, kept, saved.bytes, &counts) };
                assert_eq!((found, rows), (WTACRS_STATUS_INVALID_WEIGHTS, 9));
                assert!(last_error().contains(&format!("row {ROW} ")), "{}", last_error());
            };
            is_refused();
            let to = dw.as_mut_ptr().cast();
            // SAFETY: as above.
            check(unsafe { wtacrs_plan_backward(plan, kept, saved.bytes, y, OUT, to, OUT, null(), work, bytes, none) });
            is_refused();
            assert!(dw.iter().all(|&sum| sum == 0.0), "a gradient of nothing");
        }
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_plan_destroy(plan) });
    });
}

/// A batched product has a status for each of its matrices, on either side.
#[test]
fn the_saved_statuses_of_a_product_are_where_its_plan_reports() {
    statuses_of_a_product(WTACRS_PACKING_NATIVE, 0.4);
    statuses_of_a_product(WTACRS_PACKING_BITS4, 0.4);
    statuses_of_a_product(WTACRS_PACKING_BITS4, 1.0);
}

fn statuses_of_a_product(packing: wtacrs_packing, share: f64) {
    let [batch, heads, rows, inner, columns] = PRODUCT;
    let items = batch * heads;
    let (bad_row, bad_column, row, column) = (1, 4, 5, 11);
    let mut a = whole_numbers(items * rows * inner, 3);
    // B as its transpose.
    let mut b = whole_numbers(items * columns * inner, 5);
    a[(bad_row * rows + row) * inner] = f32::INFINITY;
    b[(bad_column * columns + column) * inner] = f32::NAN;
    let (from_a, from_b) = (a.as_mut_ptr(), b.as_mut_ptr());
    on_each_device(|context, device| {
        // SAFETY: a handle is never followed.
        let (plan, info) = product_with(context, |product| unsafe {
            check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
            check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_tensor_mul_set_packing(product, packing));
        });
        let strides = [heads * columns * inner, columns * inner, 1, inner];
        let a = Floats::new(device, from_a, &[batch, heads, rows, inner], None);
        let b = Floats::new(device, from_b, &[batch, heads, inner, columns], Some(&strides));
        let bytes = info.forward_scratch_bytes;
        let (mut saved, mut scratch) = (Memory::filled(info.saved_bytes, 0xff), Memory::filled(bytes, 0xff));
        let (kept, work) = (saved.at(), scratch.at());
        // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
        let status = unsafe {
            let (a, b, none) = (a.pointer(), b.pointer(), null_mut());
            wtacrs_tensor_mul_plan_forward_dl(plan, a, b, 1, 2, null(), kept, saved.bytes, work, bytes, none)
        };
        let places =
            [(info.left_status_offset, info.left_status_words), (info.right_status_offset, info.right_status_words)];
        if device.0 == 1 {
            assert_eq!((status, places), (WTACRS_STATUS_INVALID_WEIGHTS, [(usize::MAX, 0); 2]));
        } else {
            check(status);
            let contents = saved.contents();
            let words = places.map(|(offset, words)| -> Vec<u32> {
                assert!(share == 1.0 || words == 1, "{words}");
                let of_items = contents[offset..].chunks_exact(4 * words).take(items);
                of_items.map(first_status).collect()
            });
            let mut expected = [vec![0; items], vec![0; items]];
            // dA sums over the columns of B, and dB over the rows of A.
            expected[0][bad_column] = column as u32 + 1;
            expected[1][bad_row] = row as u32 + 1;
            assert_eq!(words, expected);
        }
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_tensor_mul_plan_destroy(plan) });
    });
}

/// Whatever the design and the source, and without a guess or a predictor.
#[test]
fn an_exact_budget_makes_the_exact_gradient() {
    let (h, dz) = (whole_numbers(TOKENS * IN, 3), whole_numbers(TOKENS * OUT, 5));
    let mut exact = vec![0_f32; IN * OUT];
    for (h, dz) in h.chunks(IN).zip(dz.chunks(OUT)) {
        for (to, h) in exact.chunks_mut(OUT).zip(h) {
            to.iter_mut().zip(dz).for_each(|(to, dz)| *to += h * dz);
        }
    }
    let sources = [WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED, WTACRS_SOURCE_PREDICTED];
    on_each_device(|context, (device, _)| {
        for (design, source) in DESIGNS.into_iter().flat_map(|design| sources.map(|source| (design, source))) {
            // SAFETY: a handle is never followed.
            let (plan, info) = plan_with(context, |layer| unsafe {
                check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
                check(wtacrs_layer_set_design(layer, design));
                check(wtacrs_layer_set_source(layer, source, 0.5));
                check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_EXACT, f64::NAN));
            });
            assert_eq!(info.budget_rows, TOKENS);
            let bytes = info.forward_scratch_bytes.max(info.backward_scratch_bytes);
            let (mut saved, mut scratch) = (Memory::filled(info.saved_bytes, 0xff), Memory::filled(bytes, 0xff));
            let (kept, work, none) = (saved.at(), scratch.at(), null_mut());
            let (mut dw, mut rows, mut winners) = (vec![f32::NAN; IN * OUT], 0, 0);
            let counts = selection(null_mut(), null_mut(), 0, &mut rows, &mut winners);
            // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
            unsafe {
                let (x, y, to) = (h.as_ptr().cast(), dz.as_ptr().cast(), dw.as_mut_ptr().cast());
                check(wtacrs_plan_forward(plan, x, IN, 1, 2, null(), kept, saved.bytes, work, bytes, none));
                check(wtacrs_plan_saved_selection(plan, kept, saved.bytes, &counts));
                check(wtacrs_plan_backward(plan, kept, saved.bytes, y, OUT, to, OUT, null(), work, bytes, none));
                check(wtacrs_plan_destroy(plan));
            }
            assert_eq!(rows as usize, TOKENS);
            assert!(dw == exact, "device {device}, design {design}, source {source}");
        }
    });
}

#[test]
fn an_exact_product_has_exact_gradients() {
    let [batch, heads, rows, inner, columns] = PRODUCT;
    let items = batch * heads;
    let mut a = whole_numbers(items * rows * inner, 3);
    // B as its transpose.
    let mut b = whole_numbers(items * columns * inner, 5);
    let g = whole_numbers(items * rows * columns, 2);
    let (mut exact_da, mut exact_db) = (vec![0_f32; items * rows * inner], vec![0_f32; items * inner * columns]);
    for (item, row, column) in
        (0..items).flat_map(|i| (0..rows).flat_map(move |r| (0..columns).map(move |c| (i, r, c))))
    {
        let of_g = g[(item * rows + row) * columns + column];
        for k in 0..inner {
            exact_da[(item * rows + row) * inner + k] += of_g * b[(item * columns + column) * inner + k];
            exact_db[(item * inner + k) * columns + column] += of_g * a[(item * rows + row) * inner + k];
        }
    }
    let (from_a, from_b) = (a.as_mut_ptr(), b.as_mut_ptr());
    on_each_device(|context, device| {
        let strides = [heads * columns * inner, columns * inner, 1, inner];
        let a = Floats::new(device, from_a, &[batch, heads, rows, inner], None);
        let b = Floats::new(device, from_b, &[batch, heads, inner, columns], Some(&strides));
        for design in DESIGNS {
            // SAFETY: a handle is never followed.
            let (plan, info) = product_with(context, |product| unsafe {
                check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
                check(wtacrs_tensor_mul_set_design(product, design));
                check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_EXACT, f64::NAN));
                check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_EXACT, -1.0));
            });
            let bytes = info.forward_scratch_bytes.max(info.backward_scratch_bytes);
            let (mut saved, mut scratch) = (Memory::filled(info.saved_bytes, 0xff), Memory::filled(bytes, 0xff));
            let (mut da, mut db) = (vec![f32::NAN; exact_da.len()], vec![f32::NAN; exact_db.len()]);
            // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
            unsafe {
                let (a, b, kept, work, none) = (a.pointer(), b.pointer(), saved.at(), scratch.at(), null_mut());
                let (g, to_a, to_b) = (g.as_ptr().cast(), da.as_mut_ptr().cast(), db.as_mut_ptr().cast());
                let room = saved.bytes;
                check(wtacrs_tensor_mul_plan_forward_dl(plan, a, b, 1, 2, null(), kept, room, work, bytes, none));
                check(wtacrs_tensor_mul_plan_backward(plan, kept, room, g, to_a, to_b, null(), work, bytes, none));
                check(wtacrs_tensor_mul_plan_destroy(plan));
            }
            assert!(da == exact_da && db == exact_db, "device {device:?}, design {design}");
        }
    });
}
