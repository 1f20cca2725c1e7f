//! Every kind of call in a machine's memory gives what it gives on the CPU: on the emulator, and on a GPU where there is one.
//!
//! All values are eighths, few and small, so that norms and weights are exact on both sides: then both select the same, and
//! only products may round otherwise.

#[path = "common/calls.rs"]
mod calls;
#[path = "../../wtacrs-kernels/tests/common/mod.rs"]
mod machine;

use calls::{Floats, IN, OUT, PRODUCT, TOKENS, check, context, plan, plan_further, product};
use cudarc::driver::{result, sys};
use machine::{Buffer, Machine};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::cache::*;
use wtacrs::cache_on::*;
use wtacrs::context::{wtacrs_context, wtacrs_context_destroy};
use wtacrs::dtype::*;
use wtacrs::estimate::*;
use wtacrs::linear::*;
use wtacrs::norms::*;
use wtacrs::plan::*;
use wtacrs::predictor::*;
use wtacrs::predictor_on::*;
use wtacrs::steps::*;
use wtacrs::tensor_mul::*;
use wtacrs::testing::use_emulator;

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

fn eighths(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 11 * seed) % 33) as f32 / 8.0 - 2.0).collect()
}

fn address<T>(buffer: &Buffer<T>) -> *mut c_void {
    buffer.bytes().cast()
}

