//! The CUDA path through the C interface's functions: on a driver that writes every call down, and, where there is one, on
//! a GPU.

#[path = "common/calls.rs"]
mod calls;
#[path = "../../wtacrs-kernels/tests/fake/mod.rs"]
mod fake;
#[path = "../../wtacrs-kernels/tests/common/mod.rs"]
mod machine;

use calls::{
    Floats, IN, OUT, PRODUCT, TOKENS, backward_options, check, context, forward_options, last_error, operator_with,
    plan, plan_with, predictor, predictor_bytes, product, product_with, selection,
};
use fake::{Call, Fake};
use machine::Machine;
use std::ffi::c_void;
use std::ptr::{null, null_mut, without_provenance_mut};
use std::sync::Arc;
use wtacrs::stand_in::{use_driver, use_emulator};
use wtacrs::*;
use wtacrs_core::guesses::NormCache;
use wtacrs_kernels::launch::driver::{Context, Installation};

fn installation() -> Arc<Installation<Fake>> {
    Arc::new(Installation::new(Fake::default()).expect("it will do"))
}

/// An address that no call may follow: work is only launched.
fn at(megabytes: usize) -> *mut c_void {
    without_provenance_mut(megabytes << 20)
}

/// A stream that nothing runs on.
fn stream() -> *mut c_void {
    without_provenance_mut(0x5150)
}

/// The kernels that were launched, all on that stream and in the first GPU's context; and nothing else was done.
fn launched(calls: &Fake) -> Vec<&'static str> {
    let mut kernels = vec![];
    for call in calls.list() {
        match call {
            Call::Ask("cuCtxGetCurrent") => {}
            Call::Launch { kernel, stream, context, .. } => {
                assert_eq!((stream, context), (0x5150, Context(0x1000)), "{kernel}");
                kernels.push(kernel);
            }
            other => panic!("{other:?} within a step"),
        }
    }
    kernels
}

/// Packed rows take one launch more in the backward pass; where all are packed, the forward pass takes one.
#[test]
fn a_step_with_packed_rows_is_launches_and_nothing_else() {
    let installation = installation();
    use_driver(Arc::clone(&installation));
    let context = context(WTACRS_DEVICE_CUDA, 0);
    let selected = ["row_norms_bf16", "select_wta_pivotal", "gather_pack_bf16"];
    for (share, of_forward) in [(0.3, &selected[..]), (1.0, &selected[2..])] {
        let dtype = WTACRS_DTYPE_BF16;
        // SAFETY: a handle is never followed.
        let (plan, info) = plan_with(context, |layer| unsafe {
            check(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
            check(wtacrs_layer_set_dtypes(layer, dtype, dtype, WTACRS_DTYPE_F32));
            check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
            check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT, 0.0));
            check(wtacrs_layer_set_packing(layer, WTACRS_PACKING_BITS4));
        });
        let calls = installation.calls();
        calls.forget();
        let (saved, saved_bytes, scratch, stream) = (at(1), info.saved_bytes, at(2), stream());
        let options = backward_options(1, at(5).cast(), null_mut());
        // SAFETY: nothing is run, so no pointer is followed.
        unsafe {
            let bytes = info.forward_scratch_bytes;
            check(wtacrs_plan_forward(plan, at(3), IN, 1, 2, null(), saved, saved_bytes, scratch, bytes, stream));
            let (dz, dw, bytes) = (at(4), at(6), info.backward_scratch_bytes);
            check(wtacrs_plan_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, &options, scratch, bytes, stream));
        }
        let kernels = launched(calls);
        let (forward, backward) = kernels.split_at(of_forward.len());
        assert_eq!(forward, of_forward);
        assert!(backward.len() == 4 && backward.iter().any(|name| name.starts_with("gather_gemm")), "{backward:?}");
        for name in ["row_norms_bf16", "unpack_rows_bf16", "turn_back_down"] {
            assert!(backward.contains(&name), "{backward:?}");
        }
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_plan_destroy(plan) });
    }
}

