//! Row norms against their definition in f64, and against the CPU's.

use crate::common::{Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded, noise};
use half::{bf16, f16};
use ndarray::{Array2, ArrayView1, array};
use proptest::prelude::*;
use wtacrs_core::product;
use wtacrs_kernels::kernel::row_norms::{Args, error_bound, shape};

/// Half of an ulp of 1.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

struct Found {
    norms: Vec<f32>,
    directions: Vec<f32>,
}

fn run<T: Tested>(machine: &mut Machine, items: &[Array2<T>], theta: Option<&[f32]>, place: Place) -> Found {
    run_beside(machine, items, theta, place, ([0.0; 4], None))
}

/// The same, placed by four numbers, beside cached norms.
fn run_beside<T: Tested>(
    machine: &mut Machine,
    items: &[Array2<T>],
    theta: Option<&[f32]>,
    place: Place,
    (placement, cached): ([f64; 4], Option<&[f32]>),
) -> Found {
    let (rows, columns) = items[0].dim();
    let x = Uploaded::new(machine, items, place, T::from_f32(f32::NAN));
    let theta = theta.map(|theta| machine.upload(theta));
    let (placement, cached) = (machine.upload(&placement), cached.map(|cached| machine.upload(cached)));
    let norms = machine.unwritten::<f32>(items.len() * rows);
    let directions = machine.unwritten::<f32>(items.len() * rows);
    let args = Args {
        x: x.pointer(),
        leading: x.leading(),
        spacing: x.spacing(),
        rows: rows as u32,
        columns: columns as u32,
        theta: theta.as_ref().map_or(std::ptr::null(), |theta| theta.pointer()),
        norms: norms.pointer(),
        directions: directions.pointer(),
        cached: cached.as_ref().map_or(std::ptr::null(), |cached| cached.pointer()),
        placement: placement.pointer(),
        clamp: CLAMP,
        exchange: std::ptr::null_mut(),
        exchange_words: 0,
    };
    let shape = shape(rows as u32, columns as u32, items.len() as u32, T::BYTES);
    // SAFETY: the buffers have the sizes that the arguments say.
    unsafe { machine.run(&T::norms(&args), shape, &args) };
    Found { norms: machine.download(&norms), directions: machine.download(&directions) }
}

fn widened<T: Tested>(row: ArrayView1<'_, T>) -> Vec<f64> {
    row.iter().map(|value| f64::from(value.widen())).collect()
}

/// Norms and directions lie within the derived bounds, and have the same bits wherever the matrices lie.
fn check<T: Tested>(machine: &mut Machine, items: &[Array2<T>], theta: &[f32]) {
    let columns = items[0].ncols();
    let bound = error_bound(columns as u32, T::BYTES);
    // 32 lanes on the CPU, each a chain of products and sums, and five sums of lanes.
    let cpu_bound = 0.5 * (columns.div_ceil(32) + 6) as f64 * UNIT + 1.01 * UNIT;
    let found = run(machine, items, Some(theta), Place::TIGHT);
    let rows: Vec<_> = items.iter().flat_map(|item| item.rows()).collect();
    for (i, row) in rows.iter().enumerate() {
        let row = widened(*row);
        let exact = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        let difference = (f64::from(found.norms[i]) - exact).abs();
        // Below the normal numbers the last rounding is absolute.
        assert!(difference <= bound * exact + 1e-45, "row {i} of {columns}: {} {exact}", found.norms[i]);

        let (mut dot, mut size) = (0.0, 0.0);
        for (value, &theta) in row.iter().zip(theta) {
            dot += value * f64::from(theta);
            size += (value * f64::from(theta)).abs();
        }
        let expected = if exact > 0.0 { dot / exact } else { 0.0 };
        let error = if exact > 0.0 { 2.0 * bound * size / exact } else { 0.0 } + (bound + 2.0 * UNIT) * expected.abs();
        let difference = (f64::from(found.directions[i]) - expected).abs();
        assert!(difference <= error + 1e-45, "row {i} of {columns}: {} {expected}", found.directions[i]);
    }
    let on_cpu = items.iter().flat_map(|item| product::row_norms(item.view()));
    for (&found, expected) in found.norms.iter().zip(on_cpu) {
        assert!((found - expected).abs() <= (bound + cpu_bound) as f32 * expected + 1e-45, "{found} {expected}");
    }
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for place in [Place::ODD, Place { offset: 8, row_gap: 16 - columns % 16, item_gap: 8, heads: 2 }] {
        let again = run(machine, items, Some(theta), place);
        assert_eq!(bits(&again.norms), bits(&found.norms), "{place:?}");
        assert_eq!(bits(&again.directions), bits(&found.directions), "{place:?}");
        let alone = run(machine, items, None, place);
        assert_eq!(bits(&alone.norms), bits(&found.norms), "{place:?}");
        assert!(alone.directions.iter().all(|direction| direction.to_bits() == u32::MAX), "not written");
    }
}

