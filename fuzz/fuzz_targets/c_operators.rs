//! Operators through the C interface: any settings, operands that are right, missing, shared or not aligned, and saved memory of
//! any operator. Every call keeps the promises of `wtacrs_fuzz::memory`, and a wrong handle is refused.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::ffi::c_void;
use std::ptr::{null_mut, without_provenance_mut};
use wtacrs::*;
use wtacrs_fuzz::handles::{Kind, Model, Pick, Size, bytes_of};
use wtacrs_fuzz::memory::{Place, Span};
use wtacrs_fuzz::structs::Form;
use wtacrs_fuzz::world::{Saved, World, dtype, fewer, further, stream};

#[derive(Arbitrary, Debug)]
struct Input {
    shape: [Size; 2],
    operation: u8,
    packing: u8,
    dtype: u8,
    dropout: u8,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Setting {
    Operation(i8, i8),
    Shape([Size; 2]),
    Dtype(u8),
    Packing(i8),
    Dropout(f64),
    Epsilon(f64),
    FurtherOffset(u8),
}

#[derive(Arbitrary, Debug)]
enum Call {
    Create,
    Set(Pick, Setting),
    CreatePlan(Pick, Pick),
    Info { plan: Pick, form: Form },
    Destroy(u8, Pick),
    Forward { plan: Pick, operands: Operands, saved: Place, less: u8, draws: (u64, u64), form: Form },
    Backward { plan: Pick, operands: Operands, saved: Saved, less: u8, form: Form },
    Restore { plan: Pick, saved: Saved, less: u8, y: Place },
}

/// Where operands lie: x, gate, y, dY; weight, bias; dX, dgate; dweight, dbias.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Operands {
    inputs: [Place; 4],
    numbers: [Place; 2],
    outputs: [Place; 2],
    sums: [Place; 2],
    /// Whether an output replaces an input.
    in_place: bool,
    /// A bit for each operand: at 0 it is there if the operator has it, else the other way.
    wrong: u16,
}

/// Operands that were placed, and which of them a call writes.
#[derive(Clone, Copy)]
struct Placed {
    arrays: [*mut u8; 4],
    numbers: [*mut u8; 2],
    outputs: [*mut u8; 2],
    sums: [*mut u8; 2],
}

impl Operands {
    fn place(self, world: &mut World, m: &Model, has: [bool; 10]) -> Placed {
        let element = bytes_of(m.dtypes[0]);
        let (array, row) = (m.shape[0] * m.shape[1] * element, m.shape[1] * 4);
        // Mostly none is wrong.
        let wrong = if self.wrong.is_multiple_of(4) { self.wrong >> 2 } else { 0 };
        let mut at = 0;
        let mut place = |place: Place, bytes: usize, element: usize| {
            let is_there = has[at] != (wrong >> at & 1 == 1);
            at += 1;
            if is_there { world.memory.place(place, bytes, element) } else { null_mut() }
        };
        Placed {
            arrays: self.inputs.map(|it| place(it, array, element)),
            numbers: self.numbers.map(|it| place(it, row, 4)),
            outputs: self.outputs.map(|it| place(it, array, element)),
            sums: self.sums.map(|it| place(it, row, 4)),
        }
    }
}

fn set(world: &mut World, pick: Pick, setting: Setting) {
    let chosen = world.handles.choose(pick, Kind::Operator);
    let op = chosen.pointer();
    let (function, status) = {
        let (function, call): (_, Box<dyn FnOnce() -> wtacrs_status>) = match setting {
            // SAFETY: no pointers but to what lives for ever, here and below.
            Setting::Operation(operation, gated) => (
                "wtacrs_operator_set_operation",
                Box::new(move || unsafe { wtacrs_operator_set_operation(op, operation.into(), gated.into()) }),
            ),
            Setting::Shape([rows, columns]) => (
                "wtacrs_operator_set_shape",
                Box::new(move || unsafe { wtacrs_operator_set_shape(op, rows.get(), columns.get()) }),
            ),
            Setting::Dtype(byte) => {
                ("wtacrs_operator_set_dtype", Box::new(move || unsafe { wtacrs_operator_set_dtype(op, dtype(byte)) }))
            }
            Setting::Packing(packing) => (
                "wtacrs_operator_set_packing",
                Box::new(move || unsafe { wtacrs_operator_set_packing(op, packing.into()) }),
            ),
            Setting::Dropout(probability) => (
                "wtacrs_operator_set_dropout",
                Box::new(move || unsafe { wtacrs_operator_set_dropout(op, probability) }),
            ),
            Setting::Epsilon(epsilon) => {
                ("wtacrs_operator_set_epsilon", Box::new(move || unsafe { wtacrs_operator_set_epsilon(op, epsilon) }))
            }
            Setting::FurtherOffset(pick) => (
                "wtacrs_operator_set_further_offset",
                Box::new(move || unsafe { wtacrs_operator_set_further_offset(op, further(pick)) }),
            ),
        };
        (function, world.memory.call(function, &[], &[], call))
    };
    world.refused(status, &[chosen]);
    if status != WTACRS_STATUS_OK {
        return;
    }
    let model = &mut world.handles.0[chosen.known.unwrap_or_else(|| panic!("{function} took a wrong handle"))].model;
    match setting {
        Setting::Operation(operation, gated) => (model.operation, model.is_gated) = (operation.into(), gated == 1),
        Setting::Shape(shape) => model.shape[..2].copy_from_slice(&shape.map(Size::get)),
        Setting::Dtype(byte) => model.dtypes[0] = dtype(byte),
        Setting::Packing(packing) => model.is_packed = i32::from(packing) != WTACRS_PACKING_NATIVE,
        _ => {}
    }
}