/// A step launches kernels on the caller's stream, asks which context is current, and does nothing else.
#[test]
fn a_step_is_launches_on_the_callers_stream_and_nothing_else() {
    let installation = installation();
    use_driver(Arc::clone(&installation));
    let context = context(WTACRS_DEVICE_CUDA, 0);
    let (plan, info) = plan(context, WTACRS_SOURCE_PREDICTED, WTACRS_DTYPE_BF16, WTACRS_PRECISION_F32);
    let predictor = predictor(context, IN);
    let calls = installation.calls();
    assert_eq!(calls.list().iter().filter(|call| matches!(call, Call::Allocate(_))).count(), 1);
    calls.forget();

    let stream = stream();
    let (norms, cached, mut count) = (at(5).cast::<f32>(), at(11).cast::<f32>(), 0);
    let (saved, saved_bytes) = (at(1), info.saved_bytes);
    let forward = |offset, cached: *const f32| {
        let options = forward_options(cached, predictor);
        let (h, work, bytes) = (at(3), at(2), info.forward_scratch_bytes);
        // SAFETY: nothing is run, so no pointer is followed.
        unsafe { wtacrs_plan_forward(plan, h, IN, 1, offset, &options, saved, saved_bytes, work, bytes, stream) }
    };
    let backward = |bias| {
        let options = backward_options(1, norms, bias);
        let (dz, dw, work, bytes) = (at(4), at(6), at(2), info.backward_scratch_bytes);
        // SAFETY: as above.
        unsafe { wtacrs_plan_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, &options, work, bytes, stream) }
    };
    let learn = |cached| {
        // SAFETY: as above.
        unsafe { wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms, cached, stream) }
    };
    check(forward(2, null()));
    check(backward(null_mut()));
    check(backward(at(11)));
    check(learn(null()));
    // SAFETY: nothing is run, so no pointer is followed.
    unsafe {
        check(wtacrs_norm_predictor_statistics_count(predictor, &mut count));
        let sums = at(7).cast();
        check(wtacrs_norm_predictor_statistics(
            predictor,
            plan,
            saved,
            saved_bytes,
            norms,
            null(),
            sums,
            count,
            stream,
        ));
        check(wtacrs_norm_predictor_apply(predictor, sums, count, stream));
        let (axis, dtype) = (WTACRS_AXIS_ROWS, WTACRS_DTYPE_F16);
        check(wtacrs_context_norms(context, axis, dtype, TOKENS, OUT, at(4), OUT, norms, stream));
        let chosen = selection(at(8).cast(), at(9).cast(), TOKENS, at(10).cast(), null_mut());
        let (work, bytes) = (at(2), info.forward_scratch_bytes);
        check(wtacrs_plan_select(plan, norms, null(), 1, 2, 0, &chosen, work, bytes, stream));
    }
    // Cached norms beside the predictor's guess: no launch more.
    check(forward(3, cached));
    check(learn(cached));
    let mut kernels = launched(calls);
    assert_eq!(
        kernels[..5],
        ["row_norms_bf16", "select_wta_pivotal", "gather_rows_bf16", "row_norms_bf16", kernels[4]]
    );
    assert!(kernels[4].starts_with("gather_gemm"), "{kernels:?}");
    let with_bias = kernels.iter().position(|name| *name == "row_norms_sums_bf16").expect("a sum of dZ's rows");
    assert_eq!(kernels[with_bias + 1..with_bias + 3], [kernels[4], "split_reduce_sums"]);
    kernels.drain(with_bias..with_bias + 3);
    let learning = ["predictor_features_bf16", "predictor_sums", "predictor_apply"];
    let rest: Vec<_> = kernels[5..].iter().filter(|name| **name != "split_reduce").copied().collect();
    assert_eq!(rest[..3], learning);
    assert_eq!(rest[3..6], learning);
    assert_eq!(rest[6..9], ["row_norms_f16", "row_norms_bf16", "select_wta_pivotal"]);
    assert_eq!(rest[9..12], ["row_norms_bf16", "select_wta_pivotal", "gather_rows_bf16"]);
    assert_eq!(rest[12..], learning);

    // The end of objects asks the driver for nothing, since a stream may be captured. The next predictor in the CUDA context frees
    // their memory, whatever wtacrs_context it is made with.
    calls.forget();
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_plan_destroy(plan));
        check(wtacrs_context_destroy(context));
    }
    assert_eq!(calls.list(), []);
    let context = self::context(WTACRS_DEVICE_CUDA, 0);
    let next = calls::predictor(context, IN);
    let mut begun = calls.list();
    begun.retain(|call| matches!(call, Call::Free(_) | Call::Copy { .. } | Call::Allocate(_)));
    assert!(
        matches!(begun[..], [Call::Copy { bytes: 1 }, Call::Free(_), Call::Allocate(_), Call::Copy { .. }]),
        "{begun:?}"
    );
    // SAFETY: as above.
    unsafe {
        check(wtacrs_norm_predictor_destroy(next));
        check(wtacrs_context_destroy(context));
    }
}

/// As where a stream is captured.
#[test]
fn memory_is_freed_only_after_a_wait() {
    let installation =
        Arc::new(Installation::new(Fake { fails: Some("cuMemcpyDtoH_v2"), ..Fake::default() }).expect("opens"));
    use_driver(Arc::clone(&installation));
    let context = context(WTACRS_DEVICE_CUDA, 0);
    for _ in 0..3 {
        // SAFETY: a handle is never followed.
        check(unsafe { wtacrs_norm_predictor_destroy(predictor(context, IN)) });
    }
    let list = installation.calls().list();
    assert_eq!(list.iter().filter(|call| matches!(call, Call::Allocate(_))).count(), 3);
    assert_eq!(
        list.iter().filter(|call| matches!(call, Call::Copy { bytes: 1 })).count(),
        2,
        "waits that were refused"
    );
    assert!(!list.iter().any(|call| matches!(call, Call::Free(_))), "{list:?}");
    // SAFETY: as above.
    check(unsafe { wtacrs_context_destroy(context) });
}

