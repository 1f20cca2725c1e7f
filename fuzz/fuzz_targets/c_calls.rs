//! Calls of the C interface with raw pointers, in any order, with any handles: living, destroyed, of another kind, made
//! up; with structs of any size. Every call keeps the promises of `wtacrs_fuzz::memory`, and a wrong handle is refused.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ffi::CStr;
use std::ptr::{null, null_mut};
use wtacrs::*;
use wtacrs_fuzz::handles::{Kind, Model, Pick, SMALL, Size, bytes_of, extent};
use wtacrs_fuzz::memory::Place;
use wtacrs_fuzz::structs::Form;
use wtacrs_fuzz::world::{Amount, Change, ProductSetting, Saved, Setting, World, fewer, rows_of, stream, with_gap};

#[derive(Arbitrary, Debug)]
struct Input {
    shape: [Size; 3],
    budget: Size,
    source: u8,
    dtype: u8,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
enum Call {
    CreateContext {
        device: i8,
        ordinal: i8,
        threads: u8,
    },
    CreateLayer,
    Set(Pick, Setting),
    CreatePlan(Pick, Pick),
    CreateCache {
        context: Pick,
        bounds: [Size; 2],
    },
    CreatePredictor {
        context: Pick,
        in_features: Size,
        sizes: [Size; 2],
        numbers: [u8; 3],
        seed: u64,
        form: Form,
    },
    Destroy(u8, Pick),
    Forward {
        plan: Pick,
        h: Place,
        gap: u8,
        options: Options,
        saved: Place,
        less: u8,
        draws: (u64, u64),
    },
    Backward {
        plan: Pick,
        saved: Saved,
        less: u8,
        dz: Place,
        dw: Place,
        gap: u8,
        flag: u8,
        more: [Place; 3],
        form: Form,
    },
    SavedSelection {
        plan: Pick,
        saved: Saved,
        places: [Place; 4],
        capacity: Size,
        form: Form,
    },
    Select {
        plan: Pick,
        norms: Place,
        guess: Place,
        places: [Place; 4],
        capacity: Size,
        draws: (u64, u64, u32),
        form: Form,
    },
    Weights {
        plan: Pick,
        norms: Place,
        guess: Place,
        weights: Place,
    },
    Gather {
        plan: Pick,
        h: Place,
        indices: Vec<u8>,
        rows: Place,
        gap: u8,
        form: Form,
    },
    Gradient {
        plan: Pick,
        rows: Place,
        indices: Vec<u8>,
        scales: Place,
        dz: Place,
        dw: Place,
        gap: u8,
        flag: u8,
        scratch: Place,
        form: Form,
    },
    Estimate {
        plan: Pick,
        x: Place,
        y: Place,
        out: Place,
        gap: u8,
        scratch: Place,
        less: u8,
    },
    Theory {
        plan: Pick,
        weights: Place,
        pairs: Place,
        places: [Place; 4],
    },
    ExpectedError {
        plan: Pick,
        h: Place,
        dz: Place,
        gap: u8,
        weights: Place,
        places: [Place; 3],
    },
    Norms {
        context: Pick,
        axis: u8,
        dtype: i8,
        shape: [Size; 2],
        gap: u8,
        x: Place,
        norms: Place,
    },
    Learn {
        predictor: Pick,
        plan: Pick,
        saved: Saved,
        norms: Place,
        cached: Place,
        sums: Place,
        less: u8,
        at_once: bool,
    },
    Apply {
        predictor: Pick,
        sums: Place,
        more: u8,
    },
    Outcome {
        predictor: bool,
        handle: Pick,
        places: [Place; 2],
    },
    Samples {
        cache: Pick,
        ids: Vec<(u8, u8)>,
        equal: bool,
        row: u8,
        norms: Place,
        what: u8,
        more: i8,
    },
    SaveAndLoad {
        predictor: bool,
        handles: [Pick; 2],
        place: Place,
        change: Change,
    },
    Info {
        product: bool,
        plan: Pick,
        form: Form,
    },
    CreateProduct,
    SetProduct(Pick, ProductSetting),
    CreateProductPlan(Pick, Pick),
    ProductForward {
        plan: Pick,
        a: Place,
        b: Place,
        guesses: [Place; 2],
        saved: Place,
        less: u8,
        draws: (u64, u64),
        form: Form,
    },
    ProductBackward {
        plan: Pick,
        saved: Saved,
        less: u8,
        g: Place,
        places: [Place; 4],
        flag: u8,
        scratch: Place,
        form: Form,
    },
    Words(i32),
}

/// What a layer's forward pass is given beside H.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Options {
    /// Mostly what the source takes.
    by_source: u8,
    guess: Place,
    predictor: Pick,
    form: Form,
}

