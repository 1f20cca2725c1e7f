//! Every kind of call in a machine's memory gives what it gives on the CPU: on the emulator, and on a GPU where there is one.
//!
//! All values are eighths, few and small, so that norms and weights are exact on both sides: then both select the same, and
//! only products may round otherwise.

#[path = "common/calls.rs"]
mod calls;
#[path = "../../wtacrs-kernels/tests/common/mod.rs"]
mod machine;

use calls::{
    Floats, IN, OUT, PRODUCT, TOKENS, backward_options, check, context, forward_options, plan_further, plan_with,
    predictor, predictor_bytes, predictor_outcome, product_with, selection,
};
use cudarc::driver::{result, sys};
use machine::{Buffer, Machine};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::stand_in::use_emulator;
use wtacrs::*;

/// Memory, and a context whose plans work in it.
struct Side<'a> {
    machine: &'a Machine,
    context: *mut wtacrs_context,
    /// As DLPack has it.
    device: (i32, i32),
}

/// What calls have made: to the bit, and within the roundings of sums.
#[derive(Default)]
struct Made {
    exact: Vec<Vec<u8>>,
    close: Vec<Vec<f64>>,
}

impl Made {
    fn extend(&mut self, other: Self) {
        self.exact.extend(other.exact);
        self.close.extend(other.close);
    }
}

fn eighths(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 11 * seed) % 33) as f32 / 8.0 - 2.0).collect()
}

fn address<T>(buffer: &Buffer<T>) -> *mut c_void {
    buffer.bytes().cast()
}

impl Side<'_> {
    /// The engine to ask for in place of `asked`: another one on a GPU's machine without cuBLASLt, and a line on stderr.
    fn possible(&self, asked: wtacrs_engine) -> wtacrs_engine {
        if asked == WTACRS_ENGINE_CUBLASLT && self.device.0 == 2 && !self.machine.has_cublas_lt() {
            return WTACRS_ENGINE_OWN;
        }
        asked
    }

    /// The program that multiplies, where `asked` is asked for: plans are small, and the CPU has no choice.
    fn engine(&self, asked: wtacrs_engine) -> wtacrs_engine {
        match self.possible(asked) {
            WTACRS_ENGINE_CUBLASLT if self.device.0 == 2 => WTACRS_ENGINE_CUBLASLT,
            _ => WTACRS_ENGINE_OWN,
        }
    }

    fn floats(&self, len: usize, seed: usize) -> Buffer<f32> {
        self.machine.upload(&eighths(len, seed))
    }

    fn room<T: Copy>(&self, len: usize) -> Buffer<T> {
        self.machine.filled(len, 0xff)
    }

    fn tensor<T>(&self, of: &Buffer<T>, shape: &[usize]) -> Floats {
        Floats::new(self.device, of.pointer(), shape, None)
    }

    fn bytes<T: Copy>(&self, of: &Buffer<T>) -> Vec<u8> {
        let values = self.machine.download(of);
        // SAFETY: numbers without padding.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(&*values)) }.to_vec()
    }

    fn doubles(&self, of: &Buffer<f32>) -> Vec<f64> {
        self.machine.download(of).into_iter().map(f64::from).collect()
    }
}

/// Norms, weights, selection, gather and product, each alone; then the product in one call.
fn single_steps(on: &Side<'_>) -> Made {
    single_steps_by(on, WTACRS_ENGINE_AUTO)
}

fn single_steps_by_cublas_lt(on: &Side<'_>) -> Made {
    single_steps_by(on, WTACRS_ENGINE_CUBLASLT)
}