/// So do a cache's calls; only those that say so wait.
#[test]
fn a_cache_is_launches_on_the_callers_stream_and_nothing_else() {
    let installation = installation();
    use_driver(Arc::clone(&installation));
    let context = context(WTACRS_DEVICE_CUDA, 0);
    let calls = installation.calls();
    calls.forget();
    let (mut cache, mut needed, mut fault) = (null_mut(), 0, 9);
    // SAFETY: an output of one pointer.
    check(unsafe { wtacrs_norm_cache_create(context, 1000, 128, &mut cache) });
    let bytes: Vec<Call> =
        calls.list().into_iter().filter(|call| matches!(call, Call::Allocate(_) | Call::Copy { .. })).collect();
    // The status, a word for each sample and the norms, of which nothing is written yet.
    assert_eq!(bytes, [Call::Allocate(256 + 4096 + 512_000), Call::Copy { bytes: 256 + 4096 }]);
    calls.forget();
    let stream = stream();
    let (samples, lengths, norms) = (at(1).cast::<u64>(), at(2).cast::<u64>(), at(3).cast::<f32>());
    // SAFETY: nothing is run, so no pointer is followed.
    unsafe {
        check(wtacrs_norm_cache_fetch(cache, samples, lengths, 8, 128, norms, 1024, stream));
        check(wtacrs_norm_cache_store(cache, samples, lengths, 8, 0, norms, 1000, stream));
        check(wtacrs_norm_cache_forget(cache, samples, 8, stream));
    }
    let kernels = launched(calls);
    assert_eq!(kernels, ["norm_cache_fetch", "norm_cache_store", "norm_cache_store"]);
    calls.forget();
    // SAFETY: outputs of one number; handles are never followed.
    unsafe {
        check(wtacrs_norm_cache_outcome(cache, &mut fault, null_mut()));
        check(wtacrs_norm_cache_save(cache, null_mut(), 0, &mut needed));
        check(wtacrs_norm_cache_destroy(cache));
        check(wtacrs_context_destroy(context));
    }
    assert_eq!((fault, needed), (0, NormCache::new().to_bytes().len()));
    let copied: Vec<Call> = calls.list().into_iter().filter(|call| matches!(call, Call::Copy { .. })).collect();
    assert_eq!(copied, [Call::Copy { bytes: 12 }, Call::Copy { bytes: 4000 }], "what is known, but no norms");
    assert!(!calls.list().iter().any(|call| matches!(call, Call::Free(_))), "left for the next object of the context");
}

/// An operator's passes are one launch each, and one more for each sum over rows.
#[test]
fn an_operators_passes_are_launches_and_nothing_else() {
    let installation = installation();
    use_driver(Arc::clone(&installation));
    let context = context(WTACRS_DEVICE_CUDA, 0);
    let calls = installation.calls();
    let cases: [(_, [&[&str]; 3]); 3] = [
        (WTACRS_OPERATION_IDENTITY, [&["pointwise_forward"], &["pointwise_backward"], &["unpack_values"]]),
        (WTACRS_OPERATION_SOFTMAX, [&["softmax_forward"], &["softmax_backward"], &["unpack_values"]]),
        (
            WTACRS_OPERATION_LAYER_NORM,
            [&["norm_forward"], &["norm_backward", "split_reduce_sums", "split_reduce_sums"], &[]],
        ),
    ];
    for (operation, [of_forward, of_backward, of_restore]) in cases {
        // SAFETY: a handle is never followed.
        let (plan, info) = operator_with(context, |op| unsafe {
            check(wtacrs_operator_set_operation(op, operation, 0));
            check(wtacrs_operator_set_shape(op, TOKENS, IN));
            check(wtacrs_operator_set_dtype(op, WTACRS_DTYPE_BF16));
            check(wtacrs_operator_set_packing(op, WTACRS_PACKING_BITS8));
            check(wtacrs_operator_set_dropout(op, 0.1));
        });
        assert_eq!(info.alignment, 256);
        let sums = |megabytes| if of_backward.len() > 1 { at(megabytes).cast() } else { null_mut() };
        let forward = wtacrs_operator_forward { x: at(1), y: at(1), ..Default::default() };
        let backward =
            wtacrs_operator_backward { dy: at(2), dx: at(3), dweight: sums(4), dbias: sums(5), ..Default::default() };
        let (saved, scratch, saved_bytes, bytes) = (at(6), at(7), info.saved_bytes, info.backward_scratch_bytes);
        calls.forget();
        // SAFETY: nothing is run, so no pointer is followed.
        unsafe {
            check(wtacrs_operator_plan_forward(plan, &forward, 1, 2, saved, saved_bytes, stream()));
            assert_eq!(launched(calls), of_forward);
            calls.forget();
            check(wtacrs_operator_plan_backward(plan, &backward, saved, saved_bytes, scratch, bytes, stream()));
            assert_eq!(launched(calls), of_backward);
            calls.forget();
            if info.restores == 1 {
                check(wtacrs_operator_plan_restore(plan, saved, saved_bytes, at(8), stream()));
                assert_eq!(launched(calls), of_restore);
            }
            check(wtacrs_operator_plan_destroy(plan));
        }
    }
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}

