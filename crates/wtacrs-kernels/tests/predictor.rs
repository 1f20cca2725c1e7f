//! The predictor's three launches against wtacrs-core's predictor.

use crate::common::{Buffer, Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded, noise};
use half::{bf16, f16};
use ndarray::Array2;
use proptest::prelude::*;
use wtacrs_core::guesses::{NormPredictor, Placement, PredictorSettings, StepStatistics};
use wtacrs_exact::predictor::{chosen_row, state, sums as order};
use wtacrs_kernels::kernel::body::block::functions::ln;
use wtacrs_kernels::kernel::predictor_update::{self as update, Args, Outcome};
use wtacrs_kernels::kernel::{PREDICTOR_APPLY, PREDICTOR_SUMS};
use wtacrs_kernels::plan::PredictorPlan;

/// A predictor in a machine's memory.
struct OnDevice {
    settings: PredictorSettings,
    in_features: u32,
    state: Buffer<u8>,
    sums: Buffer<f64>,
    status: Buffer<u32>,
}

/// A step's kept rows.
#[derive(Clone)]
struct Step<T> {
    rows: Array2<T>,
    dz_norms: Vec<f32>,
    scales: Vec<f64>,
    /// As a cache remembered them, negative where it did not.
    cached: Option<Vec<f32>>,
}

impl<T: Tested> Step<T> {
    fn given(&self, count: usize) -> Self {
        let rows = self.rows.slice(ndarray::s![..count, ..]).to_owned();
        let cached = self.cached.as_ref().map(|cached| cached[..count].to_vec());
        Self { rows, dz_norms: self.dz_norms[..count].to_vec(), scales: self.scales[..count].to_vec(), cached }
    }

    fn statistics(&self, predictor: &NormPredictor) -> StepStatistics {
        let known = |cached: &Vec<f32>| -> Vec<Option<f32>> {
            cached.iter().map(|&norm| Some(norm).filter(|norm| *norm >= 0.0)).collect()
        };
        let cached = self.cached.as_ref().map(known);
        predictor.statistics(self.rows.view(), &self.dz_norms, &self.scales, cached.as_deref()).expect("valid rows")
    }

    fn teach(&self, predictor: &mut NormPredictor) {
        predictor.apply(&self.statistics(predictor)).expect("valid sums");
    }
}

impl OnDevice {
    fn new(machine: &Machine, predictor: &NormPredictor) -> Self {
        let (settings, in_features) = (predictor.settings(), predictor.in_features() as u32);
        let state = PredictorPlan::first_bytes(predictor).expect("few enough features");
        Self {
            settings,
            in_features,
            state: machine.upload(&state),
            sums: machine.unwritten(update::sums_len(in_features, settings.features as u32)),
            status: machine.unwritten(2),
        }
    }

    /// Launches `apply` after `sums`, or not. The norms lie in another order than the rows, as those of all tokens do.
    fn run<T: Tested>(&self, machine: &mut Machine, step: &Step<T>, count: Option<usize>, place: Place, applies: bool) {
        let (budget, features) = (step.rows.nrows(), self.settings.features as u32);
        let tokens: Vec<u32> = (0..budget as u32).map(|i| 2 * (budget as u32 - 1 - i)).collect();
        let mut all_norms = vec![f32::NAN; 2 * budget];
        tokens.iter().zip(&step.dz_norms).for_each(|(&token, &norm)| all_norms[token as usize] = norm);
        let cached = step.cached.as_ref().map(|cached| {
            let mut all = vec![f32::NAN; 2 * budget];
            tokens.iter().zip(cached).for_each(|(&token, &norm)| all[token as usize] = norm);
            machine.upload(&all)
        });
        let rows = Uploaded::new(machine, std::slice::from_ref(&step.rows), place, T::from_f32(f32::NAN));
        let (indices, dz_norms) = (machine.upload(&tokens), machine.upload(&all_norms));
        let (scales, count) = (machine.upload(&step.scales), count.map(|count| machine.upload(&[count as u32])));
        let rows_per_update = self.settings.rows_per_update as u32;
        let scratch_bytes = update::scratch_bytes(budget as u32, rows_per_update, self.in_features, features);
        let scratch = machine.unwritten::<u8>(scratch_bytes as usize);
        let args = Args {
            rows: rows.pointer(),
            leading: rows.leading(),
            in_features: self.in_features,
            features,
            budget: budget as u32,
            rows_per_update,
            count: count.as_ref().map_or(std::ptr::null(), |count| count.pointer()),
            indices: indices.pointer(),
            dz_norms: dz_norms.pointer(),
            cached_norms: cached.as_ref().map_or(std::ptr::null(), |cached| cached.pointer()),
            scales: scales.pointer(),
            forgetting: self.settings.forgetting,
            ridge: self.settings.ridge,
            clamp: self.settings.clamp,
            state: self.state.pointer(),
            scratch: scratch.pointer(),
            sums: self.sums.pointer(),
            status: self.status.pointer(),
        };
        let shape = update::features_shape(budget as u32, rows_per_update, self.in_features, features);
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe {
            machine.run(&T::FEATURES, shape, &args);
            machine.run(&PREDICTOR_SUMS, update::sums_shape(self.in_features, features), &args);
            if applies {
                machine.run(&PREDICTOR_APPLY, update::apply_shape(), &args);
            }
        }
    }

