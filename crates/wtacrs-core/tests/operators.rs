//! Operators against their formulas in f64, and against the definitions of what is saved.

use half::{bf16, f16};
use proptest::prelude::*;
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::half;
use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator, OperatorError};
use wtacrs_core::product::Packing;
use wtacrs_core::verify::UnbiasednessTest;
use wtacrs_exact::operators::dropout;
use wtacrs_exact::operators::functions;
use wtacrs_exact::operators::values::{self, SLOPES, ValueBits};
use wtacrs_exact::packing::{Bits, Grid, Groups};

const SHAPE: [usize; 2] = [5, 300];
const SIZE: usize = SHAPE[0] * SHAPE[1];
const RANDOMNESS: Randomness = Randomness { seed: 42, offset: 7 };

/// Numbers about 0, a few of them large.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.5 - 1.0;
    (0..count).map(|i| number(i) * if i % 31 == 0 { 6.0 } else { 2.0 }).collect()
}

fn operators() -> Vec<Operator> {
    let mut all: Vec<_> = Operator::all().collect();
    let dropped = |operator: &Operator| operator.with_dropout(0.3).expect("a probability");
    let with_dropout: Vec<_> = all.iter().map(dropped).filter(|operator| operator.check().is_ok()).collect();
    all.extend(with_dropout);
    all
}

/// What one operator is given.
struct Case {
    operator: Operator,
    x: Vec<f32>,
    gate: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
}

/// What it makes of it.
#[derive(Debug, PartialEq)]
struct Passes<T> {
    y: Vec<T>,
    saved: Vec<u32>,
    dx: Vec<T>,
    dgate: Option<Vec<T>>,
    dweight: Option<Vec<f32>>,
    dbias: Option<Vec<f32>>,
}

impl Case {
    fn new(operator: Operator) -> Self {
        let [x, gate, dy] = [1, 2, 3].map(|seed| numbers(SIZE, seed));
        let [weight, bias] = [4, 5].map(|seed| numbers(SHAPE[1], seed));
        Self { operator, x, gate, weight, bias, dy }
    }

    fn has_bias(&self) -> bool {
        self.operator.operation() == Operation::LayerNorm
    }

    fn run<T: Element>(&self, narrow: impl Fn(f32) -> T + Copy, randomness: Randomness, in_place: bool) -> Passes<T> {
        let operator = &self.operator;
        let [x, gate, dy] = [&self.x, &self.gate, &self.dy].map(|v| v.iter().copied().map(narrow).collect::<Vec<T>>());
        let (is_norm, keeps) = (operator.operation().is_norm(), operator.keeps());
        let weight = is_norm.then_some(&self.weight[..]);
        let mut saved = vec![0; operator.saved_words(SHAPE)];
        let mut y = x.clone();
        let of_x = if in_place { InOut::InPlace(&mut y[..]) } else { InOut::Apart { from: &x, to: &mut y } };
        let bias = self.has_bias().then_some(&self.bias[..]);
        let operands = Forward { x: of_x, gate: operator.is_gated().then_some(&gate[..]), weight, bias };
        operator.forward(SHAPE, operands, randomness, &mut saved).expect("operands fit");
        let mut dx = dy.clone();
        let of_dy = if in_place { InOut::InPlace(&mut dx[..]) } else { InOut::Apart { from: &dy, to: &mut dx } };
        let mut dgate = operator.is_gated().then(|| gate.clone());
        let mut dweight = is_norm.then(|| vec![f32::NAN; SHAPE[1]]);
        let mut dbias = self.has_bias().then(|| vec![f32::NAN; SHAPE[1]]);
        let operands = Backward {
            dy: of_dy,
            x: keeps.input.then_some(&x[..]),
            gate: keeps.gate.then_some(&gate[..]),
            y: keeps.output.then_some(&y[..]),
            weight,
            dgate: dgate.as_deref_mut(),
            dweight: dweight.as_deref_mut(),
            dbias: dbias.as_deref_mut(),
        };
        operator.backward(SHAPE, operands, randomness, &saved).expect("operands fit");
        Passes { y, saved, dx, dgate, dweight, dbias }
    }

    /// What dropout multiplies each output by.
    fn factors(&self, randomness: Randomness) -> Vec<f64> {
        let columns = SHAPE[1];
        let factor = |i: usize| {
            let (row, j) = (i / columns, i % columns);
            let block = row as u64 * dropout::blocks(columns) + j as u64 / 4;
            f64::from(self.operator.mask().factor(dropout::words(randomness, block)[j % 4]))
        };
        (0..SIZE).map(factor).collect()
    }

