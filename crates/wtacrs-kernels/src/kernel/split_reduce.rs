//! `dW (+)= Σ_s partials[s]`: the partial products of [`gather_gemm`](super::gather_gemm), added in order.
//!
//! Reads splits · in_features · out_features sums once and writes dw once; bound by memory. [`split_reduce_sums`] ends
//! [`column_sums`] in the same launch.

use super::column_sums::{self, FinishArgs};
use super::gather_gemm::partial_leading;
use crate::block::output::{Destination, Output};
use crate::block::repeat::repeat;
use crate::block::row_team::{RowTeam, THREADS};
use crate::block::spacing::Spacing;
#[cfg(not(target_arch = "nvptx64"))]
use crate::launch::Shape;
use wtacrs_simt::index::{block, grid};
use wtacrs_simt::memory::{U32x4, load_constant};

/// What a launch is given. One grid.z for each of the batch; grid.y over rows, grid.x over columns, any number of each.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// splits × batch × in_features rows of [`partial_leading`] sums, aligned to 16.
    pub partials: *const f32,
    /// How many partial products; the sum of none is zero.
    pub splits: u32,
    /// Rows of `dw`.
    pub in_features: u32,
    /// Columns of `dw`.
    pub out_features: u32,
    /// Whether `dw` is added to.
    pub accumulate: u32,
    /// The element type of `dw`: an [`Output`].
    pub output: u32,
    /// in_features × out_features elements.
    pub dw: *mut u8,
    /// Elements from one row of `dw` to the next.
    pub dw_leading: u64,
    /// Where the matrices of `dw` begin.
    pub dw_spacing: Spacing,
}

/// What a launch of [`split_reduce_sums`] is given.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SumsArgs {
    /// The partial products, of which there may be none.
    pub reduce: Args,
    /// The column sums.
    pub sums: FinishArgs,
    /// So many grid.y are for the column sums, before those for the partial products.
    pub sums_y: u32,
}

impl SumsArgs {
    /// The arguments and their launch: beside `reduce`, the launch for the partial products, if there are some.
    #[cfg(not(target_arch = "nvptx64"))]
    pub fn launch(args: Args, reduce: Option<Shape>, sums: FinishArgs, batch: u32) -> (Self, Shape) {
        let blocks = sums.blocks().max(1);
        let [x, y, _] = reduce.map_or([blocks.min(1 << 16), 0, 0], |shape| shape.grid);
        let sums_y = blocks.div_ceil(x);
        let shape = Shape {
            // Any number of grid.y adds the partial products up.
            grid: [x, sums_y + y.min(MOST_GRID_Y - sums_y), batch.max(1)],
            block: THREADS,
            shared_bytes: column_sums::SHARED_BYTES,
            cooperative: false,
        };
        (Self { reduce: args, sums, sums_y }, shape)
    }
}

/// What a driver allows.
#[cfg(not(target_arch = "nvptx64"))]
const MOST_GRID_Y: u32 = 65_535;

/// The launch for a batch of matrices.
#[cfg(not(target_arch = "nvptx64"))]
pub fn shape(in_features: u32, out_features: u32, batch: u32) -> Shape {
    let quads = (partial_leading(out_features) / 4) as u32;
    let rows = in_features.div_ceil(RowTeam::of_threads(quads).rows());
    Shape {
        grid: [quads.div_ceil(THREADS).max(1), rows.clamp(1, MOST_GRID_Y), batch.max(1)],
        block: THREADS,
        shared_bytes: 0,
        cooperative: false,
    }
}

/// The reduction's kernel. A thread adds four neighbours at a time.
///
/// # Safety
///
/// Pointers are as [`Args`] tells.
#[inline(always)]
pub unsafe fn split_reduce(args: &Args) {
    let [x, y, batch] = block();
    // SAFETY: the caller's promise.
    unsafe { add_up(args, x, y, batch, grid()[1]) }
}

/// The same beside the end of column sums.
///
/// # Safety
///
/// Pointers are as [`SumsArgs`] tells, and the launch is [`SumsArgs::launch`]'s.
#[inline(always)]
pub unsafe fn split_reduce_sums(args: &SumsArgs) {
    let [x, y, batch] = block();
    // SAFETY: the caller's promise; all threads of a block go one way.
    unsafe {
        if y < args.sums_y {
            column_sums::finish(&args.sums, y * grid()[0] + x, batch);
        } else {
            add_up(&args.reduce, x, y - args.sums_y, batch, grid()[1] - args.sums_y);
        }
    }
}

/// The quads of block (x, y), where blocks are `grid_y` along y. Narrow rows share a block, so that few of its threads idle.
#[inline(always)]
unsafe fn add_up(args: &Args, x: u32, y: u32, batch: u32, grid_y: u32) {
    let leading = partial_leading(args.out_features);
    let quads = (leading / 4) as u32;
    let team = RowTeam::of_threads(quads);
    let matrix = u64::from(args.in_features) * leading;
    let bytes = if args.output == Output::F32 as u32 { 4 } else { 2 };
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
                let mut sums = [0.0_f32; 4];
                let mut at = u64::from(row) * u64::from(quads) + u64::from(quad);
                let mut split = 0;
                while split < args.splits {
                    let U32x4(partial) = load_constant(from.wrapping_add(at as usize));
                    repeat!(I in 0 1 2 3 => { sums[I as usize] += f32::from_bits(partial[I as usize]); });
                    at += split_stride;
                    split += 1;
                }
                destination.write(row, 4 * quad, sums);
                quad += grid()[0] * THREADS;
            }
            row += grid_y * team.rows();
        }
    }
}