    fn learn<T: Tested>(&self, machine: &mut Machine, step: &Step<T>) -> Outcome {
        self.run(machine, step, None, Place::TIGHT, true);
        self.outcome(machine)
    }

    fn outcome(&self, machine: &Machine) -> Outcome {
        use Outcome::{Learned, LevelDropped, Nothing, Refused};
        let found = machine.download(&self.status)[0];
        [Learned, Nothing, LevelDropped, Refused].into_iter().find(|o| *o as u32 == found).expect("an outcome")
    }

    fn numbers(&self, machine: &Machine) -> Vec<f64> {
        let mut copy = NormPredictor::new(self.in_features as usize, self.settings).expect("valid settings");
        PredictorPlan::restore(&mut copy, &machine.download(&self.state)).expect("valid numbers");
        copy.state()
    }

    fn theta(&self, machine: &Machine) -> Vec<f32> {
        let state = update::State::new(self.in_features, self.settings.features as u32);
        let bytes = machine.download(&self.state);
        let (words, _) = bytes[state.theta as usize..].as_chunks::<4>();
        words[..self.in_features as usize].iter().map(|word| f32::from_le_bytes(*word)).collect()
    }
}

/// Rows of eighths, whose norms are exact in every order of summation.
fn eighths<T: Tested>(rows: usize, columns: usize, seed: usize) -> Array2<T> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        T::from_f32(((i * 31 + j * 17 + i * j * 7 + seed * 5) % 23) as f32 / 8.0 - 1.25)
    })
}

fn step<T: Tested>(rows: Array2<T>, seed: usize) -> Step<T> {
    let kept = rows.nrows();
    let dz_norms = (0..kept).map(|i| 1e-3 * (1.0 + ((i * 7 + seed * 3) % 19) as f32)).collect();
    let scales = (0..kept).map(|i| 1.0 + ((i * 5 + seed) % 11) as f64 / 3.0).collect();
    Step { rows, dz_norms, scales, cached: None }
}

/// A step's sums are the CPU's but for `flips`, the share of features that were rounded to a neighbouring unit of the
/// grid, 2⁻⁶, as rows have a norm of other last bits there; none of them if it is 0.
fn check_sums(found: &[f64], step: &NormPredictor, expected: &[f64], flips: f64) {
    let r = step.features();
    assert_eq!((found.len(), expected.len()), (order::len(r), order::len(r)));
    let different = found.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    // A feature is in r + 3 sums of all.
    assert!(different as f64 <= flips * (r * (r + 3)) as f64, "{different} of {} sums for {r} features", found.len());
    // By Cauchy-Schwarz: a unit's difference in one row, times all that it is multiplied with.
    let diagonal = (0..r).map(|i| expected[order::triangle(r, i)]).fold(0.0, f64::max);
    let size = (diagonal + expected[order::PRESENT] * 128.0).sqrt() + 1.0;
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 8.0 / 64.0 * size, "sum {i} for {r} features: {a} {b}");
    }
}

