//! Xᵀ Y for matrices with one row for each kept pair: the product behind every weight gradient.
//!
//! The output is cut into tiles, one task each. A task runs through the pairs a block at a time. It packs its columns of
//! the block's rows, of X and of Y, into narrow panels, which fit the caches, and multiplies each panel of X by each
//! panel of Y in the registers of a micro-kernel, which adds the block's sums to the tile:
//!
//! ```text
//! for each block of pairs
//!     left  ← panels of X[block, tile's rows]       row by row: gathered, scaled, widened or unpacked on the way
//!     right ← panels of Y[block, tile's columns]
//!     for each panel of right, for each panel of left
//!         tile[panel of left × panel of right] += Σ over the block's pairs
//! ```
//!
//! So no gathered, scaled, widened or unpacked copy of a factor is ever in memory as a whole. Packing costs little beside
//! the products, of which each packed number takes part in hundreds.
//!
//! An element of the output is a sum over the pairs of each block in turn, and then over the blocks. That order depends on
//! nothing else, and every vector that fuses products and sums rounds alike: so the bits are the same for every shape of
//! the tiles, any number of threads, any layout of the output, and any CPU that fuses them ([`vectors`]). Only bf16 pairs
//! ([`bf16_pairs`]) round otherwise.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | what becomes of the output, and in which numbers |
//! | [`factor`] | the forms that a factor's rows come in |
//! | [`tiles`] | how the output is cut |
//! | [`turn`] | rotations of packed rows, turned back in a tile |
//! | [`task`] | the loops above, over any [`Multiplier`](task::Multiplier) |
//! | [`vectors`] | the multiplier for f32 and f64 |
//! | [`bf16_pairs`] | the multiplier for bf16, on CPUs that have one |

mod bf16_pairs;
mod factor;
mod options;
mod task;
mod tiles;
mod turn;
mod vectors;

pub(super) use self::factor::{Factor, Plain, Scaled};
pub use self::options::{Precision, Update};
use self::task::{OfTask, Task};
pub use self::tiles::product_memory;
use self::tiles::tiles;
use crate::element::Accumulator;
use crate::lanes::Named;
use crate::parallel;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// output ← (output +) leftᵀ · right, with a rotation of a factor's rows turned back in the output. Both factors have
/// equally many rows, and the output's shape is that of their columns.
pub(super) fn multiply<A: Accumulator>(
    left: &dyn Factor<A>,
    right: &dyn Factor<A>,
    output: ArrayViewMut2<'_, A>,
    update: Update,
    precision: Precision,
) {
    let is_bf16 = precision == Precision::Native && left.fits_bf16() && right.fits_bf16();
    multiply_by(left, right, output, update, &|task| run(A::named(task), is_bf16));
}

/// The same for two matrices of the accumulator's type.
pub(crate) fn multiply_views<A: Accumulator>(
    left: ArrayView2<'_, A>,
    right: ArrayView2<'_, A>,
    output: ArrayViewMut2<'_, A>,
    update: Update,
) {
    multiply(&Plain(left), &Plain(right), output, update, Precision::Wide);
}

/// Runs a task on the fastest multiplier. (Not generic, so that it is compiled once, and optimised as this crate is.)
fn run(task: Named<OfTask<'_, '_>>, is_bf16: bool) {
    match task {
        Named::F32(task) if is_bf16 => bf16_pairs::run(task),
        Named::F32(task) => vectors::run(task),
        Named::F64(task) => vectors::run(task),
    }
}

