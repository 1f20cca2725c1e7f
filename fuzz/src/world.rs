//! What a sequence of calls of the C interface has made so far, and how handles and memory are found for the next.

use crate::handles::{Chosen, Handles, Kind, Model, Pick, SMALL, Size, extent};
use crate::memory::{MOST, Memory, Place, Span, last_error};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::ptr::null_mut;
use wtacrs::status::{WTACRS_INVALID_HANDLE, WTACRS_OK, wtacrs_status};
use wtacrs::{cache::*, cache_on::*, context::*, layer::*, plan::*, predictor::*, predictor_on::*, tensor_mul::*};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Setting {
    Shape([Size; 3]),
    Dtypes([u8; 3]),
    BudgetRows(Size),
    BudgetFraction(f64),
    Design(i8),
    Source(i8),
    Mix(f64),
    Precision(i8),
    FurtherOffset(u8),
}

/// A change of a batched product's description.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum ProductSetting {
    Shape([Size; 5]),
    Dtypes([u8; 2]),
    BudgetRows(i8, Size),
    BudgetFraction(i8, f64),
    Exact(i8),
    Design(i8),
    Mix(f64),
    Precision(i8),
    FurtherOffset(u8),
}

/// A number that passes may add to their offsets, whenever they run.
static FURTHER: u64 = 3;

/// It, or nothing, or something that is not aligned.
fn further(pick: u8) -> *const u64 {
    match pick % 3 {
        0 => std::ptr::null(),
        1 => &raw const FURTHER,
        _ => (&raw const FURTHER).wrapping_byte_add(1),
    }
}