/// All that was learned lies within `tolerance` of the CPU's, vectors and C relative to their norms.
fn check_numbers(found: &[f64], expected: &[f64], r: usize, tolerance: f64) {
    let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let starts = [0, 1, 2, state::SCALARS, state::SCALARS + r, state::SCALARS + 2 * r];
    let ends = [1, 2, 3, state::SCALARS + r, state::SCALARS + 2 * r, state::len(r)];
    for (start, end) in starts.into_iter().zip(ends) {
        let (a, b) = (&found[start..end], &expected[start..end]);
        let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let nones = a.iter().zip(b).all(|(a, b)| a.is_nan() && b.is_nan());
        assert!(
            nones || norm(&difference) <= tolerance * norm(b),
            "numbers {start}..{end}: {:e} of {:e}",
            norm(&difference),
            norm(b)
        );
    }
}

/// C, m, the trace and the level are the CPU's to the bit, as long as the rows' norms are.
fn check_statistics_of_state(found: &[f64], expected: &[f64], r: usize) {
    assert_eq!(found[state::SCALARS + r..], expected[state::SCALARS + r..]);
    assert_eq!(found[state::TRACE], expected[state::TRACE]);
    assert_eq!(found[state::LEVEL], expected[state::LEVEL]);
}

fn predictor(in_features: usize, features: usize, rows_per_update: usize) -> NormPredictor {
    let settings =
        PredictorSettings::default().with_features(features).with_rows_per_update(rows_per_update).with_seed(3);
    NormPredictor::new(in_features, settings).expect("valid settings")
}

#[test]
fn logarithms() {
    let mut bits = 1_u32;
    while bits < f32::INFINITY.to_bits() {
        let (x, expected) = (f32::from_bits(bits), f64::from(f32::from_bits(bits)).ln());
        let ulp = f64::from_bits(expected.abs().to_bits() + 1) - expected.abs();
        assert!((ln(x) - expected).abs() <= 4.0 * ulp, "{x:e}: {:e} {expected:e}", ln(x));
        bits += 9973;
    }
    assert_eq!(ln(1.0), 0.0);
    let near_one = ln(1.0 + f32::EPSILON);
    assert!((near_one / f64::from(f32::EPSILON).ln_1p() - 1.0).abs() < 1e-15);
}

fn check_statistics<T: Tested>(machine: &mut Machine, dim: (usize, usize, usize), rows_per_update: usize) {
    let (rows, in_features, features) = dim;
    let cpu = predictor(in_features, features, rows_per_update);
    let device = OnDevice::new(machine, &cpu);
    for (is_exact, rows) in [(true, eighths::<T>(rows, in_features, 1)), (false, noise::<T>(rows, in_features, 5))] {
        let step = step(rows, 2);
        let expected = cpu.statistics(step.rows.view(), &step.dz_norms, &step.scales, None).expect("valid rows");
        for place in [Place::TIGHT, Place::ODD] {
            device.run(machine, &step, None, place, false);
            let flips = if is_exact { 0.0 } else { 0.05 };
            check_sums(&machine.download(&device.sums), &cpu, expected.sums(), flips);
            assert_eq!(machine.download(&device.status)[1], 0);
        }
    }
}

#[test]
fn the_sums_are_the_cpus() {
    for_each_machine(|machine| {
        for dim in [(1, 1, 1), (3, 5, 4), (40, 20, 256), (33, 300, 100), (12, 700, 256)] {
            check_statistics::<f32>(machine, dim, 128);
        }
        check_statistics::<f16>(machine, (70, 130, 64), 32);
        check_statistics::<bf16>(machine, (129, 64, 33), 128);
        check_statistics::<bf16>(machine, (20, 600, 512), 7);
    });
}

#[test]
fn many_steps_stay_together() {
    for_each_machine(|machine| {
        for (in_features, features) in [(1, 1), (48, 256), (300, 100), (520, 512)] {
            let mut cpu = predictor(in_features, features, 24);
            let device = OnDevice::new(machine, &cpu);
            for n in 0..4 {
                let step = step(eighths::<bf16>(30 + n, in_features, n), n);
                step.teach(&mut cpu);
                assert_eq!(device.learn(machine, &step), Outcome::Learned);
                check_numbers(&device.numbers(machine), &cpu.state(), cpu.features(), 1e-9);
                check_statistics_of_state(&device.numbers(machine), &cpu.state(), cpu.features());
            }
            let largest = cpu.theta().iter().fold(0.0_f64, |most, theta| most.max(theta.abs()));
            for (found, expected) in device.theta(machine).into_iter().zip(cpu.theta()) {
                assert!((f64::from(found) - expected).abs() <= 1e-6 * largest);
            }
            assert!(largest > 0.0 || in_features == 1);
        }
    });
}

