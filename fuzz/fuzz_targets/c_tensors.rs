//! The DLPack entries of the C interface with arbitrary tensors: any shape, strides, byte_offset, axes, dtype and device.
//! What is valid is accepted and computed from the right elements; what is not is refused; and every call keeps the
//! promises of `wtacrs_fuzz::memory`.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ptr::{null, null_mut};
use wtacrs::*;
use wtacrs_fuzz::memory::{Memory, Place};
use wtacrs_fuzz::tensor::{Given, Wish};

#[derive(Arbitrary, Debug)]
struct Input {
    /// Tokens, in_features, out_features; batch and heads.
    shape: [u8; 5],
    budget: u8,
    dtypes: [u8; 2],
    accumulate: bool,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
enum Call {
    RowNorms(Wish),
    ColumnNorms(Wish),
    ExpectedError(Wish, Wish),
    Forward(Wish),
    Backward(Wish, Wish),
    Gather(Wish, Wish),
    Gradient(Wish, Wish, Wish),
    Estimate(Wish, Wish, Wish),
    TensorMulForward(Wish, Wish),
    TensorMulBackward(Wish, Wish, Wish),
}

/// (dtype of the library, DLPack's code and bits)
const DTYPES: [(i32, (u8, u8)); 4] = [(0, (2, 32)), (1, (2, 16)), (2, (4, 16)), (3, (2, 64))];

struct World {
    memory: Memory,
    context: *mut wtacrs_context,
    plan: *mut wtacrs_plan,
    product: *mut wtacrs_tensor_mul_plan,
    shape: [usize; 5],
    kept: usize,
    dtypes: [(u8, u8); 3],
    accumulate: i32,
    of_plan: wtacrs_plan_info,
    of_product: wtacrs_tensor_mul_plan_info,
    /// Saved memory of the plan, and of the batched product's.
    saved: [*mut u8; 2],
}

fn ok(status: wtacrs_status) {
    assert_eq!(status, WTACRS_STATUS_OK, "{}", wtacrs_fuzz::memory::last_error());
}

impl World {
    fn new(input: &Input) -> Self {
        let [tokens, inner, outer, batch, heads] = input.shape;
        let shape = [tokens % 9, inner % 9, outer % 9, batch % 3, heads % 3].map(usize::from);
        let [tokens, inner, outer, batch, heads] = shape;
        let [first, second] = input.dtypes.map(|dtype| DTYPES[usize::from(dtype) % 3]);
        let (first, second, out) =
            if input.dtypes[0] > 230 { [DTYPES[3]; 3].into() } else { (first, second, DTYPES[0]) };
        let kept = usize::from(input.budget) % tokens.max(1) + 1;
        let (mut context, mut layer, mut plan, mut product, mut frozen) =
            (null_mut(), null_mut(), null_mut(), null_mut(), null_mut());
        let mut of_plan = wtacrs_plan_info { size: size_of::<wtacrs_plan_info>(), ..Default::default() };
        let mut of_product =
            wtacrs_tensor_mul_plan_info { size: size_of::<wtacrs_tensor_mul_plan_info>(), ..Default::default() };
        // SAFETY: outputs of one value each, and structs of the size that they say.
        unsafe {
            ok(wtacrs_context_create(0, 0, std::ptr::null(), &raw mut context));
            ok(wtacrs_layer_create(&raw mut layer));
            ok(wtacrs_layer_set_shape(layer, tokens, inner, outer));
            ok(wtacrs_layer_set_dtypes(layer, first.0, second.0, out.0));
            ok(match tokens {
                0 => wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 0.5),
                _ => wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, kept as f64),
            });
            ok(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT, 0.01));
            ok(wtacrs_plan_create(context, layer, &raw mut plan));
            ok(wtacrs_layer_destroy(layer));
            ok(wtacrs_plan_get_info(plan, &raw mut of_plan));
            ok(wtacrs_tensor_mul_create(&raw mut product));
            ok(wtacrs_tensor_mul_set_shape(product, batch, heads, tokens, inner, outer));
            ok(wtacrs_tensor_mul_set_dtypes(product, first.0, second.0));
            ok(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_FRACTION, 0.5));
            let right = if input.budget % 64 < 32 { 0.5 } else { 1.0 };
            ok(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, right));
            ok(wtacrs_tensor_mul_set_packing(product, i32::from(input.budget / 64)));
            ok(wtacrs_tensor_mul_plan_create(context, product, &raw mut frozen));
            ok(wtacrs_tensor_mul_destroy(product));
            ok(wtacrs_tensor_mul_plan_get_info(frozen, &raw mut of_product));
        }
        let mut memory = Memory::default();
        let saved = [memory.keep(of_plan.saved_bytes).0, memory.keep(of_product.saved_bytes).0];
        let dtypes = [first.1, second.1, out.1];
        let accumulate = i32::from(input.accumulate);
        Self { memory, context, plan, product: frozen, shape, kept, dtypes, accumulate, of_plan, of_product, saved }
    }

    fn tensor(&mut self, wish: &Wish, shape: &[usize], dtype: usize) -> Option<Given> {
        wish.given(&mut self.memory, shape, self.dtypes[dtype])
    }

    /// A call with tensors, of which the last `outputs` are outputs.
    fn call(
        &mut self,
        function: &str,
        tensors: &[&Given],
        outputs: usize,
        more: &[(*mut u8, usize)],
        scratch: &[(*mut u8, usize)],
        call: impl FnOnce() -> wtacrs_status,
    ) -> wtacrs_status {
        let outputs = &tensors[tensors.len() - outputs..];
        let mut spans = more.to_vec();
        spans.extend(outputs.iter().flat_map(|output| output.spans()));
        let status = self.memory.call(function, &spans, scratch, call);
        let valid = tensors.iter().all(|tensor| tensor.elements.is_some());
        let twins = outputs.iter().any(|output| output.has_twins());
        if status == WTACRS_STATUS_OK {
            assert!(valid && !twins, "{function} took a tensor that is not valid: {tensors:?}");
        }
        assert!(!valid || status != WTACRS_STATUS_DEVICE_MISMATCH, "{function}: the host was taken for another device");
        if !valid {
            assert_ne!(status, WTACRS_STATUS_INVALID_WEIGHTS, "{function} looked into a tensor that is not valid");
        }
        status
    }

    fn run(&mut self, call: &Call) -> Option<()> {
        let [tokens, inner, outer, batch, heads] = self.shape;
        let none = null_mut();
        let place = Place::Own(7);
        match call {
            Call::RowNorms(x) => {
                let x = self.tensor(x, &[tokens, inner], 0)?;
                // Rows without columns may be more than there is time for.
                let rows = usize::try_from(x.shape()[0]).unwrap_or(0).min(1 << 10);
                let norms = self.memory.place(place, rows * 4, 4);
                let mut found = vec![];
                let context = self.context;
                // SAFETY: memory as documented, as in all calls below.
                let status = self.call_rows(&x, norms, rows, || unsafe {
                    let status =
                        wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, x.pointer(), norms.cast(), rows, none);
                    found = std::slice::from_raw_parts(norms.cast::<f32>(), rows).to_vec();
                    status
                });
                if let (WTACRS_STATUS_OK, Some(elements)) = (status, &x.elements) {
                    self.check_norms(&found, elements, inner);
                }
            }
            Call::ColumnNorms(x) => {
                let x = self.tensor(x, &[tokens, inner], 0)?;
                let wanted = usize::try_from(*x.shape().get(1).unwrap_or(&0)).unwrap_or(0);
                let columns = wanted.min(1 << 10);
                let norms = self.memory.place(place, columns * 4, 4);
                let context = self.context;
                let status = self.memory.call("wtacrs_context_norms_dl", &[(norms, columns * 4)], &[], || unsafe {
                    wtacrs_context_norms_dl(context, WTACRS_AXIS_COLUMNS, x.pointer(), norms.cast(), columns, none)
                });
                let is_accepted = status == WTACRS_STATUS_OK || wanted > columns;
                assert!(is_accepted || x.elements.is_none(), "a valid tensor was refused");
            }
            Call::ExpectedError(h, dz) => {
                let h = self.tensor(h, &[tokens, inner], 0)?;
                let dz = self.tensor(dz, &[tokens, outer], 1)?;
                let (plan, error) = (self.plan, self.memory.place(place, 8, 8));
                self.call("wtacrs_plan_expected_error_dl", &[&h, &dz], 0, &[(error, 8)], &[], || unsafe {
                    let (h, dz, error) = (h.pointer(), dz.pointer(), error.cast());
                    wtacrs_plan_expected_error_dl(plan, h, dz, null(), error, null_mut(), null_mut())
                });
            }
            Call::Forward(h) => {
                let h = self.tensor(h, &[tokens, inner], 0)?;
                let (plan, saved, bytes) = (self.plan, self.saved[0], self.of_plan.saved_bytes);
                let status = self.call("wtacrs_plan_forward_dl", &[&h], 0, &[(saved, bytes)], &[], || unsafe {
                    wtacrs_plan_forward_dl(plan, h.pointer(), 1, 0, null(), saved.cast(), bytes, none, 0, none)
                });
                let accepted = status == WTACRS_STATUS_OK || status == WTACRS_STATUS_INVALID_WEIGHTS;
                assert!(accepted || h.elements.is_none(), "a valid tensor was refused");
            }
            Call::Backward(dz, dw) => {
                let dz = self.tensor(dz, &[tokens, outer], 1)?;
                let dw = self.tensor(dw, &[inner, outer], 2)?;
                let (plan, saved, bytes) = (self.plan, self.saved[0], self.of_plan.saved_bytes);
                let room = self.of_plan.backward_scratch_bytes;
                let work = self.memory.place(place, room, 8);
                let options = wtacrs_backward_options { accumulate: self.accumulate, ..Default::default() };
                let function = "wtacrs_plan_backward_dl";
                self.call(function, &[&dz, &dw], 1, &[], &[(work, room)], || unsafe {
                    let (saved, dz, dw, work) = (saved.cast(), dz.pointer(), dw.pointer(), work.cast());
                    wtacrs_plan_backward_dl(plan, saved, bytes, dz, dw, &raw const options, work, room, none)
                });
            }
            Call::Gather(h, rows) => {
                let h = self.tensor(h, &[tokens, inner], 0)?;
                let kept = self.kept.min(tokens);
                let rows = self.tensor(rows, &[kept, inner], 0)?;
                let (mut indices, mut count): (Vec<u32>, _) = ((0..kept as u32).collect(), kept as u64);
                let selection =
                    wtacrs_selection { indices: indices.as_mut_ptr(), kept: &raw mut count, ..Default::default() };
                let plan = self.plan;
                let status = self.call("wtacrs_plan_gather_dl", &[&h, &rows], 1, &[], &[], || unsafe {
                    wtacrs_plan_gather_dl(plan, h.pointer(), &raw const selection, rows.pointer(), none)
                });
                if let (WTACRS_STATUS_OK, Some(from), Some(to)) = (status, &h.elements, &rows.elements) {
                    let bytes = |(start, len): (*mut u8, usize)| unsafe { std::slice::from_raw_parts(start, len) };
                    // SAFETY: the elements are as the library has just used them.
                    assert!(from.iter().zip(to).all(|(&from, &to)| bytes(from) == bytes(to)), "other elements");
                }
            }
            Call::Gradient(rows, dz, dw) => {
                let kept = self.kept.min(tokens);
                let rows = self.tensor(rows, &[kept, inner], 0)?;
                let dz = self.tensor(dz, &[tokens, outer], 1)?;
                let dw = self.tensor(dw, &[inner, outer], 2)?;
                let (mut indices, mut count): (Vec<u32>, _) = ((0..kept as u32).collect(), kept as u64);
                let mut scales = vec![1.5; kept];
                let selection = wtacrs_selection {
                    indices: indices.as_mut_ptr(),
                    scales: scales.as_mut_ptr(),
                    kept: &raw mut count,
                    ..Default::default()
                };
                let room = self.of_plan.weight_gradient_scratch_bytes;
                let work = self.memory.place(place, room, 8);
                let (plan, flag) = (self.plan, self.accumulate);
                let function = "wtacrs_plan_weight_gradient_dl";
                self.call(function, &[&rows, &dz, &dw], 1, &[], &[(work, room)], || unsafe {
                    let (rows, chosen, dz, dw) = (rows.pointer(), &raw const selection, dz.pointer(), dw.pointer());
                    wtacrs_plan_weight_gradient_dl(plan, rows, chosen, dz, dw, flag, work.cast(), room, none)
                });
            }
            Call::Estimate(x, y, out) => {
                let x = self.tensor(x, &[tokens, inner], 0)?;
                let y = self.tensor(y, &[tokens, outer], 1)?;
                let out = self.tensor(out, &[inner, outer], 2)?;
                let room = self.of_plan.estimate_scratch_bytes;
                let work = self.memory.place(place, room, 8);
                let plan = self.plan;
                let function = "wtacrs_plan_estimate_dl";
                self.call(function, &[&x, &y, &out], 1, &[], &[(work, room)], || unsafe {
                    let (x, y, out) = (x.pointer(), y.pointer(), out.pointer());
                    wtacrs_plan_estimate_dl(plan, x, y, 3, 4, out, work.cast(), room, none)
                });
            }
            Call::TensorMulForward(a, b) => {
                let a = self.tensor(a, &[batch, heads, tokens, inner], 0)?;
                let b = self.tensor(b, &[batch, heads, inner, outer], 0)?;
                let (plan, saved, bytes) = (self.product, self.saved[1], self.of_product.saved_bytes);
                let function = "wtacrs_tensor_mul_plan_forward_dl";
                let status = self.call(function, &[&a, &b], 0, &[(saved, bytes)], &[], || unsafe {
                    let (a, b, saved) = (a.pointer(), b.pointer(), saved.cast());
                    wtacrs_tensor_mul_plan_forward_dl(plan, a, b, 1, 0, null(), saved, bytes, none, 0, none)
                });
                let accepted = status == WTACRS_STATUS_OK || status == WTACRS_STATUS_INVALID_WEIGHTS;
                let shared = status == WTACRS_STATUS_OVERLAP;
                assert!(
                    accepted || shared || a.elements.is_none() || b.elements.is_none(),
                    "a valid tensor was refused"
                );
            }
            Call::TensorMulBackward(g, da, db) => {
                let g = self.tensor(g, &[batch, heads, tokens, outer], 1)?;
                let da = self.tensor(da, &[batch, heads, tokens, inner], 2)?;
                let db = self.tensor(db, &[batch, heads, inner, outer], 2)?;
                let (plan, saved, bytes) = (self.product, self.saved[1], self.of_product.saved_bytes);
                let room = self.of_product.backward_scratch_bytes;
                let work = self.memory.place(place, room, 8);
                let options = wtacrs_tensor_mul_backward_options { accumulate: self.accumulate, ..Default::default() };
                let function = "wtacrs_tensor_mul_plan_backward_dl";
                self.call(function, &[&g, &da, &db], 2, &[], &[(work, room)], || unsafe {
                    let (saved, g, da, db) = (saved.cast(), g.pointer(), da.pointer(), db.pointer());
                    let (options, work) = (&raw const options, work.cast());
                    wtacrs_tensor_mul_plan_backward_dl(plan, saved, bytes, g, da, db, options, work, room, none)
                });
            }
        }
        Some(())
    }

    /// Row norms take any shape, so only a description that is wrong in itself is refused.
    fn call_rows(
        &mut self,
        x: &Given,
        norms: *mut u8,
        rows: usize,
        call: impl FnOnce() -> wtacrs_status,
    ) -> wtacrs_status {
        let status = self.memory.call("wtacrs_context_norms_dl", &[(norms, rows * 4)], &[], call);
        assert!(status == WTACRS_STATUS_OK || x.elements.is_none(), "a valid tensor was refused");
        status
    }

    /// Against the elements that the description names, where they are finite f32 or f64.
    fn check_norms(&self, found: &[f32], elements: &[(*mut u8, usize)], columns: usize) {
        // SAFETY: the elements are as the library has just used them.
        let value = |&(start, size): &(*mut u8, usize)| unsafe {
            match size {
                4 => f64::from(start.cast::<f32>().read_unaligned()),
                _ => start.cast::<f64>().read_unaligned(),
            }
        };
        if elements.iter().any(|&(_, size)| size == 2) || columns == 0 {
            return;
        }
        for (row, &norm) in elements.chunks(columns).zip(found) {
            let exact = row.iter().map(|element| value(element).powi(2)).sum::<f64>().sqrt();
            if (1e-30..1e30).contains(&exact) {
                assert!((f64::from(norm) - exact).abs() <= 1e-5 * exact, "{norm} where {exact} is right");
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: handles are looked up, never followed.
        unsafe {
            ok(wtacrs_plan_destroy(self.plan));
            ok(wtacrs_tensor_mul_plan_destroy(self.product));
            ok(wtacrs_context_destroy(self.context));
        }
    }
}

fuzz_target!(init: {
    // One thread is enough, and quickest.
    // SAFETY: nothing else runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
}, |input: Input| {
    let mut world = World::new(&input);
    for call in input.calls.iter().take(8) {
        let _ = world.run(call);
        world.memory.release();
    }
});