fn check_shape<T: Tested>(machine: &mut Machine, rows: usize, columns: usize, batch: usize, seed: u64) {
    let items: Vec<_> = (0..batch as u64).map(|b| noise::<T>(rows, columns, seed + b)).collect();
    let theta: Vec<f32> = noise::<f32>(1, columns, !seed).into_iter().map(|value| 3.0 * value).collect();
    check(machine, &items, &theta);
}

fn check_all_types(machine: &mut Machine, rows: usize, columns: usize, batch: usize, seed: u64) {
    check_shape::<f32>(machine, rows, columns, batch, seed);
    check_shape::<f16>(machine, rows, columns, batch, seed);
    check_shape::<bf16>(machine, rows, columns, batch, seed);
}

#[test]
fn shapes_of_every_kind() {
    // Around the widths at which a row becomes more lanes', a warp's, and a block's: 2048 f32 or 4096 halves.
    let shapes = [(1, 1), (70, 1), (3, 7), (9, 64), (17, 65), (33, 300), (5, 1024), (2, 2048), (2, 2050), (2, 4096)];
    for_each_machine(|machine| {
        for (rows, columns) in shapes {
            check_all_types(machine, rows, columns, 1, 1);
        }
        check_all_types(machine, 3, 4099, 1, 2);
        check_all_types(machine, 2, 9001, 1, 3);
        check_all_types(machine, 5, 33, 3, 4);
        check_all_types(machine, 2, 4200, 2, 5);
    });
}

/// The most by which a guess may differ from a cached log-norm.
const CLAMP: f64 = 6.0;

/// A direction moves as the guess of wtacrs-core's predictor does.
#[test]
fn directions_move_towards_cached_norms() {
    for_each_machine(|machine| {
        for (columns, place) in [(5, Place::ODD), (300, Place::TIGHT), (4200, Place::ODD)] {
            let items = [noise::<bf16>(9, columns, 1), noise::<bf16>(9, columns, 2)];
            let theta: Vec<f32> = noise::<f32>(1, columns, 3).into_iter().collect();
            let alone = run(machine, &items, Some(&theta), place);
            let mut cached: Vec<f32> = (0..18).map(|i| (i as f32 * 0.7 - 6.0).exp()).collect();
            (cached[0], cached[1], cached[2], cached[3]) = (-1.0, 0.0, f32::MAX, f32::from_bits(1));
            (cached[9], cached[10], cached[11]) = (f32::NEG_INFINITY, f32::NAN, f32::INFINITY);
            for placement in [[0.0; 4], [0.5, -3.0, 0.25, 0.6], [-7.25, 2.0, -1.0, 1.0]] {
                let found = run_beside(machine, &items, Some(&theta), place, (placement, Some(&cached)));
                assert_eq!(found.norms, alone.norms);
                let [offset, intercept, shift, slope] = placement;
                for (i, (&direction, &cached)) in alone.directions.iter().zip(&cached).enumerate() {
                    let found = found.directions[i];
                    if cached < 0.0 {
                        assert_eq!(found, direction + offset as f32, "nothing is known of row {i}");
                    } else if !cached.is_finite() {
                        assert!(found.is_nan(), "row {i}: {found} beside {cached}");
                    } else {
                        let distance = f64::from(cached).ln() - (intercept + f64::from(direction));
                        let moved = (shift + slope * distance.clamp(-CLAMP, CLAMP)) as f32;
                        let expected = direction + moved + offset as f32;
                        // The logarithm's last places may round the other way, once in f32 and once more in the sums.
                        let bound = (2.0 * moved.abs() + direction.abs() + expected.abs()) * f32::EPSILON;
                        assert!((found - expected).abs() <= bound, "row {i}: {found} {expected}");
                    }
                }
            }
        }
    });
}