fn single_steps_by(on: &Side<'_>, engine: wtacrs_engine) -> Made {
    // SAFETY: a handle is never followed.
    let (plan, info) = plan_with(on.context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 0.3));
        check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_NORMS, 0.01));
        check(wtacrs_layer_set_engine(layer, on.possible(engine)));
    });
    assert_eq!(info.engine, on.engine(engine));
    let (h, dz) = (on.floats(TOKENS * IN, 5), on.floats(TOKENS * OUT, 7));
    let (input, guess, columns) = (on.room::<f32>(TOKENS), on.room::<f32>(TOKENS), on.room::<f32>(OUT));
    let (budget, none) = (info.budget_rows, null_mut());
    let weights = on.room::<f64>(TOKENS);
    let (indices, scales) = (on.room::<u32>(budget), on.room::<f64>(budget));
    let (kept, winners) = (on.room::<u64>(1), on.room::<u64>(1));
    let rows = on.machine.upload(&vec![0_f32; budget * IN]);
    let [dw, again, whole] = [(); 3].map(|()| on.room::<f32>(IN * OUT));
    let scratch = on.room::<u8>(info.forward_scratch_bytes);
    let gradient_scratch = on.room::<u8>(info.weight_gradient_scratch_bytes);
    let estimate_scratch = on.room::<u8>(info.estimate_scratch_bytes);
    let chosen = selection(indices.pointer(), scales.pointer(), budget, kept.pointer(), winners.pointer());
    // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
    unsafe {
        let (by_row, by_column, f32) = (WTACRS_AXIS_ROWS, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32);
        let (context, x, y) = (on.context, on.tensor(&h, &[TOKENS, IN]), on.tensor(&dz, &[TOKENS, OUT]));
        check(wtacrs_context_norms_dl(context, by_row, x.pointer(), input.pointer(), TOKENS, none));
        check(wtacrs_context_norms(context, by_row, f32, TOKENS, OUT, address(&dz), OUT, guess.pointer(), none));
        check(wtacrs_context_norms_dl(context, by_column, y.pointer(), columns.pointer(), OUT, none));
        let (norms, guess) = (input.pointer(), guess.pointer());
        check(wtacrs_plan_weights(plan, norms, guess, weights.pointer(), none));
        let (work, bytes) = (address(&scratch), info.forward_scratch_bytes);
        check(wtacrs_plan_select(plan, norms, guess, 3, 4, 5, &chosen, work, bytes, none));
        check(wtacrs_plan_gather(plan, address(&h), IN, &chosen, address(&rows), IN, none));
        let (kept, dz_there, to) = (address(&rows), address(&dz), address(&dw));
        let (work, bytes) = (address(&gradient_scratch), info.weight_gradient_scratch_bytes);
        check(wtacrs_plan_weight_gradient(plan, kept, IN, &chosen, dz_there, OUT, to, OUT, 0, work, bytes, none));
        let (rows, to) = (on.tensor(&rows, &[budget, IN]), on.tensor(&again, &[IN, OUT]));
        let (rows, dz, to) = (rows.pointer(), y.pointer(), to.pointer());
        check(wtacrs_plan_weight_gradient_dl(plan, rows, &chosen, dz, to, 0, work, bytes, none));
        let (x, y, to) = (address(&h), dz_there, address(&whole));
        let (work, bytes) = (address(&estimate_scratch), info.estimate_scratch_bytes);
        check(wtacrs_plan_estimate(plan, x, IN, y, OUT, 3, 4, to, OUT, work, bytes, none));
        check(wtacrs_plan_destroy(plan));
    }
    assert_eq!(on.machine.download(&kept), [budget as u64]);
    assert_eq!(on.bytes(&dw), on.bytes(&again));
    Made {
        exact: vec![
            on.bytes(&input),
            on.bytes(&guess),
            on.bytes(&columns),
            on.bytes(&weights),
            on.bytes(&indices),
            on.bytes(&scales),
            on.bytes(&winners),
            on.bytes(&rows),
        ],
        close: vec![on.doubles(&dw), on.doubles(&whole)],
    }
}

/// Two steps with a predictor that learns in one call, and one that learns by way of sums; rows kept and saved in every way.
fn predictors(on: &Side<'_>) -> Made {
    let mut made = Made::default();
    for (packing, share) in WAYS {
        made.extend(predictors_of(on, packing, share));
    }
    made
}

