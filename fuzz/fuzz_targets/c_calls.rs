//! Calls of the C interface with raw pointers, in any order, with any handles: living, destroyed, of another kind, made
//! up. Every call keeps the promises of `wtacrs_fuzz::memory`, and what is no right handle is refused.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ffi::CStr;
use std::ptr::null_mut;
use wtacrs::status::{WTACRS_OK, wtacrs_status_string};
use wtacrs::version::{WTACRS_ABI_VERSION, wtacrs_abi_version, wtacrs_version};
use wtacrs::{
    cache::*, cache_on::*, context::*, estimate::*, expected_error::*, layer::*, linear::*, norms::*, plan::*,
    predictor::*, predictor_on::*, saved::*, steps::*, tensor_mul::*,
};
use wtacrs_fuzz::handles::{Kind, Model, Pick, SMALL, Size, bytes_of, extent};
use wtacrs_fuzz::memory::Place;
use wtacrs_fuzz::world::{ProductSetting, Saved, Setting, World, rows_of, with_gap};

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
    CreateContext { device: i8, ordinal: i8 },
    CreateLayer,
    Set(Pick, Setting),
    CreatePlan(Pick, Pick),
    CreateCache,
    CreatePredictor { in_features: Size, features: Size, rows: Size, how: u8, context: Pick },
    Destroy(u8, Pick),
    Forward { plan: Pick, h: Place, gap: u8, guess: Place, predictor: Pick, saved: Place, less: u8, draws: (u64, u64) },
    Backward { plan: Pick, saved: Saved, less: u8, dz: Place, dw: Place, gap: u8, flag: u8, more: [Place; 3] },
    SavedSelection { plan: Pick, saved: Saved, places: [Place; 4], capacity: Size },
    Select { plan: Pick, norms: Place, guess: Place, places: [Place; 4], capacity: Size, draws: (u64, u64, u32) },
    Weights { plan: Pick, norms: Place, guess: Place, weights: Place },
    Gather { plan: Pick, h: Place, indices: Vec<u8>, rows: Place, gap: u8 },
    Gradient { plan: Pick, rows: Place, indices: Vec<u8>, scales: Place, dz: Place, dw: Place, gap: u8, scratch: Place },
    Estimate { plan: Pick, x: Place, y: Place, out: Place, gap: u8, scratch: Place, less: u8 },
    Theory { plan: Pick, weights: Place, pairs: Place, places: [Place; 4] },
    ExpectedError { plan: Pick, h: Place, dz: Place, gap: u8, weights: Place, places: [Place; 3] },
    Norms { context: Pick, dtype: i8, shape: [Size; 2], gap: u8, x: Place, norms: Place, columns: bool },
    Learn { predictor: Pick, plan: Pick, saved: Saved, norms: Place, cached: Place, sums: Place, less: u8, how: u8 },
    Apply { predictor: Pick, sums: Place, more: u8, on: bool },
    Outcome { predictor: bool, handle: Pick, places: [Place; 2] },
    Samples { cache: Pick, ids: Vec<(u8, u8)>, norms: Place, store: bool, more: i8 },
    Forget(Pick, u8),
    SaveAndLoad { predictor: bool, handle: Pick, place: Place, less: u8, flipped: Option<u16>, on: Option<Pick> },
    JointNorms { layers: u8, tokens: Size, layer: Place, out: Place },
    CreateCacheOn { context: Pick, samples: Size, tokens: Size },
    SamplesOn { cache: Pick, ids: Vec<(u8, u8)>, equal: bool, row: u8, norms: Place, what: u8, more: i8 },
    Ask { plan: Pick, what: u8, place: Place },
    PlanMemory { plan: Pick, places: [Place; 3] },
    CreateProduct,
    SetProduct(Pick, ProductSetting),
    CreateProductPlan(Pick, Pick),
    ProductMemory { plan: Pick, places: [Place; 4] },
    ProductForward { plan: Pick, a: Place, b: Place, guesses: [Place; 2], saved: Place, less: u8, draws: (u64, u64) },
    ProductBackward { plan: Pick, saved: Saved, less: u8, g: Place, places: [Place; 4], flag: u8, scratch: Place },
    Words(i32),
}