fn run(world: &mut World, call: &Call) -> Option<()> {
    match *call {
        Call::CreateContext { device, ordinal, threads } => {
            let ordinal = i32::from(ordinal);
            // CUDA is opened by other tests.
            let device = if device == 1 { 0 } else { i32::from(device) };
            let options = wtacrs_context_options {
                size: size_of::<wtacrs_context_options>(),
                // Few, or more than a pool has.
                threads: if threads == u8::MAX { usize::MAX } else { usize::from(threads % 3) },
            };
            // SAFETY: options that carry their size, and an output of one pointer.
            world.create(Kind::Context, "wtacrs_context_create", Model::default(), |out| unsafe {
                wtacrs_context_create(device, ordinal, &raw const options, out)
            });
        }
        Call::CreateLayer => {
            let model = Model { source: WTACRS_SOURCE_PREDICTED, ..Model::default() };
            // SAFETY: an output of one pointer.
            world.create(Kind::Layer, "wtacrs_layer_create", model, |out| unsafe { wtacrs_layer_create(out) });
        }
        Call::Set(layer, setting) => world.set(layer, setting),
        Call::CreatePlan(context, layer) => world.create_plan(context, layer),
        Call::CreateCache { context, bounds } => {
            let context = world.handles.choose(context, Kind::Context);
            let [samples, tokens] = bounds.map(Size::get);
            let model = Model { shape: [samples, tokens, 0, 0, 0], ..Model::default() };
            // SAFETY: an output of one pointer.
            let status = world.create(Kind::Cache, "wtacrs_norm_cache_create", model, |out| unsafe {
                wtacrs_norm_cache_create(context.pointer(), samples, tokens, out)
            });
            world.refused(status, &[context]);
            assert!(status == WTACRS_STATUS_OK || context.known.is_none(), "the CPU has room for any cache");
        }
        Call::CreatePredictor { context, in_features, sizes, numbers, seed, form } => {
            let (inner, [features, rows_per_update]) = (in_features.get(), sizes.map(Size::get));
            // What is accepted and large takes time, and no check.
            if (SMALL + 1..=1 << 24).contains(&inner) || (SMALL + 1..=1 << 14).contains(&features) {
                return None;
            }
            // Zero, what is allowed, or what is not.
            let [forgetting, ridge, clamp] = numbers.map(|number| match number {
                0..64 => 0.0,
                64..248 => f64::from(number) / 256.0,
                248.. => [-0.5, 1.5, 30.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, -0.0, 1e300]
                    [usize::from(number) - 248],
            });
            let settings = wtacrs_norm_predictor_options {
                features,
                forgetting,
                ridge,
                clamp,
                rows_per_update,
                seed,
                ..Default::default()
            };
            let settings = form.given(&mut world.memory, settings);
            let model = Model { shape: [0, inner, 0, 0, 0], ..Model::default() };
            let context = world.handles.choose(context, Kind::Context);
            // SAFETY: a struct of the size that it says, and an output of one pointer.
            let status = world.create(Kind::Predictor, "wtacrs_norm_predictor_create", model, |out| unsafe {
                wtacrs_norm_predictor_create(context.pointer(), inner, settings.pointer, out)
            });
            world.refused(status, &[context]);
            assert!(status != WTACRS_STATUS_OK || settings.is_readable_or_null());
        }
        Call::Destroy(kind, pick) => world.destroy(kind, pick),
        Call::Forward { plan, h, gap, options, saved, less, draws: (seed, offset) } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, ..] = m.shape;
            let leading = with_gap(inner, gap);
            let h = world.memory.place(h, extent(tokens, inner, leading, bytes_of(m.dtypes[0])), bytes_of(m.dtypes[0]));
            let Options { by_source, guess, predictor, form } = options;
            let is_any = by_source >= 224;
            let takes_guess = is_any || m.source != WTACRS_SOURCE_INPUT;
            let takes_predictor = is_any || m.source == WTACRS_SOURCE_PREDICTED;
            let guess = world.memory.place(if takes_guess { guess } else { Place::Null }, tokens * 4, 4);
            let chosen = world.handles.choose(predictor, Kind::Predictor);
            let predictor = if takes_predictor { chosen.pointer() } else { null() };
            let given = wtacrs_forward_options { guess: guess.cast(), predictor, ..Default::default() };
            let first = std::mem::offset_of!(wtacrs_forward_options, weights);
            let given = form.given_since(&mut world.memory, given, first);
            let (output, room) = world.room_to_save(saved, m.saved, less);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_forward", &[output], &[], || unsafe {
                let (plan, h, saved) = (plan.pointer(), h.cast(), output.0.cast());
                wtacrs_plan_forward(plan, h, leading, seed, offset, given.pointer, saved, room, null_mut(), 0, stream())
            });
            world.refused(status, &[plan]);
            if status == WTACRS_STATUS_OK {
                assert!(given.is_readable_or_null());
                let (has_guess, has_predictor) =
                    (!form.is_null() && !guess.is_null(), !form.is_null() && !predictor.is_null());
                match m.source {
                    WTACRS_SOURCE_INPUT => assert!(!has_guess && !has_predictor),
                    WTACRS_SOURCE_PREDICTED if has_predictor => assert!(chosen.known.is_some()),
                    WTACRS_SOURCE_PREDICTED => assert!(m.keeps_all),
                    _ => assert!((has_guess || tokens == 0 || m.keeps_all) && !has_predictor),
                }
            }
        }
        Call::Backward { plan, saved, less, dz, dw, gap, flag, more: [norms, bias, scratch], form } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, outer, ..] = m.shape;
            let [_, of_dz, of_dw] = m.dtypes.map(bytes_of);
            let leading = with_gap(outer, gap);
            let (saved, room) = world.saved(saved, m.saved);
            let room = fewer(room, less);
            let dz = world.memory.place(dz, extent(tokens, outer, leading, of_dz), of_dz);
            let dw = world.memory.place(dw, extent(inner, outer, leading, of_dw), of_dw);
            let norms = world.memory.place(norms, tokens * 4, 4);
            let bias = world.memory.place(bias, outer * of_dw, of_dw);
            let scratch = world.memory.place(scratch, m.backward_scratch, 8);
            let mut outputs = rows_of(dw, inner, outer, leading, of_dw);
            if !form.is_null() {
                outputs.extend([(norms, tokens * 4), (bias, outer * of_dw)]);
            }
            let given = wtacrs_backward_options {
                accumulate: i32::from(flag % 3),
                dz_norms: norms.cast(),
                bias_gradient: bias.cast(),
                ..Default::default()
            };
            let given = form.given(&mut world.memory, given);
            let work = [(scratch, m.backward_scratch)];
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_backward", &outputs, &work, || unsafe {
                let (plan, saved, dz, dw) = (plan.pointer(), saved.cast(), dz.cast(), dw.cast());
                let (options, work, bytes) = (given.pointer, scratch.cast(), m.backward_scratch);
                wtacrs_plan_backward(plan, saved, room, dz, leading, dw, leading, options, work, bytes, stream())
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || given.is_readable_or_null() && (form.is_null() || flag % 3 < 2));
        }
        Call::SavedSelection { plan, saved, places, capacity, form } => {
            let (plan, m) = world.plan(plan)?;
            let (saved, room) = world.saved(saved, m.saved);
            let (selection, outputs) = world.selection(places, capacity.get(), form);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_saved_selection", &outputs, &[], || unsafe {
                wtacrs_plan_saved_selection(plan.pointer(), saved.cast(), room, selection.pointer)
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || selection.is_readable);
        }
        Call::Select { plan, norms, guess, places, capacity, draws: (seed, offset, item), form } => {
            let (plan, m) = world.plan(plan)?;
            let tokens = m.shape[0];
            let norms = world.memory.place(norms, tokens * 4, 4);
            let guess = world.memory.place(if m.source % 3 == 0 { Place::Null } else { guess }, tokens * 4, 4);
            let (selection, outputs) = world.selection(places, capacity.get(), form);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_select", &outputs, &[], || unsafe {
                let (plan, norms, guess, none) = (plan.pointer(), norms.cast(), guess.cast(), null_mut());
                wtacrs_plan_select(plan, norms, guess, seed, offset, item, selection.pointer, none, 0, stream())
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || selection.is_readable && (!m.keeps_all || tokens == 0));
        }
        Call::Weights { plan, norms, guess, weights } => {
            let (plan, m) = world.plan(plan)?;
            let tokens = m.shape[0];
            let norms = world.memory.place(norms, tokens * 4, 4);
            let guess = world.memory.place(if m.source % 3 == 0 { Place::Null } else { guess }, tokens * 4, 4);
            let weights = world.memory.place(weights, tokens * 8, 8);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_weights", &[(weights, tokens * 8)], &[], || unsafe {
                wtacrs_plan_weights(plan.pointer(), norms.cast(), guess.cast(), weights.cast(), stream())
            });
            world.refused(status, &[plan]);
        }
        Call::Gather { plan, h, ref indices, rows, gap, form } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, ..] = m.shape;
            let (size, leading) = (bytes_of(m.dtypes[0]), with_gap(inner, gap));
            let h = world.memory.place(h, extent(tokens, inner, leading, size), size);
            let indices: Vec<u32> = indices.iter().take(SMALL + 1).map(|&i| u32::from(i)).collect();
            let kept = indices.len() as u64;
            let rows = world.memory.place(rows, extent(indices.len(), inner, leading, size), size);
            let outputs = rows_of(rows, indices.len(), inner, leading, size);
            let selection = world.given_selection(&indices, null(), &kept, form);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_gather", &outputs, &[], || unsafe {
                let (plan, h, rows) = (plan.pointer(), h.cast(), rows.cast());
                wtacrs_plan_gather(plan, h, leading, selection.pointer, rows, leading, stream())
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || selection.is_readable && !m.is_packed);
        }
        Call::Gradient { plan, rows, ref indices, scales, dz, dw, gap, flag, scratch, form } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, outer, ..] = m.shape;
            let [of_h, of_dz, of_dw] = m.dtypes.map(bytes_of);
            let leading = with_gap(inner.max(outer), gap);
            let indices: Vec<u32> = indices.iter().take(SMALL + 1).map(|&i| u32::from(i)).collect();
            let kept = indices.len() as u64;
            let rows = world.memory.place(rows, extent(indices.len(), inner, leading, of_h), of_h);
            let scales = world.memory.place(scales, indices.len() * 8, 8);
            let dz = world.memory.place(dz, extent(tokens, outer, leading, of_dz), of_dz);
            let dw = world.memory.place(dw, extent(inner, outer, leading, of_dw), of_dw);
            let scratch = world.memory.place(scratch, m.gradient_scratch, 8);
            let (outputs, work) = (rows_of(dw, inner, outer, leading, of_dw), [(scratch, m.gradient_scratch)]);
            let selection = world.given_selection(&indices, scales.cast(), &kept, form);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_weight_gradient", &outputs, &work, || unsafe {
                let (plan, rows, chosen, dz, dw) =
                    (plan.pointer(), rows.cast(), selection.pointer, dz.cast(), dw.cast());
                let (flag, work, bytes) = (i32::from(flag % 3), scratch.cast(), m.gradient_scratch);
                wtacrs_plan_weight_gradient(
                    plan,
                    rows,
                    leading,
                    chosen,
                    dz,
                    leading,
                    dw,
                    leading,
                    flag,
                    work,
                    bytes,
                    stream(),
                )
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || selection.is_readable && flag % 3 < 2 && !m.is_packed);
        }
        Call::Estimate { plan, x, y, out, gap, scratch, less } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, outer, ..] = m.shape;
            let [of_x, of_y, of_out] = m.dtypes.map(bytes_of);
            let leading = with_gap(inner.max(outer), gap);
            let x = world.memory.place(x, extent(tokens, inner, leading, of_x), of_x);
            let y = world.memory.place(y, extent(tokens, outer, leading, of_y), of_y);
            let out = world.memory.place(out, extent(inner, outer, leading, of_out), of_out);
            let scratch = world.memory.place(scratch, m.estimate_scratch, 8);
            let room = fewer(m.estimate_scratch, less);
            let outputs = rows_of(out, inner, outer, leading, of_out);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_estimate", &outputs, &[(scratch, room)], || unsafe {
                let (plan, x, y, out) = (plan.pointer(), x.cast(), y.cast(), out.cast());
                wtacrs_plan_estimate(plan, x, leading, y, leading, 1, 0, out, leading, scratch.cast(), room, stream())
            });
            world.refused(status, &[plan]);
        }
        Call::Theory { plan, weights, pairs, places } => {
            let (plan, m) = world.plan(plan)?;
            let weights = world.memory.place(weights, m.shape[0] * 8, 8);
            let pairs = world.memory.place(pairs, m.shape[0] * 8, 8);
            let outputs = places.map(|place| (world.memory.place(place, 8, 8), 8));
            let [threshold, winners, rows, error] = outputs.map(|(start, _)| start);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_theory", &outputs, &[], || unsafe {
                let (weights, pairs) = (weights.cast(), pairs.cast());
                let (threshold, rows, error) = (threshold.cast(), rows.cast(), error.cast());
                wtacrs_plan_theory(plan.pointer(), weights, pairs, threshold, winners.cast(), rows, error)
            });
            world.refused(status, &[plan]);
        }
        Call::ExpectedError { plan, h, dz, gap, weights, places } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, outer, ..] = m.shape;
            let [of_h, of_dz, _] = m.dtypes.map(bytes_of);
            let leading = with_gap(inner.max(outer), gap);
            let h = world.memory.place(h, extent(tokens, inner, leading, of_h), of_h);
            let dz = world.memory.place(dz, extent(tokens, outer, leading, of_dz), of_dz);
            let weights = world.memory.place(weights, tokens * 8, 8);
            let outputs = places.map(|place| (world.memory.place(place, 8, 8), 8));
            let [error, exact, norm] = outputs.map(|(start, _)| start);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_expected_error", &outputs, &[], || unsafe {
                let (plan, h, dz, weights) = (plan.pointer(), h.cast(), dz.cast(), weights.cast());
                let (error, exact, norm) = (error.cast(), exact.cast(), norm.cast());
                wtacrs_plan_expected_error(plan, h, leading, dz, leading, weights, error, exact, norm)
            });
            world.refused(status, &[plan]);
        }
        Call::Norms { context, axis, dtype, shape: [rows, columns], gap, x, norms } => {
            let (rows, columns) = (rows.get(), columns.get());
            // Mostly one that there is.
            let axis = if axis < 248 { i32::from(axis % 2) } else { i32::from(axis) - 250 };
            let count = if axis == WTACRS_AXIS_COLUMNS { columns } else { rows };
            // Many norms of nothing are a valid call that needs much memory.
            if (columns == 0 || rows == 0) && count > SMALL {
                return None;
            }
            let context = world.handles.choose(context, Kind::Context);
            let (dtype, leading) = (i32::from(dtype % 6), with_gap(columns, gap));
            let x = world.memory.place(x, extent(rows, columns, leading, bytes_of(dtype)), bytes_of(dtype));
            let bytes = count.saturating_mul(4);
            let norms = world.memory.place(norms, bytes, 4);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_context_norms", &[(norms, bytes)], &[], || unsafe {
                let (context, x, norms) = (context.pointer(), x.cast(), norms.cast());
                wtacrs_context_norms(context, axis, dtype, rows, columns, x, leading, norms, stream())
            });
            world.refused(status, &[context]);
            assert!(status != WTACRS_STATUS_OK || matches!(axis, 0 | 1));
        }
        Call::Learn { predictor, plan, saved, norms, cached, sums, less, at_once } => {
            let (plan, m) = world.plan(plan)?;
            let predictor = world.handles.choose(predictor, Kind::Predictor);
            let (saved, room) = world.saved(saved, m.saved);
            let norms = world.memory.place(norms, m.shape[0] * 4, 4);
            let cached = world.memory.place(cached, m.shape[0] * 4, 4);
            let count = fewer(world.sums_of(predictor), less);
            let sums = world.memory.place(sums, count * 8, 8);
            let outputs = if at_once { vec![] } else { vec![(sums, count * 8)] };
            let function = if at_once { "wtacrs_norm_predictor_update" } else { "wtacrs_norm_predictor_statistics" };
            // SAFETY: memory as documented.
            let status = world.memory.call(function, &outputs, &[], || unsafe {
                let (it, plan, saved) = (predictor.pointer(), plan.pointer(), saved.cast());
                let (norms, cached, sums) = (norms.cast(), cached.cast(), sums.cast());
                match at_once {
                    true => wtacrs_norm_predictor_update(it, plan, saved, room, norms, cached, stream()),
                    false => {
                        wtacrs_norm_predictor_statistics(it, plan, saved, room, norms, cached, sums, count, stream())
                    }
                }
            });
            world.refused(status, &[plan, predictor]);
        }
        Call::Apply { predictor, sums, more } => {
            let predictor = world.handles.choose(predictor, Kind::Predictor);
            let count = world.sums_of(predictor) + usize::from(more).saturating_sub(250);
            let sums = world.memory.place(sums, count * 8, 8);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_norm_predictor_apply", &[], &[], || unsafe {
                wtacrs_norm_predictor_apply(predictor.pointer(), sums.cast(), count, stream())
            });
            world.refused(status, &[predictor]);
        }
        Call::Outcome { predictor, handle, places } => {
            let chosen = world.handles.choose(handle, if predictor { Kind::Predictor } else { Kind::Cache });
            let sizes = if predictor { [4, 4] } else { [4, 8] };
            let [first, second] = [0, 1].map(|at| world.memory.place(places[at], sizes[at], 4));
            let function = if predictor { "wtacrs_norm_predictor_outcome" } else { "wtacrs_norm_cache_outcome" };
            let outputs = [(first, sizes[0]), (second, sizes[1])];
            // SAFETY: memory as documented.
            let status = world.memory.call(function, &outputs, &[], || unsafe {
                match predictor {
                    true => wtacrs_norm_predictor_outcome(chosen.pointer(), first.cast(), second.cast()),
                    false => wtacrs_norm_cache_outcome(chosen.pointer(), first.cast(), second.cast()),
                }
            });
            world.refused(status, &[chosen]);
            if status == WTACRS_STATUS_OK && !first.is_null() {
                // SAFETY: just written.
                let found = unsafe { first.cast::<u32>().read() };
                assert!(found <= if predictor { 2 } else { 0 }, "the CPU's calls have returned every fault: {found}");
            }
        }
        Call::Samples { cache, ref ids, equal, row, norms, what, more } => {
            let cache = world.handles.choose(cache, Kind::Cache);
            let ids = &ids[..ids.len().min(SMALL)];
            let samples: Vec<u64> = ids.iter().map(|&(id, _)| u64::from(id % 8)).collect();
            let length = |length: u8| if length > 252 { u64::MAX - u64::from(length) } else { u64::from(length % 20) };
            let lengths: Vec<u64> = ids.iter().map(|&(_, tokens)| length(tokens)).collect();
            let row = usize::from(row % 24);
            let total = match row {
                0 => lengths.iter().map(|&length| length.min(64) as usize).sum(),
                row => ids.len() * row,
            };
            let total = total.saturating_add_signed(isize::from(more / 32));
            let norms = world.memory.place(norms, total * 4, 4);
            let (at, long, count) = (samples.as_ptr(), if equal { null() } else { lengths.as_ptr() }, ids.len());
            // SAFETY: memory as documented.
            let status = match what % 3 {
                0 => world.memory.call("wtacrs_norm_cache_fetch", &[(norms, total * 4)], &[], || unsafe {
                    wtacrs_norm_cache_fetch(cache.pointer(), at, long, count, row, norms.cast(), total, stream())
                }),
                // SAFETY: as above.
                1 => world.memory.call("wtacrs_norm_cache_store", &[], &[], || unsafe {
                    wtacrs_norm_cache_store(cache.pointer(), at, long, count, row, norms.cast(), total, stream())
                }),
                // SAFETY: as above.
                _ => world.memory.call("wtacrs_norm_cache_forget", &[], &[], || unsafe {
                    wtacrs_norm_cache_forget(cache.pointer(), at, count, stream())
                }),
            };
            world.refused(status, &[cache]);
            let [most_samples, most_tokens, ..] = world.handles.model(cache).shape;
            if status == WTACRS_STATUS_OK && what % 3 < 2 {
                let is_within = |(&id, &length): (&u64, &u64)| {
                    (id as usize) < most_samples && (if equal { row } else { length as usize }) <= most_tokens
                };
                assert!(samples.iter().zip(&lengths).all(is_within), "beyond the cache's bounds");
            }
        }
        Call::SaveAndLoad { predictor, handles, place, change } => {
            world.save_and_load(predictor, handles, place, change);
        }
        Call::Info { product, plan, form } => world.info(product, plan, form),
        Call::CreateProduct => {
            // SAFETY: an output of one pointer.
            world.create(Kind::TensorMul, "wtacrs_tensor_mul_create", Model::default(), |out| unsafe {
                wtacrs_tensor_mul_create(out)
            });
        }
        Call::SetProduct(product, setting) => world.set_product(product, setting),
        Call::CreateProductPlan(context, product) => world.create_product_plan(context, product),
        Call::ProductForward { plan, a, b, guesses, saved, less, draws: (seed, offset), form } => {
            let (plan, m) = world.plan_of(plan, Kind::TensorMulPlan)?;
            let [batch, heads, rows, inner, columns] = m.shape;
            let (items, size) = (batch * heads, bytes_of(m.dtypes[0]));
            let a = world.memory.place(a, items * rows * inner * size, size);
            let b = world.memory.place(b, items * inner * columns * size, size);
            let [by_row, by_column] = guesses;
            let given = wtacrs_tensor_mul_forward_options {
                row_guess: world.memory.place(by_row, items * rows * 4, 4).cast(),
                column_guess: world.memory.place(by_column, items * columns * 4, 4).cast(),
                ..Default::default()
            };
            let given = form.given(&mut world.memory, given);
            let (output, room) = world.room_to_save(saved, m.saved, less);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_tensor_mul_plan_forward", &[output], &[], || unsafe {
                let (plan, a, b, saved, none) = (plan.pointer(), a.cast(), b.cast(), output.0.cast(), null_mut());
                let options = given.pointer;
                wtacrs_tensor_mul_plan_forward(plan, a, b, seed, offset, options, saved, room, none, 0, stream())
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || given.is_readable_or_null());
        }
        Call::ProductBackward { plan, saved, less, g, places, flag, scratch, form } => {
            let (plan, m) = world.plan_of(plan, Kind::TensorMulPlan)?;
            let [batch, heads, rows, inner, columns] = m.shape;
            let (items, of_g) = (batch * heads, bytes_of(m.dtypes[1]));
            let of_sums = if m.dtypes[0] == WTACRS_DTYPE_F64 { 8 } else { 4 };
            let (saved, room) = world.saved(saved, m.saved);
            let room = fewer(room, less);
            let g = world.memory.place(g, items * rows * columns * of_g, of_g);
            let sizes = [
                items * rows * inner * of_sums,
                items * inner * columns * of_sums,
                items * rows * 4,
                items * columns * 4,
            ];
            let mut outputs = vec![];
            for (place, bytes) in places.into_iter().zip(sizes) {
                outputs.push((world.memory.place(place, bytes, 4), bytes));
            }
            let [da, db, by_row, by_column] = [0, 1, 2, 3].map(|at: usize| outputs[at].0);
            if form.is_null() {
                outputs.truncate(2);
            }
            let given = wtacrs_tensor_mul_backward_options {
                accumulate: i32::from(flag % 3),
                row_norms: by_row.cast(),
                column_norms: by_column.cast(),
                ..Default::default()
            };
            let given = form.given(&mut world.memory, given);
            let scratch = world.memory.place(scratch, m.backward_scratch, 8);
            let work = [(scratch, m.backward_scratch)];
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_tensor_mul_plan_backward", &outputs, &work, || unsafe {
                let (plan, saved, g, da, db) = (plan.pointer(), saved.cast(), g.cast(), da.cast(), db.cast());
                let (options, work, bytes) = (given.pointer, scratch.cast(), m.backward_scratch);
                wtacrs_tensor_mul_plan_backward(plan, saved, room, g, da, db, options, work, bytes, stream())
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || given.is_readable_or_null() && (form.is_null() || flag % 3 < 2));
        }
        Call::Words(status) => {
            // SAFETY: both are NUL-terminated, whatever the number.
            let words = [wtacrs_status_string(status), wtacrs_version()].map(|text| unsafe { CStr::from_ptr(text) });
            assert!(words.iter().all(|text| !text.is_empty() && text.to_str().is_ok()));
            assert_eq!(wtacrs_abi_version(), WTACRS_ABI_VERSION);
        }
    }
    Some(())
}

