//! Column sums and row norms of one pass against their definitions in f64, and against the CPU's.

use crate::common::{Machine, for_each_machine};
use crate::matrices::{Place, Tested, Uploaded, noise};
use half::{bf16, f16};
use ndarray::{Array1, Array2, array, s};
use proptest::prelude::*;
use std::ptr;
use wtacrs_core::product::{self, Update};
use wtacrs_kernels::kernel::column_sums::{
    Args, FinishArgs, norm_error_bound, partial_leading, ranges, shape, sum_error_bound,
};
use wtacrs_kernels::kernel::{SPLIT_REDUCE_SUMS, split_reduce};

/// Half of an ulp of 1.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

#[derive(Debug, PartialEq)]
struct Found {
    norms: Vec<f32>,
    sums: Vec<f32>,
}

impl Found {
    fn bits(&self) -> Vec<u32> {
        self.norms.iter().chain(&self.sums).map(|value| value.to_bits()).collect()
    }
}

/// The sums, added to `old` if there is one.
fn run<T: Tested>(machine: &mut Machine, items: &[Array2<T>], place: Place, old: Option<f32>) -> Found {
    let (rows, columns) = items[0].dim();
    let x = Uploaded::new(machine, items, place, T::from_f32(f32::NAN));
    let norms = machine.unwritten::<f32>(items.len() * rows);
    let [rows, columns, batch] = [rows, columns, items.len()].map(|size| size as u32);
    let ranges = ranges(rows, columns, T::BYTES);
    let partials = machine.unwritten::<f32>((batch * ranges) as usize * partial_leading(columns) as usize);
    let args = Args {
        x: x.pointer(),
        leading: x.leading(),
        spacing: x.spacing(),
        rows,
        columns,
        norms: norms.pointer(),
        partials: partials.pointer(),
    };
    let len = (batch * columns) as usize;
    let sums = machine.upload(&vec![old.unwrap_or(f32::NAN); len]);
    let finish = FinishArgs {
        partials: partials.pointer(),
        ranges,
        columns,
        accumulate: old.is_some().into(),
        sums: sums.pointer(),
    };
    let (finish, of_finish) = split_reduce::SumsArgs::launch(split_reduce::Args::NONE, None, finish, batch);
    // SAFETY: the buffers have the sizes that the arguments say.
    unsafe {
        machine.run(&T::SUMS, shape(rows, columns, batch, T::BYTES), &args);
        machine.run(&SPLIT_REDUCE_SUMS, of_finish, &finish);
    }
    let found = Found { norms: machine.download(&norms), sums: machine.download(&sums) };
    if old.is_some() {
        return found;
    }
    // Without norms nothing else changes.
    // SAFETY: as above.
    unsafe {
        machine.run(&T::SUMS, shape(rows, columns, batch, T::BYTES), &Args { norms: ptr::null_mut(), ..args });
        machine.write(&sums, &vec![old.unwrap_or(f32::NAN); len]);
        machine.run(&SPLIT_REDUCE_SUMS, of_finish, &finish);
    }
    let again = Found { norms: found.norms.clone(), sums: machine.download(&sums) };
    assert_eq!(again.bits(), found.bits());
    found
}

/// Norms and sums lie within the derived bounds, and have the same bits wherever the matrices lie.
fn check<T: Tested>(machine: &mut Machine, items: &[Array2<T>]) {
    let (rows, columns) = items[0].dim();
    let of_norms = norm_error_bound(rows as u32, columns as u32, T::BYTES);
    let of_sums = sum_error_bound(rows as u32, columns as u32, T::BYTES);
    let found = run(machine, items, Place::TIGHT, None);
    let added = run(machine, items, Place::ODD, Some(0.75));
    for (b, item) in items.iter().enumerate() {
        let item = item.mapv(|value| f64::from(value.widen()));
        for (i, row) in item.rows().into_iter().enumerate() {
            let exact = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            let norm = found.norms[b * rows + i];
            let difference = (f64::from(norm) - exact).abs();
            assert!(difference <= of_norms * exact + 1e-45, "row {i} of {rows} × {columns}: {norm} {exact}");
        }
        for (j, column) in item.columns().into_iter().enumerate() {
            // Of numbers of both signs f64 gives far more digits than the bound asks for.
            let (exact, size) = (column.sum(), column.mapv(f64::abs).sum());
            let sum = found.sums[b * columns + j];
            let difference = (f64::from(sum) - exact).abs();
            assert!(difference <= of_sums * size, "column {j} of {rows} × {columns}: {sum} {exact} ± {size}");
            let sum = added.sums[b * columns + j];
            let difference = (f64::from(sum) - exact - 0.75).abs();
            let bound = of_sums * size + UNIT * (0.75 + (1.0 + of_sums) * size);
            assert!(difference <= bound, "column {j} of {rows} × {columns}: {sum} {exact} + 0.75");
        }
        // The CPU adds runs of at most all rows, then the runs.
        let mut on_cpu = Array1::<f32>::zeros(columns);
        product::column_sums_into(items[b].view(), on_cpu.view_mut(), Update::Overwrite).expect("fits");
        for (j, column) in item.columns().into_iter().enumerate() {
            let bound = (of_sums + 1.01 * rows as f64 * UNIT) * column.mapv(f64::abs).sum();
            assert!(f64::from((found.sums[b * columns + j] - on_cpu[j]).abs()) <= bound, "column {j}");
        }
    }
    for place in [Place::ODD, Place { offset: 8, row_gap: 16 - columns % 16, item_gap: 8, heads: 2 }] {
        assert_eq!(run(machine, items, place, None).bits(), found.bits(), "{place:?}");
    }
}