    /// The same by formulas in f64: y, dX, gradients of gate, weight and bias.
    fn formulas(&self, randomness: Randomness) -> [Vec<f64>; 5] {
        let factors = self.factors(randomness);
        let d: Vec<f64> = self.dy.iter().zip(&factors).map(|(&dy, factor)| f64::from(dy) * factor).collect();
        let (mut y, mut dx, mut dgate) = (vec![0.0; SIZE], vec![0.0; SIZE], vec![0.0; SIZE]);
        let (mut dweight, mut dbias) = (vec![0.0; SHAPE[1]], vec![0.0; SHAPE[1]]);
        for row in 0..SHAPE[0] {
            let places = row * SHAPE[1]..(row + 1) * SHAPE[1];
            let x: Vec<f64> = self.x[places.clone()].iter().map(|&x| x.into()).collect();
            let d = &d[places.clone()];
            let count = SHAPE[1] as f64;
            match self.operator.operation() {
                Operation::Softmax => {
                    let largest = x.iter().copied().fold(f64::MIN, f64::max);
                    let total: f64 = x.iter().map(|x| (x - largest).exp()).sum();
                    let p: Vec<f64> = x.iter().map(|x| (x - largest).exp() / total).collect();
                    let mean: f64 = p.iter().zip(d).map(|(p, d)| p * d).sum();
                    for (j, at) in places.enumerate() {
                        (y[at], dx[at]) = (p[j], p[j] * (d[j] - mean));
                    }
                }
                Operation::LayerNorm | Operation::RmsNorm => {
                    let has_mean = self.has_bias();
                    let mean = if has_mean { x.iter().sum::<f64>() / count } else { 0.0 };
                    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                    let inverse = (variance + f64::from(self.operator.epsilon())).sqrt().recip();
                    let weight = |j: usize| f64::from(self.weight[j]);
                    let bias = |j: usize| if has_mean { f64::from(self.bias[j]) } else { 0.0 };
                    let normal: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
                    let g: Vec<f64> = d.iter().enumerate().map(|(j, d)| d * weight(j)).collect();
                    let along = g.iter().zip(&normal).map(|(g, x)| g * x).sum::<f64>() / count;
                    let of_mean = if has_mean { g.iter().sum::<f64>() / count } else { 0.0 };
                    for (j, at) in places.enumerate() {
                        y[at] = normal[j] * weight(j) + bias(j);
                        dx[at] = inverse * (g[j] - of_mean - normal[j] * along);
                        dweight[j] += d[j] * normal[j];
                        dbias[j] += d[j];
                    }
                }
                operation => {
                    for (j, at) in places.enumerate() {
                        let [value, slope] = function(operation, x[j]);
                        let gate = if self.operator.is_gated() { f64::from(self.gate[at]) } else { 1.0 };
                        (y[at], dx[at], dgate[at]) = (value * gate, d[j] * slope * gate, d[j] * value);
                    }
                }
            }
        }
        y.iter_mut().zip(&factors).for_each(|(y, factor)| *y *= factor);
        [y, dx, dgate, dweight, dbias]
    }
}

fn function(operation: Operation, x: f64) -> [f64; 2] {
    use statrs::distribution::{Continuous, ContinuousCDF, Normal};
    let by_sigmoid = |inner: f64, slope: f64| {
        let s = 1.0 / (1.0 + (-inner).exp());
        [x * s, s + x * s * (1.0 - s) * slope]
    };
    let scale = (8.0 / std::f64::consts::PI).sqrt();
    match operation {
        Operation::Relu => [x.max(0.0), f64::from(u8::from(x > 0.0))],
        Operation::Gelu => {
            let law = Normal::standard();
            [x * law.cdf(x), law.cdf(x) + x * law.pdf(x)]
        }
        Operation::GeluTanh => {
            by_sigmoid(scale * (x + 0.044_715 * x.powi(3)), scale * (1.0 + 3.0 * 0.044_715 * x.powi(2)))
        }
        Operation::Silu => by_sigmoid(x, 1.0),
        _ => [x, 1.0],
    }
}

#[track_caller]
fn near(found: &[f32], expected: &[f64], tolerance: f64, what: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().map(|e| e.abs()).fold(1e-3, f64::max);
    for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(found) - expected).abs() <= tolerance * size, "{i}: {found} {expected} {what:?}");
    }
}