fn run(world: &mut World, call: &Call) -> Option<()> {
    match *call {
        Call::CreateContext { device, ordinal } => {
            let ordinal = i32::from(ordinal);
            // CUDA is opened by other tests.
            let device = if device == 1 { 0 } else { i32::from(device) };
            // SAFETY: an output of one pointer.
            world.create(Kind::Context, "wtacrs_context_create", Model::default(), |out| unsafe {
                wtacrs_context_create(device, ordinal, out)
            });
        }
        Call::CreateLayer => {
            let model = Model { source: 3, ..Model::default() };
            // SAFETY: an output of one pointer.
            world.create(Kind::Layer, "wtacrs_layer_create", model, |out| unsafe { wtacrs_layer_create(out) });
        }
        Call::Set(layer, setting) => world.set(layer, setting),
        Call::CreatePlan(context, layer) => world.create_plan(context, layer),
        Call::CreateCache => {
            // SAFETY: an output of one pointer.
            world.create(Kind::Cache, "wtacrs_norm_cache_create", Model::default(), |out| unsafe {
                wtacrs_norm_cache_create(out)
            });
        }
        Call::CreatePredictor { in_features, features, rows, how, context } => {
            let (inner, features, rows) = (in_features.get(), features.get(), rows.get());
            // What is accepted and large takes time, and no check.
            if (SMALL + 1..=1 << 24).contains(&inner) || (SMALL + 1..=1 << 14).contains(&features) {
                return None;
            }
            let model = Model { shape: [0, inner, 0, 0, 0], budget: features, ..Model::default() };
            let context = world.handles.choose(context, Kind::Context);
            let function = [
                "wtacrs_norm_predictor_create_with",
                "wtacrs_norm_predictor_create_with_on",
                "wtacrs_norm_predictor_create",
                "wtacrs_norm_predictor_create_on",
            ][usize::from(how % 4)];
            // SAFETY: an output of one pointer.
            let status = world.create(Kind::Predictor, function, model, |out| unsafe {
                let on = context.pointer();
                match how % 4 {
                    0 => wtacrs_norm_predictor_create_with(inner, features, 0.97, 0.01, 6.0, rows, 1, out),
                    1 => wtacrs_norm_predictor_create_with_on(on, inner, features, 0.97, 0.01, 6.0, rows, 1, out),
                    2 => wtacrs_norm_predictor_create(inner, out),
                    _ => wtacrs_norm_predictor_create_on(on, inner, out),
                }
            });
            if how % 2 == 1 {
                world.refused(status, &[context]);
            }
        }
        Call::Destroy(kind, pick) => world.destroy(kind, pick),
        Call::Forward { plan, h, gap, guess, predictor, saved, less, draws: (seed, offset) } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, ..] = m.shape;
            let leading = with_gap(inner, gap);
            let h = world.memory.place(h, extent(tokens, inner, leading, bytes_of(m.dtypes[0])), bytes_of(m.dtypes[0]));
            let guess = world.memory.place(if m.source == 0 { Place::Null } else { guess }, tokens * 4, 4);
            let chosen = world.handles.choose(predictor, Kind::Predictor);
            let predictor = if m.source == 3 { chosen.pointer() } else { null_mut() };
            let (saved, room) = match saved {
                Place::Own(_) => world.memory.keep(m.saved),
                other => (world.memory.place(other, m.saved, 8), m.saved),
            };
            let room = room.saturating_sub(usize::from(less).saturating_sub(250));
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_forward", &[(saved, m.saved)], &[], || unsafe {
                let (plan, h, saved) = (plan.pointer(), h.cast(), saved.cast());
                wtacrs_forward(
                    plan,
                    h,
                    leading,
                    guess.cast(),
                    predictor,
                    seed,
                    offset,
                    saved,
                    room,
                    null_mut(),
                    0,
                    null_mut(),
                )
            });
            world.refused(status, &[plan]);
            if m.source == 3 {
                world.refused(status, &[chosen]);
            }
        }
        Call::Backward { plan, saved, less, dz, dw, gap, flag, more: [norms, bias, scratch] } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, outer, ..] = m.shape;
            let [_, of_dz, of_dw] = m.dtypes.map(bytes_of);
            let leading = with_gap(outer, gap);
            let (saved, room) = world.saved(saved, m.saved);
            let room = room.saturating_sub(usize::from(less).saturating_sub(250));
            let dz = world.memory.place(dz, extent(tokens, outer, leading, of_dz), of_dz);
            let dw = world.memory.place(dw, extent(inner, outer, leading, of_dw), of_dw);
            let norms = world.memory.place(norms, tokens * 4, 4);
            let bias = world.memory.place(bias, outer * of_dw, of_dw);
            let scratch = world.memory.place(scratch, m.scratch, 8);
            let mut outputs = rows_of(dw, inner, outer, leading, of_dw);
            outputs.extend([(norms, tokens * 4), (bias, outer * of_dw)]);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_backward", &outputs, &[(scratch, m.scratch)], || unsafe {
                let (plan, dz, dw) = (plan.pointer(), dz.cast(), dw.cast());
                let (flag, norms, bias) = (i32::from(flag % 3), norms.cast(), bias.cast());
                let (saved, work) = (saved.cast(), scratch.cast());
                wtacrs_backward(
                    plan,
                    saved,
                    room,
                    dz,
                    leading,
                    dw,
                    leading,
                    flag,
                    norms,
                    bias,
                    work,
                    m.scratch,
                    null_mut(),
                )
            });
            world.refused(status, &[plan]);
        }
        Call::SavedSelection { plan, saved, places, capacity } => {
            let (plan, m) = world.plan(plan)?;
            let capacity = capacity.get();
            let (saved, room) = world.saved(saved, m.saved);
            let outputs = world.selection(places, capacity);
            let [indices, scales, kept, winners] = outputs.map(|(start, _)| start);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_saved_selection", &outputs, &[], || unsafe {
                let (plan, saved, kept, winners) = (plan.pointer(), saved.cast(), kept.cast(), winners.cast());
                wtacrs_saved_selection(plan, saved, room, indices.cast(), scales.cast(), capacity, kept, winners)
            });
            world.refused(status, &[plan]);
        }
        Call::Select { plan, norms, guess, places, capacity, draws: (seed, offset, item) } => {
            let (plan, m) = world.plan(plan)?;
            let (tokens, capacity) = (m.shape[0], capacity.get());
            let norms = world.memory.place(norms, tokens * 4, 4);
            let guess = world.memory.place(if m.source % 3 == 0 { Place::Null } else { guess }, tokens * 4, 4);
            let outputs = world.selection(places, capacity);
            let [indices, scales, kept, winners] = outputs.map(|(start, _)| start);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_select", &outputs, &[], || unsafe {
                let (plan, norms, guess, none) = (plan.pointer(), norms.cast(), guess.cast(), null_mut());
                let (indices, scales, kept, winners) = (indices.cast(), scales.cast(), kept.cast(), winners.cast());
                wtacrs_select(
                    plan, norms, guess, seed, offset, item, indices, scales, capacity, kept, winners, none, 0, none,
                )
            });
            world.refused(status, &[plan]);
        }
        Call::Weights { plan, norms, guess, weights } => {
            let (plan, m) = world.plan(plan)?;
            let tokens = m.shape[0];
            let norms = world.memory.place(norms, tokens * 4, 4);
            let guess = world.memory.place(if m.source % 3 == 0 { Place::Null } else { guess }, tokens * 4, 4);
            let weights = world.memory.place(weights, tokens * 8, 8);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_weights", &[(weights, tokens * 8)], &[], || unsafe {
                wtacrs_weights(plan.pointer(), norms.cast(), guess.cast(), weights.cast(), null_mut())
            });
            world.refused(status, &[plan]);
        }
        Call::Gather { plan, h, ref indices, rows, gap } => {
            let (plan, m) = world.plan(plan)?;
            let [tokens, inner, ..] = m.shape;
            let (size, leading) = (bytes_of(m.dtypes[0]), with_gap(inner, gap));
            let h = world.memory.place(h, extent(tokens, inner, leading, size), size);
            let indices: Vec<u32> = indices.iter().take(SMALL + 1).map(|&i| u32::from(i)).collect();
            let kept = indices.len() as u64;
            let rows = world.memory.place(rows, extent(indices.len(), inner, leading, size), size);
            let outputs = rows_of(rows, indices.len(), inner, leading, size);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_gather", &outputs, &[], || unsafe {
                let (plan, h, rows) = (plan.pointer(), h.cast(), rows.cast());
                wtacrs_gather(plan, h, leading, indices.as_ptr(), &raw const kept, rows, leading, null_mut())
            });
            world.refused(status, &[plan]);
        }
        Call::Gradient { plan, rows, ref indices, scales, dz, dw, gap, scratch } => {
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
            let scratch = world.memory.place(scratch, m.scratch, 8);
            let outputs = rows_of(dw, inner, outer, leading, of_dw);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_weight_gradient", &outputs, &[(scratch, m.scratch)], || unsafe {
                let (plan, rows, scales, dz, dw) = (plan.pointer(), rows.cast(), scales.cast(), dz.cast(), dw.cast());
                let (at, work, none) = (indices.as_ptr(), scratch.cast(), null_mut());
                wtacrs_weight_gradient(
                    plan,
                    rows,
                    leading,
                    at,
                    scales,
                    &raw const kept,
                    dz,
                    leading,
                    dw,
                    leading,
                    0,
                    work,
                    m.scratch,
                    none,
                )
            });
            world.refused(status, &[plan]);
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
            let room = m.estimate_scratch.saturating_sub(usize::from(less).saturating_sub(250));
            let outputs = rows_of(out, inner, outer, leading, of_out);
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_estimate", &outputs, &[(scratch, room)], || unsafe {
                let (plan, x, y, out) = (plan.pointer(), x.cast(), y.cast(), out.cast());
                wtacrs_estimate(plan, x, leading, y, leading, 1, 0, out, leading, scratch.cast(), room, null_mut())
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
            let status = world.memory.call("wtacrs_theory", &outputs, &[], || unsafe {
                let (weights, pairs) = (weights.cast(), pairs.cast());
                let (threshold, rows, error) = (threshold.cast(), rows.cast(), error.cast());
                wtacrs_theory(plan.pointer(), weights, pairs, threshold, winners.cast(), rows, error)
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
            let status = world.memory.call("wtacrs_expected_error", &outputs, &[], || unsafe {
                let (plan, h, dz, weights) = (plan.pointer(), h.cast(), dz.cast(), weights.cast());
                wtacrs_expected_error(plan, h, leading, dz, leading, weights, error.cast(), exact.cast(), norm.cast())
            });
            world.refused(status, &[plan]);
        }
        Call::Norms { context, dtype, shape: [rows, columns], gap, x, norms, columns: of_columns } => {
            let (rows, columns) = (rows.get(), columns.get());
            let count = if of_columns { columns } else { rows };
            // Many norms of nothing are a valid call that needs much memory.
            if (columns == 0 || rows == 0) && count > SMALL {
                return None;
            }
            let context = world.handles.choose(context, Kind::Context);
            let (dtype, leading) = (i32::from(dtype % 6), with_gap(columns, gap));
            let x = world.memory.place(x, extent(rows, columns, leading, bytes_of(dtype)), bytes_of(dtype));
            let bytes = count.saturating_mul(4);
            let norms = world.memory.place(norms, bytes, 4);
            let function = if of_columns { "wtacrs_column_norms" } else { "wtacrs_row_norms" };
            // SAFETY: memory as documented.
            let status = world.memory.call(function, &[(norms, bytes)], &[], || unsafe {
                let (context, x, norms) = (context.pointer(), x.cast(), norms.cast());
                match of_columns {
                    true => wtacrs_column_norms(context, dtype, rows, columns, x, leading, norms, null_mut()),
                    false => wtacrs_row_norms(context, dtype, rows, columns, x, leading, norms, null_mut()),
                }
            });
            world.refused(status, &[context]);
        }
        Call::Learn { predictor, plan, saved, norms, cached, sums, less, how } => {
            let (plan, m) = world.plan(plan)?;
            let predictor = world.handles.choose(predictor, Kind::Predictor);
            let (saved, room) = world.saved(saved, m.saved);
            let norms = world.memory.place(norms, m.shape[0] * 4, 4);
            let cached = world.memory.place(cached, m.shape[0] * 4, 4);
            let count = world.sums_of(predictor).saturating_sub(usize::from(less).saturating_sub(250));
            let sums = world.memory.place(sums, count * 8, 8);
            let how = usize::from(how % 8);
            let function = [
                "wtacrs_norm_predictor_update",
                "wtacrs_norm_predictor_update_on",
                "wtacrs_norm_predictor_update_cached",
                "wtacrs_norm_predictor_update_cached_on",
                "wtacrs_norm_predictor_statistics",
                "wtacrs_norm_predictor_statistics_on",
                "wtacrs_norm_predictor_statistics_cached",
                "wtacrs_norm_predictor_statistics_cached_on",
            ][how];
            let outputs = if how < 4 { vec![] } else { vec![(sums, count * 8)] };
            // SAFETY: memory as documented.
            let status = world.memory.call(function, &outputs, &[], || unsafe {
                let (it, plan, saved) = (predictor.pointer(), plan.pointer(), saved.cast());
                let (norms, cached, sums, stream) = (norms.cast(), cached.cast(), sums.cast(), null_mut());
                match how {
                    0 => wtacrs_norm_predictor_update(it, plan, saved, room, norms),
                    1 => wtacrs_norm_predictor_update_on(it, plan, saved, room, norms, stream),
                    2 => wtacrs_norm_predictor_update_cached(it, plan, saved, room, norms, cached),
                    3 => wtacrs_norm_predictor_update_cached_on(it, plan, saved, room, norms, cached, stream),
                    4 => wtacrs_norm_predictor_statistics(it, plan, saved, room, norms, sums, count),
                    5 => wtacrs_norm_predictor_statistics_on(it, plan, saved, room, norms, sums, count, stream),
                    6 => wtacrs_norm_predictor_statistics_cached(it, plan, saved, room, norms, cached, sums, count),
                    _ => wtacrs_norm_predictor_statistics_cached_on(
                        it, plan, saved, room, norms, cached, sums, count, stream,
                    ),
                }
            });
            world.refused(status, &[plan, predictor]);
        }
        Call::Apply { predictor, sums, more, on } => {
            let predictor = world.handles.choose(predictor, Kind::Predictor);
            let count = world.sums_of(predictor) + usize::from(more).saturating_sub(250);
            let sums = world.memory.place(sums, count * 8, 8);
            let function = if on { "wtacrs_norm_predictor_apply_on" } else { "wtacrs_norm_predictor_apply" };
            // SAFETY: memory as documented.
            let status = world.memory.call(function, &[], &[], || unsafe {
                match on {
                    true => wtacrs_norm_predictor_apply_on(predictor.pointer(), sums.cast(), count, null_mut()),
                    false => wtacrs_norm_predictor_apply(predictor.pointer(), sums.cast(), count),
                }
            });
            world.refused(status, &[predictor]);
        }
        Call::Outcome { predictor, handle, places } => {
            let chosen = world.handles.choose(handle, if predictor { Kind::Predictor } else { Kind::Cache });
            let [first, second] = places.map(|place| world.memory.place(place, 8, 8));
            let function = if predictor { "wtacrs_norm_predictor_outcome" } else { "wtacrs_norm_cache_outcome" };
            // SAFETY: memory as documented.
            let status = world.memory.call(function, &[], &[], || unsafe {
                match predictor {
                    true => wtacrs_norm_predictor_outcome(chosen.pointer(), first.cast(), second.cast()),
                    false => wtacrs_norm_cache_outcome(chosen.pointer(), first.cast(), second.cast()),
                }
            });
            assert_ne!(status, WTACRS_OK, "the CPU tells at once");
        }
        Call::Samples { cache, ref ids, norms, store, more } => {
            let cache = world.handles.choose(cache, Kind::Cache);
            let ids = &ids[..ids.len().min(SMALL)];
            let samples: Vec<u64> = ids.iter().map(|&(id, _)| u64::from(id % 8)).collect();
            let length = |length: u8| if length > 252 { u64::MAX - u64::from(length) } else { u64::from(length % 20) };
            let lengths: Vec<u64> = ids.iter().map(|&(_, tokens)| length(tokens)).collect();
            let total: usize = lengths.iter().map(|&length| length.min(64) as usize).sum();
            let total = total.saturating_add_signed(isize::from(more / 32));
            let norms = world.memory.place(norms, total * 4, 4);
            let (at, long, count) = (samples.as_ptr(), lengths.as_ptr(), ids.len());
            // SAFETY: memory as documented.
            let status = match store {
                true => world.memory.call("wtacrs_norm_cache_store", &[], &[], || unsafe {
                    wtacrs_norm_cache_store(cache.pointer(), at, long, count, norms.cast(), total)
                }),
                // SAFETY: memory as documented.
                false => world.memory.call("wtacrs_norm_cache_fetch", &[(norms, total * 4)], &[], || unsafe {
                    wtacrs_norm_cache_fetch(cache.pointer(), at, long, count, norms.cast(), total)
                }),
            };
            world.refused(status, &[cache]);
        }
        Call::Forget(cache, id) => {
            let cache = world.handles.choose(cache, Kind::Cache);
            // SAFETY: no pointers.
            let status = world.memory.call("wtacrs_norm_cache_forget", &[], &[], || unsafe {
                wtacrs_norm_cache_forget(cache.pointer(), u64::from(id % 8))
            });
            world.refused(status, &[cache]);
        }
        Call::SaveAndLoad { predictor, handle, place, less, flipped, on } => {
            world.save_and_load(predictor, handle, place, less, flipped, on);
        }
        Call::JointNorms { layers, tokens, layer, out } => {
            let tokens = tokens.get();
            if layers == 0 && tokens > SMALL {
                return None;
            }
            let bytes = tokens.saturating_mul(4);
            let pointers: Vec<*const f32> =
                (0..layers % 4).map(|_| world.memory.place(layer, bytes, 4).cast_const().cast()).collect();
            let out = world.memory.place(out, bytes, 4);
            // SAFETY: memory as documented.
            world.memory.call("wtacrs_joint_norms", &[(out, bytes)], &[], || unsafe {
                wtacrs_joint_norms(pointers.as_ptr(), pointers.len(), tokens, out.cast())
            });
        }
        Call::CreateCacheOn { context, samples, tokens } => {
            let context = world.handles.choose(context, Kind::Context);
            let (samples, tokens) = (samples.get(), tokens.get());
            // SAFETY: an output of one pointer.
            let status = world.create(Kind::Cache, "wtacrs_norm_cache_create_on", Model::default(), |out| unsafe {
                wtacrs_norm_cache_create_on(context.pointer(), samples, tokens, out)
            });
            world.refused(status, &[context]);
        }
        Call::SamplesOn { cache, ref ids, equal, row, norms, what, more } => {
            let cache = world.handles.choose(cache, Kind::Cache);
            let ids = &ids[..ids.len().min(SMALL)];
            let samples: Vec<u64> = ids.iter().map(|&(id, _)| u64::from(id % 8)).collect();
            let length = |length: u8| if length > 252 { u64::MAX - u64::from(length) } else { u64::from(length % 20) };
            let lengths: Vec<u64> = ids.iter().map(|&(_, tokens)| length(tokens)).collect();
            let row = usize::from(row % 24);
            let total =
                if row > 0 { ids.len() * row } else { lengths.iter().map(|&length| length.min(64) as usize).sum() };
            let total = total.saturating_add_signed(isize::from(more / 32));
            let norms = world.memory.place(norms, total * 4, 4);
            let (at, long, count) =
                (samples.as_ptr(), if equal { null_mut() } else { lengths.as_ptr().cast_mut() }, ids.len());
            // SAFETY: memory as documented.
            let status = match what % 3 {
                0 => world.memory.call("wtacrs_norm_cache_fetch_on", &[(norms, total * 4)], &[], || unsafe {
                    wtacrs_norm_cache_fetch_on(cache.pointer(), at, long, count, row, norms.cast(), total, null_mut())
                }),
                // SAFETY: as above.
                1 => world.memory.call("wtacrs_norm_cache_store_on", &[], &[], || unsafe {
                    wtacrs_norm_cache_store_on(cache.pointer(), at, long, count, row, norms.cast(), total, null_mut())
                }),
                // SAFETY: as above.
                _ => world.memory.call("wtacrs_norm_cache_forget_on", &[], &[], || unsafe {
                    wtacrs_norm_cache_forget_on(cache.pointer(), at, count, null_mut())
                }),
            };
            world.refused(status, &[cache]);
        }
        Call::Ask { plan, what, place } => ask(world, plan, what, place),
        Call::PlanMemory { plan, places } => {
            let plan = world.handles.choose(plan, Kind::Plan);
            let outputs = places.map(|place| (world.memory.place(place, 8, 8), 8));
            let [saved, scratch, exact] = outputs.map(|(start, _)| start.cast());
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_plan_memory", &outputs, &[], || unsafe {
                wtacrs_plan_memory(plan.pointer(), saved, scratch, exact)
            });
            world.refused(status, &[plan]);
        }
        Call::CreateProduct => {
            // SAFETY: an output of one pointer.
            world.create(Kind::TensorMul, "wtacrs_tensor_mul_create", Model::default(), |out| unsafe {
                wtacrs_tensor_mul_create(out)
            });
        }
        Call::SetProduct(product, setting) => world.set_product(product, setting),
        Call::CreateProductPlan(context, product) => world.create_product_plan(context, product),
        Call::ProductMemory { plan, places } => {
            let plan = world.handles.choose(plan, Kind::TensorMulPlan);
            let outputs = places.map(|place| (world.memory.place(place, 8, 8), 8));
            let [saved, forward, backward, exact] = outputs.map(|(start, _)| start.cast());
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_tensor_mul_plan_memory", &outputs, &[], || unsafe {
                wtacrs_tensor_mul_plan_memory(plan.pointer(), saved, forward, backward, exact)
            });
            world.refused(status, &[plan]);
        }
        Call::ProductForward { plan, a, b, guesses, saved, less, draws: (seed, offset) } => {
            let (plan, m) = world.plan_of(plan, Kind::TensorMulPlan)?;
            let [batch, heads, rows, inner, columns] = m.shape;
            let (items, size) = (batch * heads, bytes_of(m.dtypes[0]));
            let a = world.memory.place(a, items * rows * inner * size, size);
            let b = world.memory.place(b, items * inner * columns * size, size);
            let [by_row, by_column] = guesses;
            let by_row = world.memory.place(by_row, items * rows * 4, 4);
            let by_column = world.memory.place(by_column, items * columns * 4, 4);
            let (saved, room) = match saved {
                Place::Own(_) => world.memory.keep(m.saved),
                other => (world.memory.place(other, m.saved, 8), m.saved),
            };
            let room = room.saturating_sub(usize::from(less).saturating_sub(250));
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_tensor_mul_forward", &[(saved, m.saved)], &[], || unsafe {
                let (plan, a, b, saved, none) = (plan.pointer(), a.cast(), b.cast(), saved.cast(), null_mut());
                let (by_row, by_column) = (by_row.cast(), by_column.cast());
                wtacrs_tensor_mul_forward(plan, a, b, by_row, by_column, seed, offset, saved, room, none, 0, none)
            });
            world.refused(status, &[plan]);
        }
        Call::ProductBackward { plan, saved, less, g, places, flag, scratch } => {
            let (plan, m) = world.plan_of(plan, Kind::TensorMulPlan)?;
            let [batch, heads, rows, inner, columns] = m.shape;
            let (items, of_g) = (batch * heads, bytes_of(m.dtypes[1]));
            let of_sums = if m.dtypes[0] == 3 { 8 } else { 4 };
            let (saved, room) = world.saved(saved, m.saved);
            let room = room.saturating_sub(usize::from(less).saturating_sub(250));
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
            let scratch = world.memory.place(scratch, m.scratch, 8);
            let work = [(scratch, m.scratch)];
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_tensor_mul_backward", &outputs, &work, || unsafe {
                let (plan, saved, g, scratch) = (plan.pointer(), saved.cast(), g.cast(), scratch.cast());
                let (da, db, by_row, by_column) = (da.cast(), db.cast(), by_row.cast(), by_column.cast());
                let flag = i32::from(flag % 3);
                wtacrs_tensor_mul_backward(
                    plan,
                    saved,
                    room,
                    g,
                    da,
                    db,
                    flag,
                    by_row,
                    by_column,
                    scratch,
                    m.scratch,
                    null_mut(),
                )
            });
            world.refused(status, &[plan]);
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