fn create_plan(world: &mut World, context: Pick, op: Pick) {
    let (context, op) = (world.handles.choose(context, Kind::Context), world.handles.choose(op, Kind::Operator));
    let model = world.handles.model(op);
    // SAFETY: an output of one pointer.
    let create = |out: *mut *mut wtacrs_operator_plan| unsafe {
        wtacrs_operator_plan_create(context.pointer(), op.pointer(), out)
    };
    let status = world.create(Kind::OperatorPlan, "wtacrs_operator_plan_create", model, create);
    world.refused(status, &[context, op]);
    if status != WTACRS_STATUS_OK {
        return;
    }
    let made = world.handles.0.last_mut().expect("just made");
    let mut info = wtacrs_operator_plan_info { size: size_of::<wtacrs_operator_plan_info>(), ..Default::default() };
    // SAFETY: an output of the size that it says.
    let status = unsafe { wtacrs_operator_plan_get_info(without_provenance_mut(made.address), &raw mut info) };
    assert_eq!((status, info.backward_scratch_bytes), (WTACRS_STATUS_OK, 0));
    assert!(!model.is_packed || [info.keeps_input, info.keeps_gate, info.keeps_output] == [0; 3]);
    let keeps = [info.keeps_input, info.keeps_gate, info.keeps_output].map(|kept| kept == 1);
    made.model = Model { saved: info.saved_bytes, keeps, restores: info.restores == 1, ..model };
}