#[test]
fn outputs_are_the_formulas_and_so_are_native_gradients() {
    for operator in operators() {
        let case = Case::new(operator);
        let found = case.run(|x| x, RANDOMNESS, false);
        let [y, dx, dgate, dweight, dbias] = case.formulas(RANDOMNESS);
        near(&found.y, &y, 1e-6, &operator);
        let is_exact = !operator.packing().is_packed()
            || operator.operation() == Operation::Relu && !operator.is_gated()
            || operator.operation() == Operation::Identity;
        // Packed gradients are noisy, but not far off.
        let tolerance = match operator.packing() {
            _ if is_exact => 2e-6,
            Packing::Bits8 => 0.03,
            Packing::Bits4 => 1.0,
            _ => 10.0,
        };
        near(&found.dx, &dx, tolerance, &operator);
        if let Some(found) = &found.dgate {
            near(found, &dgate, tolerance, &operator);
        }
        if let Some(found) = &found.dweight {
            near(found, &dweight, tolerance, &operator);
        }
        if let Some(found) = &found.dbias {
            near(found, &dbias, 1e-6, &operator);
        }
    }
}

#[test]
fn in_place_and_without_threads_the_bits_are_the_same() {
    for operator in operators() {
        let case = Case::new(operator);
        let expected = case.run(|x| x, RANDOMNESS, false);
        // A native softmax keeps its output, which is then not overwritten.
        assert_eq!(case.run(|x| x, RANDOMNESS, true), expected, "{operator:?}");
        let _entered = wtacrs_core::parallel::enter(std::sync::Arc::new(wtacrs_core::parallel::OneThread));
        assert_eq!(case.run(|x| x, RANDOMNESS, false), expected, "{operator:?}");
    }
}

#[test]
fn half_precision_rounds_operands_alone() {
    for operator in operators() {
        let rounded = |narrow: &dyn Fn(f32) -> f32| {
            let mut case = Case::new(operator);
            for v in [&mut case.x, &mut case.gate, &mut case.dy] {
                v.iter_mut().for_each(|x| *x = narrow(*x));
            }
            case.run(|x| x, RANDOMNESS, false)
        };
        let case = Case::new(operator);
        let exact = rounded(&|x| bf16::from_f32(x).to_f32());
        let found = case.run(bf16::from_f32, RANDOMNESS, false);
        assert_eq!(found.saved, exact.saved, "{operator:?}");
        assert_eq!(found.y, exact.y.iter().map(|&y| bf16::from_f32(y)).collect::<Vec<_>>());
        if !operator.keeps().output {
            assert_eq!(found.dx, exact.dx.iter().map(|&y| bf16::from_f32(y)).collect::<Vec<_>>());
            assert_eq!((found.dweight, found.dbias), (exact.dweight, exact.dbias));
        }
        let exact = rounded(&|x| f16::from_f32(x).to_f32());
        let found = case.run(f16::from_f32, RANDOMNESS, false);
        assert_eq!(found.saved, exact.saved, "{operator:?}");
        assert_eq!(found.y, exact.y.iter().map(|&y| f16::from_f32(y)).collect::<Vec<_>>());
    }
}

/// What is saved of a matrix, by the definition.
fn defined(rows: &[f32], bits: Bits, field: u32, fixed: Option<Grid>) -> [Vec<u32>; 2] {
    let (columns, random) = (SHAPE[1], ValueBits::new(RANDOMNESS, field));
    let groups = Groups::new(columns);
    let (mut codes, mut grids) = (vec![0; SHAPE[0] * groups.words(bits)], vec![0; SHAPE[0] * groups.count()]);
    let places = codes.chunks_mut(groups.words(bits)).zip(grids.chunks_mut(groups.count()));
    for (row, (x, (codes, grids))) in rows.chunks(columns).zip(places).enumerate() {
        values::pack_row(x, bits, &random, row as u64, codes, fixed.map_or(Ok(grids), Err));
    }
    [codes, if fixed.is_some() { Vec::new() } else { grids }]
}

