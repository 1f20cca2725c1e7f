//! Calls of the C interface with raw pointers, in any order, with any handles: living, destroyed, of another kind, made
//! up. Every call keeps the promises of `wtacrs_fuzz::memory`, and what is no right handle is refused.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ptr::null_mut;
use wtacrs::status::{WTACRS_INVALID_HANDLE, WTACRS_OK, wtacrs_status};
use wtacrs::{
    cache::*, context::*, estimate::*, layer::*, linear::*, norms::*, plan::*, predictor::*, saved::*, steps::*,
};
use wtacrs_fuzz::handles::{Chosen, Handles, Kind, Model, Pick, SMALL, Size, bytes_of, extent};
use wtacrs_fuzz::memory::{Memory, Place, Span, last_error};

#[derive(Arbitrary, Debug)]
struct Input {
    shape: [Size; 3],
    budget: Size,
    source: u8,
    dtype: u8,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Setting {
    Shape([Size; 3]),
    Dtypes([u8; 3]),
    BudgetRows(Size),
    BudgetFraction(f64),
    Design(i8),
    Source(i8),
    Mix(f64),
}

/// Saved memory: of an earlier forward pass, or anything.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Saved {
    Kept(u8),
    Other(Place),
}

#[derive(Arbitrary, Debug)]
enum Call {
    CreateContext { device: i8, ordinal: i8 },
    CreateLayer,
    Set(Pick, Setting),
    CreatePlan(Pick, Pick),
    CreateCache,
    CreatePredictor { in_features: Size, features: Size, rows: Size },
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
    RowNorms { context: Pick, dtype: i8, shape: [Size; 2], gap: u8, x: Place, norms: Place },
    Learn { predictor: Pick, plan: Pick, saved: Saved, norms: Place, sums: Option<(Place, u8)> },
    Apply { predictor: Pick, sums: Place, more: u8 },
    Samples { cache: Pick, ids: Vec<(u8, u8)>, norms: Place, store: bool, more: i8 },
    Forget(Pick, u8),
    SaveAndLoad { predictor: bool, handle: Pick, place: Place, less: u8, flipped: Option<u16> },
    JointNorms { layers: u8, tokens: Size, layer: Place, out: Place },
}

/// Largest of a plan that calls are made with; others are only asked about.
fn is_small(model: &Model) -> bool {
    model.shape.iter().all(|&size| size <= SMALL)
}

#[derive(Default)]
struct World {
    memory: Memory,
    handles: Handles,
}

impl World {
    fn create<H>(
        &mut self,
        kind: Kind,
        function: &str,
        model: Model,
        create: impl FnOnce(*mut *mut H) -> wtacrs_status,
    ) -> wtacrs_status {
        let mut made = null_mut();
        let status = self.memory.call(function, &[], &[], || create(&raw mut made));
        assert_eq!(status == WTACRS_OK, !made.is_null(), "{function}: a handle if and only if it is done");
        if status == WTACRS_OK {
            self.handles.add(kind, made, model);
        }
        status
    }

    /// A call that is refused if one of its handles is not right.
    fn refused(&self, status: wtacrs_status, chosen: &[Chosen]) {
        assert!(status != WTACRS_OK || chosen.iter().all(|handle| handle.known.is_some()), "a wrong handle was taken");
    }

    fn saved(&mut self, saved: Saved, needed: usize) -> Span {
        match saved {
            Saved::Kept(pick) => self.memory.kept(pick).unwrap_or((null_mut(), 0)),
            Saved::Other(place) => (self.memory.place(place, needed, 8), needed),
        }
    }

