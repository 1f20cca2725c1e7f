//! Operators against the CPU's: what is saved and what comes out to the bit, gradients within derived bounds of their formulas in
//! f64.

mod common;
mod matrices;

use common::{Buffer, Machine, for_each_machine};
use half::{bf16, f16};
use matrices::{Tested, noise};
use proptest::prelude::*;
use std::ptr;
use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator, OperatorError};
use wtacrs_core::product::Packing;
use wtacrs_exact::operators::dropout;
use wtacrs_exact::operators::values::{self, ValueBits};
use wtacrs_exact::packing::{GROUP, Grid, Groups};
use wtacrs_exact::random::Randomness;
use wtacrs_kernels::kernel::norm;
use wtacrs_kernels::launch::LaunchList;
use wtacrs_kernels::plan::{
    DataType, DeviceRandomness, ExecuteError, Memory, OperatorBackward, OperatorForward, OperatorPlan,
    OperatorSettings, Part, PlanError,
};

const RANDOMNESS: Randomness = Randomness { seed: 0x1234_5678_9abc_def0, offset: u64::MAX - 3 };
const FURTHER: u64 = 1 << 33;
/// Half an ulp of 1.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

trait Typed: Tested {
    const TYPE: DataType;
    /// The relative error of rounding to the type, and its absolute one for subnormal numbers.
    const ROUNDING: [f64; 2];
}

impl Typed for f32 {
    const TYPE: DataType = DataType::F32;
    const ROUNDING: [f64; 2] = [UNIT, 1e-44];
}

impl Typed for f16 {
    const TYPE: DataType = DataType::F16;
    const ROUNDING: [f64; 2] = [1.0 / 2048.0, 3e-8];
}

impl Typed for bf16 {
    const TYPE: DataType = DataType::Bf16;
    const ROUNDING: [f64; 2] = [1.0 / 256.0, 1e-38];
}

/// Where arrays lie.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How many elements off alignment arrays begin.
    offset: usize,
    /// Whether outputs replace inputs.
    in_place: bool,
}

const PLACES: [Place; 4] = [
    Place { offset: 0, in_place: false },
    Place { offset: 1, in_place: true },
    Place { offset: 0, in_place: true },
    Place { offset: 3, in_place: false },
];

/// A dense array in a machine's memory.
struct Array<T> {
    buffer: Buffer<T>,
    offset: usize,
}

impl<T: Copy> Array<T> {
    fn new(machine: &Machine, values: &[T], offset: usize, beside: T) -> Self {
        let mut all = vec![beside; offset];
        all.extend_from_slice(values);
        Self { buffer: machine.upload(&all), offset }
    }

    fn unwritten(machine: &Machine, size: usize, offset: usize) -> Self {
        Self { buffer: machine.unwritten(size + offset), offset }
    }

    fn at(&self) -> *mut T {
        self.buffer.pointer().wrapping_add(self.offset)
    }

    fn values(&self, machine: &Machine) -> Vec<T> {
        machine.download(&self.buffer).split_off(self.offset)
    }
}

fn pointer<T: Copy>(array: Option<&Array<T>>) -> *mut T {
    array.map_or(ptr::null_mut(), Array::at)
}

fn memory(buffer: &Buffer<u32>) -> Memory {
    let bytes = 4 * buffer.len() as u64;
    Memory { at: if bytes > 0 { buffer.bytes() } else { ptr::null_mut() }, bytes }
}

fn bits<T: Tested>(values: &[T]) -> Vec<u32> {
    values.iter().map(|value| value.bits()).collect()
}

