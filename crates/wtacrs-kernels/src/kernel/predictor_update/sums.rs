//! A step's sums over the rows that it learns from, in the order of wtacrs-core's `StepStatistics`.
//!
//! ```text
//! Σωxxᵀ = XᵀX        X (chosen × r), whose rows are √ω·x
//! ```
//!
//! A block has a tile of 32 × 32 of it, a thread 4 × 4 numbers of the tile; rows come through shared memory 32 at a time
//! and are added in their order. A last row of blocks has the vectors, and its first block the scalars.

use super::{Args, FAINT, Scratch, VANISHED, at};
use wtacrs_core::predictor_rules::sums::{self, LOG_SUM, PRESENT, SCALARS, TRACE};
use wtacrs_simt::index::{WARP, block, grid, thread};
use wtacrs_simt::math::{fma_f64, sqrt_f64};
use wtacrs_simt::memory;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_min};

/// Features of a tile's side, and rows that are in shared memory at a time.
pub(super) const TILE: u32 = 32;
/// Threads of a block: 8 × 8.
pub(super) const THREADS: u32 = 64;
/// Threads along a side of a tile. A thread's numbers are as far apart, so that lanes read neighbours.
const SIDE: u32 = 8;
/// Two tiles of rows.
#[cfg(not(target_arch = "nvptx64"))]
pub(super) const SHARED_BYTES: u32 = 2 * 8 * TILE * TILE;

/// The sums of the rows in scratch; the number of rows with a logarithm becomes NaN if some row is invalid, so that all
/// ranks that add these sums refuse the step.
///
/// # Safety
///
/// The launch has the shape `sums_shape` of these arguments and follows that of `predictor_features`.
#[inline(always)]
pub unsafe fn predictor_sums(args: &Args) {
    let ([column, row, _], [tiles, _, _]) = (block(), grid());
    // SAFETY: this launch's promise; what is read was written by the launch before.
    unsafe {
        if row < tiles {
            add_tile(args, row * TILE, column * TILE);
        } else {
            add_vectors(args, column * TILE);
            if column == 0 {
                add_scalars(args);
            }
        }
    }
}

/// The tile of Σωxxᵀ whose first entry is (`top`, `left`).
#[inline(always)]
unsafe fn add_tile(args: &Args, top: u32, left: u32) {
    let r = args.projection().features;
    let rows = Shared::<f64>::new(0, TILE * TILE);
    let columns = Shared::<f64>::new(rows.end(), TILE * TILE);
    let (y, x) = (thread() / SIDE, thread() % SIDE);
    // Written out, as an array that is indexed would be kept in local memory.
    let (mut t0, mut t1, mut t2, mut t3) = ([0.0; 4], [0.0; 4], [0.0; 4], [0.0; 4]);
    // SAFETY: rows are those chosen, features are less than r; writes and reads of shared memory have a barrier between.
    unsafe {
        let (_, chosen) = args.rows_given_and_chosen();
        let features = at::<f64>(args.scratch, Scratch::new(args.blocks(), r).x);
        let feature = |row: u32, i: u32| {
            if row < chosen && i < r {
                memory::load_constant(features.add(row as usize * r as usize + i as usize))
            } else {
                0.0
            }
        };
        let mut first = 0;
        while first < chosen {
            let mut i = thread();
            while i < TILE * TILE {
                rows.write(i, feature(first + i / TILE, top + i % TILE));
                columns.write(i, feature(first + i / TILE, left + i % TILE));
                i += THREADS;
            }
            barrier();
            for k in 0..TILE {
                let part = |window: Shared<f64>, place: u32| {
                    let at = |n: u32| window.read(k * TILE + place + n * SIDE);
                    [at(0), at(1), at(2), at(3)]
                };
                let ([a0, a1, a2, a3], b) = (part(rows, y), part(columns, x));
                t0 = add(t0, a0, b);
                t1 = add(t1, a1, b);
                t2 = add(t2, a2, b);
                t3 = add(t3, a3, b);
            }
            barrier();
            first += TILE;
        }
        let square = args.sums.add(SCALARS + 3 * r as usize);
        let store = |n: u32, m: u32, total: f64| {
            let (i, j) = (top + y + n * SIDE, left + x + m * SIDE);
            if i < r && j < r {
                memory::store(square.add(i as usize * r as usize + j as usize), total);
            }
        };
        let store_row = |n: u32, [a, b, c, d]: [f64; 4]| {
            store(n, 0, a);
            store(n, 1, b);
            store(n, 2, c);
            store(n, 3, d);
        };
        store_row(0, t0);
        store_row(1, t1);
        store_row(2, t2);
        store_row(3, t3);
    }
}

