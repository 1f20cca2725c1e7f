//! A step's sums over the rows that it learns from, in the order of wtacrs-core's `StepStatistics`.
//!
//! ```text
//! Σωxxᵀ = XᵀX        X (chosen × r), whose rows are √ω·x
//! ```
//!
//! On the grid X is of integers whose products add up within 32 bits for 64 rows, and within f64 for all: exactly, in any
//! order. A block has a tile of 32 × 32 of the upper triangle, a thread 4 × 4 numbers of the tile; rows come through
//! shared memory 64 at a time. A last row of blocks has the vectors, and its first block the scalars.

use super::arguments::{FAINT, NOT_CACHED, VANISHED, at};
use crate::kernel::predictor_update::{Args, SUMS_ROWS as ROWS, SUMS_THREADS as THREADS, Scratch, TILE};
use wtacrs_exact::predictor::grid::{self, SQUARE_UNIT};
use wtacrs_exact::predictor::sums::{self, LOG_SUM, PRESENT, SCALARS};
use wtacrs_simt::WARP;
use wtacrs_simt::index::{self, block, thread};
use wtacrs_simt::memory;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_min};

/// Threads along a side of a tile. A thread's numbers are as far apart, so that lanes read neighbours.
const SIDE: u32 = 8;

/// The sums of the rows in scratch; the number of rows with a logarithm becomes NaN if some row is invalid, so that all
/// ranks that add these sums refuse the step.
///
/// # Safety
///
/// The launch has the [`sums_shape`](crate::kernel::predictor_update::sums_shape) of these arguments and follows that of
/// `predictor_features`.
#[inline(always)]
pub unsafe fn predictor_sums(args: &Args) {
    let ([column, row, _], [tiles, _, _]) = (block(), index::grid());
    // SAFETY: the caller's promise; the launch before wrote everything that is read.
    unsafe {
        if row < tiles {
            if row <= column {
                add_tile(args, row * TILE, column * TILE);
            }
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
    let rows = Shared::<u32>::new(0, ROWS * TILE);
    let columns = Shared::<u32>::new(rows.end(), ROWS * TILE);
    let (y, x) = (thread() / SIDE, thread() % SIDE);
    // Written out, as an array that is indexed would be kept in local memory.
    let (mut t0, mut t1, mut t2, mut t3) = ([0.0; 4], [0.0; 4], [0.0; 4], [0.0; 4]);
    // SAFETY: rows are those chosen, features are less than r; writes and reads of shared memory have a barrier between.
    unsafe {
        let (_, chosen) = args.rows_given_and_chosen();
        let features = at::<u32>(args.scratch, Scratch::new(args.blocks(), r).x);
        let feature = |row: u32, i: u32| {
            if row < chosen && i < r {
                memory::load_constant(features.add(row as usize * r as usize + i as usize))
            } else {
                0
            }
        };
        let mut first = 0;
        while first < chosen {
            let mut i = thread();
            while i < ROWS * TILE {
                rows.write(i, feature(first + i / TILE, top + i % TILE));
                columns.write(i, feature(first + i / TILE, left + i % TILE));
                i += THREADS;
            }
            barrier();
            let (mut u0, mut u1, mut u2, mut u3) = ([0; 4], [0; 4], [0; 4], [0; 4]);
            let mut k = 0;
            while k < ROWS {
                let part = |window: Shared<u32>, place: u32| {
                    let at = |n: u32| window.read(k * TILE + place + n * SIDE) as i32;
                    [at(0), at(1), at(2), at(3)]
                };
                let ([a0, a1, a2, a3], b) = (part(rows, y), part(columns, x));
                u0 = add_products(u0, a0, b);
                u1 = add_products(u1, a1, b);
                u2 = add_products(u2, a2, b);
                u3 = add_products(u3, a3, b);
                k += 1;
            }
            t0 = add_units(t0, u0);
            t1 = add_units(t1, u1);
            t2 = add_units(t2, u2);
            t3 = add_units(t3, u3);
            barrier();
            first += ROWS;
        }
        let store = |n: u32, m: u32, total: f64| {
            let (i, j) = (top + y + n * SIDE, left + x + m * SIDE);
            if i <= j && j < r {
                memory::store(args.sums.add(sums::triangle(r as usize, i as usize) + (j - i) as usize), total);
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

/// u + a·b.
#[inline(always)]
fn add_products([u0, u1, u2, u3]: [i32; 4], a: i32, [b0, b1, b2, b3]: [i32; 4]) -> [i32; 4] {
    [u0 + a * b0, u1 + a * b1, u2 + a * b2, u3 + a * b3]
}

/// t + the value of so many units of products.
#[inline(always)]
fn add_units([t0, t1, t2, t3]: [f64; 4], [u0, u1, u2, u3]: [i32; 4]) -> [f64; 4] {
    let count = |units: i32| f64::from(units) * SQUARE_UNIT;
    [t0 + count(u0), t1 + count(u1), t2 + count(u2), t3 + count(u3)]
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
        let features = at::<u32>(args.scratch, scratch.x).add(i as usize);
        for row in 0..chosen as usize {
            let x = grid::feature(memory::load_constant(features.add(row * r as usize)) as i32);
            let root = memory::load_constant(at::<f64>(args.scratch, scratch.roots).add(row));
            let target = memory::load_constant(at::<f64>(args.scratch, scratch.targets).add(row));
            if target == FAINT || target == VANISHED {
                vanished += root * x;
            } else {
                present += root * x;
                moment += target * x;
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
        let (mut present, mut log_sum, mut vanished, mut faint) = (0.0, 0.0, 0.0, 0.0);
        for row in 0..chosen as usize {
            let root = memory::load_constant(at::<f64>(args.scratch, scratch.roots).add(row));
            let target = memory::load_constant(at::<f64>(args.scratch, scratch.targets).add(row));
            if target == FAINT || target == VANISHED {
                vanished += root * root;
                faint += if target == FAINT { root * root } else { 0.0 };
            } else {
                present += root * root;
                log_sum += root * target;
            }
        }
        let is_valid = invalid == u32::MAX;
        memory::store(args.sums.add(PRESENT), if is_valid { present } else { f64::NAN });
        memory::store(args.sums.add(LOG_SUM), log_sum);
        memory::store(args.sums.add(sums::VANISHED), vanished);
        memory::store(args.sums.add(sums::FAINT), faint);
        add_blend(args, &scratch, chosen);
        memory::store(args.status.add(1), if is_valid { 0 } else { invalid + 1 });
    }
}

/// n, Σd, Σe, Σd², Σde of the rows with a cached norm: on the grid, so exact in any order.
///
/// # Safety
///
/// One thread calls it, for the rows chosen.
#[inline(always)]
unsafe fn add_blend(args: &Args, scratch: &Scratch, chosen: u32) {
    let (mut n, mut d, mut e, mut dd, mut de) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let count = if args.cached_norms.is_null() { 0 } else { chosen as usize };
    // SAFETY: there is an entry for each row chosen; the launch before wrote those of cached norms.
    unsafe {
        for row in 0..count {
            let root = memory::load_constant(at::<f64>(args.scratch, scratch.roots).add(row));
            let blend = at::<f64>(args.scratch, scratch.blends).add(2 * row);
            let (distance, error) = (memory::load_constant(blend), memory::load_constant(blend.add(1)));
            if distance != NOT_CACHED {
                n += root * root;
                d += root * distance;
                e += root * error;
                dd += distance * distance;
                de += distance * error;
            }
        }
        let sums = args.sums.add(sums::BLEND);
        memory::store(sums, n);
        memory::store(sums.add(1), d);
        memory::store(sums.add(2), e);
        memory::store(sums.add(3), dd);
        memory::store(sums.add(4), de);
    }
}