#[test]
fn what_is_saved_is_as_defined() {
    for operator in operators() {
        let case = Case::new(operator);
        let found = case.run(|x| x, RANDOMNESS, false).saved;
        let activation: fn(f32) -> functions::Point = match operator.operation() {
            Operation::Relu => functions::relu,
            Operation::Gelu => functions::gelu,
            Operation::GeluTanh => functions::gelu_tanh,
            _ => functions::silu,
        };
        let points: Vec<_> = case.x.iter().map(|&x| activation(x)).collect();
        let expected: Vec<u32> = match (operator.operation(), operator.is_gated(), operator.packing().bits()) {
            (Operation::Relu, false, _) => {
                let word = |x: &[f32]| x.iter().enumerate().fold(0, |word, (j, &x)| word | u32::from(x > 0.0) << j);
                case.x.chunks(SHAPE[1]).flat_map(|row| row.chunks(32).map(word)).collect()
            }
            (Operation::Identity, _, Some(bits)) => defined(&case.x, bits, 0, None).concat(),
            (_, true, Some(bits)) => {
                let first: Vec<f32> = points.iter().map(|point| point.value).collect();
                let second: Vec<f32> = points.iter().zip(&case.gate).map(|(point, gate)| point.slope * gate).collect();
                let [codes, grids] = defined(&first, bits, 0, None);
                let [second_codes, second_grids] = defined(&second, bits, 1, None);
                [codes, second_codes, grids, second_grids].concat()
            }
            (operation, false, Some(bits)) if operation.is_activation() => {
                let slopes: Vec<f32> = points.iter().map(|point| point.slope.clamp(SLOPES[0], SLOPES[1])).collect();
                defined(&slopes, bits, 0, Some(values::slope_grid(bits))).concat()
            }
            (Operation::Softmax, _, Some(bits)) => {
                let mut rows = case.x.clone();
                for row in rows.chunks_mut(SHAPE[1]) {
                    let largest = row.iter().copied().fold(f32::MIN, f32::max);
                    row.iter_mut().for_each(|x| *x = functions::exp(*x - largest));
                    let inverse = 1.0 / functions::lane_sum(row.iter().copied());
                    row.iter_mut().for_each(|x| *x = (*x * inverse).sqrt());
                }
                defined(&rows, bits, 0, None).concat()
            }
            (operation, _, bits) if operation.is_norm() => {
                let (mut rows, mut statistics) = (case.x.clone(), Vec::new());
                for row in rows.chunks_mut(SHAPE[1]) {
                    let count = SHAPE[1] as f32;
                    let has_mean = case.has_bias();
                    let mean = if has_mean { functions::lane_sum(row.iter().copied()) / count } else { 0.0 };
                    let variance = functions::lane_sum(row.iter().map(|x| (x - mean) * (x - mean))) / count;
                    let inverse = 1.0 / (variance + operator.epsilon()).sqrt();
                    row.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
                    statistics.extend((bits.is_none() && has_mean).then_some(mean.to_bits()));
                    statistics.push(inverse.to_bits());
                }
                let packed = bits.map_or([Vec::new(), Vec::new()], |bits| defined(&rows, bits, 0, None));
                [packed.concat(), statistics].concat()
            }
            _ => Vec::new(),
        };
        assert_eq!(found, expected, "{operator:?}");
    }
}

#[test]
fn outputs_are_restored() {
    for operator in operators().into_iter().filter(Operator::restores) {
        let case = Case::new(operator);
        let found = case.run(|x| x, RANDOMNESS, false);
        let mut again = vec![0.0; SIZE];
        operator.restore(SHAPE, RANDOMNESS, &found.saved, &mut again).expect("it fits");
        let size = found.y.iter().fold(0.0_f32, |size, y| size.max(y.abs()));
        let steps = operator.packing().bits().expect("it is packed").steps();
        for (again, y) in again.iter().zip(&found.y) {
            // A step of a range of twice the largest element at most; dropped elements are 0.
            assert!((again - y).abs() <= size / steps as f32 * 2.0 && (*y != 0.0 || *again == 0.0), "{again} {y}");
        }
    }
    let error = Operator::new(Operation::Softmax).restore(SHAPE, RANDOMNESS, &[], &mut vec![0.0; SIZE]);
    assert_eq!(error, Err(OperatorError::NotRestored));
}

/// All gradients of a case, behind one another.
fn gradients(passes: &Passes<f32>) -> Vec<f64> {
    let rest = [&passes.dgate, &passes.dweight, &passes.dbias].map(|part| part.as_deref().unwrap_or_default());
    passes.dx.iter().chain(rest.into_iter().flatten()).map(|&g| g.into()).collect()
}

fn truth(case: &Case) -> Vec<f64> {
    let [_, dx, dgate, dweight, dbias] = case.formulas(RANDOMNESS);
    let operator = &case.operator;
    let mut all = dx;
    if operator.is_gated() {
        all.extend(dgate);
    }
    if operator.operation().is_norm() {
        all.extend(dweight);
    }
    if case.has_bias() {
        all.extend(dbias);
    }
    all
}