/// t + a·b.
#[inline(always)]
fn add([t0, t1, t2, t3]: [f64; 4], a: f64, [b0, b1, b2, b3]: [f64; 4]) -> [f64; 4] {
    [fma_f64(a, b0, t0), fma_f64(a, b1, t1), fma_f64(a, b2, t2), fma_f64(a, b3, t3)]
}

/// Σωx of the rows with a logarithm, Σωx of those without, Σωyx, for the features from `first` on: one for each thread.
#[inline(always)]
unsafe fn add_vectors(args: &Args, first: u32) {
    let r = args.projection().features;
    let (i, scratch) = (first + thread(), Scratch::new(args.blocks(), r));
    if thread() >= TILE || i >= r {
        return;
    }
    let (mut present, mut vanished, mut moment) = (0.0_f64, 0.0_f64, 0.0_f64);
    // SAFETY: rows are those chosen, i < r.
    unsafe {
        let (_, chosen) = args.rows_given_and_chosen();
        let features = at::<f64>(args.scratch, scratch.x).add(i as usize);
        for row in 0..chosen as usize {
            let x = memory::load_constant(features.add(row * r as usize));
            let root = sqrt_f64(memory::load_constant(at::<f64>(args.scratch, scratch.weights).add(row)));
            let log = memory::load_constant(at::<f64>(args.scratch, scratch.logs).add(row));
            if log == FAINT || log == VANISHED {
                vanished += root * x;
            } else {
                present += root * x;
                moment += root * log * x;
            }
        }
        let vectors = args.sums.add(SCALARS + i as usize);
        memory::store(vectors, present);
        memory::store(vectors.add(r as usize), vanished);
        memory::store(vectors.add(2 * r as usize), moment);
    }
}

/// The scalars, and whether a row is invalid: by the block's last warp.
#[inline(always)]
unsafe fn add_scalars(args: &Args) {
    if thread() < THREADS - WARP {
        return;
    }
    let scratch = Scratch::new(args.blocks(), args.projection().features);
    let lane = thread() % WARP;
    let mut invalid = u32::MAX;
    let mut i = lane;
    // SAFETY: there is an entry for each block of the first launch, and the first ones are of the rows chosen.
    unsafe {
        while i < args.blocks() {
            let other = memory::load_constant(at::<u32>(args.scratch, scratch.invalid).add(i as usize));
            invalid = if other < invalid { other } else { invalid };
            i += WARP;
        }
        let invalid = reduce_min(FULL, invalid);
        if lane != 0 {
            return;
        }
        let (_, chosen) = args.rows_given_and_chosen();
        let (mut present, mut log_sum, mut vanished, mut faint, mut trace) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for row in 0..chosen as usize {
            let weight = memory::load_constant(at::<f64>(args.scratch, scratch.weights).add(row));
            let log = memory::load_constant(at::<f64>(args.scratch, scratch.logs).add(row));
            trace += memory::load_constant(at::<f64>(args.scratch, scratch.traces).add(row));
            if log == FAINT || log == VANISHED {
                vanished += weight;
                faint += if log == FAINT { weight } else { 0.0 };
            } else {
                present += weight;
                log_sum += weight * log;
            }
        }
        let is_valid = invalid == u32::MAX;
        memory::store(args.sums.add(PRESENT), if is_valid { present } else { f64::NAN });
        memory::store(args.sums.add(LOG_SUM), log_sum);
        memory::store(args.sums.add(sums::VANISHED), vanished);
        memory::store(args.sums.add(sums::FAINT), faint);
        memory::store(args.sums.add(TRACE), trace);
        for blend in sums::BLEND..SCALARS {
            memory::store(args.sums.add(blend), 0.0);
        }
        memory::store(args.status.add(1), if is_valid { 0 } else { invalid + 1 });
    }
}