    fn set(&mut self, layer: Pick, setting: Setting) {
        let chosen = self.handles.choose(layer, Kind::Layer);
        let layer = chosen.pointer();
        let number = |byte: u8| i32::from(byte % 6) - 1;
        // SAFETY: no pointers.
        let (function, status) = unsafe {
            match setting {
                Setting::Shape([tokens, inner, outer]) => {
                    ("wtacrs_layer_set_shape", wtacrs_layer_set_shape(layer, tokens.get(), inner.get(), outer.get()))
                }
                Setting::Dtypes([h, dz, dw]) => {
                    ("wtacrs_layer_set_dtypes", wtacrs_layer_set_dtypes(layer, number(h), number(dz), number(dw)))
                }
                Setting::BudgetRows(rows) => {
                    ("wtacrs_layer_set_budget_rows", wtacrs_layer_set_budget_rows(layer, rows.get()))
                }
                Setting::BudgetFraction(share) => {
                    ("wtacrs_layer_set_budget_fraction", wtacrs_layer_set_budget_fraction(layer, share))
                }
                Setting::Design(design) => {
                    ("wtacrs_layer_set_design", wtacrs_layer_set_design(layer, i32::from(design)))
                }
                Setting::Source(source) => {
                    ("wtacrs_layer_set_source", wtacrs_layer_set_source(layer, i32::from(source)))
                }
                Setting::Mix(mix) => ("wtacrs_layer_set_mix", wtacrs_layer_set_mix(layer, mix)),
            }
        };
        self.refused(status, &[chosen]);
        if status != WTACRS_OK {
            assert!(last_error().starts_with(function));
            return;
        }
        let model = &mut self.handles.0[chosen.known.expect("checked")].model;
        match setting {
            Setting::Shape(shape) => model.shape[..3].copy_from_slice(&shape.map(Size::get)),
            Setting::Dtypes(dtypes) => model.dtypes = dtypes.map(number),
            Setting::Source(source) => model.source = i32::from(source),
            _ => {}
        }
    }

    fn create_plan(&mut self, context: Pick, layer: Pick) {
        let context = self.handles.choose(context, Kind::Context);
        let layer = self.handles.choose(layer, Kind::Layer);
        let model = self.handles.model(layer);
        // SAFETY: an output of one pointer.
        let create =
            |out: *mut *mut wtacrs_plan| unsafe { wtacrs_plan_create(context.pointer(), layer.pointer(), out) };
        let status = self.create(Kind::Plan, "wtacrs_plan_create", model, create);
        self.refused(status, &[context, layer]);
        if status != WTACRS_OK {
            return;
        }
        let made = self.handles.0.last_mut().expect("just made");
        let plan: *const wtacrs_plan = std::ptr::without_provenance(made.address);
        let [mut saved, mut scratch, mut estimate_scratch, mut budget] = [0_usize; 4];
        // SAFETY: outputs of one number.
        unsafe {
            assert_eq!(wtacrs_plan_saved_bytes(plan, &raw mut saved), WTACRS_OK);
            assert_eq!(wtacrs_plan_backward_scratch_bytes(plan, &raw mut scratch), WTACRS_OK);
            assert_eq!(wtacrs_plan_estimate_scratch_bytes(plan, &raw mut estimate_scratch), WTACRS_OK);
            assert_eq!(wtacrs_plan_budget(plan, &raw mut budget), WTACRS_OK);
        }
        assert!(budget <= model.shape[0]);
        made.model = Model { saved, scratch, estimate_scratch, budget, ..model };
    }

    fn destroy(&mut self, kind: u8, pick: Pick) {
        let (kind, function) = [
            (Kind::Context, "wtacrs_context_destroy"),
            (Kind::Layer, "wtacrs_layer_destroy"),
            (Kind::Plan, "wtacrs_plan_destroy"),
            (Kind::Cache, "wtacrs_norm_cache_destroy"),
            (Kind::Predictor, "wtacrs_norm_predictor_destroy"),
        ][usize::from(kind % 5)];
        let chosen = self.handles.choose(pick, kind);
        // SAFETY: handles are looked up, never followed.
        let status = self.memory.call(function, &[], &[], || unsafe {
            match kind {
                Kind::Context => wtacrs_context_destroy(chosen.pointer()),
                Kind::Layer => wtacrs_layer_destroy(chosen.pointer()),
                Kind::Plan => wtacrs_plan_destroy(chosen.pointer()),
                Kind::Cache => wtacrs_norm_cache_destroy(chosen.pointer()),
                _ => wtacrs_norm_predictor_destroy(chosen.pointer()),
            }
        });
        let right = chosen.is_null() || chosen.known.is_some();
        assert_eq!(status, if right { WTACRS_OK } else { WTACRS_INVALID_HANDLE });
        if let Some(at) = chosen.known {
            self.handles.0[at].alive = false;
        }
    }

    /// The plan, if calls can be made with it.
    fn plan(&self, pick: Pick) -> Option<(Chosen, Model)> {
        let chosen = self.handles.choose(pick, Kind::Plan);
        Some((chosen, self.handles.model(chosen))).filter(|(_, model)| is_small(model))
    }

