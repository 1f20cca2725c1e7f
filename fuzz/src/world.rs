//! What a sequence of calls of the C interface has made so far, and how handles and memory are found for the next.

use crate::handles::{Chosen, Handles, Kind, Model, Pick, SMALL, Size, extent};
use crate::memory::{MOST, Memory, Place, Span, last_error};
use crate::structs::{Form, Struct};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::ffi::c_void;
use std::mem::offset_of;
use std::ptr::{null_mut, without_provenance_mut};
use wtacrs::*;

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Setting {
    Shape([Size; 3]),
    Dtypes([u8; 3]),
    Budget(i8, Amount),
    Design(i8),
    Source(i8, f64),
    Precision(i8),
    Engine(i8),
    Packing(i8),
    FurtherOffset(u8),
}

/// A change of a batched product's description.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum ProductSetting {
    Shape([Size; 5]),
    Dtypes([u8; 2]),
    Budget(i8, i8, Amount),
    Design(i8),
    Mix(f64),
    Precision(i8),
    Engine(i8),
    Packing(i8),
    FurtherOffset(u8),
}

/// How much of a unit a budget is.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Amount {
    Whole(Size),
    Share(u8),
    Any(f64),
}

impl Amount {
    fn get(self) -> f64 {
        match self {
            Self::Whole(size) => size.get() as f64,
            Self::Share(share) => f64::from(share) / 240.0,
            Self::Any(amount) => amount,
        }
    }
}

/// A number that passes may add to their offsets, whenever they run.
static FURTHER: u64 = 3;

/// It, or nothing, or something that is not aligned.
pub fn further(pick: u8) -> *const u64 {
    match pick % 3 {
        0 => std::ptr::null(),
        1 => &raw const FURTHER,
        _ => (&raw const FURTHER).wrapping_byte_add(1),
    }
}

pub fn dtype(byte: u8) -> wtacrs_dtype {
    i32::from(byte % 6) - 1
}