/// One of the questions that a plan of either kind answers with one number.
fn ask(world: &mut World, plan: Pick, what: u8, place: Place) {
    let what = usize::from(what % 10);
    let function = [
        "wtacrs_plan_budget",
        "wtacrs_plan_saved_bytes",
        "wtacrs_plan_forward_scratch_bytes",
        "wtacrs_plan_backward_scratch_bytes",
        "wtacrs_plan_estimate_scratch_bytes",
        "wtacrs_plan_weight_gradient_scratch_bytes",
        "wtacrs_plan_saved_status_offset",
        "wtacrs_plan_draws",
        "wtacrs_tensor_mul_plan_saved_status_offset",
        "wtacrs_tensor_mul_plan_draws",
    ][what];
    let plan = world.handles.choose(plan, if what < 8 { Kind::Plan } else { Kind::TensorMulPlan });
    let out = world.memory.place(place, 8, 8);
    // SAFETY: memory as documented.
    let status = world.memory.call(function, &[(out, 8)], &[], || unsafe {
        let (number, draws) = (out.cast(), out.cast());
        match what {
            0 => wtacrs_plan_budget(plan.pointer(), number),
            1 => wtacrs_plan_saved_bytes(plan.pointer(), number),
            2 => wtacrs_plan_forward_scratch_bytes(plan.pointer(), number),
            3 => wtacrs_plan_backward_scratch_bytes(plan.pointer(), number),
            4 => wtacrs_plan_estimate_scratch_bytes(plan.pointer(), number),
            5 => wtacrs_plan_weight_gradient_scratch_bytes(plan.pointer(), number),
            6 => wtacrs_plan_saved_status_offset(plan.pointer(), number),
            7 => wtacrs_plan_draws(plan.pointer(), draws),
            8 => wtacrs_tensor_mul_plan_saved_status_offset(plan.pointer(), 1, number),
            _ => wtacrs_tensor_mul_plan_draws(plan.pointer(), draws),
        }
    });
    world.refused(status, &[plan]);
}