/// Packings, and shares of the rows that are kept.
const WAYS: [(wtacrs_packing, f64); 7] = [
    (WTACRS_PACKING_NATIVE, 0.3),
    (WTACRS_PACKING_BITS8, 0.3),
    (WTACRS_PACKING_BITS4, 0.3),
    (WTACRS_PACKING_BITS2, 0.3),
    (WTACRS_PACKING_BITS8, 1.0),
    (WTACRS_PACKING_BITS4, 1.0),
    (WTACRS_PACKING_BITS2, 1.0),
];

fn predictors_of(on: &Side<'_>, packing: wtacrs_packing, share: f64) -> Made {
    // SAFETY: a handle is never followed.
    let (plan, info) = plan_with(on.context, |layer| unsafe {
        check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
        check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
        check(wtacrs_layer_set_packing(layer, packing));
    });
    let numbers = |number: u64| number.to_le_bytes().to_vec();
    let (mut kept_rows, mut winners) = (0, 0);
    let (mut indices, mut scales) = (vec![0_u32; TOKENS], vec![0_f64; TOKENS]);
    let (h, dz) = (on.floats(TOKENS * IN, 5), on.floats(TOKENS * OUT, 7));
    let [saved, forward, backward] =
        [info.saved_bytes, info.forward_scratch_bytes, info.backward_scratch_bytes].map(|bytes| on.room::<u8>(bytes));
    let (dw, bias, norms) = (on.room::<f32>(IN * OUT), on.room::<f32>(OUT), on.room::<f32>(TOKENS));
    let (at_once, by_sums) = (predictor(on.context, IN), predictor(on.context, IN));
    let (mut count, none) = (0, null_mut());
    // SAFETY: an output of one number.
    check(unsafe { wtacrs_norm_predictor_statistics_count(at_once, &mut count) });
    let sums = on.room::<f64>(count);
    let (h, dz, to) = (on.tensor(&h, &[TOKENS, IN]), on.tensor(&dz, &[TOKENS, OUT]), on.tensor(&dw, &[IN, OUT]));
    // What the second step finds in a cache: every fourth norm is not known.
    let known: Vec<f32> = (0..TOKENS).map(|i| if i % 4 == 0 { -1.0 } else { (1 + i % 7) as f32 }).collect();
    let known = on.machine.upload(&known);
    let (kept, saved_bytes) = (address(&saved), info.saved_bytes);
    let outcome = |of: *mut wtacrs_norm_predictor| u64::from(predictor_outcome(of)).to_le_bytes().to_vec();
    let mut made = Made { exact: vec![outcome(at_once)], ..Made::default() };
    for cached in [null_mut(), known.pointer()] {
        let options = forward_options(cached, at_once);
        let wanted = backward_options(0, norms.pointer(), address(&bias));
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        unsafe {
            let (h, dz, to) = (h.pointer(), dz.pointer(), to.pointer());
            let (work, bytes) = (address(&forward), info.forward_scratch_bytes);
            check(wtacrs_plan_forward_dl(plan, h, 3, 4, &options, kept, saved_bytes, work, bytes, none));
            let (work, bytes) = (address(&backward), info.backward_scratch_bytes);
            check(wtacrs_plan_backward_dl(plan, kept, saved_bytes, dz, to, &wanted, work, bytes, none));
            let (norms, sums) = (norms.pointer(), sums.pointer());
            check(wtacrs_norm_predictor_update(at_once, plan, kept, saved_bytes, norms, cached, none));
            check(wtacrs_norm_predictor_statistics(by_sums, plan, kept, saved_bytes, norms, cached, sums, count, none));
            check(wtacrs_norm_predictor_apply(by_sums, sums, count, none));
        }
        made.exact.extend([outcome(at_once), outcome(by_sums)]);
        // The first step's draws are from exact weights; the second's guess may round otherwise.
        made.close.push(on.doubles(&bias));
        if cached.is_null() {
            let (indices, scales) = (indices.as_mut_ptr(), scales.as_mut_ptr());
            let found = selection(indices, scales, TOKENS, &mut kept_rows, &mut winners);
            // SAFETY: as above; the selection is in the host's memory.
            check(unsafe { wtacrs_plan_saved_selection(plan, kept, saved_bytes, &found) });
            made.exact.extend([numbers(kept_rows), numbers(winners), numbers(info.draws)]);
            made.exact.push(on.bytes(&norms));
            made.close.extend([on.doubles(&dw), on.machine.download(&sums)]);
        }
    }
    let [first, second] = [at_once, by_sums].map(|predictor| {
        let bytes = predictor_bytes(predictor);
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_norm_predictor_destroy(predictor) });
        bytes
    });
    assert!(first.len() > 64 && first == second, "sums teach what an update teaches");
    made.exact.extend([
        indices.iter().flat_map(|i| i.to_le_bytes()).collect(),
        scales.iter().flat_map(|s| s.to_le_bytes()).collect(),
    ]);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_plan_destroy(plan) });
    made
}