/// Elements whose errors are added up with signs: so few that a bias of each would show.
fn test_of(trials: u64) -> UnbiasednessTest {
    UnbiasednessTest { trials, ..UnbiasednessTest::default() }
}

#[test]
fn packed_gradients_are_unbiased() {
    for operator in operators().into_iter().filter(|o| o.packing().is_packed() && !o.mask().drops()) {
        if matches!((operator.operation(), operator.is_gated()), (Operation::Identity, _) | (Operation::Relu, false)) {
            continue; // Exact.
        }
        let (case, mut worst) = (Case::new(operator), 0.0_f64);
        let verdict = test_of(600).run_numbers(&truth(&case), |trial, found| {
            let passes = case.run(|x| x, Randomness::new(trial, 0), false);
            found.copy_from_slice(&gradients(&passes));
            worst = found.iter().fold(worst, |worst, g| worst.max(g.abs()));
        });
        assert!(!verdict.rejects() && worst > 0.0, "{operator:?} {verdict:?}");
    }
}

/// The same test finds estimates that are not unbiased: slopes rounded to the nearest code, slopes of packed inputs, and
/// softmax and norms without the term for the products of two packed values.
#[test]
fn biased_gradients_are_found() {
    let bits = Bits::Bits4;
    let case = Case::new(Operator::new(Operation::Gelu).with_packing(Packing::Bits4));
    let expected = truth(&case);
    let grid = values::slope_grid(bits);
    let nearest = test_of(50).run_numbers(&expected, |trial, found| {
        for ((found, &x), &dy) in found.iter_mut().zip(&case.x).zip(&case.dy) {
            let code = ((functions::gelu(x).slope - grid.lo) / grid.step).round();
            // So that there is some noise.
            let noise = (trial % 2) as f32 * 1e-3 - 5e-4;
            *found = f64::from(dy * (grid.lo + code * grid.step + noise));
        }
    });
    assert!(nearest.rejects(), "{nearest:?}");
    let identity = Operator::new(Operation::Identity).with_packing(Packing::Bits4);
    let of_input = test_of(600).run_numbers(&expected, |trial, found| {
        let (randomness, mut x) = (Randomness::new(trial, 0), vec![0.0; SIZE]);
        let mut saved = vec![0; identity.saved_words(SHAPE)];
        identity.forward(SHAPE, Forward::new(InOut::Read(&case.x)), randomness, &mut saved).expect("it fits");
        identity.restore(SHAPE, randomness, &saved, &mut x).expect("it fits");
        for ((found, &x), &dy) in found.iter_mut().zip(&x).zip(&case.dy) {
            *found = f64::from(dy * functions::gelu(x).slope);
        }
    });
    assert!(of_input.rejects(), "{of_input:?}");

    // One element that is large, so that the missing term is.
    for operation in [Operation::Softmax, Operation::LayerNorm, Operation::RmsNorm] {
        let mut case = Case::new(Operator::new(operation).with_packing(Packing::Bits2));
        case.dy = vec![0.0; SIZE];
        case.dy[0] = 1.0;
        case.x[0] = 6.0;
        case.weight.fill(1.0);
        let expected = truth(&case)[..SIZE].to_vec();
        let run = |corrected: bool| {
            test_of(20_000).run_numbers(&expected[..1], |trial, found| {
                let passes = case.run(|x| x, Randomness::new(trial, 0), false);
                let layout = case.operator.layout(SHAPE);
                let grid = Grid::from_word(passes.saved[layout.sections()[0]]);
                let inverse = passes.saved.last().map_or(1.0, |_| {
                    let statistics = passes.saved.len() - layout.sections()[4];
                    if operation.is_norm() { f32::from_bits(passes.saved[statistics]) / SHAPE[1] as f32 } else { 1.0 }
                });
                let variance = values::variance(grid);
                let term = if operation == Operation::Softmax {
                    let mut p = vec![0.0; SIZE];
                    let randomness = Randomness::new(trial, 0);
                    case.operator.restore(SHAPE, randomness, &passes.saved, &mut p).expect("it fits");
                    values::variance_of_square(p[0], variance)
                } else {
                    variance * inverse
                };
                found[0] = f64::from(passes.dx[0] - if corrected { 0.0 } else { term });
            })
        };
        assert!(!run(true).rejects(), "{operation:?}");
        assert!(run(false).rejects(), "{operation:?} {:?}", run(false));
    }
}