/// The same, with every task run by `run`.
fn multiply_by<A: Accumulator>(
    left: &dyn Factor<A>,
    right: &dyn Factor<A>,
    mut output: ArrayViewMut2<'_, A>,
    update: Update,
    run: &(dyn Fn(Task<'_, '_, A>) + Sync),
) {
    debug_assert_eq!(left.rows(), right.rows());
    if output.is_empty() {
        return;
    }
    if left.rows() == 0 {
        if update == Update::Overwrite {
            output.fill(A::ZERO);
        }
        return;
    }
    // Tiles are written along rows; a matrix stored by columns is its transpose stored by rows.
    if output.ncols() > 1 && output.strides()[1] != 1 && output.strides()[0] == 1 {
        return multiply_by(right, left, output.reversed_axes(), update, run);
    }
    let tiles = tiles(left, right, output);
    parallel::for_each(tiles.into_par_iter().with_max_len(1), |tile| tile.write(left, right, update, run));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};
    use pulp::Simd;

    fn values(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| {
            ((i * 31 + j * 17 + i * j * 7 + seed * 13) % 1009) as f32 / 504.0 - 1.0
        })
    }

    /// The order of sums that the module promises, written out.
    fn by_definition(left: &Array2<f32>, right: &Array2<f32>) -> Array2<f32> {
        Array2::from_shape_fn((left.ncols(), right.ncols()), |(i, j)| {
            let of_block = |first: usize| {
                let pairs = first..left.nrows().min(first + task::BLOCK);
                pairs.fold(0.0_f32, |sum, pair| left[[pair, i]].mul_add(right[[pair, j]], sum))
            };
            (0..left.nrows()).step_by(task::BLOCK).map(of_block).reduce(|a, b| a + b).unwrap_or_default()
        })
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_cpu_that_fuses_has_the_bits_of_the_definition() {
        let (left, right) = (values(300, 61, 1), values(300, 45, 2));
        let expected = by_definition(&left, &right);
        let run_on = |run: &(dyn Fn(Task<'_, '_, f32>) + Sync)| {
            let mut output = Array2::from_elem(expected.dim(), f32::NAN);
            multiply_by(&Plain(left.view()), &Plain(right.view()), output.view_mut(), Update::Overwrite, run);
            output
        };
        if let Some(v3) = pulp::x86::V3::try_new() {
            assert_eq!(run_on(&|task| Simd::vectorize(v3, task)), expected);
        }
        if let Some(v4) = pulp::x86::V4::try_new() {
            assert_eq!(run_on(&|task| Simd::vectorize(v4, task)), expected);
        }
        // Without fused operations, products are rounded as well.
        let separate = run_on(&|task| task.run(vectors::Vectors::<_, f32, false>::new(pulp::Scalar128b)));
        assert!(separate != expected && (&separate - &expected).iter().all(|error| error.abs() < 1e-4));
    }

    #[test]
    fn no_layout_and_no_number_of_threads_changes_a_bit() {
        let (left, right) = (values(500, 333, 1), values(500, 210, 2));
        let (l, r) = (Plain(left.view()), Plain(right.view()));
        let run = |threads: usize, write: &(dyn Fn() -> Array2<f32> + Sync)| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(write)
        };
        let by_rows = || {
            let mut output = Array2::from_elem((333, 210), f32::NAN);
            multiply(&l, &r, output.view_mut(), Update::Overwrite, Precision::Native);
            output
        };
        let by_columns = || {
            let mut output = Array2::from_elem((210, 333), f32::NAN);
            multiply(&l, &r, output.view_mut().reversed_axes(), Update::Overwrite, Precision::Native);
            output.t().to_owned()
        };
        let spaced = || {
            let mut output = Array2::from_elem((666, 630), f32::NAN);
            multiply(&l, &r, output.slice_mut(s![..;2, ..;3]), Update::Overwrite, Precision::Native);
            assert!(output.slice(s![1..;2, ..]).iter().all(|value| value.is_nan()));
            output.slice(s![..;2, ..;3]).to_owned()
        };
        let expected = run(1, &by_rows);
        for threads in [1, 2, 3, 7, 40] {
            for write in [&by_rows as &(dyn Fn() -> Array2<f32> + Sync), &by_columns, &spaced] {
                assert_eq!(run(threads, write), expected, "{threads}");
            }
        }

        // On top of what was there, with 49 columns, so that some tiles have one.
        let before = values(333, 49, 3);
        let r = Plain(right.slice(s![.., ..49]));
        let added = || {
            let mut output = before.clone();
            multiply(&l, &r, output.view_mut(), Update::Accumulate, Precision::Native);
            output
        };
        let spaced = || {
            let mut output = Array2::from_elem((666, 147), f32::NAN);
            output.slice_mut(s![..;2, ..;3]).assign(&before);
            multiply(&l, &r, output.slice_mut(s![..;2, ..;3]), Update::Accumulate, Precision::Native);
            output.slice(s![..;2, ..;3]).to_owned()
        };
        let expected = run(1, &added);
        for threads in [1, 2, 3, 7, 40] {
            assert!(run(threads, &added) == expected && run(threads, &spaced) == expected, "{threads}");
        }
    }

    #[test]
    fn what_was_there_is_added_to() {
        for (pairs, rows, columns) in [(1, 1, 1), (5, 14, 32), (129, 15, 33), (300, 200, 1), (40, 1, 200)] {
            let (left, right) = (values(pairs, rows, 3), values(pairs, columns, 4));
            let product = left.t().mapv(f64::from).dot(&right.mapv(f64::from));
            let mut output = Array2::from_elem((rows, columns), 5.0);
            multiply_views(left.view(), right.view(), output.view_mut(), Update::Accumulate);
            let close = |found: &f32, expected: &f64| (f64::from(*found) - 5.0 - expected).abs() < 1e-4;
            assert!(output.iter().zip(&product).all(|(found, expected)| close(found, expected)));
        }
    }
}
