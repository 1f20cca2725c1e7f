//! Sums over columns: their norms, and kept columns as rows.

use crate::common::{Machine, for_each_machine};
use half::{bf16, f16};
use proptest::prelude::*;
use std::num::NonZeroU32;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{self, column_norms, gather_columns};
use wtacrs_kernels::launch::{Kernel, Shape};

/// An element type with its kernels.
trait Tested: Copy + PartialEq + std::fmt::Debug {
    const NORMS: Kernel<column_norms::Args>;
    const GATHER: Kernel<gather_columns::Args>;
    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
}

macro_rules! tested {
    ($type:ty, $from:expr, $norms:ident, $gather:ident) => {
        impl Tested for $type {
            const NORMS: Kernel<column_norms::Args> = kernel::$norms;
            const GATHER: Kernel<gather_columns::Args> = kernel::$gather;
            fn from_f32(value: f32) -> Self {
                $from(value)
            }
            fn to_f32(self) -> f32 {
                self.into()
            }
        }
    };
}

tested!(f32, std::convert::identity, COLUMN_NORMS_F32, GATHER_COLUMNS_F32);
tested!(f16, f16::from_f32, COLUMN_NORMS_F16, GATHER_COLUMNS_F16);
tested!(bf16, bf16::from_f32, COLUMN_NORMS_BF16, GATHER_COLUMNS_BF16);

/// A batch of matrices whose rows and items lie further apart than they must, or of heads whose rows lie side by side.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    gap: usize,
    batch: usize,
    heads: usize,
    seed: usize,
}

impl Case {
    fn leading(self) -> usize {
        self.heads * (self.columns + self.gap)
    }

    fn spacing(self) -> Spacing {
        Spacing {
            sample: (self.rows * self.leading() + 3 * self.gap) as u64,
            head: (self.columns + self.gap) as u64,
            heads: NonZeroU32::new(self.heads as u32).expect("there are heads"),
        }
    }

    fn index(self, item: usize, row: usize, column: usize) -> usize {
        self.spacing().of(item as u32) as usize + row * self.leading() + column
    }

    fn values<T: Tested>(self) -> Vec<T> {
        let value = |at: usize| ((at * 31 + at / 7 * 17 + self.seed) % 23) as f32 / 8.0 - 1.0;
        (0..self.spacing().sample as usize * self.batch.div_ceil(self.heads)).map(|at| T::from_f32(value(at))).collect()
    }

    fn norms<T: Tested>(self, machine: &mut Machine, values: &[T]) -> Vec<f32> {
        let x = machine.upload(values);
        let norms = machine.unwritten::<f32>(self.batch * self.columns);
        let args = column_norms::Args {
            x: x.bytes(),
            leading: self.leading() as u64,
            spacing: self.spacing(),
            rows: self.rows as u32,
            columns: self.columns as u32,
            norms: norms.pointer(),
        };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe { machine.run(&T::NORMS, column_norms::shape(self.columns as u32, self.batch as u32), &args) };
        machine.download(&norms)
    }
}

fn check_norms<T: Tested>(machine: &mut Machine, case: Case) {
    let values = case.values::<T>();
    let found = case.norms(machine, &values);
    for item in 0..case.batch {
        for column in 0..case.columns {
            let at = |row: usize| f64::from(values[case.index(item, row, column)].to_f32());
            let exact = (0..case.rows).map(|row| at(row) * at(row)).sum::<f64>().sqrt();
            let norm = f64::from(found[item * case.columns + column]);
            // Each of ⌈rows/8⌉ additions of squares, and their products, is off by 2^−24 of the sum at most; the root
            // halves that. One more rounding makes it f32.
            let bound = (case.rows.div_ceil(8) + 2) as f64 * 2.0_f64.powi(-24) * exact;
            assert!((norm - exact).abs() <= bound, "{case:?}, column {column}: {norm}, not {exact}");
        }
    }
}

fn check_gather<T: Tested>(machine: &mut Machine, case: Case, kept: usize, count: Option<usize>, is_scaled: bool) {
    let values = case.values::<T>();
    let indices: Vec<u32> = (0..case.batch * kept).map(|at| (at % kept * case.columns / kept) as u32).collect();
    let scales: Vec<f64> = (0..case.batch * kept).map(|at| 1.0 + (at % 5) as f64 / 3.0).collect();
    let (x, device_indices) = (machine.upload(&values), machine.upload(&indices));
    let device_scales = machine.upload(&scales);
    let counts = machine.upload(&vec![count.unwrap_or(kept) as u32; case.batch]);
    let out = machine.unwritten::<T>(case.batch * kept * case.rows);
    let args = gather_columns::Args {
        x: x.bytes(),
        leading: case.leading() as u64,
        spacing: case.spacing(),
        rows: case.rows as u32,
        kept: kept as u32,
        indices: device_indices.pointer(),
        scales: if is_scaled { device_scales.pointer() } else { std::ptr::null() },
        count: if count.is_some() { counts.pointer() } else { std::ptr::null() },
        out: out.pointer().cast(),
        out_leading: case.rows as u64,
        out_spacing: Spacing::even((kept * case.rows) as u64),
    };
    let shape = gather_columns::shape(kept as u32, case.rows as u32, case.batch as u32);
    // SAFETY: the buffers have the sizes that the arguments say, and the indices are below `columns`.
    unsafe { machine.run(&T::GATHER, shape, &args) };
    let found = machine.download(&out);
    if shape.grid[1] > 1 {
        // As many kept columns as need more blocks than a grid has are gone through by those that there are.
        let few = Shape { grid: [shape.grid[0], shape.grid[1] - 1, shape.grid[2]], ..shape };
        machine.write(&out, &vec![T::from_f32(-7.0); out.len()]);
        // SAFETY: as above.
        unsafe { machine.run(&T::GATHER, few, &args) };
        assert_eq!(machine.download(&out), found, "{case:?}");
    }
    for item in 0..case.batch {
        for r in 0..kept {
            for row in 0..case.rows {
                let list = item * kept + r;
                let from = case.index(item, row, indices[list] as usize);
                let scale = if is_scaled { scales[list] as f32 } else { 1.0 };
                let is_used = r < count.unwrap_or(kept);
                let expected = if is_used { T::from_f32(scale * values[from].to_f32()) } else { T::from_f32(0.0) };
                assert_eq!(found[list * case.rows + row], expected, "{case:?}: row {r}, column {row}");
            }
        }
    }
}