/// The operands of a case.
struct Operands<T> {
    x: Vec<T>,
    gate: Option<Vec<T>>,
    dy: Vec<T>,
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

impl<T: Typed> Operands<T> {
    fn new(operator: &Operator, [rows, columns]: [usize; 2], seed: u64) -> Self {
        let array = |salt: u64, scale: f32| -> Vec<T> {
            noise::<f32>(rows, columns, seed ^ salt << 32).iter().map(|&x| T::from_f32(scale * x)).collect()
        };
        let numbers = |salt: u64| noise::<f32>(1, columns, seed ^ salt << 40).iter().map(|x| 1.0 + 0.5 * x).collect();
        let is_norm = operator.operation().is_norm();
        let mut x = array(1, 5.0);
        // A row of one value, and one with a large element.
        if rows > 3 {
            x[2 * columns..3 * columns].fill(T::from_f32(0.7));
            x[3 * columns + columns / 2] = T::from_f32(-60.0);
        }
        Self {
            x,
            gate: operator.is_gated().then(|| array(2, 3.0)),
            dy: array(3, 2.0),
            weight: (is_norm && !seed.is_multiple_of(3)).then(|| numbers(4)),
            bias: (operator.operation() == Operation::LayerNorm && seed.is_multiple_of(2)).then(|| numbers(5)),
        }
    }
}

/// What the CPU makes of them.
struct Expected<T> {
    saved: Vec<u32>,
    y: Vec<T>,
    dx: Vec<T>,
    dgate: Option<Vec<T>>,
}

impl<T: Typed> Expected<T> {
    fn new(operator: &Operator, shape: [usize; 2], operands: &Operands<T>, randomness: Randomness) -> Self {
        let size = shape[0] * shape[1];
        let zeros = || vec![T::from_f32(0.0); size];
        let (mut y, mut saved) = (zeros(), vec![0; operator.saved_words(shape)]);
        let forward = Forward {
            x: InOut::Apart { from: &operands.x, to: &mut y },
            gate: operands.gate.as_deref(),
            weight: operands.weight.as_deref(),
            bias: operands.bias.as_deref(),
        };
        operator.forward(shape, forward, randomness, &mut saved).expect("operands fit");
        let (keeps, mut dx, mut dgate) = (operator.keeps(), zeros(), operator.is_gated().then(zeros));
        let backward = Backward {
            dy: InOut::Apart { from: &operands.dy, to: &mut dx },
            x: keeps.input.then_some(&operands.x),
            gate: operands.gate.as_deref().filter(|_| keeps.gate),
            y: keeps.output.then_some(&y),
            weight: operands.weight.as_deref(),
            dgate: dgate.as_deref_mut(),
            dweight: None,
            dbias: None,
        };
        operator.backward(shape, backward, randomness, &saved).expect("operands fit");
        Self { saved, y, dx, dgate }
    }
}

/// Runs both passes on a machine, and compares them with the CPU's.
fn check<T: Typed>(machine: &mut Machine, operator: Operator, shape: [usize; 2], place: Place, seed: u64) {
    let what = format!("{machine:?}, {operator:?}, {shape:?} of {}, {place:?}, {seed}", T::TYPE);
    let [rows, columns] = shape;
    let mut settings = OperatorSettings::new(operator, rows, columns);
    settings.data_type = T::TYPE;
    let plan = OperatorPlan::new(settings).expect("sizes that fit");
    let origin = RANDOMNESS.next(FURTHER);
    let operands = Operands::<T>::new(&operator, shape, seed);
    let expected = Expected::new(&operator, shape, &operands, origin);

    let Place { offset, in_place } = place;
    let nan = T::from_f32(f32::NAN);
    let array = |machine: &Machine, values: &[T]| Array::new(machine, values, offset, nan);
    let numbers = |machine: &Machine, values: &Option<Vec<f32>>| {
        values.as_ref().map(|values| Array::new(machine, values, offset, f32::NAN))
    };
    let x = array(machine, &operands.x);
    let gate = operands.gate.as_ref().map(|gate| array(machine, gate));
    let (weight, bias) = (numbers(machine, &operands.weight), numbers(machine, &operands.bias));
    let apart = Array::<T>::unwritten(machine, rows * columns, offset);
    // The output of a gated operator takes the place of the gate.
    let y = if in_place { gate.as_ref().unwrap_or(&x) } else { &apart };
    let saved = machine.unwritten::<u32>(plan.saved().bytes as usize / 4);
    let further = machine.upload(&[FURTHER]);
    let buffers = OperatorForward {
        x: x.at().cast(),
        gate: pointer(gate.as_ref()).cast(),
        weight: pointer(weight.as_ref()),
        bias: pointer(bias.as_ref()),
        y: y.at().cast(),
        saved: memory(&saved),
    };
    let randomness = DeviceRandomness { start: RANDOMNESS, further_offset: further.pointer() };
    // SAFETY: the buffers have the plan's sizes.
    unsafe { plan.forward(machine, &buffers, randomness) }.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(bits(&y.values(machine)), bits(&expected.y), "{what}: y");
    check_saved(machine, &plan, &saved, &expected.saved, origin, &what);

    let keeps = operator.keeps();
    let x = keeps.input.then(|| array(machine, &operands.x));
    let gate = operands.gate.as_ref().filter(|_| keeps.gate).map(|gate| array(machine, gate));
    let y = keeps.output.then(|| array(machine, &expected.y));
    let (dy, apart) = (array(machine, &operands.dy), Array::<T>::unwritten(machine, rows * columns, offset));
    let dgate = operator.is_gated().then(|| Array::<T>::unwritten(machine, rows * columns, offset));
    // Of a gated operator the gradient of the gate takes the place of dY where the other one does not.
    let is_odd = seed % 2 == 1;
    let (dx, dgate) = match &dgate {
        Some(_) if in_place && is_odd => (&apart, Some(&dy)),
        dgate => (if in_place { &dy } else { &apart }, dgate.as_ref()),
    };
    let (is_norm, has_bias) = (operator.operation().is_norm(), operator.operation() == Operation::LayerNorm);
    let dweight = (is_norm && !seed.is_multiple_of(5)).then(|| Array::<f32>::unwritten(machine, columns, offset));
    let dbias = (has_bias && !seed.is_multiple_of(7)).then(|| Array::<f32>::unwritten(machine, columns, offset));
    let scratch = machine.unwritten::<u32>(plan.backward_scratch_bytes() as usize / 4);
    let buffers = OperatorBackward {
        x: pointer(x.as_ref()).cast(),
        gate: pointer(gate.as_ref()).cast(),
        y: pointer(y.as_ref()).cast(),
        weight: pointer(weight.as_ref()),
        dy: dy.at().cast(),
        dx: dx.at().cast(),
        dgate: pointer(dgate).cast(),
        dweight: pointer(dweight.as_ref()),
        dbias: pointer(dbias.as_ref()),
        saved: memory(&saved),
        scratch: memory(&scratch),
    };
    // SAFETY: the buffers have the plan's sizes.
    unsafe { plan.backward(machine, &buffers) }.unwrap_or_else(|error| panic!("{what}: {error}"));
    let dx = dx.values(machine);
    if let (Some(dgate), Some(expected)) = (dgate, &expected.dgate) {
        assert_eq!(bits(&dgate.values(machine)), bits(expected), "{what}: the gradient of the gate");
    }
    if function_of_rows(operator) {
        let sums = [dweight, dbias].map(|sums| sums.map(|sums| sums.values(machine)));
        check_gradients(&operator, shape, &operands, &expected, origin, &dx, sums, &what);
    } else {
        assert_eq!(bits(&dx), bits(&expected.dx), "{what}: dX");
    }

    let restored = Array::<T>::unwritten(machine, rows * columns, offset);
    // SAFETY: as above.
    let done = unsafe { plan.restore(machine, memory(&saved), restored.at().cast()) };
    if !operator.restores() {
        assert_eq!(done, Err(ExecuteError::Unplanned { what: "the restored output" }), "{what}");
        return;
    }
    let mut y = vec![nan; rows * columns];
    operator.restore(shape, origin, &expected.saved, &mut y).expect("it restores");
    assert_eq!((done, bits(&restored.values(machine))), (Ok(()), bits(&y)), "{what}: the restored output");
}

fn function_of_rows(operator: Operator) -> bool {
    operator.operation() == Operation::Softmax || operator.operation().is_norm()
}

/// Compares every word that the plan saves.
fn check_saved(
    machine: &Machine,
    plan: &OperatorPlan,
    saved: &Buffer<u32>,
    expected: &[u32],
    origin: Randomness,
    what: &str,
) {
    let (parts, settings) = (plan.saved(), plan.settings());
    let rows = settings.rows;
    let layout = settings.operator.layout([rows, settings.columns]);
    let found = machine.download(saved);
    let words = |part: Part| &found[part.offset as usize / 4..][..part.bytes as usize / 4];
    let mut rest = expected;
    let mut take = |words: usize| {
        let (section, left) = rest.split_at(words);
        rest = left;
        section
    };
    for field in 0..2 {
        let section = take(rows * layout.codes[field]);
        if section.is_empty() {
            assert_eq!(parts.codes[field].bytes, 0, "{what}");
            continue;
        }
        let of_rows = words(parts.codes[field]).chunks(parts.row_words as usize);
        for (found, expected) in of_rows.zip(section.chunks(layout.codes[field])) {
            assert_eq!(&found[..expected.len()], expected, "{what}: codes {field}");
            assert!(found[expected.len()..].iter().all(|&word| word == 0), "{what}: codes {field}");
        }
    }
    for field in 0..2 {
        assert_eq!(words(parts.grids[field]), take(rows * layout.grids[field]), "{what}: grids {field}");
    }
    assert_eq!(words(parts.statistics), take(rows * layout.statistics), "{what}: statistics");
    if parts.origin.bytes > 0 {
        let of_origin = words(parts.origin);
        let number = |i: usize| u64::from(of_origin[i]) | u64::from(of_origin[i + 1]) << 32;
        assert_eq!([number(0), number(2)], [origin.seed, origin.offset], "{what}");
    }
}

/// The gradients of a softmax or a norm, within bounds of their formulas. Without the correction for products of packed values they
/// would lie outside.
#[allow(clippy::too_many_arguments)]
fn check_gradients<T: Typed>(
    operator: &Operator,
    [rows, columns]: [usize; 2],
    operands: &Operands<T>,
    expected: &Expected<T>,
    randomness: Randomness,
    dx: &[T],
    [dweight, dbias]: [Option<Vec<f32>>; 2],
    what: &str,
) {
    let (operation, mask) = (operator.operation(), operator.mask());
    let (is_norm, has_mean) = (operation.is_norm(), operation == Operation::LayerNorm);
    let layout = operator.layout([rows, columns]);
    let [codes, _, grids, _, _] = layout.sections();
    let (codes, rest) = expected.saved.split_at(codes);
    let (grids, statistics) = rest.split_at(grids);
    let groups = Groups::new(columns);
    let count = columns as f64;
    // Additions of a lane, those of lanes, and roundings of the terms.
    let sum_error = (4 * groups.count() + 12) as f64 * UNIT;
    let (mut of_weight, mut of_bias) = (vec![[0.0_f64; 2]; columns], vec![[0.0_f64; 2]; columns]);
    let mut uncorrected = 0;
    for i in 0..rows {
        let dy: Vec<f32> = (0..columns)
            .map(|j| {
                let words = dropout::words(randomness, i as u64 * dropout::blocks(columns) + j as u64 / 4);
                operands.dy[i * columns + j].widen() * if mask.drops() { mask.factor(words[j % 4]) } else { 1.0 }
            })
            .collect();
        let numbers = &statistics[i * layout.statistics..][..layout.statistics];
        let numbers: Vec<f32> = numbers.iter().map(|&bits| f32::from_bits(bits)).collect();
        let inverse = f64::from(numbers.last().copied().unwrap_or(1.0));
        let (mut values, mut variances) = (vec![0.0_f32; columns], vec![0.0_f64; columns]);
        if let Some(bits) = operator.packing().bits() {
            let random = ValueBits::new(randomness, 0);
            let codes = &codes[i * layout.codes[0]..][..layout.codes[0]];
            let grids = &grids[i * layout.grids[0]..][..layout.grids[0]];
            values::unpack_row(bits, &random, i as u64, codes, Ok(grids), &mut values);
            for (j, variance) in variances.iter_mut().enumerate() {
                let step = f64::from(Grid::from_word(grids[j / GROUP]).step);
                *variance = step * step / 12.0;
            }
        } else {
            for (j, value) in values.iter_mut().enumerate() {
                *value = if is_norm {
                    let mean = if has_mean { numbers[0] } else { 0.0 };
                    (operands.x[i * columns + j].widen() - mean) * numbers[numbers.len() - 1]
                } else {
                    expected.y[i * columns + j].widen()
                };
            }
        }
        let g: Vec<f64> = (0..columns)
            .map(|j| f64::from(operands.weight.as_ref().map_or(dy[j], |weight| dy[j] * weight[j])))
            .collect();
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let products = || values.iter().zip(&g).map(|(value, g)| value * g);
        let [along, along_size] = [products().sum::<f64>(), products().map(f64::abs).sum()];
        let [of_g, of_g_size] = [g.iter().sum::<f64>(), g.iter().map(|g| g.abs()).sum()];
        for j in 0..columns {
            let (p, g, variance) = (values[j], g[j], variances[j]);
            let (plain, correction, error) = if is_norm {
                let mean = if has_mean { of_g / count } else { 0.0 };
                let plain = inverse * (g - mean - p * along / count);
                let correction = inverse * variance * g / count;
                let sizes = of_g_size / count + p.abs() * along_size / count;
                let terms = g.abs() + mean.abs() + (p * along / count).abs() + variance * g.abs() / count;
                (plain, correction, inverse * (sum_error * sizes + 8.0 * UNIT * terms))
            } else {
                let terms = p.abs() * (g.abs() + along.abs()) + variance * g.abs();
                let error = p.abs() * sum_error * along_size + 8.0 * UNIT * terms;
                (p * (g - along), variance * g, error)
            };
            let exact = plain + correction;
            let bound = error * 1.001 + T::ROUNDING[0] * (exact.abs() + error) + T::ROUNDING[1];
            let found = f64::from(dx[i * columns + j].widen());
            assert!(
                (found - exact).abs() <= bound,
                "{what}: dX[{i}, {j}] is {found}, not {exact} ± {bound}; {plain} {correction} {error} {}",
                expected.dx[i * columns + j].widen()
            );
            uncorrected += usize::from((found - plain).abs() > bound);
            let term = f64::from(dy[j]) * p;
            of_weight[j] = [of_weight[j][0] + term, of_weight[j][1] + term.abs()];
            of_bias[j] = [of_bias[j][0] + f64::from(dy[j]), of_bias[j][1] + f64::from(dy[j].abs())];
        }
    }
    if matches!(operator.packing(), Packing::Bits2) && columns > 16 && rows > 1 {
        assert!(uncorrected > 0, "{what}: the correction makes no difference");
    }
    let error = f64::from(norm::sum_terms(rows as u32, columns as u32) + 1) * 1.001 * UNIT;
    for (found, exact) in [(dweight, of_weight), (dbias, of_bias)] {
        for (found, [sum, size]) in found.into_iter().flatten().zip(exact) {
            assert!((f64::from(found) - sum).abs() <= error * size, "{what}: {found} is not {sum}");
        }
    }
}

/// Every operator: an operation, whether it is gated, and its packing.
fn operators() -> Vec<Operator> {
    let mut all = Vec::new();
    for operation in Operation::ALL {
        for packing in Packing::ALL {
            let operator = Operator::new(operation).with_packing(packing);
            all.push(operator);
            all.extend(operator.gated());
        }
    }
    all
}

/// With dropout where there can be some.
fn with_dropout(operator: Operator, probability: f64) -> Operator {
    let dropped = operator.with_dropout(probability).expect("a probability");
    if dropped.check().is_ok() { dropped } else { operator }
}

const COLUMNS: [usize; 10] = [1, 15, 16, 33, 64, 100, 127, 128, 150, 300];

#[test]
fn every_operator() {
    for_each_machine(|machine| {
        for (i, operator) in operators().into_iter().enumerate() {
            for dropped in [false, true] {
                let operator = if dropped { with_dropout(operator, 0.3) } else { operator };
                let k = 2 * i + usize::from(dropped);
                let (columns, place) = (COLUMNS[k * 7 % COLUMNS.len()], PLACES[(k + k / 4) % 4]);
                let shape = [if columns > 64 { 5 } else { 9 }, columns];
                match k % 3 {
                    0 => check::<f32>(machine, operator, shape, place, k as u64),
                    1 => check::<f16>(machine, operator, shape, place, k as u64),
                    _ => check::<bf16>(machine, operator, shape, place, k as u64),
                }
            }
        }
    });
}