/// And so does every other call that takes a stream.
#[test]
fn single_steps_products_and_tensors_are_launches_and_nothing_else() {
    let installation = installation();
    use_driver(Arc::clone(&installation));
    let (context, stream, gpu) = (context(WTACRS_DEVICE_CUDA, 0), stream(), (2, 0));
    let (plan, info) = plan(context, WTACRS_SOURCE_NORMS, WTACRS_DTYPE_F32, WTACRS_PRECISION_F32);
    let (product, of_product) = product(context);
    let (predictor, mut count) = (predictor(context, IN), 0);
    // SAFETY: an output of one number.
    check(unsafe { wtacrs_norm_predictor_statistics_count(predictor, &mut count) });
    let floats = |megabytes, shape: &[usize]| Floats::new(gpu, at(megabytes), shape, None);
    let (h, dz, dw) = (floats(1, &[TOKENS, IN]), floats(2, &[TOKENS, OUT]), floats(3, &[IN, OUT]));
    let rows = floats(4, &[info.budget_rows, IN]);
    let [batch, heads, m, inner, n] = PRODUCT;
    let (a, g) = (floats(20, &[batch, heads, m, inner]), floats(22, &[batch, heads, m, n]));
    let b = Floats::new(gpu, at(21), &[batch, heads, inner, n], Some(&[heads * inner * n, inner * n, 1, inner]));
    let (da, db) = (floats(23, &[batch, heads, m, inner]), floats(24, &[batch, heads, inner, n]));
    let (norms, guess, weights) = (at(5).cast::<f32>(), at(6).cast::<f32>(), at(7).cast());
    let chosen = selection(at(8).cast(), at(9).cast(), info.budget_rows, at(10).cast(), null_mut());
    let (saved, scratch) = (at(11), at(12));
    let calls = installation.calls();
    let mut others = vec![];
    let mut expect = |kernels: &[&str], status: wtacrs_status| {
        check(status);
        let mut found = launched(calls);
        // What comes between depends on shapes.
        found.retain(|kernel| !kernel.starts_with("split_reduce") && !kernel.starts_with("gather_columns"));
        let is_as_expected = |(found, kernel): (&&str, &&str)| found.starts_with(kernel);
        if found.len() != kernels.len() || !found.iter().zip(kernels).all(is_as_expected) {
            others.push(format!("{found:?} and not {kernels:?}"));
        }
        calls.forget();
    };
    calls.forget();
    let sample = ["row_norms_f32", "select_wta_pivotal", "gather_rows_f32"];
    let twice = [sample, sample].concat();
    // SAFETY: nothing is run, so no pointer is followed.
    unsafe {
        expect(&["select_weights"], wtacrs_plan_weights(plan, norms, guess, weights, stream));
        expect(&["gather_rows_f32"], wtacrs_plan_gather(plan, at(1), IN, &chosen, at(4), IN, stream));
        expect(&["gather_rows_f32"], wtacrs_plan_gather_dl(plan, h.pointer(), &chosen, rows.pointer(), stream));
        let (gradient, bytes) = (["gather_rows_f32", "gather_gemm"], info.weight_gradient_scratch_bytes);
        let (kept, dz_there, dw_there) = (at(4), at(2), at(3));
        expect(
            &gradient,
            wtacrs_plan_weight_gradient(
                plan, kept, IN, &chosen, dz_there, OUT, dw_there, OUT, 0, scratch, bytes, stream,
            ),
        );
        let (rows, dz, dw, h) = (rows.pointer(), dz.pointer(), dw.pointer(), h.pointer());
        expect(&gradient, wtacrs_plan_weight_gradient_dl(plan, rows, &chosen, dz, dw, 1, scratch, bytes, stream));
        let whole = ["row_norms_f32", sample[0], sample[1], sample[2], "gather_gemm"];
        let (x, y, out, bytes) = (at(1), at(2), at(3), info.estimate_scratch_bytes);
        expect(&whole, wtacrs_plan_estimate(plan, x, IN, y, OUT, 1, 2, out, OUT, scratch, bytes, stream));
        expect(&whole, wtacrs_plan_estimate_dl(plan, h, dz, 1, 2, dw, scratch, bytes, stream));
        let (by_row, by_column, f32) = (WTACRS_AXIS_ROWS, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32);
        let columns = ["column_norms_f32"];
        expect(&columns, wtacrs_context_norms(context, by_column, f32, TOKENS, IN, x, IN, norms, stream));
        expect(&columns, wtacrs_context_norms_dl(context, by_column, h, norms, IN, stream));
        expect(&["row_norms_f32"], wtacrs_context_norms_dl(context, by_row, h, norms, TOKENS, stream));
        let (options, bytes) = (forward_options(guess, null()), info.forward_scratch_bytes);
        expect(
            &sample,
            wtacrs_plan_forward_dl(plan, h, 1, 2, &options, saved, info.saved_bytes, scratch, bytes, stream),
        );
        let bytes = info.backward_scratch_bytes;
        expect(
            &["gather_gemm"],
            wtacrs_plan_backward_dl(plan, saved, info.saved_bytes, dz, dw, null(), scratch, bytes, stream),
        );
        let sums = at(13).cast::<f64>();
        expect(
            &["predictor_features_f32", "predictor_sums"],
            wtacrs_norm_predictor_statistics(
                predictor,
                plan,
                saved,
                info.saved_bytes,
                norms,
                guess,
                sums,
                count,
                stream,
            ),
        );
        let (a, b, g, da, db) = (a.pointer(), b.pointer(), g.pointer(), da.pointer(), db.pointer());
        let (saved_bytes, bytes) = (of_product.saved_bytes, of_product.forward_scratch_bytes);
        expect(
            &twice,
            wtacrs_tensor_mul_plan_forward_dl(product, a, b, 1, 2, null(), saved, saved_bytes, scratch, bytes, stream),
        );
        let products = ["gather_gemm", "row_norms_f32", "gather_gemm"];
        let wanted = wtacrs_tensor_mul_backward_options { row_norms: norms, column_norms: guess, ..Default::default() };
        let bytes = of_product.backward_scratch_bytes;
        expect(
            &[&columns, &products[..]].concat(),
            wtacrs_tensor_mul_plan_backward_dl(product, saved, saved_bytes, g, da, db, &wanted, scratch, bytes, stream),
        );
        let added = wtacrs_tensor_mul_backward_options { accumulate: 1, ..Default::default() };
        let (g, da, db) = (at(22), at(23), at(24));
        expect(
            &["gather_gemm", "gather_gemm"],
            wtacrs_tensor_mul_plan_backward(product, saved, saved_bytes, g, da, db, &added, scratch, bytes, stream),
        );
        assert!(others.is_empty(), "{others:#?}");
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_tensor_mul_plan_destroy(product));
        check(wtacrs_plan_destroy(plan));
        check(wtacrs_context_destroy(context));
    }
}

