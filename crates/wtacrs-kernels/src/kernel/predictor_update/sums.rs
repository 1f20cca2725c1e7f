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
    let mut totals = [[0.0_f64; 4]; 4];
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
                let (a, b) = (part(rows, y), part(columns, x));
                for (totals, a) in totals.iter_mut().zip(a) {
                    for (total, b) in totals.iter_mut().zip(b) {
                        *total = fma_f64(a, b, *total);
                    }
                }
            }
            barrier();
            first += TILE;
        }
        let square = args.sums.add(SCALARS + 3 * r as usize);
        for (n, totals) in totals.iter().enumerate() {
            let i = top + y + n as u32 * SIDE;
            for (m, &total) in totals.iter().enumerate() {
                let j = left + x + m as u32 * SIDE;
                if i < r && j < r {
                    memory::store(square.add(i as usize * r as usize + j as usize), total);
                }
            }
        }
    }
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
