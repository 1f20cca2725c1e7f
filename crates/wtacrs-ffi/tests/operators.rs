//! Operators through the C interface give core's bits on the CPU, and the CPU's bits on the emulator.

#[path = "common/calls.rs"]
mod calls;

use calls::{Memory, check, context, operator_with};
use half::{bf16, f16};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use wtacrs::stand_in::use_emulator;
use wtacrs::*;
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator};

/// So that parts of saved memory are multiples of 256 bytes, as a GPU's are.
const SHAPE: [usize; 2] = [64, 256];
const SIZE: usize = SHAPE[0] * SHAPE[1];
const SEED: u64 = 9;
const OFFSET: u64 = 100;
/// Of the CPU's saved memory.
const HEADER: usize = 64;

/// An element type by its number.
trait Typed: Element {
    const DTYPE: wtacrs_dtype;
    fn of(value: f32) -> Self;
    fn value(self) -> f64;
}

impl Typed for f32 {
    const DTYPE: wtacrs_dtype = WTACRS_DTYPE_F32;
    fn of(value: f32) -> Self {
        value
    }
    fn value(self) -> f64 {
        self.into()
    }
}

impl Typed for f16 {
    const DTYPE: wtacrs_dtype = WTACRS_DTYPE_F16;
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn value(self) -> f64 {
        self.into()
    }
}

impl Typed for bf16 {
    const DTYPE: wtacrs_dtype = WTACRS_DTYPE_BF16;
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn value(self) -> f64 {
        self.into()
    }
}

fn noise(count: usize, seed: usize) -> impl Iterator<Item = f32> {
    (0..count).map(move |i| (((i * 7919 + seed * 104_729) * 31) % 1009) as f32 / 256.0 - 2.0)
}