#[test]
fn the_callers_current_context_is_the_plans_or_the_call_is_refused() {
    let installation = installation();
    use_driver(Arc::clone(&installation));
    let calls = installation.calls();
    let mut none = null_mut();
    // SAFETY: an output of one pointer.
    let refused = |ordinal, none: &mut *mut wtacrs_context| unsafe {
        wtacrs_context_create(WTACRS_DEVICE_CUDA, ordinal, std::ptr::null(), none)
    };
    assert_eq!(refused(-1, &mut none), WTACRS_STATUS_NO_DEVICE);
    assert!(last_error().contains("no CUDA context is current"), "{}", last_error());
    assert_eq!(refused(2, &mut none), WTACRS_STATUS_NO_DEVICE);
    assert!(last_error().contains("there is no GPU 2: the CUDA driver finds 2"), "{}", last_error());
    assert!(none.is_null());

    // A framework's own context stays current while another GPU's is opened.
    calls.enter(Context(0x77), 5);
    let (mine, other) = (context(WTACRS_DEVICE_CUDA, -1), context(WTACRS_DEVICE_CUDA, 1));
    let at = without_provenance_mut::<c_void>(1 << 20);
    let norms = |context, at: *mut c_void| {
        let (axis, dtype, to) = (WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, at.wrapping_byte_add(4096).cast());
        // SAFETY: nothing is run, so no pointer is followed.
        unsafe { wtacrs_context_norms(context, axis, dtype, 8, 8, at, 8, to, null_mut()) }
    };
    check(norms(mine, at));
    calls.forget();
    assert_eq!(norms(other, at), WTACRS_STATUS_DEVICE_MISMATCH);
    assert!(last_error().contains("not the one that was opened on GPU 1"), "{}", last_error());
    assert!(calls.list().iter().all(|call| matches!(call, Call::Ask(_))), "{:?}", calls.list());

    // Its memory is made and freed in its own context, and the caller's is current again.
    calls.forget();
    let predictor = predictor(other, IN);
    let entered: Vec<Call> =
        calls.list().into_iter().filter(|call| matches!(call, Call::SetCurrent(_) | Call::Allocate(_))).collect();
    assert!(
        matches!(entered[..], [Call::SetCurrent(Context(0x1001)), Call::Allocate(_), Call::SetCurrent(Context(0x77))]),
        "{entered:?}"
    );
    // Where no context was current, none is afterwards.
    calls.leave();
    calls.forget();
    // SAFETY: handles are never followed.
    check(unsafe { wtacrs_norm_predictor_destroy(predictor) });
    assert_eq!(calls.list(), []);
    let next = calls::predictor(other, IN);
    let entered: Vec<Call> =
        calls.list().into_iter().filter(|call| matches!(call, Call::SetCurrent(_) | Call::Free(_))).collect();
    assert!(
        matches!(entered[..], [Call::SetCurrent(Context(0x1001)), Call::Free(_), Call::SetCurrent(Context(0))]),
        "{entered:?}"
    );
    // SAFETY: as above.
    unsafe {
        check(wtacrs_norm_predictor_destroy(next));
        check(wtacrs_context_destroy(mine));
        check(wtacrs_context_destroy(other));
    }
}