/// Stored, fetched, forgotten, saved and loaded.
fn caches(on: &Side<'_>) -> Made {
    let (samples, lengths) = (on.machine.upload(&[5_u64, 2, 7]), on.machine.upload(&[3_u64, 4, 2]));
    let norms = on.machine.upload(&(0..12).map(|i| i as f32 / 8.0).collect::<Vec<_>>());
    let (mut cache, mut loaded, mut needed, mut fault, mut sample) = (null_mut(), null_mut(), 0, 9, 9);
    let mut bytes = vec![0_u8; 1 << 10];
    let [before, after] = [(); 2].map(|()| on.room::<f32>(16));
    // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
    unsafe {
        let (ids, lengths, none) = (samples.pointer(), lengths.pointer(), null_mut());
        check(wtacrs_norm_cache_create(on.context, 8, 4, &mut cache));
        check(wtacrs_norm_cache_store(cache, ids, lengths, 3, 4, norms.pointer(), 12, none));
        check(wtacrs_norm_cache_fetch(cache, ids, lengths, 3, 0, before.pointer(), 16, none));
        check(wtacrs_norm_cache_forget(cache, ids, 1, none));
        check(wtacrs_norm_cache_save(cache, bytes.as_mut_ptr().cast(), bytes.len(), &mut needed));
        check(wtacrs_norm_cache_load(on.context, 8, 4, bytes.as_ptr().cast(), needed, &mut loaded));
        check(wtacrs_norm_cache_fetch(loaded, ids, lengths, 3, 4, after.pointer(), 16, none));
        check(wtacrs_norm_cache_outcome(cache, &mut fault, &mut sample));
        check(wtacrs_norm_cache_destroy(cache));
        check(wtacrs_norm_cache_destroy(loaded));
    }
    assert_eq!((fault, sample), (0, 0));
    bytes.truncate(needed);
    Made { exact: vec![on.bytes(&before), on.bytes(&after), bytes], close: vec![] }
}

/// Both passes of a batched product, with guesses in the second step; rows kept and saved in every way, and one side exact.
fn products(on: &Side<'_>) -> Made {
    let mut made = Made::default();
    for (packing, share) in WAYS {
        made.extend(products_of(on, packing, share, WTACRS_BUDGET_FRACTION, WTACRS_ENGINE_AUTO));
    }
    made.extend(products_of(on, WTACRS_PACKING_BITS8, 0.4, WTACRS_BUDGET_EXACT, WTACRS_ENGINE_OWN));
    made
}

fn products_by_cublas_lt(on: &Side<'_>) -> Made {
    let mut made = Made::default();
    for (packing, share) in [(WTACRS_PACKING_NATIVE, 0.3), (WTACRS_PACKING_BITS4, 0.3), (WTACRS_PACKING_BITS4, 1.0)] {
        made.extend(products_of(on, packing, share, WTACRS_BUDGET_FRACTION, WTACRS_ENGINE_CUBLASLT));
    }
    made
}