/// What both passes read.
struct Operands<T> {
    x: Vec<T>,
    gate: Vec<T>,
    dy: Vec<T>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl<T: Typed> Operands<T> {
    fn new() -> Self {
        let array = |seed| noise(SIZE, seed).map(T::of).collect();
        let row = |seed| noise(SHAPE[1], seed).collect();
        Self { x: array(1), gate: array(2), dy: array(3), weight: row(4), bias: row(5) }
    }
}

/// What both passes write.
#[derive(Debug, PartialEq)]
struct Results<T> {
    saved: Vec<u8>,
    y: Vec<T>,
    dx: Vec<T>,
    dgate: Vec<T>,
    dweight: Vec<f32>,
    dbias: Vec<f32>,
    restored: Vec<T>,
}

impl<T: Typed> Results<T> {
    fn new() -> Self {
        let (array, row) = (vec![T::of(7.0); SIZE], vec![7.0; SHAPE[1]]);
        Self {
            saved: vec![],
            y: array.clone(),
            dx: array.clone(),
            dgate: array.clone(),
            dweight: row.clone(),
            dbias: row,
            restored: array,
        }
    }
}

/// Which operands an operator has.
fn has(operator: &Operator) -> (bool, bool, bool) {
    let operation = operator.operation();
    (operator.is_gated(), operation.is_norm(), operation == Operation::LayerNorm)
}

fn of_core<T: Typed>(operator: &Operator, operands: &Operands<T>) -> Results<T> {
    let mut to = Results::<T>::new();
    let (is_gated, is_norm, is_layer_norm) = has(operator);
    let (randomness, keeps) = (Randomness::new(SEED, OFFSET), operator.keeps());
    let mut saved = vec![0; operator.saved_words(SHAPE)];
    let forward = Forward {
        x: InOut::Apart { from: &operands.x, to: &mut to.y },
        gate: is_gated.then_some(&operands.gate[..]),
        weight: is_norm.then_some(&operands.weight[..]),
        bias: is_layer_norm.then_some(&operands.bias[..]),
    };
    operator.forward(SHAPE, forward, randomness, &mut saved).expect("fits");
    let backward = Backward {
        dy: InOut::Apart { from: &operands.dy, to: &mut to.dx },
        x: keeps.input.then_some(&operands.x[..]),
        gate: keeps.gate.then_some(&operands.gate[..]),
        y: keeps.output.then_some(&to.y[..]),
        weight: is_norm.then_some(&operands.weight[..]),
        dgate: is_gated.then_some(&mut to.dgate[..]),
        dweight: is_norm.then_some(&mut to.dweight[..]),
        dbias: is_layer_norm.then_some(&mut to.dbias[..]),
    };
    operator.backward(SHAPE, backward, randomness, &saved).expect("fits");
    if operator.restores() {
        operator.restore(SHAPE, randomness, &saved, &mut to.restored).expect("it does");
    }
    to.saved = saved.iter().flat_map(|word| word.to_ne_bytes()).collect();
    to
}

/// A number that passes add to their offset.
static FURTHER: u64 = 88;

/// The same through the C interface, with a part of the offset as a further one.
fn of_device<T: Typed>(device: wtacrs_device, operator: &Operator, operands: &Operands<T>) -> Results<T> {
    let mut to = Results::<T>::new();
    let (is_gated, is_norm, is_layer_norm) = has(operator);
    let context = context(device, 0);
    // SAFETY: a handle is never followed.
    let (plan, info) = operator_with(context, |op| unsafe {
        check(wtacrs_operator_set_operation(op, operator.operation() as i32, is_gated.into()));
        check(wtacrs_operator_set_shape(op, SHAPE[0], SHAPE[1]));
        check(wtacrs_operator_set_dtype(op, T::DTYPE));
        check(wtacrs_operator_set_packing(op, operator.packing() as i32));
        check(wtacrs_operator_set_dropout(op, f64::from(operator.mask().threshold) / 4_294_967_296.0));
        check(wtacrs_operator_set_epsilon(op, operator.epsilon().into()));
        check(wtacrs_operator_set_further_offset(op, &FURTHER));
    });
    let keeps = operator.keeps();
    assert_eq!(info.draws, operator.draws(SHAPE));
    assert_eq!(
        [info.keeps_input, info.keeps_gate, info.keeps_output],
        [keeps.input, keeps.gate, keeps.output].map(i32::from)
    );
    assert_eq!(info.restores, operator.restores().into());
    let mut kept = Memory::filled(info.saved_bytes, 0xa5);
    let mut scratch = Memory::filled(info.backward_scratch_bytes, 0xa5);
    let (saved, saved_bytes) = (kept.at(), kept.bytes);
    let read = |is_there: bool, values: &[T]| if is_there { values.as_ptr().cast::<c_void>() } else { null() };
    let numbers = |is_there: bool, values: &[f32]| if is_there { values.as_ptr() } else { null() };
    let forward = wtacrs_operator_forward {
        x: read(true, &operands.x),
        gate: read(is_gated, &operands.gate),
        weight: numbers(is_norm, &operands.weight),
        bias: numbers(is_layer_norm, &operands.bias),
        y: to.y.as_mut_ptr().cast(),
        ..Default::default()
    };
    let backward = wtacrs_operator_backward {
        x: read(keeps.input, &operands.x),
        gate: read(keeps.gate, &operands.gate),
        y: if keeps.output { to.y.as_ptr().cast() } else { null() },
        weight: numbers(is_norm, &operands.weight),
        dy: read(true, &operands.dy),
        dx: to.dx.as_mut_ptr().cast(),
        dgate: if is_gated { to.dgate.as_mut_ptr().cast() } else { null_mut() },
        dweight: if is_norm { to.dweight.as_mut_ptr() } else { null_mut() },
        dbias: if is_layer_norm { to.dbias.as_mut_ptr() } else { null_mut() },
        ..Default::default()
    };
    // SAFETY: every pointer is to memory of the documented size that lives until the call returns.
    unsafe {
        let none = null_mut();
        check(wtacrs_operator_plan_forward(plan, &forward, SEED, OFFSET - FURTHER, saved, saved_bytes, none));
        let (work, room) = (scratch.at(), scratch.bytes);
        check(wtacrs_operator_plan_backward(plan, &backward, saved, saved_bytes, work, room, none));
        if operator.restores() {
            check(wtacrs_operator_plan_restore(plan, saved, saved_bytes, to.restored.as_mut_ptr().cast(), none));
        }
        check(wtacrs_operator_plan_destroy(plan));
        check(wtacrs_context_destroy(context));
    }
    to.saved = kept.contents();
    to
}

/// Every operator: gated and not, in every packing, with and without dropout.
fn operators() -> impl Iterator<Item = Operator> {
    let dropped = |operator: Operator| [0.0, 0.3].map(|probability| operator.with_dropout(probability).expect("one"));
    let all = Operator::all().flat_map(dropped);
    all.map(|operator| operator.with_epsilon(1e-3).expect("one")).filter(|operator| operator.check().is_ok())
}

fn as_core<T: Typed>() {
    let operands = Operands::<T>::new();
    for operator in operators() {
        let (expected, mut found) = (of_core(&operator, &operands), of_device(WTACRS_DEVICE_CPU, &operator, &operands));
        assert_eq!(found.saved.is_empty(), expected.saved.is_empty() && operator.draws(SHAPE) == 0, "{operator:?}");
        found.saved.drain(..HEADER.min(found.saved.len()));
        assert!(found == expected, "{operator:?}");
    }
}

#[test]
fn as_core_to_the_bit() {
    as_core::<f32>();
    as_core::<f16>();
    as_core::<bf16>();
}

/// Sums over rows or columns have orders of their own, so gradients that are made of some differ in rounding.
fn near<T: Typed>(found: &[T], expected: &[T], tolerance: f64) -> bool {
    found.iter().zip(expected).all(|(a, b)| (a.value() - b.value()).abs() <= tolerance * (1.0 + b.value().abs()))
}

fn as_on_the_cpu<T: Typed>(tolerance: f64) {
    let operands = Operands::<T>::new();
    for operator in operators() {
        let expected = of_core(&operator, &operands);
        let found = of_device(WTACRS_DEVICE_CUDA, &operator, &operands);
        let (saved, origin) = found.saved.split_at(expected.saved.len());
        assert!(saved == expected.saved, "what is saved by {operator:?}");
        assert_eq!(!origin.is_empty(), operator.draws(SHAPE) > 0, "{operator:?}");
        assert!(found.y == expected.y && found.restored == expected.restored, "{operator:?}");
        assert!(near(&found.dx, &expected.dx, tolerance) && near(&found.dgate, &expected.dgate, 0.0), "{operator:?}");
        let sums = [(&found.dweight, &expected.dweight), (&found.dbias, &expected.dbias)];
        assert!(sums.iter().all(|(found, expected)| near(found, expected, 1e-4)), "{operator:?}");
    }
}

#[test]
fn as_on_the_cpu_to_the_bit() {
    use_emulator();
    as_on_the_cpu::<f32>(1e-5);
    as_on_the_cpu::<f16>(1e-3);
    as_on_the_cpu::<bf16>(1e-2);
}