#[test]
fn a_driver_that_fails_is_quoted_in_its_own_words() {
    use_driver(Arc::new(
        Installation::new(Fake { fails: Some("cuModuleLoadDataEx"), ..Fake::default() }).expect("opens"),
    ));
    let mut none = null_mut();
    // SAFETY: an output of one pointer.
    let refused = unsafe { wtacrs_context_create(WTACRS_DEVICE_CUDA, 0, std::ptr::null(), &mut none) };
    assert_eq!(refused, WTACRS_STATUS_CUDA_ERROR);
    assert_eq!(last_error(), "wtacrs_context_create: cuModuleLoadDataEx failed with CUDA_ERROR_FAKE (999)");
    use_driver(Arc::new(Installation::new(Fake { fails: Some("cuLaunchKernel"), ..Fake::default() }).expect("opens")));
    let context = context(WTACRS_DEVICE_CUDA, 0);
    let at = without_provenance_mut::<c_void>(1 << 20);
    let (axis, dtype, to) = (WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, at.wrapping_byte_add(4096).cast());
    // SAFETY: nothing is run, so no pointer is followed.
    let status = unsafe { wtacrs_context_norms(context, axis, dtype, 8, 8, at, 8, to, null_mut()) };
    assert_eq!(status, WTACRS_STATUS_CUDA_ERROR);
    assert!(last_error().contains("cuLaunchKernel of row_norms_f32 failed"), "{}", last_error());
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}

/// A step in a machine's memory, against sums in f64 over the selection that it has made.
fn a_step(machine: &Machine, context: *const wtacrs_context, dtype: wtacrs_dtype, precision: wtacrs_precision) {
    let (on, info) = plan(context, WTACRS_SOURCE_INPUT, dtype, precision);
    let value = |i: usize| ((i * 37 + i / 91 * 5) % 113) as f32 / 56.0 - 1.0;
    let (h, dz): (Vec<f32>, Vec<f32>) =
        ((0..TOKENS * IN).map(value).collect(), (0..TOKENS * OUT).map(|i| value(3 * i + 1)).collect());
    let narrow = |values: &[f32]| -> Vec<u8> {
        match dtype {
            WTACRS_DTYPE_F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            WTACRS_DTYPE_BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    };
    let room = |bytes| machine.filled::<u8>(bytes, 0xff);
    let (h_there, dz_there) = (machine.upload(&narrow(&h)), machine.upload(&narrow(&dz)));
    let (saved, forward, backward) =
        (room(info.saved_bytes), room(info.forward_scratch_bytes), room(info.backward_scratch_bytes));
    let (dw, bias) = (machine.filled::<f32>(IN * OUT, 0xff), machine.filled::<f32>(OUT, 0xff));
    let (mut kept, mut indices, mut scales) = (0, vec![0_u32; TOKENS], vec![0.0; TOKENS]);
    let options = backward_options(0, null_mut(), bias.bytes().cast());
    let chosen = selection(indices.as_mut_ptr(), scales.as_mut_ptr(), TOKENS, &mut kept, null_mut());
    // SAFETY: every pointer is to memory of the documented size and device that lives until all has run.
    unsafe {
        let (kept, bytes, none) = (saved.bytes().cast(), info.saved_bytes, null_mut());
        let (h, work, room) = (h_there.bytes().cast(), forward.bytes().cast(), info.forward_scratch_bytes);
        check(wtacrs_plan_forward(on, h, IN, 4, 5, null(), kept, bytes, work, room, none));
        let (dz, dw) = (dz_there.bytes().cast(), dw.bytes().cast());
        let (work, room) = (backward.bytes().cast(), info.backward_scratch_bytes);
        check(wtacrs_plan_backward(on, kept, bytes, dz, OUT, dw, OUT, &options, work, room, none));
        check(wtacrs_plan_saved_selection(on, kept, bytes, &chosen));
    }
    assert_eq!(kept, 60);
    let exactly = |values: &[f32]| -> Vec<f64> {
        let narrowed = |v: f32| match dtype {
            WTACRS_DTYPE_F16 => half::f16::from_f32(v).to_f64(),
            WTACRS_DTYPE_BF16 => half::bf16::from_f32(v).to_f64(),
            _ => f64::from(v),
        };
        values.iter().map(|&v| narrowed(v)).collect()
    };
    let (h, dz) = (exactly(&h), exactly(&dz));
    // A saved row is rounded once more with its scale, and for tf32 both factors are; sums are in f32.
    let unit = match dtype {
        WTACRS_DTYPE_F32 if precision == WTACRS_PRECISION_TF32 => 2f64.powi(-10),
        WTACRS_DTYPE_F16 => 2f64.powi(-11),
        WTACRS_DTYPE_BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    };
    let mut farthest = 0_f64;
    for (at, &found) in machine.download(&dw).iter().enumerate() {
        let (i, j) = (at / OUT, at % OUT);
        let (mut sum, mut size) = (0.0, 0.0);
        for (&token, scale) in indices.iter().zip(&scales).take(kept as usize) {
            let term = scale * h[token as usize * IN + i] * dz[token as usize * OUT + j];
            (sum, size) = (sum + term, size + term.abs());
        }
        let bound = (unit + 2f64.powi(-24) * (kept as f64 + 8.0)) * size;
        assert!((f64::from(found) - sum).abs() <= bound, "dtype {dtype}, ({i}, {j}): {found} for {sum} ± {bound}");
        farthest = farthest.max((f64::from(found) - sum).abs() / size);
    }
    for (j, &found) in machine.download(&bias).iter().enumerate() {
        let column = || dz.iter().skip(j).step_by(OUT);
        let (sum, size) = (column().sum::<f64>(), column().map(|v| v.abs()).sum::<f64>());
        let bound = 2f64.powi(-24) * TOKENS as f64 * size;
        assert!((f64::from(found) - sum).abs() <= bound, "dtype {dtype}, bias {j}: {found} for {sum} ± {bound}");
    }
    if precision == WTACRS_PRECISION_TF32 {
        assert!(farthest > 2f64.powi(-20), "no factor was rounded to tf32: {farthest}");
    }
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_plan_destroy(on));
    }
}

