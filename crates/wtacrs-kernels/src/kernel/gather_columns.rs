//! Kept columns of a matrix, scaled, as rows: what a product that sums over columns multiplies.
//!
//! `out[r,i] = scale_r · x[i, index_r]`: after it, a sum over columns is a sum over rows, and `gather_gemm` serves both.
//! A block turns a tile of 32 × 32 around in shared memory, so that reads follow a row of `x` and writes a row of `out`.

use crate::block::repeat::repeat;
use crate::block::spacing::Spacing;
use crate::element::Element;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{index, memory, sync};

/// What a launch is given. One grid.z for each matrix of a batch; grid.x for each 32 rows of `x`, any number of grid.y.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × pairs elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Where the matrices of the batch begin.
    pub spacing: Spacing,
    /// Rows of `x`: columns of `out`.
    pub rows: u32,
    /// Rows of `out`: the budget.
    pub kept: u32,
    /// batch × kept indices into the columns of `x`, of which the first `count` are used.
    pub indices: *const u32,
    /// batch × kept factors, or null for 1.
    pub scales: *const f64,
    /// For each of the batch, how many columns were selected; `out`'s other rows become zero. Null: all.
    pub count: *const u32,
    /// kept × rows elements.
    pub out: *mut u8,
    /// Elements from one row of `out` to the next.
    pub out_leading: u64,
    /// Where the matrices of `out` begin.
    pub out_spacing: Spacing,
}

/// Edge of a tile.
const TILE: u32 = index::WARP;
/// Warps of a block: each has four rows of a tile.
const WARPS: u32 = TILE / 4;
/// One element more than a tile's row has, so that a column's elements lie in banks of their own.
const PITCH: u32 = TILE + 1;

/// The launch for so many kept columns of matrices of so many rows.
#[cfg(not(target_arch = "nvptx64"))]
pub fn shape(kept: u32, rows: u32, batch: u32) -> crate::launch::Shape {
    crate::launch::Shape {
        // Any number of grid.y goes through the kept columns.
        grid: [rows.div_ceil(TILE), kept.div_ceil(TILE).clamp(1, 65_535), batch],
        block: WARPS * index::WARP,
        shared_bytes: TILE * PITCH * size_of::<f32>() as u32,
        cooperative: false,
    }
}

/// The kernel. Scales are rounded to f32, products rounded once to the element's type.
///
/// # Safety
///
/// Memory as [`Args`] tells it, indices below x's columns, and the launch that [`shape`] tells.
#[inline(always)]
pub unsafe fn gather_columns<E: Element>(args: &Args) {
    let [row_tile, kept_tile, item] = index::block();
    let (lane, warp) = (index::lane(), index::warp());
    let list = (u64::from(item) * u64::from(args.kept)) as usize;
    let mut count = args.kept;
    if !args.count.is_null() {
        // SAFETY: one count for each item.
        count = count.min(unsafe { memory::load_constant(args.count.add(item as usize)) });
    }
    // SAFETY: the item's matrices.
    let (x, out) = unsafe {
        (
            args.x.cast::<E::Bits>().add(args.spacing.of(item) as usize),
            args.out.cast::<E::Bits>().add(args.out_spacing.of(item) as usize),
        )
    };
    let tile = Shared::<f32>::new(0, TILE * PITCH);
    let first_row = row_tile * TILE;

    let mut first_kept = kept_tile * TILE;
    while first_kept < args.kept {
        let kept = first_kept + lane;
        let is_kept = kept < count;
        let (mut column, mut scale) = (0, 0.0);
        if is_kept {
            let at = list + kept as usize;
            // SAFETY: `at` is one of the item's used entries; there is a scale for each, if there are some.
            unsafe {
                column = memory::load_constant(args.indices.add(at));
                scale = if args.scales.is_null() { 1.0 } else { memory::load_constant(args.scales.add(at)) as f32 };
            }
        }
        let load = |i: u32| {
            let row = first_row + warp + i * WARPS;
            if is_kept && row < args.rows {
                let at = u64::from(row) * args.leading + u64::from(column);
                // SAFETY: a row and a column of the matrix.
                E::widen(unsafe { memory::load_constant(x.add(at as usize)) })
            } else {
                0.0
            }
        };
        // All of a thread's rows together, so that their loads are on their way at once.
        let (a, b, c, d) = (load(0), load(1), load(2), load(3));
        let stage = |i: u32, value: f32| {
            // SAFETY: an element of this thread's own; others read it after the barrier.
            unsafe { tile.write(lane * PITCH + warp + i * WARPS, scale * value) };
        };
        stage(0, a);
        stage(1, b);
        stage(2, c);
        stage(3, d);
        sync::barrier();

        let row = first_row + lane;
        repeat!(I in 0 1 2 3 => {
            let r = warp + I * WARPS;
            if first_kept + r < args.kept && row < args.rows {
                let at = u64::from(first_kept + r) * args.out_leading + u64::from(row);
                // SAFETY: written before the barrier; `at` is an element of `out` that no other thread has.
                unsafe { memory::store(out.add(at as usize), E::narrow(tile.read(r * PITCH + lane))) };
            }
        });
        // The tile is read before the next one is written.
        sync::barrier();
        first_kept += index::grid()[1] * TILE;
    }
}