fn run(world: &mut World, call: &Call) -> Option<()> {
    match *call {
        Call::Create => {
            // SAFETY: an output of one pointer.
            world.create(Kind::Operator, "wtacrs_operator_create", Model::default(), |out| unsafe {
                wtacrs_operator_create(out)
            });
        }
        Call::Set(op, setting) => set(world, op, setting),
        Call::CreatePlan(context, op) => create_plan(world, context, op),
        Call::Info { plan, form } => {
            let chosen = world.handles.choose(plan, Kind::OperatorPlan);
            let to = form.given(&mut world.memory, wtacrs_operator_plan_info::default());
            let outputs = [(to.pointer.cast(), to.size)];
            // SAFETY: a struct of the size that it says.
            let status = world.memory.call("wtacrs_operator_plan_get_info", &outputs, &[], || unsafe {
                wtacrs_operator_plan_get_info(chosen.pointer(), to.pointer)
            });
            let is_writable = to.is_writable(size_of::<wtacrs_operator_plan_info>());
            assert_eq!(status == WTACRS_STATUS_OK, is_writable && chosen.known.is_some());
        }
        Call::Destroy(kind, pick) => {
            let (kind, function) = [
                (Kind::Context, "wtacrs_context_destroy"),
                (Kind::Operator, "wtacrs_operator_destroy"),
                (Kind::OperatorPlan, "wtacrs_operator_plan_destroy"),
            ][usize::from(kind % 3)];
            world.destroy_one(kind, function, pick);
        }
        Call::Forward { plan, operands, saved, less, draws: (seed, offset), form } => {
            let (plan, m) = world.plan_of(plan, Kind::OperatorPlan)?;
            let (is_norm, has_bias) = kinds(&m);
            let [x, gate, y, weight, bias] = [true, m.is_gated, true, is_norm, has_bias];
            let placed = operands.place(world, &m, [x, gate, y, false, weight, bias, false, false, false, false]);
            let [x, gate, y, _] = placed.arrays;
            let [weight, bias] = placed.numbers;
            let y = if operands.in_place { x } else { y };
            let given = wtacrs_operator_forward {
                x: x.cast(),
                gate: gate.cast(),
                weight: weight.cast(),
                bias: bias.cast(),
                y: y.cast(),
                ..Default::default()
            };
            let given = form.given(&mut world.memory, given);
            let (output, room) = world.room_to_save(saved, m.saved, less);
            let outputs = [output, (y, array_bytes(&m))];
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_operator_plan_forward", &outputs, &[], || unsafe {
                wtacrs_operator_plan_forward(
                    plan.pointer(),
                    given.pointer,
                    seed,
                    offset,
                    output.0.cast(),
                    room,
                    stream(),
                )
            });
            world.refused(status, &[plan]);
            if status == WTACRS_STATUS_OK {
                let is_empty = array_bytes(&m) == 0;
                assert!(given.is_readable_or_null() && (is_empty || !form.is_null() && !x.is_null()));
                assert!(form.is_null() || gate.is_null() == !m.is_gated || is_empty);
                assert!(form.is_null() || (weight.is_null() || is_norm) && (bias.is_null() || has_bias));
            }
        }
        Call::Backward { plan, operands, saved, less, form } => {
            let (plan, m) = world.plan_of(plan, Kind::OperatorPlan)?;
            let (is_norm, has_bias) = kinds(&m);
            let [keeps_x, keeps_gate, keeps_y] = m.keeps;
            let has = [keeps_x, keeps_gate, keeps_y, true, is_norm, false, true, m.is_gated, is_norm, has_bias];
            let placed = operands.place(world, &m, has);
            let [x, gate, y, dy] = placed.arrays;
            let [dx, dgate] = placed.outputs;
            let dx = if operands.in_place { dy } else { dx };
            let [dweight, dbias] = placed.sums;
            let given = wtacrs_operator_backward {
                x: x.cast(),
                gate: gate.cast(),
                y: y.cast(),
                weight: placed.numbers[0].cast(),
                dy: dy.cast(),
                dx: dx.cast(),
                dgate: dgate.cast(),
                dweight: dweight.cast(),
                dbias: dbias.cast(),
                ..Default::default()
            };
            let given = form.given(&mut world.memory, given);
            let (saved, room) = world.saved(saved, m.saved);
            let room = fewer(room, less);
            let (array, row) = (array_bytes(&m), m.shape[1] * 4);
            let outputs: [Span; 4] = [(dx, array), (dgate, array), (dweight, row), (dbias, row)];
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_operator_plan_backward", &outputs, &[], || unsafe {
                let none: *mut c_void = null_mut();
                let saved = saved.cast();
                wtacrs_operator_plan_backward(plan.pointer(), given.pointer, saved, room, none, 0, stream())
            });
            world.refused(status, &[plan]);
            if status == WTACRS_STATUS_OK {
                let is_empty = array == 0;
                assert!(given.is_readable_or_null() && (is_empty || !form.is_null() && !dx.is_null() && !dy.is_null()));
                assert!(form.is_null() || is_empty || [x, gate, y].map(|it| !it.is_null()) == m.keeps);
            }
        }
        Call::Restore { plan, saved, less, y } => {
            let (plan, m) = world.plan_of(plan, Kind::OperatorPlan)?;
            let (saved, room) = world.saved(saved, m.saved);
            let room = fewer(room, less);
            let y = world.memory.place(y, array_bytes(&m), bytes_of(m.dtypes[0]));
            // SAFETY: memory as documented.
            let status = world.memory.call("wtacrs_operator_plan_restore", &[(y, array_bytes(&m))], &[], || unsafe {
                wtacrs_operator_plan_restore(plan.pointer(), saved.cast(), room, y.cast(), stream())
            });
            world.refused(status, &[plan]);
            assert!(status != WTACRS_STATUS_OK || m.restores);
        }
    }
    Some(())
}

fn array_bytes(m: &Model) -> usize {
    m.shape[0] * m.shape[1] * bytes_of(m.dtypes[0])
}

/// Whether it is a norm, and has a bias.
fn kinds(m: &Model) -> (bool, bool) {
    let has_bias = m.operation == WTACRS_OPERATION_LAYER_NORM;
    (has_bias || m.operation == WTACRS_OPERATION_RMS_NORM, has_bias)
}

fuzz_target!(init: {
    // One thread is enough, and quickest.
    // SAFETY: nothing else runs yet.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
}, |input: Input| {
    let mut world = World::default();
    let first = Pick::FIRST;
    // SAFETY: an output of one pointer.
    world.create(Kind::Context, "wtacrs_context_create", Model::default(), |out| unsafe {
        wtacrs_context_create(WTACRS_DEVICE_CPU, 0, std::ptr::null(), out)
    });
    let operation = (input.operation % 8) as i8;
    let gated = i8::from((1..5).contains(&operation) && input.operation & 8 == 8);
    let setup = [
        Call::Create,
        Call::Set(first, Setting::Operation(operation, gated)),
        Call::Set(first, Setting::Shape(input.shape)),
        Call::Set(first, Setting::Packing((input.packing % 4) as i8)),
        Call::Set(first, Setting::Dtype(input.dtype % 3 + 1)),
        Call::Set(first, Setting::Dropout(f64::from(input.dropout / 2) / 128.0)),
        Call::CreatePlan(first, first),
    ];
    for call in setup.iter().chain(input.calls.iter().take(24)) {
        let _ = run(&mut world, call);
        world.memory.release();
    }
});