impl Side<'_> {
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
    let (plan, [_, forward_bytes, _]) = plan(on.context, WTACRS_SOURCE_NORMS, WTACRS_F32, WTACRS_PRECISION_F32);
    let (h, dz) = (on.floats(TOKENS * IN, 5), on.floats(TOKENS * OUT, 7));
    let (input, guess, columns) = (on.room::<f32>(TOKENS), on.room::<f32>(TOKENS), on.room::<f32>(OUT));
    let (mut budget, mut gradient_bytes, mut estimate_bytes, none) = (0, 0, 0, null_mut());
    // SAFETY: outputs of one number.
    unsafe {
        check(wtacrs_plan_budget(plan, &mut budget));
        check(wtacrs_plan_weight_gradient_scratch_bytes(plan, &mut gradient_bytes));
        check(wtacrs_plan_estimate_scratch_bytes(plan, &mut estimate_bytes));
    }
    let weights = on.room::<f64>(TOKENS);
    let (indices, scales) = (on.room::<u32>(budget), on.room::<f64>(budget));
    let (kept, winners) = (on.room::<u64>(1), on.room::<u64>(1));
    let rows = on.machine.upload(&vec![0_f32; budget * IN]);
    let [dw, again, whole] = [(); 3].map(|()| on.room::<f32>(IN * OUT));
    let (scratch, gradient_scratch, estimate_scratch) =
        (on.room::<u8>(forward_bytes), on.room::<u8>(gradient_bytes), on.room::<u8>(estimate_bytes));
    // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
    unsafe {
        let x = on.tensor(&h, &[TOKENS, IN]);
        check(wtacrs_row_norms_dl(on.context, x.pointer(), input.pointer(), TOKENS, none));
        check(wtacrs_row_norms(on.context, WTACRS_F32, TOKENS, OUT, address(&dz), OUT, guess.pointer(), none));
        let x = on.tensor(&dz, &[TOKENS, OUT]);
        check(wtacrs_column_norms_dl(on.context, x.pointer(), columns.pointer(), OUT, none));
        check(wtacrs_weights(plan, input.pointer(), guess.pointer(), weights.pointer(), none));
        check(wtacrs_select(
            plan,
            input.pointer(),
            guess.pointer(),
            3,
            4,
            5,
            indices.pointer(),
            scales.pointer(),
            budget,
            kept.pointer(),
            winners.pointer(),
            address(&scratch),
            forward_bytes,
            none,
        ));
        let (at, scales, kept) = (indices.pointer(), scales.pointer(), kept.pointer());
        check(wtacrs_gather(plan, address(&h), IN, at, kept, address(&rows), IN, none));
        check(wtacrs_weight_gradient(
            plan,
            address(&rows),
            IN,
            at,
            scales,
            kept,
            address(&dz),
            OUT,
            address(&dw),
            OUT,
            0,
            address(&gradient_scratch),
            gradient_bytes,
            none,
        ));
        let (rows, to) = (on.tensor(&rows, &[budget, IN]), on.tensor(&again, &[IN, OUT]));
        let (work, dz_tensor) = (address(&gradient_scratch), on.tensor(&dz, &[TOKENS, OUT]));
        check(wtacrs_weight_gradient_dl(
            plan,
            rows.pointer(),
            at,
            scales,
            kept,
            dz_tensor.pointer(),
            to.pointer(),
            0,
            work,
            gradient_bytes,
            none,
        ));
        let (x, y, work) = (address(&h), address(&dz), address(&estimate_scratch));
        check(wtacrs_estimate(plan, x, IN, y, OUT, 3, 4, address(&whole), OUT, work, estimate_bytes, none));
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

/// Two steps with a predictor that is taught in one call, and one that is taught by way of sums.
fn predictors(on: &Side<'_>) -> Made {
    let (plan, [saved_bytes, forward_bytes, backward_bytes]) =
        plan(on.context, WTACRS_SOURCE_PREDICTED, WTACRS_F32, WTACRS_PRECISION_F32);
    let (h, dz) = (on.floats(TOKENS * IN, 5), on.floats(TOKENS * OUT, 7));
    let [saved, forward, backward] = [saved_bytes, forward_bytes, backward_bytes].map(|bytes| on.room::<u8>(bytes));
    let (dw, bias, norms) = (on.room::<f32>(IN * OUT), on.room::<f32>(OUT), on.room::<f32>(TOKENS));
    let (mut at_once, mut by_sums, mut count, none) = (null_mut(), null_mut(), 0, null_mut());
    // SAFETY: outputs of one value each.
    unsafe {
        check(wtacrs_norm_predictor_create_on(on.context, IN, &mut at_once));
        check(wtacrs_norm_predictor_create_on(on.context, IN, &mut by_sums));
        check(wtacrs_norm_predictor_statistics_count(at_once, &mut count));
    }
    let sums = on.room::<f64>(count);
    let (h, dz, to) = (on.tensor(&h, &[TOKENS, IN]), on.tensor(&dz, &[TOKENS, OUT]), on.tensor(&dw, &[IN, OUT]));
    // What the second step finds in a cache: every fourth norm is not known.
    let known: Vec<f32> = (0..TOKENS).map(|i| if i % 4 == 0 { -1.0 } else { (1 + i % 7) as f32 }).collect();
    let known = on.machine.upload(&known);
    let kept = address(&saved);
    let mut made = Made::default();
    for cached in [null_mut(), known.pointer()] {
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        unsafe {
            let (h, dz, to, work) = (h.pointer(), dz.pointer(), to.pointer(), address(&forward));
            check(wtacrs_forward_dl(plan, h, cached, at_once, 3, 4, kept, saved_bytes, work, forward_bytes, none));
            let (norms, bias, work) = (norms.pointer(), address(&bias), address(&backward));
            check(wtacrs_backward_dl(plan, kept, saved_bytes, dz, to, 0, norms, bias, work, backward_bytes, none));
            let sums = sums.pointer();
            if cached.is_null() {
                check(wtacrs_norm_predictor_update_on(at_once, plan, kept, saved_bytes, norms, none));
                check(wtacrs_norm_predictor_statistics_on(by_sums, plan, kept, saved_bytes, norms, sums, count, none));
            } else {
                check(wtacrs_norm_predictor_update_cached_on(at_once, plan, kept, saved_bytes, norms, cached, none));
                check(wtacrs_norm_predictor_statistics_cached_on(
                    by_sums,
                    plan,
                    kept,
                    saved_bytes,
                    norms,
                    cached,
                    sums,
                    count,
                    none,
                ));
            }
            check(wtacrs_norm_predictor_apply_on(by_sums, sums, count, none));
        }
        // The first step's draws are from exact weights; the second's guess may round otherwise.
        made.close.push(on.doubles(&bias));
        if cached.is_null() {
            made.exact.push(on.bytes(&norms));
            made.close.extend([on.doubles(&dw), on.machine.download(&sums)]);
        }
    }
    let [first, second] = [at_once, by_sums].map(|predictor| {
        let (mut needed, mut bytes) = (0, vec![0_u8; 1 << 20]);
        // SAFETY: as above.
        unsafe {
            check(wtacrs_norm_predictor_save(predictor, bytes.as_mut_ptr().cast(), bytes.len(), &mut needed));
            check(wtacrs_norm_predictor_destroy(predictor));
        }
        bytes.truncate(needed);
        bytes
    });
    assert!(first.len() > 64 && first == second, "sums teach what an update teaches");
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_plan_destroy(plan) });
    made
}

/// Stored, fetched, forgotten, saved and loaded.
fn caches(on: &Side<'_>) -> Made {
    let (samples, lengths) = (on.machine.upload(&[5_u64, 2, 7]), on.machine.upload(&[3_u64, 4, 2]));
    let norms = on.machine.upload(&(0..12).map(|i| i as f32 / 8.0).collect::<Vec<_>>());
    let (mut cache, mut loaded, mut needed) = (null_mut(), null_mut(), 0);
    let mut bytes = vec![0_u8; 1 << 10];
    let [before, after] = [(); 2].map(|()| on.room::<f32>(16));
    // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
    unsafe {
        let (ids, lengths, none) = (samples.pointer(), lengths.pointer(), null_mut());
        check(wtacrs_norm_cache_create_on(on.context, 8, 4, &mut cache));
        check(wtacrs_norm_cache_store_on(cache, ids, lengths, 3, 4, norms.pointer(), 12, none));
        check(wtacrs_norm_cache_fetch_on(cache, ids, lengths, 3, 0, before.pointer(), 16, none));
        check(wtacrs_norm_cache_forget_on(cache, ids, 1, none));
        check(wtacrs_norm_cache_save(cache, bytes.as_mut_ptr().cast(), bytes.len(), &mut needed));
        check(wtacrs_norm_cache_load_on(on.context, 8, 4, bytes.as_ptr().cast(), needed, &mut loaded));
        check(wtacrs_norm_cache_fetch_on(loaded, ids, lengths, 3, 4, after.pointer(), 16, none));
        check(wtacrs_norm_cache_destroy(cache));
        check(wtacrs_norm_cache_destroy(loaded));
    }
    bytes.truncate(needed);
    Made { exact: vec![on.bytes(&before), on.bytes(&after), bytes], close: vec![] }
}