#[test]
fn no_rows_and_no_columns() {
    for_each_machine(|machine| {
        assert_eq!(run(machine, &[Array2::<f32>::zeros((3, 0))], Some(&[]), Place::TIGHT).norms, [0.0; 3]);
        assert_eq!(run(machine, &[Array2::<f32>::zeros((3, 0))], Some(&[]), Place::TIGHT).directions, [0.0; 3]);
        assert!(run(machine, &[Array2::from_elem((0, 3), bf16::ZERO)], None, Place::TIGHT).norms.is_empty());
    });
}

#[test]
fn extremes() {
    for_each_machine(|machine| {
        for columns in [2, 40, 2100] {
            let mut x = Array2::<f32>::zeros((7, columns));
            let cases = [(3e30, 4e30), (3e-30, 4e-30), (3e-21, 4e-21), (0.0, 0.0), (1e-45, 0.0), (-0.0, -0.0)];
            for (i, (a, b)) in cases.into_iter().enumerate() {
                x[(i, 0)] = a;
                x[(i, columns - 1)] = b;
            }
            x.row_mut(6).fill(f32::MAX / 1e3);
            let mut theta = vec![0.5; columns];
            theta[0] = 1.0;
            check(machine, &[x.clone()], &theta);
            let found = run(machine, &[x], Some(&theta), Place::TIGHT);
            let expected = [0.6 + 0.4, 0.6 + 0.4, 0.6 + 0.4, 0.0, 1.0, 0.0];
            assert!(found.directions.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", found.directions);
        }
        // Subnormal halves, and halves whose squares overflow.
        check(machine, &[array![[f16::from_bits(1), f16::from_bits(3)], [f16::MAX, f16::MIN]]], &[1.0, 1.0]);
        check(machine, &[array![[bf16::from_bits(1), bf16::from_bits(2)]]], &[1.0, -1.0]);
    });
}

#[test]
fn what_is_not_finite_shows() {
    for_each_machine(|machine| {
        for columns in [3, 300, 2100] {
            let mut x = noise::<f32>(5, columns, 1);
            x[(0, 0)] = f32::NAN;
            x[(2, columns - 1)] = f32::NEG_INFINITY;
            x[(4, columns / 2)] = f32::MAX;
            let found = run(machine, &[x], Some(&vec![1.0; columns]), Place::TIGHT);
            let is_finite: Vec<bool> = found.norms.iter().map(|norm| norm.is_finite()).collect();
            assert_eq!(is_finite, [false, true, false, true, true]);
            assert!((found.norms[4] / f32::MAX - 1.0).abs() < 1e-6);
            assert!(found.directions.iter().all(|direction| direction.is_finite()));
            assert_eq!((found.directions[0], found.directions[2]), (0.0, 0.0));
        }
        let halves = array![[f16::NAN, f16::ONE], [f16::INFINITY, f16::ONE]];
        assert!(run(machine, &[halves], None, Place::TIGHT).norms.iter().all(|norm| !norm.is_finite()));
        let tall = array![[f32::MAX, f32::MAX]];
        assert_eq!(run(machine, &[tall], None, Place::TIGHT).norms, [f32::INFINITY], "beyond f32's range");
    });
}

#[test]
fn no_order_of_threads_changes_a_bit() {
    let theta: Vec<f32> = noise::<f32>(1, 5000, 8).into_iter().collect();
    for columns in [37, 1111, 5000] {
        let items = [noise::<bf16>(11, columns, 6), noise::<bf16>(11, columns, 7)];
        let run = |seed| run(&mut Machine::drawn(seed), &items, Some(&theta[..columns]), Place::ODD);
        let expected = run(0);
        for seed in 1..8 {
            let found = run(seed);
            assert_eq!((found.norms, found.directions), (expected.norms.clone(), expected.directions.clone()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(rows in 1..40_usize, columns in 1..700_usize, batch in 1..4_usize, seed: u64, kind in 0..3) {
        let machine = &mut Machine::drawn(seed);
        match kind {
            0 => check_shape::<f32>(machine, rows, columns, batch, seed),
            1 => check_shape::<f16>(machine, rows, columns, batch, seed),
            _ => check_shape::<bf16>(machine, rows, columns, batch, seed),
        }
    }
}
