//! Addresses beyond 2³¹ elements and 2³² bytes: far rows of each matrix, and far matrices of a batch.

use crate::common::Machine;
use crate::sparse::Sparse;
use half::bf16;
use wtacrs_kernels::kernel::gather_gemm::Args;
use wtacrs_kernels::kernel::matrix::DataType;
use wtacrs_kernels::kernel::matrix::RowLayout;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::plan::tiling::{Multiplier, ProductSizes, Tile, Tiling};

const FAR_ROW: usize = 1 << 30;
const FAR_MATRIX: usize = 1 << 33;
const ROWS: usize = 4;
const SIZE: usize = 8;
const BATCH: usize = 2;

/// How far from one another the rows and the matrices of `saved`, `dz` and `dw` lie, in elements.
fn check(leadings: [usize; 3], strides: [usize; 3]) {
    let at = |which: usize, b: usize, row: usize| b * strides[which] + row * leadings[which];
    let bytes = |which: usize, rows: usize, element: usize| element * (at(which, BATCH - 1, rows - 1) + SIZE);
    let (saved, dz) = (Sparse::new(bytes(0, ROWS, 2)), Sparse::new(bytes(1, ROWS, 2)));
    // Row r holds the same number everywhere, another in each matrix.
    let (left, right) = (|b: usize, r: usize| (1 + r + 5 * b) as f32, |b: usize, r: usize| (2 + r * r + b) as f32);
    for (b, r) in (0..BATCH).flat_map(|b| (0..ROWS).map(move |r| (b, r))) {
        for c in 0..SIZE {
            // SAFETY: within both.
            unsafe {
                saved.place::<bf16>(at(0, b, r) + c).write(bf16::from_f32(left(b, r)));
                dz.place::<bf16>(at(1, b, r) + c).write(bf16::from_f32(right(b, r)));
            }
        }
    }
    let indices = [3_u32, 0, 2, 1].repeat(BATCH);
    let sizes =
        ProductSizes { in_features: SIZE as u32, out_features: SIZE as u32, rows: ROWS as u32, batch: BATCH as u32 };
    let tiling = Tiling::new(Multiplier::Bf16, sizes, Tile::Square, 1);
    for machine in &mut Machine::both(0) {
        for rows in [RowLayout::Whole, RowLayout::Ragged, RowLayout::Any] {
            let dw = Sparse::new(bytes(2, SIZE, 4));
            let args = Args {
                saved: saved.place(0),
                saved_leading: leadings[0] as u64,
                saved_spacing: Spacing::even(strides[0] as u64),
                dz: dz.place(0),
                dz_leading: leadings[1] as u64,
                dz_spacing: Spacing::even(strides[1] as u64),
                indices: indices.as_ptr(),
                count: std::ptr::null(),
                rows: ROWS as u32,
                in_features: SIZE as u32,
                out_features: SIZE as u32,
                splits: 1,
                accumulate: 0,
                output: DataType::F32 as u32,
                dw: dw.place(0),
                dw_leading: leadings[2] as u64,
                dw_spacing: Spacing::even(strides[2] as u64),
                partials: std::ptr::null_mut(),
            };
            let (kernel, shape) = tiling.launch(rows);
            // SAFETY: the pointers lead to matrices of these sizes.
            unsafe { machine.run(kernel, shape, &args) };
            for b in 0..BATCH {
                let sum: f32 = (0..ROWS).map(|r| left(b, r) * right(b, indices[r] as usize)).sum();
                for (i, j) in (0..SIZE).flat_map(|i| (0..SIZE).map(move |j| (i, j))) {
                    // SAFETY: within dw.
                    let found = unsafe { dw.place::<f32>(at(2, b, i) + j).read() };
                    assert_eq!(found, sum, "{machine:?}, matrix {b}: dw[{i}, {j}], {leadings:?}, {strides:?}");
                }
            }
        }
    }
}

#[test]
fn rows_and_matrices_beyond_two_to_the_31_elements() {
    let (near, dense) = ([SIZE; 3], [SIZE * SIZE; 3]);
    for which in 0..3 {
        let of = |far: usize, near: [usize; 3]| std::array::from_fn(|i| if i == which { far } else { near[i] });
        check(of(FAR_ROW, near), of(FAR_MATRIX, dense));
        check(near, of(FAR_MATRIX, dense));
    }
    check([FAR_ROW; 3], [FAR_MATRIX; 3]);
}
