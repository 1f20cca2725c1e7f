//! What a sequence of calls of the C interface has made so far, and how handles and memory are found for the next.

use crate::handles::{Chosen, Handles, Kind, Model, Pick, SMALL, Size, extent};
use crate::memory::{MOST, Memory, Place, Span, last_error};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::ptr::null_mut;
use wtacrs::status::{WTACRS_INVALID_HANDLE, WTACRS_OK, wtacrs_status};
use wtacrs::{cache::*, context::*, layer::*, plan::*, predictor::*};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Setting {
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
pub enum Saved {
    Kept(u8),
    Other(Place),
}

/// Whether calls are made with a plan; larger ones are only asked about.
pub fn is_small(model: &Model) -> bool {
    model.shape.iter().all(|&size| size <= SMALL)
}

#[derive(Default)]
pub struct World {
    pub memory: Memory,
    pub handles: Handles,
}

impl World {
    pub fn create<H>(
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
    pub fn refused(&self, status: wtacrs_status, chosen: &[Chosen]) {
        assert!(status != WTACRS_OK || chosen.iter().all(|handle| handle.known.is_some()), "a wrong handle was taken");
    }

    pub fn saved(&mut self, saved: Saved, needed: usize) -> Span {
        match saved {
            Saved::Kept(pick) => self.memory.kept(pick).unwrap_or((null_mut(), 0)),
            Saved::Other(place) => (self.memory.place(place, needed, 8), needed),
        }
    }

    pub fn set(&mut self, layer: Pick, setting: Setting) {
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

    pub fn create_plan(&mut self, context: Pick, layer: Pick) {
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

    pub fn destroy(&mut self, kind: u8, pick: Pick) {
        let (kind, function) = [
            (Kind::Context, "wtacrs_context_destroy"),
            (Kind::Layer, "wtacrs_layer_destroy"),
            (Kind::Plan, "wtacrs_plan_destroy"),
            (Kind::Cache, "wtacrs_norm_cache_destroy"),
            (Kind::Predictor, "wtacrs_norm_predictor_destroy"),
        ][usize::from(kind % 5)];
        let chosen = self.handles.choose(pick, kind);
        let status = self.memory.call(function, &[], &[], || end(kind, chosen));
        let right = chosen.is_null() || chosen.known.is_some();
        assert_eq!(status, if right { WTACRS_OK } else { WTACRS_INVALID_HANDLE });
        if let Some(at) = chosen.known {
            self.handles.0[at].alive = false;
        }
    }

    /// The plan, if calls can be made with it.
    pub fn plan(&self, pick: Pick) -> Option<(Chosen, Model)> {
        let chosen = self.handles.choose(pick, Kind::Plan);
        Some((chosen, self.handles.model(chosen))).filter(|(_, model)| is_small(model))
    }

    pub fn selection(&mut self, places: [Place; 4], capacity: usize) -> [Span; 4] {
        let [indices, scales, kept, winners] = places;
        [(indices, capacity.saturating_mul(4)), (scales, capacity.saturating_mul(8)), (kept, 8), (winners, 8)]
            .map(|(place, bytes)| (self.memory.place(place, bytes, 8), bytes))
    }

    pub fn sums_of(&self, predictor: Chosen) -> usize {
        let mut count = 0;
        // SAFETY: an output of one number.
        unsafe { wtacrs_norm_predictor_statistics_count(predictor.pointer(), &raw mut count) };
        count
    }

    /// What was saved can be loaded; what was then changed is refused, or is another object that works.
    pub fn save_and_load(&mut self, predictor: bool, handle: Pick, place: Place, less: u8, flipped: Option<u16>) {
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

/// Destroys what a handle may stand for.
fn end(kind: Kind, handle: Chosen) -> wtacrs_status {
    // SAFETY: handles are looked up, never followed.
    unsafe {
        match kind {
            Kind::Context => wtacrs_context_destroy(handle.pointer()),
            Kind::Layer => wtacrs_layer_destroy(handle.pointer()),
            Kind::Plan => wtacrs_plan_destroy(handle.pointer()),
            Kind::Cache => wtacrs_norm_cache_destroy(handle.pointer()),
            _ => wtacrs_norm_predictor_destroy(handle.pointer()),
        }
    }
}

/// Nothing outlives a test, so that memory does not grow from one to the next.
impl Drop for World {
    fn drop(&mut self) {
        for handle in self.handles.0.iter().filter(|handle| handle.alive) {
            let status = end(handle.kind, handle.chosen());
            assert!(status == WTACRS_OK || std::thread::panicking());
        }
    }
}

/// Elements from row to row: mostly a few more than there are columns, sometimes fewer, or absurdly many.
pub fn with_gap(columns: usize, gap: u8) -> usize {
    match gap {
        255 => usize::MAX,
        254 => isize::MAX as usize,
        253 => columns.saturating_sub(1),
        gap => columns.saturating_add(usize::from(gap % 4)),
    }
}

/// The bytes of rows, without the gaps between them.
pub fn rows_of(start: *mut u8, rows: usize, columns: usize, leading: usize, element: usize) -> Vec<Span> {
    if start.is_null() || !(1..=MOST).contains(&extent(rows, columns, leading, element)) {
        return vec![];
    }
    (0..rows).map(|row| (start.wrapping_add(row * leading * element), columns * element)).collect()
}