/// The CPU ignores the stream, so it may be anything.
pub fn stream() -> *mut c_void {
    without_provenance_mut(0x5151)
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
        assert_eq!(status == WTACRS_STATUS_OK, !made.is_null(), "{function}: a handle if and only if it is done");
        if status == WTACRS_STATUS_OK {
            self.handles.add(kind, made, model);
        }
        status
    }

    /// A call that is refused if one of its handles is not right.
    pub fn refused(&self, status: wtacrs_status, chosen: &[Chosen]) {
        let is_right = chosen.iter().all(|handle| handle.known.is_some());
        assert!(status != WTACRS_STATUS_OK || is_right, "a wrong handle was taken");
    }

    pub fn saved(&mut self, saved: Saved, needed: usize) -> Span {
        match saved {
            Saved::Kept(pick) => self.memory.kept(pick).unwrap_or((null_mut(), 0)),
            Saved::Other(place) => (self.memory.place(place, needed, 8), needed),
        }
    }

    /// Saved memory that a forward pass writes: how many bytes it has, and how many the call is given.
    pub fn room_to_save(&mut self, place: Place, needed: usize, less: u8) -> (Span, usize) {
        let (start, bytes) = match place {
            Place::Own(_) => self.memory.keep(needed),
            other => (self.memory.place(other, needed, 8), needed),
        };
        ((start, needed), fewer(bytes, less))
    }

    pub fn set(&mut self, layer: Pick, setting: Setting) {
        let chosen = self.handles.choose(layer, Kind::Layer);
        let layer = chosen.pointer();
        // SAFETY: no pointers but to what lives for ever.
        let call = || unsafe {
            match setting {
                Setting::Shape([tokens, inner, outer]) => {
                    wtacrs_layer_set_shape(layer, tokens.get(), inner.get(), outer.get())
                }
                Setting::Dtypes([h, dz, dw]) => wtacrs_layer_set_dtypes(layer, dtype(h), dtype(dz), dtype(dw)),
                Setting::Budget(unit, amount) => wtacrs_layer_set_budget(layer, i32::from(unit), amount.get()),
                Setting::Design(design) => wtacrs_layer_set_design(layer, i32::from(design)),
                Setting::Source(source, mix) => wtacrs_layer_set_source(layer, i32::from(source), mix),
                Setting::Precision(precision) => wtacrs_layer_set_precision(layer, i32::from(precision)),
                Setting::Engine(engine) => wtacrs_layer_set_engine(layer, i32::from(engine)),
                Setting::Packing(packing) => wtacrs_layer_set_packing(layer, i32::from(packing)),
                Setting::FurtherOffset(pick) => wtacrs_layer_set_further_offset(layer, further(pick)),
            }
        };
        let function = match setting {
            Setting::Shape(_) => "wtacrs_layer_set_shape",
            Setting::Dtypes(_) => "wtacrs_layer_set_dtypes",
            Setting::Budget(..) => "wtacrs_layer_set_budget",
            Setting::Design(_) => "wtacrs_layer_set_design",
            Setting::Source(..) => "wtacrs_layer_set_source",
            Setting::Precision(_) => "wtacrs_layer_set_precision",
            Setting::Engine(_) => "wtacrs_layer_set_engine",
            Setting::Packing(_) => "wtacrs_layer_set_packing",
            Setting::FurtherOffset(_) => "wtacrs_layer_set_further_offset",
        };
        let status = self.memory.call(function, &[], &[], call);
        self.refused(status, &[chosen]);
        if status != WTACRS_STATUS_OK {
            return;
        }
        let model = &mut self.handles.0[chosen.known.expect("checked")].model;
        match setting {
            Setting::Shape(shape) => model.shape[..3].copy_from_slice(&shape.map(Size::get)),
            Setting::Dtypes(dtypes) => model.dtypes = dtypes.map(dtype),
            Setting::Budget(unit, _) => model.is_exact = i32::from(unit) == WTACRS_BUDGET_EXACT,
            Setting::Source(source, _) => model.source = i32::from(source),
            Setting::Packing(packing) => model.is_packed = i32::from(packing) != WTACRS_PACKING_NATIVE,
            _ => {}
        }
    }

    pub fn set_product(&mut self, product: Pick, setting: ProductSetting) {
        let chosen = self.handles.choose(product, Kind::TensorMul);
        let it = chosen.pointer();
        // SAFETY: no pointers but to what lives for ever.
        let call = || unsafe {
            match setting {
                ProductSetting::Shape(shape) => {
                    let [batch, heads, rows, inner, columns] = shape.map(Size::get);
                    wtacrs_tensor_mul_set_shape(it, batch, heads, rows, inner, columns)
                }
                ProductSetting::Dtypes([of, gradient]) => wtacrs_tensor_mul_set_dtypes(it, dtype(of), dtype(gradient)),
                ProductSetting::Budget(side, unit, amount) => {
                    wtacrs_tensor_mul_set_budget(it, i32::from(side), i32::from(unit), amount.get())
                }
                ProductSetting::Design(design) => wtacrs_tensor_mul_set_design(it, i32::from(design)),
                ProductSetting::Mix(mix) => wtacrs_tensor_mul_set_mix(it, mix),
                ProductSetting::Precision(precision) => wtacrs_tensor_mul_set_precision(it, i32::from(precision)),
                ProductSetting::Engine(engine) => wtacrs_tensor_mul_set_engine(it, i32::from(engine)),
                ProductSetting::Packing(packing) => wtacrs_tensor_mul_set_packing(it, i32::from(packing)),
                ProductSetting::FurtherOffset(pick) => wtacrs_tensor_mul_set_further_offset(it, further(pick)),
            }
        };
        let function = match setting {
            ProductSetting::Shape(_) => "wtacrs_tensor_mul_set_shape",
            ProductSetting::Dtypes(_) => "wtacrs_tensor_mul_set_dtypes",
            ProductSetting::Budget(..) => "wtacrs_tensor_mul_set_budget",
            ProductSetting::Design(_) => "wtacrs_tensor_mul_set_design",
            ProductSetting::Mix(_) => "wtacrs_tensor_mul_set_mix",
            ProductSetting::Precision(_) => "wtacrs_tensor_mul_set_precision",
            ProductSetting::Engine(_) => "wtacrs_tensor_mul_set_engine",
            ProductSetting::Packing(_) => "wtacrs_tensor_mul_set_packing",
            ProductSetting::FurtherOffset(_) => "wtacrs_tensor_mul_set_further_offset",
        };
        let status = self.memory.call(function, &[], &[], call);
        self.refused(status, &[chosen]);
        if status != WTACRS_STATUS_OK {
            return;
        }
        let model = &mut self.handles.0[chosen.known.expect("checked")].model;
        match setting {
            ProductSetting::Shape(shape) => model.shape = shape.map(Size::get),
            ProductSetting::Dtypes([of, gradient]) => model.dtypes = [dtype(of), dtype(gradient), 0],
            _ => {}
        }
    }

    pub fn create_product_plan(&mut self, context: Pick, product: Pick) {
        let context = self.handles.choose(context, Kind::Context);
        let product = self.handles.choose(product, Kind::TensorMul);
        let model = self.handles.model(product);
        // SAFETY: an output of one pointer.
        let create = |out: *mut *mut wtacrs_tensor_mul_plan| unsafe {
            wtacrs_tensor_mul_plan_create(context.pointer(), product.pointer(), out)
        };
        let status = self.create(Kind::TensorMulPlan, "wtacrs_tensor_mul_plan_create", model, create);
        self.refused(status, &[context, product]);
        if status != WTACRS_STATUS_OK {
            return;
        }
        let made = self.handles.0.last_mut().expect("just made");
        let mut info =
            wtacrs_tensor_mul_plan_info { size: size_of::<wtacrs_tensor_mul_plan_info>(), ..Default::default() };
        // SAFETY: an output of the size that it says.
        let status = unsafe { wtacrs_tensor_mul_plan_get_info(without_provenance_mut(made.address), &raw mut info) };
        assert_eq!((status, info.forward_scratch_bytes), (WTACRS_STATUS_OK, 0));
        made.model = Model { saved: info.saved_bytes, backward_scratch: info.backward_scratch_bytes, ..model };
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
        if status != WTACRS_STATUS_OK {
            return;
        }
        let made = self.handles.0.last_mut().expect("just made");
        let mut info = wtacrs_plan_info { size: size_of::<wtacrs_plan_info>(), ..Default::default() };
        // SAFETY: an output of the size that it says.
        let status = unsafe { wtacrs_plan_get_info(without_provenance_mut(made.address), &raw mut info) };
        assert_eq!((status, info.forward_scratch_bytes), (WTACRS_STATUS_OK, 0));
        assert!(info.budget_rows <= model.shape[0] && (!model.is_exact || info.budget_rows == model.shape[0]));
        let is_packed = model.is_packed && !model.is_exact;
        made.model = Model {
            is_packed,
            keeps_all: is_packed && info.budget_rows == model.shape[0],
            source: if model.is_exact { WTACRS_SOURCE_INPUT } else { model.source },
            saved: info.saved_bytes,
            backward_scratch: info.backward_scratch_bytes,
            estimate_scratch: info.estimate_scratch_bytes,
            gradient_scratch: info.weight_gradient_scratch_bytes,
            ..model
        };
    }

    /// What a plan of either kind needs, into a struct of any form.
    pub fn info(&mut self, of_product: bool, plan: Pick, form: Form) {
        let kind = if of_product { Kind::TensorMulPlan } else { Kind::Plan };
        let chosen = self.handles.choose(plan, kind);
        let (status, is_writable) = if of_product {
            let to = form.given(&mut self.memory, wtacrs_tensor_mul_plan_info::default());
            let outputs = [(to.pointer.cast(), to.size)];
            // SAFETY: a struct of the size that it says.
            let call = || unsafe { wtacrs_tensor_mul_plan_get_info(chosen.pointer(), to.pointer) };
            let is_writable = to.is_writable(offset_of!(wtacrs_tensor_mul_plan_info, left_status_words));
            (self.memory.call("wtacrs_tensor_mul_plan_get_info", &outputs, &[], call), is_writable)
        } else {
            let to = form.given(&mut self.memory, wtacrs_plan_info::default());
            let outputs = [(to.pointer.cast(), to.size)];
            // SAFETY: as above.
            let call = || unsafe { wtacrs_plan_get_info(chosen.pointer(), to.pointer) };
            let is_writable = to.is_writable(offset_of!(wtacrs_plan_info, saved_status_words));
            (self.memory.call("wtacrs_plan_get_info", &outputs, &[], call), is_writable)
        };
        assert_eq!(status == WTACRS_STATUS_OK, is_writable && chosen.known.is_some());
    }

    pub fn destroy(&mut self, kind: u8, pick: Pick) {
        let (kind, function) = [
            (Kind::Context, "wtacrs_context_destroy"),
            (Kind::Layer, "wtacrs_layer_destroy"),
            (Kind::Plan, "wtacrs_plan_destroy"),
            (Kind::Cache, "wtacrs_norm_cache_destroy"),
            (Kind::Predictor, "wtacrs_norm_predictor_destroy"),
            (Kind::TensorMul, "wtacrs_tensor_mul_destroy"),
            (Kind::TensorMulPlan, "wtacrs_tensor_mul_plan_destroy"),
        ][usize::from(kind % 7)];
        self.destroy_one(kind, function, pick);
    }

    pub fn destroy_one(&mut self, kind: Kind, function: &str, pick: Pick) {
        let chosen = self.handles.choose(pick, kind);
        let status = self.memory.call(function, &[], &[], || end(kind, chosen));
        let right = chosen.is_null() || chosen.known.is_some();
        assert_eq!(status, if right { WTACRS_STATUS_OK } else { WTACRS_STATUS_INVALID_HANDLE });
        if let Some(at) = chosen.known {
            self.handles.0[at].alive = false;
        }
    }

    /// The plan, if calls can be made with it.
    pub fn plan(&self, pick: Pick) -> Option<(Chosen, Model)> {
        self.plan_of(pick, Kind::Plan)
    }

    /// A plan of either kind, if calls can be made with it.
    pub fn plan_of(&self, pick: Pick, kind: Kind) -> Option<(Chosen, Model)> {
        let chosen = self.handles.choose(pick, kind);
        Some((chosen, self.handles.model(chosen))).filter(|(_, model)| is_small(model))
    }

    /// A selection to write, in a struct of any form, and what a call may write to.
    pub fn selection(
        &mut self,
        places: [Place; 4],
        capacity: usize,
        form: Form,
    ) -> (Struct<wtacrs_selection>, [Span; 4]) {
        let [indices, scales, kept, winners] = places;
        let outputs =
            [(indices, capacity.saturating_mul(4)), (scales, capacity.saturating_mul(8)), (kept, 8), (winners, 8)]
                .map(|(place, bytes)| (self.memory.place(place, bytes, 8), bytes));
        let [indices, scales, kept, winners] = outputs.map(|(start, _)| start);
        let (indices, scales, kept, winners) = (indices.cast(), scales.cast(), kept.cast(), winners.cast());
        let selection = wtacrs_selection { indices, scales, capacity, kept, winners, ..Default::default() };
        (form.given(&mut self.memory, selection), outputs)
    }

    /// A selection to read, in a struct of any form. Fields that no call reads have values that would be faults.
    pub fn given_selection(
        &mut self,
        indices: &[u32],
        scales: *const f64,
        kept: &u64,
        form: Form,
    ) -> Struct<wtacrs_selection> {
        let (indices, kept) = (indices.as_ptr().cast_mut(), (&raw const *kept).cast_mut());
        let (capacity, winners) = (usize::MAX, without_provenance_mut(3));
        let scales = scales.cast_mut();
        let selection = wtacrs_selection { indices, scales, capacity, kept, winners, ..Default::default() };
        form.given(&mut self.memory, selection)
    }

    pub fn sums_of(&self, predictor: Chosen) -> usize {
        let mut count = 0;
        // SAFETY: an output of one number.
        unsafe { wtacrs_norm_predictor_statistics_count(predictor.pointer(), &raw mut count) };
        count
    }

    /// What was saved can be loaded; what was then changed is refused, or is another object that works. A cache is loaded
    /// with its own bounds, or with others.
    pub fn save_and_load(&mut self, is_predictor: bool, handles: [Pick; 2], place: Place, change: Change) {
        let kind = if is_predictor { Kind::Predictor } else { Kind::Cache };
        let (chosen, context) = (self.handles.choose(handles[0], kind), self.handles.choose(handles[1], Kind::Context));
        let (save, load) = match is_predictor {
            true => ("wtacrs_norm_predictor_save", "wtacrs_norm_predictor_load"),
            false => ("wtacrs_norm_cache_save", "wtacrs_norm_cache_load"),
        };
        // SAFETY: memory as documented, here and below.
        let run = |buffer: *mut u8, room: usize, needed: *mut usize| unsafe {
            match is_predictor {
                true => wtacrs_norm_predictor_save(chosen.pointer(), buffer.cast(), room, needed),
                false => wtacrs_norm_cache_save(chosen.pointer(), buffer.cast(), room, needed),
            }
        };
        let mut needed = 0;
        let status = self.memory.call(save, &[], &[], || run(null_mut(), 0, &raw mut needed));
        self.refused(status, &[chosen]);
        let room = fewer(needed, change.less);
        let buffer = self.memory.place(place, room, 8);
        let mut again = 0;
        let status = self.memory.call(save, &[(buffer, room)], &[], || run(buffer, room, &raw mut again));
        let mut bytes = vec![];
        if status == WTACRS_STATUS_OK && room > 0 {
            // SAFETY: just written.
            bytes = unsafe { std::slice::from_raw_parts(buffer, room) }.to_vec();
        }
        assert!(status != WTACRS_STATUS_OK || room == 0 || room == needed);
        if let Some(at) = change.flipped.filter(|_| !bytes.is_empty()) {
            let (at, len) = (usize::from(at), bytes.len());
            bytes[at / 8 % len] ^= 1 << (at % 8);
        }
        let mut model = self.handles.model(chosen);
        if let Some([samples, tokens]) = change.bounds.filter(|_| !is_predictor) {
            model.shape[..2].copy_from_slice(&[samples.get(), tokens.get()]);
        }
        let [samples, tokens, ..] = model.shape;
        let (from, length) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: as above.
        let status = match is_predictor {
            true => self.create(kind, load, model, |out| unsafe {
                wtacrs_norm_predictor_load(context.pointer(), from, length, out)
            }),
            false => self.create(kind, load, model, |out| unsafe {
                wtacrs_norm_cache_load(context.pointer(), samples, tokens, from, length, out)
            }),
        };
        self.refused(status, &[context]);
        let is_the_same = change.flipped.is_none() && change.bounds.is_none() && !bytes.is_empty();
        assert!(
            !is_the_same || context.known.is_none() || status == WTACRS_STATUS_OK,
            "what was saved can be loaded: {}",
            last_error()
        );
    }
}

/// How a saved object is changed before it is loaded.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Change {
    /// Makes the buffer too small.
    less: u8,
    flipped: Option<u16>,
    bounds: Option<[Size; 2]>,
}

/// Mostly all of the bytes that are needed; sometimes a few less.
pub fn fewer(bytes: usize, less: u8) -> usize {
    bytes.saturating_sub(usize::from(less).saturating_sub(250))
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
            Kind::Predictor => wtacrs_norm_predictor_destroy(handle.pointer()),
            Kind::TensorMul => wtacrs_tensor_mul_destroy(handle.pointer()),
            Kind::TensorMulPlan => wtacrs_tensor_mul_plan_destroy(handle.pointer()),
            Kind::Operator => wtacrs_operator_destroy(handle.pointer()),
            Kind::OperatorPlan => wtacrs_operator_plan_destroy(handle.pointer()),
        }
    }
}

/// Nothing outlives a test, so that memory does not grow from one to the next.
impl Drop for World {
    fn drop(&mut self) {
        for handle in self.handles.0.iter().filter(|handle| handle.alive) {
            let status = end(handle.kind, handle.chosen());
            assert!(status == WTACRS_STATUS_OK || std::thread::panicking());
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
