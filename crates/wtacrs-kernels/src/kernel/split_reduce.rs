//! `dW (+)= Σ_s partials[s]`: the partial products of [`gather_gemm`](super::gather_gemm), added in order.
//!
//! Reads splits · in_features · out_features sums once and writes dw once; bound by memory.

use super::gather_gemm::partial_leading;
use crate::block::output::{Destination, Output};
use crate::block::repeat::repeat;
use wtacrs_simt::index::{block, block_threads, grid, thread};
use wtacrs_simt::memory::{U32x4, load_constant};

/// What a launch is given. One grid.z for each of the batch; grid.y over rows, grid.x over columns, any number of each.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// splits × batch × in_features rows of [`partial_leading`] sums, aligned to 16.
    pub partials: *const f32,
    /// How many partial products.
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
    /// Elements from one matrix of `dw` to the next.
    pub dw_batch_stride: u64,
}

/// The reduction's kernel. A thread adds four neighbours at a time.
///
/// # Safety
///
/// Pointers are as [`Args`] tells.
#[inline(always)]
pub unsafe fn split_reduce(args: &Args) {
    let [x, y, batch] = block();
    let leading = partial_leading(args.out_features);
    let quads = (leading / 4) as u32;
    let matrix = u64::from(args.in_features) * leading;
    let bytes = if args.output == Output::F32 as u32 { 4 } else { 2 };
    let to = args.dw.wrapping_add((u64::from(batch) * args.dw_batch_stride * bytes) as usize);
    let from = args.partials.wrapping_add((u64::from(batch) * matrix) as usize).cast::<U32x4>();
    let split_stride = u64::from(grid()[2]) * matrix / 4;

    // SAFETY: each quad of each row belongs to one thread.
    unsafe {
        let destination = Destination::new(to, args.dw_leading, args.out_features, args.output, args.accumulate != 0);
        let mut row = y;
        while row < args.in_features {
            let mut quad = x * block_threads() + thread();
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
                quad += grid()[0] * block_threads();
            }
            row += grid()[1];
        }
    }
}
