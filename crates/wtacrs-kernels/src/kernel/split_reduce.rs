//! `dW (+)= Σ_s partials[s]`: adds the partial products of [`gather_gemm`] in order, and in the same
//! launch ends [`column_sums`], if there are some.
//!
//! Reads splits · in_features · out_features sums once and writes dw once; bound by memory.

use super::column_sums::{self, FinishArgs};
use super::gather_gemm::{self, partial_leading};
use super::matrix::{DataType, Spacing};
use super::row_team::{RowTeam, THREADS};
use crate::launch::Shape;
use core::ptr;

/// The arguments of a launch. One grid.z for each of the batch; grid.y over rows, grid.x over columns, any number of each.
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
    /// The element type of `dw`: a [`DataType`].
    pub output: u32,
    /// in_features × out_features elements.
    pub dw: *mut u8,
    /// Elements from one row of `dw` to the next.
    pub dw_leading: u64,
    /// Where the matrices of `dw` begin.
    pub dw_spacing: Spacing,
}

impl Args {
    /// No product, and an empty dW: for a launch that only ends column sums.
    pub const NONE: Self = Self {
        partials: ptr::null(),
        splits: 0,
        in_features: 0,
        out_features: 0,
        accumulate: 0,
        output: DataType::F32 as u32,
        dw: ptr::null_mut(),
        dw_leading: 0,
        dw_spacing: Spacing::even(0),
    };

    /// The reduction that follows a product of more than one split.
    pub fn of_product(product: &gather_gemm::Args) -> Self {
        Self {
            partials: product.partials,
            splits: product.splits,
            in_features: product.in_features,
            out_features: product.out_features,
            accumulate: product.accumulate,
            output: product.output,
            dw: product.dw,
            dw_leading: product.dw_leading,
            dw_spacing: product.dw_spacing,
        }
    }
}

/// The arguments of a launch that also ends column sums.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SumsArgs {
    /// The partial products, of which there may be none.
    pub reduce: Args,
    /// The column sums.
    pub sums: FinishArgs,
    /// How many grid.y are for the column sums; those for the partial products follow.
    pub sums_y: u32,
}

impl SumsArgs {
    /// The arguments and their launch. `reduce` is the launch for the partial products, if there are some.
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

/// The largest grid.y that drivers accept.
const MOST_GRID_Y: u32 = 65_535;

/// The launch for a batch of matrices.
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
