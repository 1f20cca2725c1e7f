//! Operators against the CPU's: what is saved and what comes out to the bit, gradients within derived bounds of their formulas in
//! f64.

use crate::common::{Buffer, Machine, for_each_machine};
use crate::matrices::{Tested, noise};
use half::{bf16, f16};
use proptest::prelude::*;
use proptest::sample::Index;
use std::ptr;
use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator, OperatorError};
use wtacrs_core::product::Packing;
use wtacrs_exact::operators::dropout;
use wtacrs_exact::operators::values::{self, ValueBits};
use wtacrs_exact::packing::{GROUP, Grid, Groups};
use wtacrs_exact::random::Randomness;
use wtacrs_kernels::kernel::operator::SavedValues;
use wtacrs_kernels::kernel::packed_rows::GroupShares;
use wtacrs_kernels::kernel::{NORM_BACKWARD, column_sums, norm};
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
        // Of the parts of the variances.
        let mut sizes = vec![0.0_f64; columns];
        if let Some(bits) = operator.packing().bits() {
            let random = ValueBits::new(randomness, 0);
            let codes = &codes[i * layout.codes[0]..][..layout.codes[0]];
            let grids = &grids[i * layout.grids[0]..][..layout.grids[0]];
            values::unpack_row(bits, &random, i as u64, codes, Ok(grids), &mut values);
            for (j, variance) in variances.iter_mut().enumerate() {
                let step = f64::from(Grid::from_word(grids[j / GROUP]).step);
                *variance = step * step / 12.0;
            }
            if !is_norm {
                // Roots were packed.
                for (j, (value, variance)) in values.iter_mut().zip(&mut variances).enumerate() {
                    *value = values::square(*value, values::variance(Grid::from_word(grids[j / GROUP])));
                    let of_root = *variance;
                    *variance = (4.0 * f64::from(*value) + 0.8 * of_root) * of_root;
                    sizes[j] = (4.0 * f64::from(*value).abs() + 0.8 * of_root) * of_root;
                }
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
                let terms = p.abs() * (g.abs() + along.abs()) + sizes[j] * g.abs();
                let error = p.abs() * sum_error * along_size + 8.0 * UNIT * terms;
                (p * (g - along), variance * g, error)
            };
            let exact = plain + correction;
            let bound = error * 1.001 + T::ROUNDING[0] * (exact.abs() + error) + T::ROUNDING[1];
            let found = f64::from(dx[i * columns + j].widen());
            assert!((found - exact).abs() <= bound, "{what}: dX[{i}, {j}] is {found}, not {exact} ± {bound}");
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

/// With dropout where there can be some.
fn with_dropout(operator: Operator, probability: f64) -> Operator {
    let dropped = operator.with_dropout(probability).expect("a probability");
    if dropped.check().is_ok() { dropped } else { operator }
}

const COLUMNS: [usize; 10] = [1, 15, 16, 33, 64, 100, 127, 128, 150, 300];

#[test]
fn every_operator() {
    for_each_machine(|machine| {
        for (i, operator) in Operator::all().enumerate() {
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

/// Rows of more groups than dithers are drawn for at once, more rows than a block has, and ranges of rows that several blocks and
/// several warps of a block share.
#[test]
fn several_blocks() {
    use Operation::{Gelu, Identity, LayerNorm, Relu, RmsNorm, Silu, Softmax};
    for_each_machine(|machine| {
        let of = |operation, packing| Operator::new(operation).with_packing(packing);
        let gated = of(Silu, Packing::Bits2).gated().expect("a function with a gate");
        check::<bf16>(machine, gated, [37, 300], PLACES[0], 1);
        check::<f32>(machine, with_dropout(of(Gelu, Packing::Bits8), 0.9), [70, 140], PLACES[2], 2);
        check::<f16>(machine, of(Relu, Packing::Native), [40, 260], PLACES[3], 3);
        check::<f32>(machine, with_dropout(of(Identity, Packing::Native), 0.5), [1, 6000], PLACES[1], 4);
        for columns in [2100, 4224] {
            check::<bf16>(machine, of(Softmax, Packing::Bits4), [2, columns], PLACES[0], 5);
            check::<f32>(machine, of(LayerNorm, Packing::Bits8), [3, columns], PLACES[1], 6);
        }
        check::<f32>(machine, with_dropout(of(Softmax, Packing::Bits8), 0.1), [35, 48], PLACES[1], 7);
        check::<f16>(machine, of(Softmax, Packing::Native), [37, 72], PLACES[2], 8);
        check::<bf16>(machine, with_dropout(of(RmsNorm, Packing::Bits4), 0.2), [70, 130], PLACES[0], 9);
        check::<f32>(machine, with_dropout(of(LayerNorm, Packing::Native), 0.2), [130, 20], PLACES[3], 10);
    });
}

/// However rows are cut, dX has the same bits, and the sums lie within the bound.
#[test]
fn ranges_of_every_kind() {
    const SHAPE: [usize; 2] = [150, 200];
    let [rows, columns] = SHAPE;
    let operator = Operator::new(Operation::LayerNorm);
    let operands = Operands::<f32>::new(&operator, SHAPE, 1);
    let expected = Expected::new(&operator, SHAPE, &operands, RANDOMNESS);
    let exact = |j: usize| {
        let mut sums = [[0.0_f64; 2]; 2];
        for i in 0..rows {
            let [mean, inverse] = [0, 1].map(|k| f32::from_bits(expected.saved[2 * i + k]));
            let (dy, x) = (operands.dy[i * columns + j], operands.x[i * columns + j]);
            for (sum, term) in sums.iter_mut().zip([f64::from(dy) * f64::from((x - mean) * inverse), f64::from(dy)]) {
                *sum = [sum[0] + term, sum[1] + term.abs()];
            }
        }
        sums
    };
    for_each_machine(|machine| {
        let (x, dy) = (machine.upload(&operands.x), machine.upload(&operands.dy));
        let weight = machine.upload(operands.weight.as_ref().expect("a weight"));
        let statistics = machine.upload(&expected.saved);
        let mut first = None;
        for (of_block, split_shift) in [(32, 1), (64, 0), (128, 1), (256, 2)] {
            let ranges = norm::Ranges { rows: of_block, split_shift };
            let leading = column_sums::partial_leading(columns as u32) as usize;
            let count = ranges.count(rows as u32) as usize;
            let sums = [0, 1].map(|_| machine.unwritten::<f32>(count * leading));
            let dx = machine.unwritten::<f32>(rows * columns);
            let args = norm::BackwardArgs {
                x: x.bytes(),
                weight: weight.pointer(),
                dy: dy.bytes(),
                dx: dx.bytes(),
                of_weight: sums[0].pointer(),
                of_bias: sums[1].pointer(),
                has_mean: 1,
                ranges,
                saved: SavedValues {
                    shares: GroupShares::new(rows as u32, columns as u32, 1),
                    element: DataType::F32 as u32,
                    bits: 0,
                    codes: [ptr::null_mut(); 2],
                    row_words: 0,
                    grids: [ptr::null_mut(); 2],
                    statistics: statistics.pointer().cast(),
                    origin: ptr::null_mut(),
                    threshold: 0,
                    scale: 1.0,
                },
            };
            // SAFETY: the buffers have the sizes that the arguments say.
            unsafe { machine.run(&NORM_BACKWARD, norm::backward_shape(&args.saved, ranges), &args) };
            let dx = bits(&machine.download(&dx));
            assert!(first.get_or_insert_with(|| dx.clone()) == &dx, "{machine:?}, {ranges:?}");
            // Additions of a lane, and those of four rows.
            let error = f64::from(of_block / 4 + 3) * 1.001 * UNIT;
            let sums = sums.map(|sums| machine.download(&sums));
            for j in 0..columns {
                for (sums, [exact, size]) in sums.iter().zip(exact(j)) {
                    let found: f64 = (0..count).map(|range| f64::from(sums[range * leading + j])).sum();
                    assert!((found - exact).abs() <= error * size, "{machine:?}, {ranges:?}: column {j}");
                }
            }
        }
    });
}

/// A group with an element that is not finite is read back as NaNs, and codes that have no grid do not depend on a NaN's bits.
#[test]
fn elements_that_are_not_finite() {
    for_each_machine(|machine| {
        for operator in Operator::all() {
            let (shape, columns) = ([4, 140], 140);
            if operator.operation().is_norm() && !operator.packing().is_packed() {
                // A mean that is a NaN is saved as it is.
                continue;
            }
            let operands = Operands::<f32>::new(&operator, shape, 2);
            let mut x = operands.x;
            [x[3], x[columns + 130], x[2 * columns + 7]] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            let plan = OperatorPlan::new(settings(operator, shape));
            let plan = plan.expect("sizes that fit");
            let (mut y, mut expected) = (vec![0.0; x.len()], vec![0; operator.saved_words(shape)]);
            let mut forward = Forward::new(InOut::Apart { from: &x, to: &mut y });
            forward.gate = operands.gate.as_deref();
            operator.forward(shape, forward, RANDOMNESS, &mut expected).expect("operands fit");

            let (x, gate) = (machine.upload(&x), operands.gate.map(|gate| machine.upload(&gate)));
            let found = machine.unwritten::<f32>(y.len());
            let saved = machine.unwritten::<u32>(plan.saved().bytes as usize / 4);
            let buffers = OperatorForward {
                x: x.bytes(),
                gate: gate.as_ref().map_or(ptr::null(), |gate| gate.bytes()),
                weight: ptr::null(),
                bias: ptr::null(),
                y: found.bytes(),
                saved: memory(&saved),
            };
            // SAFETY: the buffers have the plan's sizes.
            unsafe { plan.forward(machine, &buffers, RANDOMNESS.into()) }.expect("valid arguments");
            let what = format!("{machine:?}, {operator:?}");
            let found = machine.download(&found);
            let is_same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(found.iter().zip(&y).all(is_same), "{what}");
            if !operator.operation().is_norm() {
                check_saved(machine, &plan, &saved, &expected, RANDOMNESS, &what);
            }
        }
    });
}

/// Without an output, the same is saved.
#[test]
fn only_what_is_saved() {
    for_each_machine(|machine| {
        for operator in Operator::all() {
            let shape = [3, 150];
            let plan = OperatorPlan::new(settings(operator, shape));
            let plan = plan.expect("sizes that fit");
            let operands = Operands::<f32>::new(&operator, shape, 3);
            let expected =
                Expected::new(&operator, shape, &Operands { weight: None, bias: None, ..operands }, RANDOMNESS);
            let operands = Operands::<f32>::new(&operator, shape, 3);
            let (x, gate) = (machine.upload(&operands.x), operands.gate.map(|gate| machine.upload(&gate)));
            let saved = machine.unwritten::<u32>(plan.saved().bytes as usize / 4);
            let buffers = OperatorForward {
                x: x.bytes(),
                gate: gate.as_ref().map_or(ptr::null(), |gate| gate.bytes()),
                weight: ptr::null(),
                bias: ptr::null(),
                y: ptr::null_mut(),
                saved: memory(&saved),
            };
            // SAFETY: the buffers have the plan's sizes.
            unsafe { plan.forward(machine, &buffers, RANDOMNESS.into()) }.expect("valid arguments");
            check_saved(machine, &plan, &saved, &expected.saved, RANDOMNESS, &format!("{machine:?}, {operator:?}"));
        }
    });
}

#[test]
fn no_order_of_threads_changes_a_bit() {
    for seed in 1..5 {
        let machine = &mut Machine::drawn(seed);
        let of = |operation| with_dropout(Operator::new(operation).with_packing(Packing::Bits4), 0.2);
        check::<bf16>(machine, of(Operation::Gelu), [9, 333], PLACES[1], 1);
        check::<f32>(machine, of(Operation::Softmax), [9, 333], PLACES[1], 1);
        check::<f16>(machine, of(Operation::LayerNorm), [40, 333], PLACES[2], 2);
    }
}

/// No operation of these kernels on floats may be fused: the codes would differ from the CPU's.
#[test]
fn nothing_is_fused() {
    let text = include_str!("../ptx/wtacrs_sm80.ptx");
    let mut seen = 0;
    for entry in text.split(".entry ").skip(1) {
        let name = entry.split('(').next().expect("a name");
        let kernels = ["pointwise_", "softmax_", "norm_forward", "norm_backward", "unpack_values"];
        if kernels.iter().any(|begin| name.starts_with(begin)) {
            assert!(!entry.contains("fma."), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 7);
}

fn settings(operator: Operator, [rows, columns]: [usize; 2]) -> OperatorSettings {
    let mut settings = OperatorSettings::new(operator, rows, columns);
    settings.data_type = DataType::F32;
    settings
}

/// Memory that is never touched.
fn anywhere() -> Memory {
    Memory { at: ptr::without_provenance_mut(1 << 20), bytes: 1 << 40 }
}

/// All operands that an operator has, and no others.
fn all_buffers(operator: Operator) -> (OperatorForward, OperatorBackward) {
    let memory = anywhere();
    let (keeps, operation) = (operator.keeps(), operator.operation());
    let array = |is_there: bool| if is_there { memory.at } else { ptr::null_mut() };
    let (is_norm, has_bias) = (operation.is_norm(), operation == Operation::LayerNorm);
    let forward = OperatorForward {
        x: memory.at,
        gate: array(operator.is_gated()),
        weight: array(is_norm).cast(),
        bias: array(has_bias).cast(),
        y: memory.at,
        saved: memory,
    };
    let backward = OperatorBackward {
        x: array(keeps.input),
        gate: array(keeps.gate),
        y: array(keeps.output),
        weight: array(is_norm).cast(),
        dy: memory.at,
        dx: memory.at,
        dgate: array(operator.is_gated()),
        dweight: array(is_norm).cast(),
        dbias: array(has_bias).cast(),
        saved: memory,
        scratch: memory,
    };
    (forward, backward)
}

#[test]
fn launches() {
    let names = |operator: Operator, shape: [usize; 2]| {
        let plan = OperatorPlan::new(settings(operator, shape)).expect("sizes that fit");
        let (forward, backward) = all_buffers(operator);
        let mut list = LaunchList::default();
        // SAFETY: nothing is run.
        unsafe {
            plan.forward(&mut list, &forward, RANDOMNESS.into()).expect("valid arguments");
            plan.backward(&mut list, &backward).expect("valid arguments");
        }
        list.launches().iter().map(|launch| launch.kernel).collect::<Vec<_>>()
    };
    let norm = Operator::new(Operation::LayerNorm);
    let sums = "split_reduce_sums";
    assert_eq!(names(Operator::new(Operation::Relu), [4, 9]), ["pointwise_forward", "pointwise_backward"]);
    assert_eq!(names(Operator::new(Operation::Softmax), [4, 9]), ["softmax_forward", "softmax_backward"]);
    assert_eq!(names(norm, [4, 9]), ["norm_forward", "norm_backward", sums, sums]);
    // Sums over no rows are zeros.
    assert_eq!(names(norm, [0, 9]), [sums, sums]);
    assert!(names(norm, [9, 0]).is_empty() && names(Operator::new(Operation::Gelu), [0, 9]).is_empty());
}

#[test]
fn sums_over_no_rows_are_zeros() {
    for_each_machine(|machine| {
        let plan = OperatorPlan::new(settings(Operator::new(Operation::LayerNorm), [0, 40])).expect("sizes that fit");
        let (_, mut buffers) = all_buffers(plan.settings().operator);
        let sums = [0, 1].map(|_| machine.unwritten::<f32>(40));
        (buffers.dweight, buffers.dbias) = (sums[0].pointer(), sums[1].pointer());
        // SAFETY: nothing else is accessed.
        unsafe { plan.backward(machine, &buffers) }.expect("valid arguments");
        assert!(sums.iter().all(|sums| machine.download(sums).iter().all(|&sum| sum == 0.0)));
    });
}

#[test]
fn what_is_saved() {
    let bytes =
        |operator: Operator, shape| OperatorPlan::new(settings(operator, shape)).expect("sizes that fit").saved().bytes;
    let of = |operation, packing| Operator::new(operation).with_packing(packing);
    // Nothing is saved, and nothing drawn.
    assert_eq!(bytes(of(Operation::Gelu, Packing::Native), [512, 768]), 0);
    assert_eq!(bytes(of(Operation::Softmax, Packing::Native), [512, 768]), 0);
    assert_eq!(bytes(with_dropout(of(Operation::Identity, Packing::Native), 0.1), [512, 768]), 256);
    assert_eq!(bytes(of(Operation::Relu, Packing::Bits8), [512, 768]), 512 * 768 / 8);
    assert_eq!(bytes(of(Operation::Gelu, Packing::Bits8), [512, 768]), 512 * 768 + 256);
    assert_eq!(bytes(of(Operation::LayerNorm, Packing::Native), [512, 768]), 512 * 8);
    assert_eq!(bytes(of(Operation::LayerNorm, Packing::Bits4), [512, 768]), 512 * (384 + 24 + 4) + 256);
    let gated = of(Operation::Silu, Packing::Bits4).gated().expect("a function with a gate");
    assert_eq!(bytes(gated, [512, 768]), 2 * 512 * (384 + 24) + 256);
}

#[test]
fn what_plans_refuse() {
    let softmax = Operator::new(Operation::Softmax).with_dropout(0.1).expect("a probability");
    assert_eq!(
        OperatorPlan::new(settings(softmax, [1, 1])).err(),
        Some(PlanError::Operator(OperatorError::SoftmaxDropout))
    );
    let gelu = Operator::new(Operation::Gelu);
    let (what, most) = ("the number of rows", (1 << 31) - 1);
    assert_eq!(
        OperatorPlan::new(settings(gelu, [1 << 31, 1])).err(),
        Some(PlanError::TooLarge { what, found: 1 << 31, most })
    );
    let what = "the number of groups of all packed rows";
    assert_eq!(
        OperatorPlan::new(settings(gelu, [1 << 30, 300])).err(),
        Some(PlanError::TooLarge { what, found: 3 << 30, most })
    );
}

#[test]
fn what_passes_refuse() {
    type Refused = ExecuteError<core::convert::Infallible>;
    let plan_of = |operator| OperatorPlan::new(settings(operator, [300, 40])).expect("sizes that fit");
    let forward = |operator: Operator, change: &dyn Fn(&mut OperatorForward)| -> Option<Refused> {
        let (mut buffers, _) = all_buffers(operator);
        change(&mut buffers);
        let mut list = LaunchList::default();
        // SAFETY: nothing is run.
        let refused = unsafe { plan_of(operator).forward(&mut list, &buffers, RANDOMNESS.into()) }.err();
        assert_eq!(list.launches().is_empty(), refused.is_some());
        refused
    };
    let backward = |operator: Operator, change: &dyn Fn(&mut OperatorBackward)| -> Option<Refused> {
        let (_, mut buffers) = all_buffers(operator);
        change(&mut buffers);
        let mut list = LaunchList::default();
        // SAFETY: nothing is run.
        let refused = unsafe { plan_of(operator).backward(&mut list, &buffers) }.err();
        assert_eq!(list.launches().is_empty(), refused.is_some());
        refused
    };
    let at = anywhere().at;
    let (null, unplanned) = (|what| Some(Refused::Null { what }), |what| Some(Refused::Unplanned { what }));
    let off = at.wrapping_add(2);
    let misaligned = |what| Some(Refused::Misaligned { what, address: off.addr(), alignment: 4 });
    let few = |what, needed| Some(Refused::TooSmall { what, needed, found: 1 });

    let gelu = Operator::new(Operation::Gelu).with_packing(Packing::Bits4);
    assert_eq!(forward(gelu, &|_| {}), None);
    assert_eq!(forward(gelu, &|b| b.x = ptr::null()), null("x"));
    assert_eq!(forward(gelu, &|b| b.x = off), misaligned("x"));
    assert_eq!(forward(gelu, &|b| b.y = ptr::null_mut()), None);
    assert_eq!(forward(gelu, &|b| b.y = off), misaligned("y"));
    assert_eq!(forward(gelu, &|b| b.gate = at), unplanned("the gate"));
    assert_eq!(forward(gelu, &|b| b.weight = at.cast()), unplanned("the weight"));
    let needed = plan_of(gelu).saved().bytes;
    assert_eq!(forward(gelu, &|b| b.saved.bytes = 1), few("the saved memory", needed));
    assert_eq!(backward(gelu, &|b| b.x = at), unplanned("x"));
    assert_eq!(backward(gelu, &|b| b.dx = ptr::null_mut()), null("dX"));
    assert_eq!(backward(gelu, &|b| b.dy = off), misaligned("dY"));
    assert_eq!(backward(gelu, &|b| b.saved.bytes = 1), few("the saved memory", needed));
    assert_eq!(backward(gelu, &|b| b.scratch = Memory { at: ptr::null_mut(), bytes: 0 }), None);

    let gated = Operator::new(Operation::Silu).gated().expect("a function with a gate");
    assert_eq!(forward(gated, &|b| b.gate = ptr::null()), null("the gate"));
    assert_eq!(backward(gated, &|b| b.gate = ptr::null()), null("the gate"));
    assert_eq!(backward(gated, &|b| b.dgate = ptr::null_mut()), null("the gradient of the gate"));

    let norm = Operator::new(Operation::RmsNorm);
    assert_eq!(forward(norm, &|b| b.weight = ptr::null()), None);
    assert_eq!(forward(norm, &|b| b.weight = off.cast()), misaligned("the weight"));
    assert_eq!(forward(norm, &|b| b.bias = at.cast()), unplanned("the bias"));
    assert_eq!(backward(norm, &|b| b.dbias = at.cast()), unplanned("the gradient of the bias"));
    let needed = plan_of(norm).backward_scratch_bytes();
    assert!(needed > 0);
    assert_eq!(backward(norm, &|b| b.scratch.bytes = 1), few("the scratch of the backward pass", needed));
    let without_sums = |b: &mut OperatorBackward| (b.dweight, b.scratch.bytes) = (ptr::null_mut(), 1);
    assert_eq!(backward(norm, &without_sums), None);

    assert_eq!(backward(Operator::new(Operation::Softmax), &|b| b.y = ptr::null()), null("y"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(which: Index, rows in 1..40_usize, columns in 1..400_usize, probability in 0.0..0.9_f64, seed: u64, kind in 0..3, place in 0..4_usize) {
        let machine = &mut Machine::drawn(seed);
        let operator = with_dropout(*which.get(&Operator::all().collect::<Vec<_>>()), probability);
        let (shape, place) = ([rows, columns], PLACES[place]);
        match kind {
            0 => check::<f32>(machine, operator, shape, place, seed >> 2),
            1 => check::<f16>(machine, operator, shape, place, seed >> 2),
            _ => check::<bf16>(machine, operator, shape, place, seed >> 2),
        }
    }
}