fn dtype(byte: u8) -> i32 {
    i32::from(byte % 6) - 1
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
        // SAFETY: no pointers but to what lives for ever.
        let (function, status) = unsafe {
            match setting {
                Setting::Shape([tokens, inner, outer]) => {
                    ("wtacrs_layer_set_shape", wtacrs_layer_set_shape(layer, tokens.get(), inner.get(), outer.get()))
                }
                Setting::Dtypes([h, dz, dw]) => {
                    ("wtacrs_layer_set_dtypes", wtacrs_layer_set_dtypes(layer, dtype(h), dtype(dz), dtype(dw)))
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
                Setting::Precision(precision) => {
                    ("wtacrs_layer_set_precision", wtacrs_layer_set_precision(layer, i32::from(precision)))
                }
                Setting::FurtherOffset(pick) => {
                    ("wtacrs_layer_set_further_offset", wtacrs_layer_set_further_offset(layer, further(pick)))
                }
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
            Setting::Dtypes(dtypes) => model.dtypes = dtypes.map(dtype),
            Setting::Source(source) => model.source = i32::from(source),
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
                ProductSetting::BudgetRows(side, rows) => {
                    wtacrs_tensor_mul_set_budget_rows(it, i32::from(side), rows.get())
                }
                ProductSetting::BudgetFraction(side, share) => {
                    wtacrs_tensor_mul_set_budget_fraction(it, i32::from(side), share)
                }
                ProductSetting::Exact(side) => wtacrs_tensor_mul_set_exact(it, i32::from(side)),
                ProductSetting::Design(design) => wtacrs_tensor_mul_set_design(it, i32::from(design)),
                ProductSetting::Mix(mix) => wtacrs_tensor_mul_set_mix(it, mix),
                ProductSetting::Precision(precision) => wtacrs_tensor_mul_set_precision(it, i32::from(precision)),
                ProductSetting::FurtherOffset(pick) => wtacrs_tensor_mul_set_further_offset(it, further(pick)),
            }
        };
        let function = match setting {
            ProductSetting::Shape(_) => "wtacrs_tensor_mul_set_shape",
            ProductSetting::Dtypes(_) => "wtacrs_tensor_mul_set_dtypes",
            ProductSetting::BudgetRows(..) => "wtacrs_tensor_mul_set_budget_rows",
            ProductSetting::BudgetFraction(..) => "wtacrs_tensor_mul_set_budget_fraction",
            ProductSetting::Exact(_) => "wtacrs_tensor_mul_set_exact",
            ProductSetting::Design(_) => "wtacrs_tensor_mul_set_design",
            ProductSetting::Mix(_) => "wtacrs_tensor_mul_set_mix",
            ProductSetting::Precision(_) => "wtacrs_tensor_mul_set_precision",
            ProductSetting::FurtherOffset(_) => "wtacrs_tensor_mul_set_further_offset",
        };
        let status = self.memory.call(function, &[], &[], call);
        self.refused(status, &[chosen]);
        if status != WTACRS_OK {
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
        if status != WTACRS_OK {
            return;
        }
        let made = self.handles.0.last_mut().expect("just made");
        let plan: *const wtacrs_tensor_mul_plan = std::ptr::without_provenance(made.address);
        let [mut saved, mut forward, mut scratch] = [0_usize; 3];
        // SAFETY: outputs of one number.
        let told = unsafe {
            wtacrs_tensor_mul_plan_memory(plan, &raw mut saved, &raw mut forward, &raw mut scratch, null_mut())
        };
        assert_eq!((told, forward), (WTACRS_OK, 0));
        made.model = Model { saved, scratch, ..model };
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
            (Kind::TensorMul, "wtacrs_tensor_mul_destroy"),
            (Kind::TensorMulPlan, "wtacrs_tensor_mul_plan_destroy"),
        ][usize::from(kind % 7)];
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
        self.plan_of(pick, Kind::Plan)
    }

    /// A plan of either kind, if calls can be made with it.
    pub fn plan_of(&self, pick: Pick, kind: Kind) -> Option<(Chosen, Model)> {
        let chosen = self.handles.choose(pick, kind);
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
    pub fn save_and_load(
        &mut self,
        predictor: bool,
        handle: Pick,
        place: Place,
        less: u8,
        flipped: Option<u16>,
        on: Option<Pick>,
    ) {
        let kind = if predictor { Kind::Predictor } else { Kind::Cache };
        let chosen = self.handles.choose(handle, kind);
        let context = on.map(|context| self.handles.choose(context, Kind::Context));
        let (save, load) = match (predictor, on) {
            (true, None) => ("wtacrs_norm_predictor_save", "wtacrs_norm_predictor_load"),
            (true, _) => ("wtacrs_norm_predictor_save", "wtacrs_norm_predictor_load_on"),
            (false, None) => ("wtacrs_norm_cache_save", "wtacrs_norm_cache_load"),
            (false, _) => ("wtacrs_norm_cache_save", "wtacrs_norm_cache_load_on"),
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
        let (from, length) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: as above, in all four.
        let status = match (predictor, context) {
            (true, None) => {
                self.create(kind, load, model, |out| unsafe { wtacrs_norm_predictor_load(from, length, out) })
            }
            (true, Some(on)) => self.create(kind, load, model, |out| unsafe {
                wtacrs_norm_predictor_load_on(on.pointer(), from, length, out)
            }),
            (false, None) => self.create(kind, load, model, |out| unsafe { wtacrs_norm_cache_load(from, length, out) }),
            (false, Some(on)) => self.create(kind, load, model, |out| unsafe {
                wtacrs_norm_cache_load_on(on.pointer(), SMALL, usize::MAX, from, length, out)
            }),
        };
        let is_right = context.is_none_or(|context| context.known.is_some());
        self.refused(status, context.as_slice());
        assert!(
            flipped.is_some() || bytes.is_empty() || !is_right || status == WTACRS_OK,
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
            Kind::Predictor => wtacrs_norm_predictor_destroy(handle.pointer()),
            Kind::TensorMul => wtacrs_tensor_mul_destroy(handle.pointer()),
            Kind::TensorMulPlan => wtacrs_tensor_mul_plan_destroy(handle.pointer()),
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
