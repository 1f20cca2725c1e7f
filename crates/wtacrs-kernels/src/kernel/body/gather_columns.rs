//! A block transposes a tile of 32 × 32 in shared memory, so that reads follow a row of `x` and writes a row of `out`.

use super::block::repeat;
use super::element::Element;
use crate::kernel::gather_columns::{Args, PITCH, TILE, WARPS};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{index, memory, sync};

/// Copies and scales columns.
///
/// # Safety
///
/// Memory as [`Args`] says, indices below x's columns, and the launch of [`shape`](crate::kernel::gather_columns::shape).
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
            // SAFETY: `at` is one of the item's used entries; and there is a scale for each, unless all are 1.
            unsafe {
                column = if args.indices.is_null() { kept } else { memory::load_constant(args.indices.add(at)) };
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