/// Both passes of a batched product, with guesses in the second step.
fn products(on: &Side<'_>) -> Made {
    let (plan, [saved_bytes, forward_bytes, backward_bytes]) = product(on.context);
    let [batch, heads, rows, inner, columns] = PRODUCT;
    let items = batch * heads;
    let (a, b, g) = (
        on.floats(items * rows * inner, 3),
        on.floats(items * columns * inner, 5),
        on.floats(items * rows * columns, 7),
    );
    let [saved, forward, backward] = [saved_bytes, forward_bytes, backward_bytes].map(|bytes| on.room::<u8>(bytes));
    let (da, db) = (on.room::<f32>(items * rows * inner), on.room::<f32>(items * inner * columns));
    let (of_rows, of_columns) = (on.room::<f32>(items * rows), on.room::<f32>(items * columns));
    let a = on.tensor(&a, &[batch, heads, rows, inner]);
    // B lies as its transpose, as keys do.
    let strides = [heads * columns * inner, columns * inner, 1, inner];
    let b = Floats::new(on.device, b.pointer(), &[batch, heads, inner, columns], Some(&strides));
    let mut made = Made::default();
    for is_guessed in [false, true] {
        let guess = |norms: &Buffer<f32>| if is_guessed { norms.pointer().cast_const() } else { null() };
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        unsafe {
            let (kept, work, none) = (address(&saved), address(&forward), null_mut());
            let (by_row, by_column) = (guess(&of_rows), guess(&of_columns));
            check(wtacrs_tensor_mul_forward_dl(
                plan,
                a.pointer(),
                b.pointer(),
                by_row,
                by_column,
                3,
                4,
                kept,
                saved_bytes,
                work,
                forward_bytes,
                none,
            ));
            let (norms, work) = ([of_rows.pointer(), of_columns.pointer()], address(&backward));
            check(wtacrs_tensor_mul_backward(
                plan,
                kept,
                saved_bytes,
                address(&g),
                address(&da),
                address(&db),
                0,
                norms[0],
                norms[1],
                work,
                backward_bytes,
                none,
            ));
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
    let there = Side { machine, context: context(WTACRS_CUDA, ordinal), device: (2, 0) };
    let here = Side { machine: &host, context: context(WTACRS_CPU, 0), device: (1, 0) };
    for (what, calls) in [
        ("single steps", single_steps as fn(&Side<'_>) -> Made),
        ("predictors", predictors),
        ("caches", caches),
        ("products", products),
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

/// Skipped, and said so, where there is no GPU; with WTACRS_REQUIRE_GPU=1 that is a failure.
#[test]
fn every_kind_of_call_on_a_gpu() {
    let Some(machine) = Machine::gpu() else { return };
    as_on_the_cpu(&machine, -1);
}

/// Only on a GPU: the emulator has no graphs.
#[test]
fn a_captured_step_draws_anew_at_each_replay() {
    let Some(machine) = Machine::gpu() else { return };
    let on = Side { machine: &machine, context: context(WTACRS_CUDA, -1), device: (2, 0) };
    let further = machine.upload(&[0_u64]);
    let (plan, [saved_bytes, forward_bytes, backward_bytes]) =
        plan_further(on.context, WTACRS_SOURCE_INPUT, WTACRS_F32, WTACRS_PRECISION_F32, further.pointer());
    let (h, dz, dw) = (on.floats(TOKENS * IN, 5), on.floats(TOKENS * OUT, 7), on.room::<f32>(IN * OUT));
    let (norms, bias) = (on.room::<f32>(TOKENS), on.room::<f32>(OUT));
    let [saved, forward, backward] = [saved_bytes, forward_bytes, backward_bytes].map(|bytes| on.room::<u8>(bytes));
    let step = |stream: *mut c_void| {
        let (kept, none) = (address(&saved), null());
        // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
        unsafe {
            let (h, work) = (address(&h), address(&forward));
            check(wtacrs_forward(plan, h, IN, null(), none, 3, 4, kept, saved_bytes, work, forward_bytes, stream));
            let (dz, dw, bias, work) = (address(&dz), address(&dw), address(&bias), address(&backward));
            check(wtacrs_backward(
                plan,
                kept,
                saved_bytes,
                dz,
                OUT,
                dw,
                OUT,
                0,
                norms.pointer(),
                bias,
                work,
                backward_bytes,
                stream,
            ));
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