fn products_of(on: &Side<'_>, packing: wtacrs_packing, share: f64, left: wtacrs_budget, engine: wtacrs_engine) -> Made {
    let [batch, heads, rows, inner, columns] = PRODUCT;
    // SAFETY: a handle is never followed.
    let (plan, info) = product_with(on.context, |product| unsafe {
        check(wtacrs_tensor_mul_set_shape(product, batch, heads, rows, inner, columns));
        check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, left, share));
        check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, share));
        check(wtacrs_tensor_mul_set_packing(product, packing));
        check(wtacrs_tensor_mul_set_engine(product, on.possible(engine)));
    });
    assert_eq!([info.left_engine, info.right_engine], [on.engine(engine); 2]);
    let items = batch * heads;
    let (a, b, g) = (
        on.floats(items * rows * inner, 3),
        on.floats(items * columns * inner, 5),
        on.floats(items * rows * columns, 7),
    );
    let [saved, forward, backward] =
        [info.saved_bytes, info.forward_scratch_bytes, info.backward_scratch_bytes].map(|bytes| on.room::<u8>(bytes));
    let (da, db) = (on.room::<f32>(items * rows * inner), on.room::<f32>(items * inner * columns));
    let (of_rows, of_columns) = (on.room::<f32>(items * rows), on.room::<f32>(items * columns));
    let a = on.tensor(&a, &[batch, heads, rows, inner]);
    // B lies as its transpose, as keys do.
    let strides = [heads * columns * inner, columns * inner, 1, inner];
    let b = Floats::new(on.device, b.pointer(), &[batch, heads, inner, columns], Some(&strides));
    let mut made = Made::default();
    for is_guessed in [false, true] {
        let guess = |norms: &Buffer<f32>| if is_guessed { norms.pointer().cast_const() } else { null() };
        let guesses = wtacrs_tensor_mul_forward_options {
            row_guess: guess(&of_rows),
            column_guess: guess(&of_columns),
            ..Default::default()
        };
        let wanted = wtacrs_tensor_mul_backward_options {
            row_norms: of_rows.pointer(),
            column_norms: of_columns.pointer(),
            ..Default::default()
        };
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        unsafe {
            let (kept, saved_bytes, none) = (address(&saved), info.saved_bytes, null_mut());
            let (a, b) = (a.pointer(), b.pointer());
            let (work, bytes) = (address(&forward), info.forward_scratch_bytes);
            check(wtacrs_tensor_mul_plan_forward_dl(plan, a, b, 3, 4, &guesses, kept, saved_bytes, work, bytes, none));
            let (g, da, db) = (address(&g), address(&da), address(&db));
            let (work, bytes) = (address(&backward), info.backward_scratch_bytes);
            check(wtacrs_tensor_mul_plan_backward(plan, kept, saved_bytes, g, da, db, &wanted, work, bytes, none));
        }
        made.exact.extend([on.bytes(&of_rows), on.bytes(&of_columns)]);
        made.close.extend([on.doubles(&da), on.doubles(&db)]);
    }
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_tensor_mul_plan_destroy(plan) });
    made
}

/// Runs all of it on a device and on the CPU.
fn as_on_the_cpu(machine: &Machine, ordinal: i32) {
    let host = Machine::emulator(0);
    let there = Side { machine, context: context(WTACRS_DEVICE_CUDA, ordinal), device: (2, 0) };
    let here = Side { machine: &host, context: context(WTACRS_DEVICE_CPU, 0), device: (1, 0) };
    for (what, calls) in [
        ("single steps", single_steps as fn(&Side<'_>) -> Made),
        ("single steps by cuBLASLt", single_steps_by_cublas_lt),
        ("predictors", predictors),
        ("caches", caches),
        ("products", products),
        ("products by cuBLASLt", products_by_cublas_lt),
    ] {
        let (found, expected) = (calls(&there), calls(&here));
        for (at, (found, expected)) in found.exact.iter().zip(&expected.exact).enumerate() {
            assert!(found == expected, "{what}: {at} on {machine:?}");
        }
        for (at, (found, expected)) in found.close.iter().zip(&expected.close).enumerate() {
            let largest = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
            let farthest = found.iter().zip(expected).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs()));
            assert!(
                largest > 0.0 && farthest <= 1e-5 * largest,
                "{what}: {at} on {machine:?}: {farthest} of {largest}"
            );
        }
        assert_eq!((found.exact.len(), found.close.len()), (expected.exact.len(), expected.close.len()));
    }
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_context_destroy(there.context));
        check(wtacrs_context_destroy(here.context));
    }
}