#[test]
fn a_step_of_every_dtype_on_the_emulator() {
    use_emulator();
    let context = context(WTACRS_DEVICE_CUDA, 0);
    for dtype in [WTACRS_DTYPE_F32, WTACRS_DTYPE_F16, WTACRS_DTYPE_BF16] {
        a_step(&Machine::emulator(0), context, dtype, WTACRS_PRECISION_F32);
    }
    a_step(&Machine::emulator(0), context, WTACRS_DTYPE_F32, WTACRS_PRECISION_TF32);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}

/// Skipped with a message if there is no GPU; with WTACRS_REQUIRE_GPU=1 it fails instead.
#[test]
fn a_step_of_every_dtype_on_a_gpu() {
    let Some(machine) = Machine::gpu() else { return };
    let context = context(WTACRS_DEVICE_CUDA, -1);
    for dtype in [WTACRS_DTYPE_F32, WTACRS_DTYPE_F16, WTACRS_DTYPE_BF16] {
        a_step(&machine, context, dtype, WTACRS_PRECISION_F32);
    }
    a_step(&machine, context, WTACRS_DTYPE_F32, WTACRS_PRECISION_TF32);
    let predictor = predictor(context, IN);
    assert!(!predictor_bytes(predictor).is_empty());
    // SAFETY: handles are never followed.
    unsafe {
        check(wtacrs_norm_predictor_destroy(predictor));
        check(wtacrs_context_destroy(context));
    }
}

const BATCH: usize = 2;
const HEADS: usize = 3;
const ROWS: usize = 40;
const INNER: usize = 16;
const COLUMNS: usize = 24;

/// The matrices (batch, heads, rows, columns) of a buffer in that order, or in the order (batch, rows, heads, columns).
#[derive(Clone, Copy)]
struct Layout {
    sizes: [usize; 2],
    are_heads_inside: bool,
}

impl Layout {
    fn strides(self) -> [usize; 4] {
        let [rows, columns] = self.sizes;
        let sample = HEADS * rows * columns;
        if self.are_heads_inside { [sample, columns, HEADS * columns, 1] } else { [sample, rows * columns, columns, 1] }
    }

    /// The places of all elements, in the order (batch, heads, rows, columns).
    fn places(self) -> Vec<usize> {
        let sizes = [BATCH, HEADS, self.sizes[0], self.sizes[1]];
        let place = |mut at: usize| {
            let mut place = 0;
            for axis in (0..4).rev() {
                place += at % sizes[axis] * self.strides()[axis];
                at /= sizes[axis];
            }
            place
        };
        (0..sizes.iter().product()).map(place).collect()
    }

    /// Its shape and strides as DLPack's; of the transposed matrices, if asked.
    fn axes(self, is_transposed: bool) -> [[i64; 4]; 2] {
        let mut axes = [[BATCH, HEADS, self.sizes[0], self.sizes[1]], self.strides()];
        if is_transposed {
            axes.iter_mut().for_each(|axis| axis.swap(2, 3));
        }
        axes.map(|axis| axis.map(|size| size as i64))
    }
}

