//! Kept columns of a matrix, scaled, as rows: what a product that sums over columns multiplies.
//!
//! `out[r,i] = scale_r · x[i, index_r]`: after it, a sum over columns is a sum over rows, and `gather_gemm` serves both.
//! A block turns a tile of 32 × 32 around in shared memory, so that reads follow a row of `x` and writes a row of `out`.

use crate::block::spacing::Spacing;
use crate::element::Element;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{index, memory, sync};

/// What a launch is given. One grid.z for each matrix of a batch.
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
/// Warps of a block: rows of a tile that are read at a time.
const WARPS: u32 = 8;
/// One element more than a tile's row has, so that a column's elements lie in banks of their own.
const PITCH: u32 = TILE + 1;

/// The launch for so many kept columns of matrices of so many rows.
#[cfg(not(target_arch = "nvptx64"))]
pub fn shape(kept: u32, rows: u32, batch: u32) -> crate::launch::Shape {
    crate::launch::Shape {
        grid: [rows.div_ceil(TILE), kept.div_ceil(TILE), batch],
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
    let count = if args.count.is_null() {
        args.kept
    } else {
        // SAFETY: one count for each item.
        unsafe { memory::load(args.count.add(item as usize)) }
    };

    let tile = Shared::<f32>::new(0, TILE * PITCH);
    let kept = kept_tile * TILE + lane;
    let is_kept = kept < args.kept && kept < count;
    let (column, scale) = if is_kept {
        let at = list + kept as usize;
        // SAFETY: `at` is one of the item's used entries.
        let column = unsafe { memory::load(args.indices.add(at)) };
        // SAFETY: as above, where there are scales.
        (column, if args.scales.is_null() { 1.0 } else { unsafe { memory::load(args.scales.add(at)) as f32 } })
    } else {
        (0, 0.0)
    };
    // SAFETY: the item's matrix.
    let x = unsafe { args.x.cast::<E::Bits>().add(args.spacing.of(item) as usize) };
    let mut i = warp;
    while i < TILE {
        let row = row_tile * TILE + i;
        let value = if is_kept && row < args.rows {
            let at = u64::from(row) * args.leading + u64::from(column);
            // SAFETY: a row and a column of the matrix.
            scale * E::widen(unsafe { memory::load(x.add(at as usize)) })
        } else {
            0.0
        };
        // SAFETY: an element of this thread's own; others read it after the barrier.
        unsafe { tile.write(lane * PITCH + i, value) };
        i += WARPS;
    }
    sync::barrier();

    // SAFETY: the item's matrix.
    let out = unsafe { args.out.cast::<E::Bits>().add(args.out_spacing.of(item) as usize) };
    let row = row_tile * TILE + lane;
    let mut r = warp;
    while r < TILE {
        let kept = kept_tile * TILE + r;
        if kept < args.kept && row < args.rows {
            let at = u64::from(kept) * args.out_leading + u64::from(row);
            // SAFETY: written before the barrier; `at` is an element of `out` that no other thread has.
            unsafe { memory::store(out.add(at as usize), E::narrow(tile.read(r * PITCH + lane))) };
        }
        r += WARPS;
    }
}