#[test]
fn norms_of_every_type() {
    for_each_machine(|machine| {
        for (rows, columns, gap, batch) in [(1, 1, 0, 1), (1, 70, 3, 2), (70, 1, 1, 3), (33, 64, 0, 1), (100, 37, 5, 2)]
        {
            let case = Case { rows, columns, gap, batch, heads: batch.div_ceil(2), seed: 0 };
            check_norms::<f32>(machine, case);
            check_norms::<f16>(machine, case);
            check_norms::<bf16>(machine, case);
        }
    });
}

#[test]
fn norms_of_extremes() {
    for_each_machine(|machine| {
        let case = Case { rows: 2, columns: 5, gap: 0, batch: 1, heads: 1, seed: 0 };
        let x = [3e30_f32, 3e-30, 0.0, f32::NAN, f32::INFINITY, 4e30, 4e-30, 0.0, 1.0, 1.0];
        let norms = case.norms(machine, &x);
        assert!((norms[0] / 5e30 - 1.0).abs() < 1e-6 && (norms[1] / 5e-30 - 1.0).abs() < 1e-6, "{norms:?}");
        assert_eq!(norms[2], 0.0);
        assert!(!norms[3].is_finite() && !norms[4].is_finite());
        let none = Case { rows: 0, columns: 5, gap: 0, batch: 1, heads: 1, seed: 0 };
        assert_eq!(none.norms::<f32>(machine, &[]), [0.0; 5]);
    });
}

#[test]
fn kept_columns_of_every_type() {
    for_each_machine(|machine| {
        for (rows, columns, kept, gap, batch) in
            [(1, 1, 1, 0, 1), (1, 70, 9, 3, 2), (70, 40, 33, 1, 2), (33, 64, 64, 0, 1), (100, 37, 1, 5, 3)]
        {
            let case = Case { rows, columns, gap, batch, heads: batch.div_ceil(2), seed: 0 };
            for (count, is_scaled) in [(None, true), (Some(kept / 2), true), (None, false), (Some(0), false)] {
                check_gather::<f32>(machine, case, kept, count, is_scaled);
                check_gather::<f16>(machine, case, kept, count, is_scaled);
                check_gather::<bf16>(machine, case, kept, count, is_scaled);
            }
        }
    });
}

#[test]
fn the_most_kept_columns_fit_a_grid() {
    for kept in [1, 32, 33, 65_535 * 32, 65_535 * 32 + 1, (1 << 31) - 1] {
        let [_, y, _] = gather_columns::shape(kept, 8, 1).grid;
        assert_eq!(y, kept.div_ceil(32).min(65_535));
    }
}

#[test]
fn an_unused_column_may_hold_anything() {
    for_each_machine(|machine| {
        let x = machine.upload(&[f32::NAN, 2.0]);
        let (indices, counts) = (machine.upload(&[1_u32, 0]), machine.upload(&[1_u32]));
        let out = machine.unwritten::<f32>(2);
        let args = gather_columns::Args {
            x: x.bytes(),
            leading: 2,
            spacing: Spacing::even(2),
            rows: 1,
            kept: 2,
            indices: indices.pointer(),
            scales: std::ptr::null(),
            count: counts.pointer(),
            out: out.pointer().cast(),
            out_leading: 1,
            out_spacing: Spacing::even(2),
        };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe { machine.run(&kernel::GATHER_COLUMNS_F32, gather_columns::shape(2, 1, 1), &args) };
        assert_eq!(machine.download(&out), [2.0, 0.0]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape_in_any_order(
        rows in 1_usize..90,
        columns in 1_usize..90,
        gap in 0_usize..9,
        batch in 1_usize..4,
        heads in 1_usize..3,
        share in 0.0_f64..1.0,
        seed in 0_u64..1000,
    ) {
        let case = Case { rows, columns, gap, batch, heads, seed: seed as usize };
        let kept = 1 + (share * (columns - 1) as f64) as usize;
        let mut machine = Machine::drawn(seed);
        check_norms::<bf16>(&mut machine, case);
        check_gather::<bf16>(&mut machine, case, kept, Some(kept.div_ceil(2)), true);
    }
}
