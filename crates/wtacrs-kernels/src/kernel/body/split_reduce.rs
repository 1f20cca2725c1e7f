//! Adds partial products, one grid of blocks over the quads of dw.

use super::block::output::{Destination, typed};
use super::block::repeat;
use super::column_sums;
use crate::kernel::gather_gemm::partial_leading;
use crate::kernel::matrix::DataType;
use crate::kernel::row_team::{RowTeam, THREADS};
use crate::kernel::split_reduce::{Args, SumsArgs};
use wtacrs_simt::index::{block, grid};
use wtacrs_simt::memory::{U32x4, load_constant};

/// Adds partial products, four neighbours by each thread at a time.
///
/// # Safety
///
/// Memory as [`Args`] says.
#[inline(always)]
pub unsafe fn split_reduce(args: &Args) {
    let [x, y, batch] = block();
    // SAFETY: the caller's promise.
    unsafe { add_up(args, x, y, batch, grid()[1]) }
}

/// The same, and the end of column sums in blocks of their own.
///
/// # Safety
///
/// Memory as [`SumsArgs`] says, and the launch of [`SumsArgs::launch`].
#[inline(always)]
pub unsafe fn split_reduce_sums(args: &SumsArgs) {
    let [x, y, batch] = block();
    // SAFETY: the caller's promise; all threads of a block take the same branch.
    unsafe {
        if y < args.sums_y {
            column_sums::finish(&args.sums, y * grid()[0] + x, batch);
        } else {
            add_up(&args.reduce, x, y - args.sums_y, batch, grid()[1] - args.sums_y);
        }
    }
}

/// The quads of block (x, y) of `grid_y` blocks along y. Narrow rows share a block, so that few of its threads idle.
#[inline(always)]
unsafe fn add_up(args: &Args, x: u32, y: u32, batch: u32, grid_y: u32) {
    let leading = partial_leading(args.out_features);
    let quads = (leading / 4) as u32;
    let team = RowTeam::of_threads(quads);
    let matrix = u64::from(args.in_features) * leading;
    let bytes = if args.output == DataType::F32 as u32 { 4 } else { 2 };
    let to = args.dw.wrapping_add((args.dw_spacing.of(batch) * bytes) as usize);
    let from = args.partials.wrapping_add((u64::from(batch) * matrix) as usize).cast::<U32x4>();
    let split_stride = u64::from(grid()[2]) * matrix / 4;

    // SAFETY: each quad of each row belongs to one thread.
    unsafe {
        let destination = Destination::new(to, args.dw_leading, args.out_features, args.output, args.accumulate != 0);
        let mut row = y * team.rows() + team.row();
        while row < args.in_features {
            let mut quad = x * THREADS + team.member();
            while quad < quads {
                // On its way while partial products are added.
                let old = destination.fetch(row, 4 * quad);
                let mut sums = [0.0_f32; 4];
                let mut at = u64::from(row) * u64::from(quads) + u64::from(quad);
                let mut split = 0;
                while split < args.splits {
                    let U32x4(partial) = load_constant(from.wrapping_add(at as usize));
                    repeat!(I in 0 1 2 3 => { sums[I as usize] += f32::from_bits(partial[I as usize]); });
                    at += split_stride;
                    split += 1;
                }
                typed!(destination, T => destination.put::<T>(row, 4 * quad, sums, old));
                quad += grid()[0] * THREADS;
            }
            row += grid_y * team.rows();
        }
    }
}