fn check_shape<T: Tested>(machine: &mut Machine, rows: usize, columns: usize, batch: usize, seed: u64) {
    let items: Vec<_> = (0..batch as u64).map(|b| noise::<T>(rows, columns, seed + b)).collect();
    check(machine, &items);
}

fn check_all_types(machine: &mut Machine, rows: usize, columns: usize, batch: usize, seed: u64) {
    check_shape::<f32>(machine, rows, columns, batch, seed);
    check_shape::<f16>(machine, rows, columns, batch, seed);
    check_shape::<bf16>(machine, rows, columns, batch, seed);
}

#[test]
fn shapes_of_every_kind() {
    // Around the widths at which a row becomes more lanes', several warps', and a block's, and at which it has a second
    // strip: 1024 f32 or 2048 halves. Around the ends of ranges.
    let shapes = [
        (1, 1),
        (300, 1),
        (3, 7),
        (129, 8),
        (9, 64),
        (67, 65),
        (33, 300),
        (70, 1024),
        (5, 2048),
        (40, 1030),
        (2, 2050),
    ];
    for_each_machine(|machine| {
        for (rows, columns) in shapes {
            check_all_types(machine, rows, columns, 1, 1);
        }
        check_all_types(machine, 9, 5000, 1, 2);
        check_all_types(machine, 65, 33, 3, 4);
        check_all_types(machine, 17, 2100, 2, 5);
        // Longer ranges than the shortest, and more of them than a warp takes at once.
        check_shape::<bf16>(machine, 10_000, 12, 1, 6);
        check_shape::<f16>(machine, 2100, 520, 1, 8);
        check_shape::<f32>(machine, 4200, 130, 1, 7);
    });
}

#[test]
fn no_rows_and_no_columns() {
    for_each_machine(|machine| {
        assert_eq!(run(machine, &[Array2::<f32>::zeros((3, 0))], Place::TIGHT, None).norms, [0.0; 3]);
        let none = [Array2::from_elem((0, 300), bf16::ZERO)];
        assert_eq!(run(machine, &none, Place::TIGHT, None).sums, [0.0; 300]);
        assert_eq!(run(machine, &none, Place::TIGHT, Some(2.0)).sums, [2.0; 300]);
    });
}

#[test]
fn extremes() {
    for_each_machine(|machine| {
        for columns in [2, 40, 2100] {
            let mut x = Array2::<f32>::zeros((70, columns));
            let cases = [(3e30, 4e30), (3e-30, 4e-30), (3e-21, 4e-21), (0.0, 0.0), (1e-45, 0.0), (-0.0, -0.0)];
            for (i, (a, b)) in cases.into_iter().enumerate() {
                x[(11 * i, 0)] = a;
                x[(11 * i, columns - 1)] = b;
            }
            x.row_mut(69).fill(f32::MAX / 1e3);
            check(machine, &[x]);
        }
        check(machine, &[array![[f16::from_bits(1), f16::from_bits(3)], [f16::MAX, f16::MIN]]]);
        check(machine, &[array![[bf16::from_bits(1), bf16::from_bits(2)]]]);
    });
}

#[test]
fn what_is_not_finite_shows_where_it_is() {
    for_each_machine(|machine| {
        for columns in [3, 300, 2100] {
            let mut x = noise::<f32>(50, columns, 1);
            x[(0, 0)] = f32::NAN;
            x[(33, columns - 1)] = f32::NEG_INFINITY;
            x.slice_mut(s![4..6, 1]).fill(f32::MAX);
            let expected = x.sum_axis(ndarray::Axis(0));
            let found = run(machine, &[x.clone()], Place::TIGHT, None);
            for (j, (&sum, &expected)) in found.sums.iter().zip(&expected).enumerate() {
                match j {
                    0 => assert!(sum.is_nan()),
                    1 => assert_eq!(sum, f32::INFINITY, "beyond f32's range"),
                    _ if j == columns - 1 => assert_eq!(sum, f32::NEG_INFINITY),
                    _ => assert!((sum - expected).abs() < 1e-4),
                }
            }
            let is_finite = |i: usize| found.norms[i].is_finite();
            assert!(!is_finite(0) && !is_finite(33));
            assert!((1..50).all(|i| i == 33 || is_finite(i)), "{:?}", found.norms);
            x[(40, columns - 1)] = f32::INFINITY;
            assert!(run(machine, &[x], Place::ODD, None).sums[columns - 1].is_nan(), "∞ − ∞");
        }
    });
}

#[test]
fn no_order_of_threads_changes_a_bit() {
    for columns in [5, 37, 700, 5000] {
        let items = [noise::<bf16>(45, columns, 6), noise::<bf16>(45, columns, 7)];
        let run = |seed| run(&mut Machine::drawn(seed), &items, Place::ODD, Some(1.0)).bits();
        let expected = run(0);
        for seed in 1..8 {
            assert_eq!(run(seed), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_shape(rows in 1..200_usize, columns in 1..700_usize, batch in 1..3_usize, seed: u64, kind in 0..3) {
        let machine = &mut Machine::drawn(seed);
        match kind {
            0 => check_shape::<f32>(machine, rows, columns, batch, seed),
            1 => check_shape::<f16>(machine, rows, columns, batch, seed),
            _ => check_shape::<bf16>(machine, rows, columns, batch, seed),
        }
    }
}