    fn run(&mut self, call: &Call) -> Option<()> {
        match *call {
            Call::CreateContext { device, ordinal } => {
                let ordinal = i32::from(ordinal);
                // CUDA is opened by other tests.
                let device = if device == 1 { 0 } else { i32::from(device) };
                // SAFETY: an output of one pointer.
                self.create(Kind::Context, "wtacrs_context_create", Model::default(), |out| unsafe {
                    wtacrs_context_create(device, ordinal, out)
                });
            }
            Call::CreateLayer => {
                let model = Model { source: 3, ..Model::default() };
                // SAFETY: an output of one pointer.
                self.create(Kind::Layer, "wtacrs_layer_create", model, |out| unsafe { wtacrs_layer_create(out) });
            }
            Call::Set(layer, setting) => self.set(layer, setting),
            Call::CreatePlan(context, layer) => self.create_plan(context, layer),
            Call::CreateCache => {
                // SAFETY: an output of one pointer.
                self.create(Kind::Cache, "wtacrs_norm_cache_create", Model::default(), |out| unsafe {
                    wtacrs_norm_cache_create(out)
                });
            }
            Call::CreatePredictor { in_features, features, rows } => {
                let (inner, features, rows) = (in_features.get(), features.get(), rows.get());
                // What is accepted and large takes time, and no check.
                if (SMALL + 1..=1 << 24).contains(&inner) || (SMALL + 1..=1 << 14).contains(&features) {
                    return None;
                }
                let model = Model { shape: [0, inner, 0, 0, 0], budget: features, ..Model::default() };
                let function = "wtacrs_norm_predictor_create_with";
                // SAFETY: an output of one pointer.
                self.create(Kind::Predictor, function, model, |out| unsafe {
                    wtacrs_norm_predictor_create_with(inner, features, 0.97, 0.01, 6.0, rows, 1, out)
                });
            }
            Call::Destroy(kind, pick) => self.destroy(kind, pick),
            Call::Forward { plan, h, gap, guess, predictor, saved, less, draws: (seed, offset) } => {
                let (plan, m) = self.plan(plan)?;
                let [tokens, inner, ..] = m.shape;
                let leading = with_gap(inner, gap);
                let h =
                    self.memory.place(h, extent(tokens, inner, leading, bytes_of(m.dtypes[0])), bytes_of(m.dtypes[0]));
                let guess = self.memory.place(if m.source == 0 { Place::Null } else { guess }, tokens * 4, 4);
                let chosen = self.handles.choose(predictor, Kind::Predictor);
                let predictor = if m.source == 3 { chosen.pointer() } else { null_mut() };
                let (saved, room) = match saved {
                    Place::Own(_) => self.memory.keep(m.saved),
                    other => (self.memory.place(other, m.saved, 8), m.saved),
                };
                let room = room.saturating_sub(usize::from(less).saturating_sub(250));
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_forward", &[(saved, m.saved)], &[], || unsafe {
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
                self.refused(status, &[plan]);
                if m.source == 3 {
                    self.refused(status, &[chosen]);
                }
            }
            Call::Backward { plan, saved, less, dz, dw, gap, flag, more: [norms, bias, scratch] } => {
                let (plan, m) = self.plan(plan)?;
                let [tokens, inner, outer, ..] = m.shape;
                let [_, of_dz, of_dw] = m.dtypes.map(bytes_of);
                let leading = with_gap(outer, gap);
                let (saved, room) = self.saved(saved, m.saved);
                let room = room.saturating_sub(usize::from(less).saturating_sub(250));
                let dz = self.memory.place(dz, extent(tokens, outer, leading, of_dz), of_dz);
                let dw = self.memory.place(dw, extent(inner, outer, leading, of_dw), of_dw);
                let norms = self.memory.place(norms, tokens * 4, 4);
                let bias = self.memory.place(bias, outer * of_dw, of_dw);
                let scratch = self.memory.place(scratch, m.scratch, 8);
                let mut outputs = rows_of(dw, inner, outer, leading, of_dw);
                outputs.extend([(norms, tokens * 4), (bias, outer * of_dw)]);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_backward", &outputs, &[(scratch, m.scratch)], || unsafe {
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
                self.refused(status, &[plan]);
            }
            Call::SavedSelection { plan, saved, places, capacity } => {
                let (plan, m) = self.plan(plan)?;
                let capacity = capacity.get();
                let (saved, room) = self.saved(saved, m.saved);
                let outputs = self.selection(places, capacity);
                let [indices, scales, kept, winners] = outputs.map(|(start, _)| start);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_saved_selection", &outputs, &[], || unsafe {
                    let (plan, saved, kept, winners) = (plan.pointer(), saved.cast(), kept.cast(), winners.cast());
                    wtacrs_saved_selection(plan, saved, room, indices.cast(), scales.cast(), capacity, kept, winners)
                });
                self.refused(status, &[plan]);
            }
            Call::Select { plan, norms, guess, places, capacity, draws: (seed, offset, item) } => {
                let (plan, m) = self.plan(plan)?;
                let (tokens, capacity) = (m.shape[0], capacity.get());
                let norms = self.memory.place(norms, tokens * 4, 4);
                let guess = self.memory.place(if m.source % 3 == 0 { Place::Null } else { guess }, tokens * 4, 4);
                let outputs = self.selection(places, capacity);
                let [indices, scales, kept, winners] = outputs.map(|(start, _)| start);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_select", &outputs, &[], || unsafe {
                    let (plan, norms, guess, none) = (plan.pointer(), norms.cast(), guess.cast(), null_mut());
                    let (indices, scales, kept, winners) = (indices.cast(), scales.cast(), kept.cast(), winners.cast());
                    wtacrs_select(
                        plan, norms, guess, seed, offset, item, indices, scales, capacity, kept, winners, none, 0, none,
                    )
                });
                self.refused(status, &[plan]);
            }
            Call::Weights { plan, norms, guess, weights } => {
                let (plan, m) = self.plan(plan)?;
                let tokens = m.shape[0];
                let norms = self.memory.place(norms, tokens * 4, 4);
                let guess = self.memory.place(if m.source % 3 == 0 { Place::Null } else { guess }, tokens * 4, 4);
                let weights = self.memory.place(weights, tokens * 8, 8);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_weights", &[(weights, tokens * 8)], &[], || unsafe {
                    wtacrs_weights(plan.pointer(), norms.cast(), guess.cast(), weights.cast(), null_mut())
                });
                self.refused(status, &[plan]);
            }
            Call::Gather { plan, h, ref indices, rows, gap } => {
                let (plan, m) = self.plan(plan)?;
                let [tokens, inner, ..] = m.shape;
                let (size, leading) = (bytes_of(m.dtypes[0]), with_gap(inner, gap));
                let h = self.memory.place(h, extent(tokens, inner, leading, size), size);
                let indices: Vec<u32> = indices.iter().take(SMALL + 1).map(|&i| u32::from(i)).collect();
                let kept = indices.len() as u64;
                let rows = self.memory.place(rows, extent(indices.len(), inner, leading, size), size);
                let outputs = rows_of(rows, indices.len(), inner, leading, size);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_gather", &outputs, &[], || unsafe {
                    let (plan, h, rows) = (plan.pointer(), h.cast(), rows.cast());
                    wtacrs_gather(plan, h, leading, indices.as_ptr(), &raw const kept, rows, leading, null_mut())
                });
                self.refused(status, &[plan]);
            }
            Call::Gradient { plan, rows, ref indices, scales, dz, dw, gap, scratch } => {
                let (plan, m) = self.plan(plan)?;
                let [tokens, inner, outer, ..] = m.shape;
                let [of_h, of_dz, of_dw] = m.dtypes.map(bytes_of);
                let leading = with_gap(inner.max(outer), gap);
                let indices: Vec<u32> = indices.iter().take(SMALL + 1).map(|&i| u32::from(i)).collect();
                let kept = indices.len() as u64;
                let rows = self.memory.place(rows, extent(indices.len(), inner, leading, of_h), of_h);
                let scales = self.memory.place(scales, indices.len() * 8, 8);
                let dz = self.memory.place(dz, extent(tokens, outer, leading, of_dz), of_dz);
                let dw = self.memory.place(dw, extent(inner, outer, leading, of_dw), of_dw);
                let scratch = self.memory.place(scratch, m.scratch, 8);
                let outputs = rows_of(dw, inner, outer, leading, of_dw);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_weight_gradient", &outputs, &[(scratch, m.scratch)], || unsafe {
                    let (plan, rows, scales, dz, dw) =
                        (plan.pointer(), rows.cast(), scales.cast(), dz.cast(), dw.cast());
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
                self.refused(status, &[plan]);
            }
            Call::Estimate { plan, x, y, out, gap, scratch, less } => {
                let (plan, m) = self.plan(plan)?;
                let [tokens, inner, outer, ..] = m.shape;
                let [of_x, of_y, of_out] = m.dtypes.map(bytes_of);
                let leading = with_gap(inner.max(outer), gap);
                let x = self.memory.place(x, extent(tokens, inner, leading, of_x), of_x);
                let y = self.memory.place(y, extent(tokens, outer, leading, of_y), of_y);
                let out = self.memory.place(out, extent(inner, outer, leading, of_out), of_out);
                let scratch = self.memory.place(scratch, m.estimate_scratch, 8);
                let room = m.estimate_scratch.saturating_sub(usize::from(less).saturating_sub(250));
                let outputs = rows_of(out, inner, outer, leading, of_out);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_estimate", &outputs, &[(scratch, room)], || unsafe {
                    let (plan, x, y, out) = (plan.pointer(), x.cast(), y.cast(), out.cast());
                    wtacrs_estimate(plan, x, leading, y, leading, 1, 0, out, leading, scratch.cast(), room, null_mut())
                });
                self.refused(status, &[plan]);
            }
            Call::Theory { plan, weights, pairs, places } => {
                let (plan, m) = self.plan(plan)?;
                let weights = self.memory.place(weights, m.shape[0] * 8, 8);
                let pairs = self.memory.place(pairs, m.shape[0] * 8, 8);
                let outputs = places.map(|place| (self.memory.place(place, 8, 8), 8));
                let [threshold, winners, rows, error] = outputs.map(|(start, _)| start);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_theory", &outputs, &[], || unsafe {
                    let (weights, pairs) = (weights.cast(), pairs.cast());
                    let (threshold, rows, error) = (threshold.cast(), rows.cast(), error.cast());
                    wtacrs_theory(plan.pointer(), weights, pairs, threshold, winners.cast(), rows, error)
                });
                self.refused(status, &[plan]);
            }
            Call::RowNorms { context, dtype, shape: [rows, columns], gap, x, norms } => {
                let (rows, columns) = (rows.get(), columns.get());
                // Many rows of no columns are a valid call that needs much memory.
                if columns == 0 && rows > SMALL {
                    return None;
                }
                let context = self.handles.choose(context, Kind::Context);
                let (dtype, leading) = (i32::from(dtype % 6), with_gap(columns, gap));
                let x = self.memory.place(x, extent(rows, columns, leading, bytes_of(dtype)), bytes_of(dtype));
                let bytes = rows.saturating_mul(4);
                let norms = self.memory.place(norms, bytes, 4);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_row_norms", &[(norms, bytes)], &[], || unsafe {
                    let (x, norms) = (x.cast(), norms.cast());
                    wtacrs_row_norms(context.pointer(), dtype, rows, columns, x, leading, norms, null_mut())
                });
                self.refused(status, &[context]);
            }
            Call::Learn { predictor, plan, saved, norms, sums } => {
                let (plan, m) = self.plan(plan)?;
                let predictor = self.handles.choose(predictor, Kind::Predictor);
                let (saved, room) = self.saved(saved, m.saved);
                let norms = self.memory.place(norms, m.shape[0] * 4, 4);
                let status = match sums {
                    // SAFETY: memory as documented.
                    None => self.memory.call("wtacrs_norm_predictor_update", &[], &[], || unsafe {
                        let (saved, norms) = (saved.cast(), norms.cast());
                        wtacrs_norm_predictor_update(predictor.pointer(), plan.pointer(), saved, room, norms)
                    }),
                    Some((place, less)) => {
                        let count = self.sums_of(predictor).saturating_sub(usize::from(less).saturating_sub(250));
                        let sums = self.memory.place(place, count * 8, 8);
                        // SAFETY: memory as documented.
                        self.memory.call("wtacrs_norm_predictor_statistics", &[(sums, count * 8)], &[], || unsafe {
                            let (predictor, saved, norms) = (predictor.pointer(), saved.cast(), norms.cast());
                            wtacrs_norm_predictor_statistics(
                                predictor,
                                plan.pointer(),
                                saved,
                                room,
                                norms,
                                sums.cast(),
                                count,
                            )
                        })
                    }
                };
                self.refused(status, &[plan, predictor]);
            }
            Call::Apply { predictor, sums, more } => {
                let predictor = self.handles.choose(predictor, Kind::Predictor);
                let count = self.sums_of(predictor) + usize::from(more).saturating_sub(250);
                let sums = self.memory.place(sums, count * 8, 8);
                // SAFETY: memory as documented.
                let status = self.memory.call("wtacrs_norm_predictor_apply", &[], &[], || unsafe {
                    wtacrs_norm_predictor_apply(predictor.pointer(), sums.cast(), count)
                });
                self.refused(status, &[predictor]);
            }
            Call::Samples { cache, ref ids, norms, store, more } => {
                let cache = self.handles.choose(cache, Kind::Cache);
                let ids = &ids[..ids.len().min(SMALL)];
                let samples: Vec<u64> = ids.iter().map(|&(id, _)| u64::from(id % 8)).collect();
                let length =
                    |length: u8| if length > 252 { u64::MAX - u64::from(length) } else { u64::from(length % 20) };
                let lengths: Vec<u64> = ids.iter().map(|&(_, tokens)| length(tokens)).collect();
                let total: usize = lengths.iter().map(|&length| length.min(64) as usize).sum();
                let total = total.saturating_add_signed(isize::from(more / 32));
                let norms = self.memory.place(norms, total * 4, 4);
                let (at, long, count) = (samples.as_ptr(), lengths.as_ptr(), ids.len());
                // SAFETY: memory as documented.
                let status = match store {
                    true => self.memory.call("wtacrs_norm_cache_store", &[], &[], || unsafe {
                        wtacrs_norm_cache_store(cache.pointer(), at, long, count, norms.cast(), total)
                    }),
                    // SAFETY: memory as documented.
                    false => self.memory.call("wtacrs_norm_cache_fetch", &[(norms, total * 4)], &[], || unsafe {
                        wtacrs_norm_cache_fetch(cache.pointer(), at, long, count, norms.cast(), total)
                    }),
                };
                self.refused(status, &[cache]);
            }
            Call::Forget(cache, id) => {
                let cache = self.handles.choose(cache, Kind::Cache);
                // SAFETY: no pointers.
                let status = self.memory.call("wtacrs_norm_cache_forget", &[], &[], || unsafe {
                    wtacrs_norm_cache_forget(cache.pointer(), u64::from(id % 8))
                });
                self.refused(status, &[cache]);
            }
            Call::SaveAndLoad { predictor, handle, place, less, flipped } => {
                self.save_and_load(predictor, handle, place, less, flipped);
            }
            Call::JointNorms { layers, tokens, layer, out } => {
                let tokens = tokens.get();
                if layers == 0 && tokens > SMALL {
                    return None;
                }
                let bytes = tokens.saturating_mul(4);
                let pointers: Vec<*const f32> =
                    (0..layers % 4).map(|_| self.memory.place(layer, bytes, 4).cast_const().cast()).collect();
                let out = self.memory.place(out, bytes, 4);
                // SAFETY: memory as documented.
                self.memory.call("wtacrs_joint_norms", &[(out, bytes)], &[], || unsafe {
                    wtacrs_joint_norms(pointers.as_ptr(), pointers.len(), tokens, out.cast())
                });
            }
        }
        Some(())
    }

    fn selection(&mut self, places: [Place; 4], capacity: usize) -> [Span; 4] {
        let [indices, scales, kept, winners] = places;
        [(indices, capacity.saturating_mul(4)), (scales, capacity.saturating_mul(8)), (kept, 8), (winners, 8)]
            .map(|(place, bytes)| (self.memory.place(place, bytes, 8), bytes))
    }

    fn sums_of(&self, predictor: Chosen) -> usize {
        let mut count = 0;
        // SAFETY: an output of one number.
        unsafe { wtacrs_norm_predictor_statistics_count(predictor.pointer(), &raw mut count) };
        count
    }

    /// What was saved can be loaded; what was then changed is refused, or is another object that works.
    fn save_and_load(&mut self, predictor: bool, handle: Pick, place: Place, less: u8, flipped: Option<u16>) {
        let kind = if predictor { Kind::Predictor } else { Kind::Cache };
        let chosen = self.handles.choose(handle, kind);
        let (save, load) = match predictor {
            true => ("wtacrs_norm_predictor_save", "wtacrs_norm_predictor_load"),
            false => ("wtacrs_norm_cache_save", "wtacrs_norm_cache_load"),
        };
        // SAFETY: memory as documented, here and below.
        let run = |buffer: *mut u8, room: usize, needed: *mut usize| unsafe {
            match predictor {
                true => wtacrs_norm_predictor_save(chosen.pointer(), buffer.cast(), room, needed),
                false => wtacrs_norm_cache_save(chosen.pointer(), buffer.cast(), room, needed),
            }
        };
        let mut needed = 0;
        let status = self.memory.call(save, &[], &[], || run(null_mut(), 0, &raw mut needed));
        self.refused(status, &[chosen]);
        let room = needed.saturating_sub(usize::from(less).saturating_sub(250));
        let buffer = self.memory.place(place, room, 8);
        let mut again = 0;
        let status = self.memory.call(save, &[(buffer, room)], &[], || run(buffer, room, &raw mut again));
        let mut bytes = vec![];
        if status == WTACRS_OK && room > 0 {
            // SAFETY: just written.
            bytes = unsafe { std::slice::from_raw_parts(buffer, room) }.to_vec();
        }
        assert!(status != WTACRS_OK || room == 0 || room == needed);
        if let Some(at) = flipped.filter(|_| !bytes.is_empty()) {
            let at = usize::from(at);
            let len = bytes.len();
            bytes[at / 8 % len] ^= 1 << (at % 8);
        }
        let model = self.handles.model(chosen);
        let status = match predictor {
            true => self.create(kind, load, model, |out| unsafe {
                wtacrs_norm_predictor_load(bytes.as_ptr().cast(), bytes.len(), out)
            }),
            // SAFETY: as above.
            false => self.create(kind, load, model, |out| unsafe {
                wtacrs_norm_cache_load(bytes.as_ptr().cast(), bytes.len(), out)
            }),
        };
        assert!(
            flipped.is_some() || bytes.is_empty() || status == WTACRS_OK,
            "what was saved can be loaded: {}",
            last_error()
        );
    }
}

