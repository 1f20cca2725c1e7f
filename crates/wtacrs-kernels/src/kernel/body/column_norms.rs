//! A block takes 32 columns, a lane one of them, a warp every eighth row; the warps' sums are added in their order. Every
//! element is read once, in rows of 64 or 128 bytes, eight of them at a time.

use super::block::repeat;
use super::element::Element;
use super::row_norms::LEAST_SAFE_SUM;
use crate::kernel::column_norms::{Args, WARPS};
use wtacrs_simt::WARP;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{index, math, memory, sync};

/// Norms of columns.
///
/// # Safety
///
/// Memory as [`Args`] says, and the launch of [`shape`](crate::kernel::column_norms::shape).
#[inline(always)]
pub unsafe fn column_norms<E: Element>(args: &Args) {
    let [block, _, item] = index::block();
    let column = block * WARP + index::lane();
    let is_inside = column < args.columns;
    // SAFETY: the matrix of this item, as `Args` says.
    let first = unsafe { args.x.cast::<E::Bits>().add(args.spacing.of(item) as usize) };
    let element = |row: u32| {
        // SAFETY: called for rows of the matrix, and for columns of it only.
        E::widen(unsafe {
            memory::load_constant(first.add((u64::from(row) * args.leading + u64::from(column)) as usize))
        })
    };

    let mut sum = 0.0_f32;
    let mut row = index::warp();
    while is_inside && row < args.rows {
        // Rows beyond the matrix are zeros: adding their squares changes no sum.
        let load = |k: u32| if row + k * WARPS < args.rows { element(row + k * WARPS) } else { 0.0 };
        // Eight loads are on their way together; the order of additions is that of the rows.
        let values = [load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)];
        repeat!(K in 0 1 2 3 4 5 6 7 => { sum += values[K as usize] * values[K as usize]; });
        row += 8 * WARPS;
    }
    let sums = Shared::<f64>::new(0, WARPS * WARP);
    // SAFETY: an element of the thread's own, read by others after the barrier.
    unsafe { sums.write(index::thread(), f64::from(sum)) };
    sync::barrier();
    // SAFETY: as above; all of a column's sums were written before the barrier.
    let total = unsafe { across_warps(sums) };
    let is_safe = total >= f64::from(LEAST_SAFE_SUM) && total < f64::from(f32::MAX);

    // The same in all warps of a column, but not in all lanes, so every thread comes to the barriers.
    let mut exact = 0.0_f64;
    let mut row = index::warp();
    while is_inside && !is_safe && row < args.rows {
        let value = f64::from(element(row));
        exact += value * value;
        row += WARPS;
    }
    sync::barrier();
    // SAFETY: all have read the first sums before the barrier.
    unsafe { sums.write(index::thread(), exact) };
    sync::barrier();
    // SAFETY: as for the first sums.
    let exact = unsafe { across_warps(sums) };
    if is_inside && index::warp() == 0 {
        let norm = math::sqrt_f64(if is_safe { total } else { exact }) as f32;
        // SAFETY: one thread for each column of each item.
        unsafe {
            memory::store(args.norms.add((u64::from(item) * u64::from(args.columns)) as usize + column as usize), norm)
        };
    }
}

/// The sum of this lane's entries over all warps, in their order.
///
/// # Safety
///
/// All entries are written, and no thread writes them now.
#[inline(always)]
unsafe fn across_warps(sums: Shared<f64>) -> f64 {
    let mut total = 0.0;
    let mut warp = 0;
    while warp < WARPS {
        // SAFETY: the caller's promise.
        total += unsafe { sums.read(warp * WARP + index::lane()) };
        warp += 1;
    }
    total
}