/// Rows of zeros, of scale zero, of vanishing and of faint gradients, and fewer rows than there is room for.
#[test]
fn rows_of_every_kind() {
    for_each_machine(|machine| {
        let mut cpu = predictor(40, 32, 16);
        let device = OnDevice::new(machine, &cpu);
        let usual = step(eighths::<f32>(20, 40, 0), 0);
        usual.teach(&mut cpu);
        device.learn(machine, &usual);

        let mut odd = step(eighths::<f32>(20, 40, 1), 1);
        odd.rows.row_mut(3).fill(0.0);
        odd.rows.row_mut(4).fill(f32::MAX / 32.0);
        odd.rows.row_mut(5).fill(f32::MIN_POSITIVE);
        odd.scales[1] = 0.0;
        odd.scales[2] = 1e12;
        (odd.dz_norms[6], odd.dz_norms[7], odd.dz_norms[8], odd.dz_norms[9]) = (0.0, 1e-12, 0.5, 1e-45);
        for count in [20, 13, 1] {
            device.run(machine, &odd, Some(count), Place::ODD, true);
            assert_eq!(device.outcome(machine), Outcome::Learned);
            odd.given(count).teach(&mut cpu);
            check_numbers(&device.numbers(machine), &cpu.state(), cpu.features(), 1e-6);
        }

        let before = machine.download(&device.state);
        device.run(machine, &odd, Some(0), Place::TIGHT, true);
        assert_eq!(device.outcome(machine), Outcome::Nothing);
        let mut still = step(eighths::<f32>(5, 40, 1), 1);
        still.dz_norms.fill(0.0);
        assert_eq!(device.learn(machine, &still), Outcome::Nothing);
        assert_eq!(machine.download(&device.state), before);

        // All norms fall by more than the clamp: the level is dropped, and the next step determines a new one.
        still.dz_norms.fill(1e-20);
        assert_eq!(device.learn(machine, &still), Outcome::LevelDropped);
        still.teach(&mut cpu);
        assert!(device.numbers(machine)[state::LEVEL].is_nan() && cpu.state()[state::LEVEL].is_nan());
        assert_eq!(device.learn(machine, &still), Outcome::Learned);
        still.teach(&mut cpu);
        check_numbers(&device.numbers(machine), &cpu.state(), cpu.features(), 1e-6);
    });
}

#[test]
fn what_is_invalid_changes_nothing() {
    for_each_machine(|machine| {
        let cpu = predictor(40, 32, 4);
        let device = OnDevice::new(machine, &cpu);
        let usual = step(eighths::<f16>(20, 40, 0), 0);
        device.learn(machine, &usual);
        let before = machine.download(&device.state);
        let mut refuse = |spoil: &dyn Fn(&mut Step<f16>), row: u32| {
            let mut step = usual.clone();
            spoil(&mut step);
            assert_eq!(device.learn(machine, &step), Outcome::Refused);
            assert_eq!(machine.download(&device.status)[1], row + 1);
            assert_eq!(machine.download(&device.state), before);
            // A sum over ranks that contains it is refused as well.
            assert!(machine.download(&device.sums)[order::PRESENT].is_nan());
        };
        // Every given row's scale and norm of dZ is looked at, whether it is one of the four learned from or not.
        refuse(&|step| step.dz_norms[0] = f32::NAN, 0);
        refuse(&|step| (step.dz_norms[19], step.dz_norms[18]) = (f32::INFINITY, -1.0), 18);
        refuse(&|step| step.scales[11] = -1.0, 11);
        refuse(&|step| step.scales[9] = f64::NAN, 9);
        refuse(&|step| step.scales[9] = 1e20, 9);
        let remember = |step: &mut Step<f16>, row: usize, norm: f32| {
            step.cached = Some(vec![-1.0; 20]);
            step.cached.as_mut().expect("just made")[row] = norm;
        };
        refuse(&|step| remember(step, 12, f32::NAN), 12);
        refuse(&|step| remember(step, 0, f32::INFINITY), 0);
        let learned = chosen_row(1, 20, 4) as usize;
        refuse(&|step| step.rows[(learned, 39)] = f16::NAN, learned as u32);
        refuse(&|step| step.rows[(learned, 0)] = f16::NEG_INFINITY, learned as u32);
        assert_eq!(device.learn(machine, &usual), Outcome::Learned);
    });
}