#[test]
fn every_kind_of_call_on_the_emulator() {
    use_emulator();
    as_on_the_cpu(&Machine::emulator(0), 0);
}

/// Skipped with a message if there is no GPU; with WTACRS_REQUIRE_GPU=1 it fails instead.
#[test]
fn every_kind_of_call_on_a_gpu() {
    let Some(machine) = Machine::gpu() else { return };
    as_on_the_cpu(&machine, -1);
}

/// Only on a GPU: the emulator has no graphs.
#[test]
fn a_captured_step_draws_anew_at_each_replay() {
    let Some(machine) = Machine::gpu() else { return };
    let on = Side { machine: &machine, context: context(WTACRS_DEVICE_CUDA, -1), device: (2, 0) };
    let further = machine.upload(&[0_u64]);
    let (plan, info) =
        plan_further(on.context, WTACRS_SOURCE_INPUT, WTACRS_DTYPE_F32, WTACRS_PRECISION_F32, further.pointer());
    let (h, dz, dw) = (on.floats(TOKENS * IN, 5), on.floats(TOKENS * OUT, 7), on.room::<f32>(IN * OUT));
    let (norms, bias) = (on.room::<f32>(TOKENS), on.room::<f32>(OUT));
    let [saved, forward, backward] =
        [info.saved_bytes, info.forward_scratch_bytes, info.backward_scratch_bytes].map(|bytes| on.room::<u8>(bytes));
    let wanted = backward_options(0, norms.pointer(), address(&bias));
    let step = |stream: *mut c_void| {
        let (kept, saved_bytes) = (address(&saved), info.saved_bytes);
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        unsafe {
            let (h, work, bytes) = (address(&h), address(&forward), info.forward_scratch_bytes);
            check(wtacrs_plan_forward(plan, h, IN, 3, 4, null(), kept, saved_bytes, work, bytes, stream));
            let (dz, dw) = (address(&dz), address(&dw));
            let (work, bytes) = (address(&backward), info.backward_scratch_bytes);
            check(wtacrs_plan_backward(plan, kept, saved_bytes, dz, OUT, dw, OUT, &wanted, work, bytes, stream));
        }
    };
    // All launches happen once before, as frameworks do, and to know what to expect.
    let direct = [0, 1 << 20].map(|offset| {
        machine.write(&further, &[offset]);
        step(null_mut());
        on.bytes(&dw)
    });
    assert_ne!(direct[0], direct[1]);
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).expect("a stream");
    // SAFETY: stream and graph live until the end of the test, in the context that `Machine::gpu` made current.
    let (graph, ready) = unsafe {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        result::stream::begin_capture(stream, mode).expect("captures");
        step(stream.cast());
        let graph = result::stream::end_capture(stream).expect("nothing that cannot be captured");
        (graph, result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)).expect("a graph"))
    };
    for (offset, expected) in [0, 1 << 20, 0].into_iter().zip([&direct[0], &direct[1], &direct[0]]) {
        machine.write(&further, &[offset]);
        machine.write(&dw, &[f32::NAN; IN * OUT]);
        // SAFETY: as above.
        unsafe { result::graph::launch(ready, stream) }.expect("replays");
        assert_eq!(&on.bytes(&dw), expected, "further offset {offset}");
    }
    // SAFETY: downloading waited for all replays; handles are never followed.
    unsafe {
        result::graph::exec_destroy(ready).expect("destroyed");
        result::graph::destroy(graph).expect("destroyed");
        result::stream::destroy(stream).expect("destroyed");
        check(wtacrs_plan_destroy(plan));
        check(wtacrs_context_destroy(on.context));
    }
}
