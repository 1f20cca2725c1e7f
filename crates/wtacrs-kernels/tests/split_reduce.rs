//! Partial products, added in order, whatever the rows' width and however few blocks there are.

use crate::common::{Machine, for_each_machine};
use std::num::NonZeroU32;
use wtacrs_kernels::kernel::SPLIT_REDUCE;
use wtacrs_kernels::kernel::gather_gemm::partial_leading;
use wtacrs_kernels::kernel::matrix::DataType;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::split_reduce::{Args, shape};
use wtacrs_kernels::launch::Shape;

const SPLITS: u32 = 3;
const BATCH: u32 = 3;

/// Matrices side by side within rows, two in each.
fn check(machine: &mut Machine, rows: u32, columns: u32, accumulate: bool) {
    let (heads, gap) = (NonZeroU32::new(2).expect("not 0"), 3);
    let head = u64::from(columns + gap);
    let spacing = Spacing { sample: 2 * head * u64::from(rows), head, heads };
    let leading = partial_leading(columns);
    let value = |i: u64| (i * 37 % 113) as f32 / 56.0 - 1.0;
    let partials: Vec<f32> = (0..u64::from(SPLITS * BATCH * rows) * leading).map(value).collect();
    let old: Vec<f32> = (0..spacing.sample * 2).map(|i| value(i + 1)).collect();
    let mut expected = old.clone();
    for (matrix, row) in (0..BATCH).flat_map(|matrix| (0..rows).map(move |row| (matrix, row))) {
        for column in 0..u64::from(columns) {
            let partial = |split: u32| {
                let row = u64::from((split * BATCH + matrix) * rows + row);
                partials[(row * leading + column) as usize]
            };
            let sum = (0..SPLITS).fold(0.0, |sum, split| sum + partial(split));
            let to = &mut expected[(spacing.of(matrix) + u64::from(row) * 2 * head + column) as usize];
            *to = if accumulate { sum + *to } else { sum };
        }
    }
    let partials = machine.upload(&partials);
    let whole = shape(rows, columns, BATCH);
    // Any number of blocks along x and y does.
    for grid in [whole.grid, [1, 1, BATCH], [whole.grid[0] + 1, whole.grid[1] + 1, BATCH]] {
        let dw = machine.upload(&old);
        let args = Args {
            partials: partials.pointer(),
            splits: SPLITS,
            in_features: rows,
            out_features: columns,
            accumulate: accumulate.into(),
            output: DataType::F32 as u32,
            dw: dw.bytes(),
            dw_leading: 2 * head,
            dw_spacing: spacing,
        };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe { machine.run(&SPLIT_REDUCE, Shape { grid, ..whole }, &args) };
        assert_eq!(machine.download(&dw), expected, "{machine:?}: {rows} × {columns} by {grid:?}");
    }
}

#[test]
fn rows_of_every_width() {
    for_each_machine(|machine| {
        for (rows, columns) in [(1, 1), (70, 3), (33, 64), (17, 65), (2, 1024), (3, 1500)] {
            check(machine, rows, columns, false);
            check(machine, rows, columns, true);
        }
    });
}

#[test]
fn narrow_rows_share_blocks() {
    let grid = |rows, columns| shape(rows, columns, 1).grid;
    // 16 threads have a row of 64 columns.
    assert_eq!(grid(512, 64), [1, 32, 1]);
    assert_eq!(grid(512, 1024), [1, 512, 1]);
    assert_eq!(grid(70_000, 4096), [4, 65_535, 1]);
    assert_eq!(grid(0, 0), [1, 1, 1]);
}