#[test]
fn what_is_not_finite_reaches_the_gradient() {
    for operation in [Operation::Softmax, Operation::LayerNorm, Operation::RmsNorm] {
        let mut case = Case::new(Operator::new(operation).with_packing(Packing::Bits8));
        case.x[3] = f32::NAN;
        let found = case.run(|x| x, RANDOMNESS, false);
        assert!(found.y[..SHAPE[1]].iter().chain(&found.dx[..SHAPE[1]]).all(|x| x.is_nan()), "{operation:?}");
        assert!(found.dx[SHAPE[1]..].iter().all(|x| x.is_finite()));
    }
    // Masked scores are probabilities of 0.
    let mut case = Case::new(Operator::new(Operation::Softmax).with_packing(Packing::Bits8));
    case.x[10..SHAPE[1]].fill(f32::NEG_INFINITY);
    let found = case.run(|x| x, RANDOMNESS, false);
    assert!(found.y[10..SHAPE[1]].iter().all(|&p| p == 0.0) && found.dx.iter().all(|x| x.is_finite()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = vec![0.0_f32; 8];
    let run = |operator: Operator, shape, operands: Forward<'_, f32>| {
        operator.forward(shape, operands, RANDOMNESS, &mut vec![0; operator.saved_words(shape)])
    };
    let gelu = Operator::new(Operation::Gelu);
    let error = run(gelu, [3, 3], Forward::new(InOut::Read(&x))).expect_err("refused");
    assert_eq!(error.to_string(), "x has 8 elements where 9 are needed");
    let error = run(gelu.gated().expect("gated"), [2, 4], Forward::new(InOut::Read(&x))).expect_err("refused");
    assert_eq!(error.to_string(), "gate is missing, which the operator needs");
    let error =
        run(gelu, [2, 4], Forward { weight: Some(&x[..4]), ..Forward::new(InOut::Read(&x)) }).expect_err("refused");
    assert_eq!(error.to_string(), "weight was given, which the operator does not have");
    let error = gelu.backward([2, 4], Backward::new(InOut::Read(&x)), RANDOMNESS, &[]).expect_err("refused");
    assert_eq!(error, OperatorError::Missing { operand: "x" });
    let error = gelu.forward([2, 4], Forward::new(InOut::Read(&x)), RANDOMNESS, &mut [0]).expect_err("refused");
    assert_eq!(error.to_string(), "saved has 1 elements where 0 are needed");
    assert!(Operator::new(Operation::Softmax).gated().is_err());
    assert!(gelu.with_dropout(1.0).is_err() && gelu.with_epsilon(-1.0).is_err());
    let softmax = Operator::new(Operation::Softmax).with_dropout(0.1).expect("a probability");
    assert_eq!(run(softmax, [2, 4], Forward::new(InOut::Read(&x))), Err(OperatorError::SoftmaxDropout));
    for shape in [[0, 4], [4, 0]] {
        run(gelu.with_packing(Packing::Bits4), shape, Forward::new(InOut::Read(&[]))).expect("nothing to do");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any shape: parts of rows, last groups and last words fit together.
    #[test]
    fn any_shape(rows in 1_usize..5, columns in 1_usize..2500, which in 0_usize..1000) {
        let operators = operators();
        let operator = operators[which % operators.len()];
        let shape = [rows, columns];
        let x = numbers(rows * columns, 3);
        let mut saved = vec![0; operator.saved_words(shape)];
        let gate = operator.is_gated().then_some(&x[..]);
        let mut y = x.clone();
        let operands = Forward { gate, ..Forward::new(InOut::Apart { from: &x, to: &mut y }) };
        operator.forward(shape, operands, RANDOMNESS, &mut saved).expect("it fits");
        let (keeps, mut dx, mut dgate) = (operator.keeps(), x.clone(), x.clone());
        let operands = Backward {
            x: keeps.input.then_some(&x[..]),
            gate: keeps.gate.then_some(&x[..]),
            y: keeps.output.then_some(&y[..]),
            dgate: operator.is_gated().then_some(&mut dgate[..]),
            ..Backward::new(InOut::InPlace(&mut dx))
        };
        operator.backward(shape, operands, RANDOMNESS, &saved).expect("it fits");
        prop_assert!(y.iter().chain(&dx).chain(&dgate).all(|x| x.is_finite()));
    }
}