/// Each of two ranks brings half of the rows, one of them on a CPU; both apply the added sums.
#[test]
fn ranks_add_their_sums() {
    for_each_machine(|machine| {
        let mut whole = predictor(64, 48, 128);
        let (cpu, device) = (whole.clone(), OnDevice::new(machine, &whole));
        let rows = eighths::<f32>(40, 64, 3);
        let all = step(rows, 3);
        let first = all.given(20);
        let second = Step {
            rows: all.rows.slice(ndarray::s![20.., ..]).to_owned(),
            dz_norms: all.dz_norms[20..].to_vec(),
            scales: all.scales[20..].to_vec(),
            cached: None,
        };
        device.run(machine, &first, None, Place::TIGHT, false);
        let other = cpu.statistics(second.rows.view(), &second.dz_norms, &second.scales, None).expect("valid rows");
        let added: Vec<f64> = machine.download(&device.sums).iter().zip(other.sums()).map(|(a, b)| a + b).collect();
        machine.write(&device.sums, &added);
        let features = device.settings.features as u32;
        let args = Args {
            rows: std::ptr::null(),
            leading: 64,
            in_features: 64,
            features,
            budget: 20,
            rows_per_update: 128,
            count: std::ptr::null(),
            indices: std::ptr::null(),
            dz_norms: std::ptr::null(),
            cached_norms: std::ptr::null(),
            scales: std::ptr::null(),
            forgetting: device.settings.forgetting,
            ridge: device.settings.ridge,
            clamp: device.settings.clamp,
            state: device.state.pointer(),
            scratch: std::ptr::null_mut(),
            sums: device.sums.pointer(),
            status: device.status.pointer(),
        };
        // SAFETY: the last launch reads the sums and the state only.
        unsafe { machine.run(&PREDICTOR_APPLY, update::apply_shape(), &args) };
        all.teach(&mut whole);
        check_numbers(&device.numbers(machine), &whole.state(), whole.features(), 1e-9);
    });
}

/// A row times its scale has the features of the row, but for the rounding of its elements.
#[test]
fn saved_rows_may_carry_their_scales() {
    for_each_machine(|machine| {
        let cpu = predictor(200, 64, 128);
        let device = OnDevice::new(machine, &cpu);
        let plain = step(eighths::<bf16>(30, 200, 2), 4);
        let mut scaled = plain.clone();
        for (mut row, &scale) in scaled.rows.rows_mut().into_iter().zip(&plain.scales) {
            row.mapv_inplace(|value| bf16::from_f32(value.to_f32() * scale as f32));
        }
        device.run(machine, &plain, None, Place::TIGHT, false);
        let expected = machine.download(&device.sums);
        device.run(machine, &scaled, None, Place::TIGHT, false);
        let found = machine.download(&device.sums);
        // Half an ulp of bf16 for each element: less for a sum of many, and twice in a product. Then the grid's units.
        let size = |i: usize| expected[order::triangle(64, i)].sqrt();
        for i in 0..64 {
            for j in i..64 {
                let at = order::triangle(64, i) + j - i;
                let bound = 2.0 / 256.0 * size(i) * size(j) + 30.0_f64.sqrt() / 64.0 * (size(i) + size(j));
                assert!((found[at] - expected[at]).abs() <= bound, "{i} {j}: {} {}", found[at], expected[at]);
            }
        }
        assert_eq!(found[..order::SCALARS], expected[..order::SCALARS]);
    });
}

#[test]
fn no_order_of_threads_changes_a_bit() {
    let cpu = predictor(300, 40, 10);
    let run = |seed| {
        let machine = &mut Machine::drawn(seed);
        let device = OnDevice::new(machine, &cpu);
        for n in 0..2 {
            let mut step = step(noise::<bf16>(15, 300, n), n as usize);
            remember(&mut step, n as usize);
            device.learn(machine, &step);
        }
        machine.download(&device.state)
    };
    let expected = run(0);
    (1..8).for_each(|seed| assert!(run(seed) == expected, "seed {seed}"));
}