fn dltensor(data: *mut c_void, code: u8, bits: u8, [shape, strides]: &mut [[i64; 4]; 2]) -> wtacrs_dltensor {
    wtacrs_dltensor {
        data,
        device: wtacrs_dldevice { device_type: 2, device_id: 0 },
        ndim: 4,
        dtype: wtacrs_dldatatype { code, bits, lanes: 1 },
        shape: shape.as_mut_ptr(),
        strides: strides.as_mut_ptr(),
        byte_offset: 0,
    }
}

/// Attention's scores, all of whose matrices lie so: dA and dB, and the norms of G's rows and columns.
fn scores(machine: &Machine, context: *const wtacrs_context, are_heads_inside: bool) -> [Vec<f32>; 4] {
    let [of_a, of_b, of_g, of_db] = [[ROWS, INNER], [COLUMNS, INNER], [ROWS, COLUMNS], [INNER, COLUMNS]]
        .map(|sizes| Layout { sizes, are_heads_inside });
    let upload = |layout: Layout, seed: usize| {
        let places = layout.places();
        let mut values = vec![half::bf16::NAN; places.len()];
        for (i, place) in places.into_iter().enumerate() {
            values[place] = half::bf16::from_f32(((i * 37 + i / 91 * 5 + seed) % 113) as f32 / 56.0 - 1.0);
        }
        machine.upload(&values)
    };
    let (a, b, g) = (upload(of_a, 1), upload(of_b, 2), upload(of_g, 3));
    let room = |layout: Layout| machine.filled::<f32>(layout.places().len(), 0xff);
    let (da, db) = (room(of_a), room(of_db));
    let (row_norms, column_norms) =
        (machine.filled::<f32>(BATCH * HEADS * ROWS, 0xff), machine.filled::<f32>(BATCH * HEADS * COLUMNS, 0xff));
    let mut axes = [of_a.axes(false), of_b.axes(true), of_g.axes(false), of_a.axes(false), of_db.axes(false)];
    let [a_axes, b_axes, g_axes, da_axes, db_axes] = &mut axes;
    let a_there = dltensor(a.bytes().cast(), 4, 16, a_axes);
    let b_there = dltensor(b.bytes().cast(), 4, 16, b_axes);
    let g_there = dltensor(g.bytes().cast(), 4, 16, g_axes);
    let da_there = dltensor(da.bytes().cast(), 2, 32, da_axes);
    let db_there = dltensor(db.bytes().cast(), 2, 32, db_axes);
    // SAFETY: a handle is never followed.
    let (plan, info) = product_with(context, |product| unsafe {
        check(wtacrs_tensor_mul_set_shape(product, BATCH, HEADS, ROWS, INNER, COLUMNS));
        check(wtacrs_tensor_mul_set_dtypes(product, WTACRS_DTYPE_BF16, WTACRS_DTYPE_BF16));
        check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 7.0));
        check(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 9.0));
    });
    let [saved, forward, backward] = [info.saved_bytes, info.forward_scratch_bytes, info.backward_scratch_bytes]
        .map(|bytes| machine.filled::<u8>(bytes, 0xff));
    let wanted = wtacrs_tensor_mul_backward_options {
        row_norms: row_norms.pointer(),
        column_norms: column_norms.pointer(),
        ..Default::default()
    };
    // SAFETY: every pointer is to memory of the documented size that lives until all has run.
    unsafe {
        let (kept, bytes, none) = (saved.bytes().cast(), info.saved_bytes, null_mut());
        let (a, b, work, room) = (&a_there, &b_there, forward.bytes().cast(), info.forward_scratch_bytes);
        check(wtacrs_tensor_mul_plan_forward_dl(plan, a, b, 9, 0, null(), kept, bytes, work, room, none));
        let (g, da, db) = (&g_there, &da_there, &db_there);
        let (work, room) = (backward.bytes().cast(), info.backward_scratch_bytes);
        check(wtacrs_tensor_mul_plan_backward_dl(plan, kept, bytes, g, da, db, &wanted, work, room, none));
        check(wtacrs_tensor_mul_plan_destroy(plan));
    }
    let download = |buffer, layout: Layout| {
        let values = machine.download(buffer);
        layout.places().into_iter().map(|place| values[place]).collect()
    };
    [download(&da, of_a), download(&db, of_db), machine.download(&row_norms), machine.download(&column_norms)]
}

/// A framework's views of (batch, rows, heads, channels) buffers need no copies.
#[test]
fn heads_within_rows_give_the_bits_of_dense_ones() {
    use_emulator();
    let context = context(WTACRS_DEVICE_CUDA, 0);
    let machine = Machine::emulator(0);
    let (dense, inside) = (scores(&machine, context, false), scores(&machine, context, true));
    assert!(dense.iter().flatten().all(|value| value.is_finite()));
    assert_eq!(inside, dense);
    // SAFETY: a handle is never followed.
    check(unsafe { wtacrs_context_destroy(context) });
}