fuzz_target!(init: {
    // One thread is enough, and quickest.
    // SAFETY: nothing else runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
}, |input: Input| {
    let mut world = World::default();
    let first = Pick::FIRST;
    let setup = [
        Call::CreateContext { device: 0, ordinal: 0 },
        Call::CreateLayer,
        Call::Set(first, Setting::Shape(input.shape)),
        Call::Set(first, Setting::BudgetRows(input.budget)),
        Call::Set(first, Setting::Source((input.source % 4) as i8)),
        Call::Set(first, Setting::Dtypes([input.dtype % 3 + 1, input.dtype / 3 % 3 + 1, 1])),
        Call::CreatePlan(first, first),
        Call::CreateCache,
        Call::CreatePredictor { in_features: input.shape[1], features: Size::FEW, rows: Size::FEW, how: 0, context: first },
        Call::CreateProduct,
        Call::SetProduct(first, ProductSetting::Shape([Size::FEW, Size::FEW, input.shape[0], input.shape[1], input.shape[2]])),
        Call::SetProduct(first, ProductSetting::BudgetRows(0, Size::FEW)),
        Call::SetProduct(first, ProductSetting::BudgetFraction(1, 0.5)),
        Call::CreateProductPlan(first, first),
    ];
    for call in setup.iter().chain(input.calls.iter().take(24)) {
        let _ = run(&mut world, call);
        world.memory.release();
    }
});