/// Cached norms of every kind: those of the last visit, zeros, far ones, and some that are not known.
fn remember<T>(step: &mut Step<T>, seed: usize) {
    let cached = step.dz_norms.iter().enumerate().map(|(i, &norm)| match (i * 3 + seed) % 11 {
        0 => -1.0,
        1 => 0.0,
        2 => f32::NEG_INFINITY,
        3 => 1e30,
        4 => f32::from_bits(1),
        near => norm * (0.5 + near as f32 / 8.0),
    });
    step.cached = Some(cached.collect());
}

/// The sums of the blend, on the grid: those of the CPU but for rows whose guess lies, by the order of a dot product, on
/// the other side of half a unit (2⁻⁸); each of them moves a distance and an error by one unit.
fn check_blend_sums(found: &[f64], expected: &[f64], rows: f64) {
    let (found, expected) = (&found[order::BLEND..order::SCALARS], &expected[order::BLEND..order::SCALARS]);
    assert_eq!(found[0], expected[0], "rounding does not decide which rows are known");
    let largest = expected[0].max(expected[3]).max(1.0);
    for (a, b) in found.iter().zip(expected) {
        // A row in 20 flips at most; by Cauchy-Schwarz, one unit times the norm of the other factor.
        assert!((a - b).abs() <= (rows / 20.0).ceil() * 2.0 / 256.0 * (largest.sqrt() + 1.0), "{found:?} {expected:?}");
    }
}

#[test]
fn how_far_to_trust_a_cache_is_learned() {
    for_each_machine(|machine| {
        let mut learned = 0;
        for (in_features, features, per_update) in [(1, 1, 8), (48, 64, 24), (300, 100, 128), (520, 512, 16)] {
            let mut cpu = predictor(in_features, features, per_update);
            let device = OnDevice::new(machine, &cpu);
            for n in 0..4 {
                let mut step = step(eighths::<bf16>(30 + n, in_features, n), n);
                // A step without cached norms between others: their sums decay.
                if n != 2 {
                    remember(&mut step, n);
                }
                let expected = step.statistics(&cpu);
                device.run(machine, &step, None, Place::TIGHT, false);
                let found = machine.download(&device.sums);
                check_blend_sums(&found, expected.sums(), per_update.min(30 + n) as f64);
                assert_eq!(found[..order::BLEND], expected.sums()[..order::BLEND]);
                assert_eq!(found[order::SCALARS..], expected.sums()[order::SCALARS..]);
                // Before the first step nothing is learned, so there is no guess to compare with.
                assert_eq!(found[order::BLEND] > 0.0, n == 1 || n == 3, "step {n}");

                step.teach(&mut cpu);
                assert_eq!(device.learn(machine, &step), Outcome::Learned);
                check_numbers(&device.numbers(machine), &cpu.state(), cpu.features(), 1e-9);
                let bytes = machine.download(&device.state);
                let state = update::State::new(in_features as u32, features as u32);
                let (words, _) = bytes[state.placement as usize..].as_chunks::<8>();
                let moving: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
                // The placement follows from the other numbers, by the same operations.
                let mut copy = cpu.clone();
                PredictorPlan::restore(&mut copy, &bytes).expect("valid numbers");
                let Placement { excess, intercept, shift, slope } = copy.placement();
                assert_eq!(moving, [excess, intercept, shift, slope]);
                assert_eq!(machine.download(&device.state), PredictorPlan::first_bytes(&copy).expect("few features"));
                let Placement { shift, slope, .. } = cpu.placement();
                assert!(
                    (moving[2] - shift).abs() < 0.02 && (moving[3] - slope).abs() < 0.02,
                    "{moving:?} {shift} {slope}"
                );
                learned += u32::from(slope > 0.0 && slope < 1.0);
            }
        }
        assert!(learned >= 4, "slopes that are neither end of their range: {learned}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(rows in 1..40_usize, in_features in 1..400_usize, features in 1..80_usize, per_update in 1..50_usize, seed: u64) {
        check_statistics::<f16>(&mut Machine::drawn(seed), (rows, in_features, features), per_update);
    }
}