/// Elements from row to row: mostly a few more than there are columns, sometimes fewer, or absurdly many.
fn with_gap(columns: usize, gap: u8) -> usize {
    match gap {
        255 => usize::MAX,
        254 => isize::MAX as usize,
        253 => columns.saturating_sub(1),
        gap => columns.saturating_add(usize::from(gap % 4)),
    }
}

/// The bytes of rows, without the gaps between them.
fn rows_of(start: *mut u8, rows: usize, columns: usize, leading: usize, element: usize) -> Vec<Span> {
    if start.is_null() || extent(rows, columns, leading, element) > wtacrs_fuzz::memory::MOST {
        return vec![];
    }
    (0..rows).map(|row| (start.wrapping_add(row * leading * element), columns * element)).collect()
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
        Call::CreatePredictor { in_features: input.shape[1], features: Size::FEW, rows: Size::FEW },
    ];
    for call in setup.iter().chain(input.calls.iter().take(24)) {
        let _ = world.run(call);
        world.memory.release();
    }
    // Nothing outlives the test, so that memory does not grow from one to the next.
    for at in 0..world.handles.0.len() {
        let (kind, address) = (world.handles.0[at].kind, world.handles.0[at].address);
        if world.handles.0[at].alive {
            // SAFETY: handles are looked up, never followed.
            let status = unsafe {
                match kind {
                    Kind::Context => wtacrs_context_destroy(std::ptr::without_provenance_mut(address)),
                    Kind::Layer => wtacrs_layer_destroy(std::ptr::without_provenance_mut(address)),
                    Kind::Plan => wtacrs_plan_destroy(std::ptr::without_provenance_mut(address)),
                    Kind::Cache => wtacrs_norm_cache_destroy(std::ptr::without_provenance_mut(address)),
                    _ => wtacrs_norm_predictor_destroy(std::ptr::without_provenance_mut(address)),
                }
            };
            assert_eq!(status, WTACRS_OK);
        }
    }
});