fuzz_target!(init: {
    // One thread is enough, and quickest.
    // SAFETY: nothing else runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    // SAFETY: there is no function that could be called.
    assert_eq!(unsafe { wtacrs_set_log(None, std::ptr::null_mut()) }, WTACRS_STATUS_OK);
}, |input: Input| {
    let mut world = World::default();
    let first = Pick::FIRST;
    let [tokens, inner, outer] = input.shape;
    let setup = [
        Call::CreateContext { device: 0, ordinal: 0, threads: 0 },
        Call::CreateLayer,
        Call::Set(first, Setting::Shape(input.shape)),
        Call::Set(first, Setting::Budget(0, Amount::Whole(input.budget))),
        Call::Set(first, Setting::Source((input.source % 4) as i8, 0.01)),
        Call::Set(first, Setting::Packing((input.source / 4 % 4) as i8)),
        Call::Set(first, Setting::Dtypes([input.dtype % 3 + 1, input.dtype / 3 % 3 + 1, 1])),
        Call::CreatePlan(first, first),
        Call::CreateCache { context: first, bounds: [Size::MOST; 2] },
        Call::CreatePredictor { context: first, in_features: inner, sizes: [Size::FEW; 2], numbers: [0; 3], seed: 1, form: Form::PLAIN },
        Call::CreateProduct,
        Call::SetProduct(first, ProductSetting::Shape([Size::FEW, Size::FEW, tokens, inner, outer])),
        Call::SetProduct(first, ProductSetting::Budget(0, 0, Amount::Whole(Size::FEW))),
        Call::SetProduct(first, ProductSetting::Budget(1, 1, Amount::Share(120))),
        Call::SetProduct(first, ProductSetting::Packing((input.source / 16 % 4) as i8)),
        Call::CreateProductPlan(first, first),
    ];
    for call in setup.iter().chain(input.calls.iter().take(24)) {
        let _ = run(&mut world, call);
        world.memory.release();
    }
});
