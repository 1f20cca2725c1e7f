//! A predictor learns from a step's sums: statistics decay and grow, and the solution and θ follow from them. One block.
//!
//! ```text
//! C ← φC + Σω(x − x̄)(x − x̄)ᵀ,   m ← φm + Σω(x − x̄)(y − ȳ)        C (r × r), m (r)
//! c ← 8 conjugate-gradient iterations from c towards (C + λI)⁻¹ m,   θ ← Pᵀc,   b ← ȳ − c·x̄
//! ```
//!
//! Each thread has a column. Where there are more threads than columns, groups of them share the rows. So C is read in whole
//! lines, from the L2 cache, and all vectors are in registers except the one that C is multiplied with. 8 r² bytes are read
//! twelve times and written once, off the critical path: only the next forward pass waits for it.

use super::arguments::at;
use crate::kernel::predictor_update::{APPLY_THREADS as THREADS, Args, Outcome, State};
use wtacrs_exact::predictor::blend::solve;
use wtacrs_exact::predictor::solver::{ITERATIONS, TOLERANCE, ridge};
use wtacrs_exact::predictor::sums::{self, FAINT, LOG_SUM, PRESENT, SCALARS, VANISHED};
use wtacrs_exact::predictor::{LARGEST_SUM, are_sums_of_rows, state};
use wtacrs_simt::WARP;
use wtacrs_simt::index::{lane, thread, warp};
use wtacrs_simt::math::fma_f64;
use wtacrs_simt::memory;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, shuffle_xor};

/// Warps of the block, a power of two.
const WARPS: u32 = THREADS / WARP;

/// Learns from a step's sums.
///
/// # Safety
///
/// The launch has the [`apply_shape`](crate::kernel::predictor_update::apply_shape); the sums are those of a step, over all ranks.
#[inline(always)]
pub unsafe fn predictor_apply(args: &Args) {
    let r = args.projection().features;
    let block = Block::new(r);
    let state = State::new(args.in_features, args.features);
    // SAFETY: the state and the sums have the sizes of these arguments, and this block alone works on them.
    unsafe {
        let mut bad = 0.0;
        let mut i = thread() as usize;
        while i < sums::len(r as usize) {
            let is_sum = memory::load(args.sums.add(i)).abs() <= LARGEST_SUM;
            bad += if is_sum { 0.0 } else { 1.0 };
            i += THREADS as usize;
        }
        let sum = |i: usize| memory::load(args.sums.add(i));
        let is_of_rows = are_sums_of_rows(sum(PRESENT), sum(LOG_SUM), sum(VANISHED), sum(FAINT));
        let is_refused = block.sum(bad) > 0.0 || !is_of_rows;
        let scalars = at::<f64>(args.state, state.scalars);
        // A NaN is refused, so this compares numbers.
        if is_refused || sum(PRESENT) <= 0.0 {
            if thread() == 0 {
                let mut outcome = if is_refused { Outcome::Refused } else { Outcome::Nothing };
                if !is_refused && sum(FAINT) > 0.0 {
                    outcome = Outcome::LevelDropped;
                    memory::store(scalars.add(state::LEVEL), f64::NAN);
                }
                memory::store(args.status, outcome as u32);
            }
            return;
        }

        // A vanished row counts as `clamp` below the mean of the others.
        let level = sum(LOG_SUM) / sum(PRESENT);
        let floor = level - args.clamp;
        let weight = sum(PRESENT) + sum(VANISHED);
        let mean_log = (sum(LOG_SUM) + floor * sum(VANISHED)) / weight;
        let column = block.column;
        let own = |vector: u32| if column < r { sum(SCALARS + (vector * r + column) as usize) } else { 0.0 };
        let added = own(0) + own(1);
        let mean = added / weight;
        let new_moment = own(2) + floor * own(1) - mean_log * added;

        let (forgetting, covariance) = (args.forgetting, at::<f64>(args.state, state.covariance));
        block.share_two(mean, added);
        let (mut row, mut diagonal, mut centred_diagonal) = (block.group, 0.0, 0.0);
        while row < r && column < r {
            // The sums are of the upper triangle; each entry below it is its mirror image, to the bit.
            let (centre, square) = if row <= column {
                (block.shared(row) * added, sum(sums::triangle(r as usize, row as usize) + (column - row) as usize))
            } else {
                let square = sum(sums::triangle(r as usize, column as usize) + (row - column) as usize);
                (mean * block.partials.read(row), square)
            };
            let at = covariance.add(row as usize * r as usize + column as usize);
            let entry = forgetting * memory::load(at) + (square - centre);
            memory::store(at, entry);
            if row == column {
                (diagonal, centred_diagonal) = (square, entry);
            }
            row += block.groups;
        }

        let moment_at = at::<f64>(args.state, state.moment).add(column as usize);
        let coefficient_at = at::<f64>(args.state, state.coefficients).add(column as usize);
        let has_element = block.group == 0 && column < r;
        let (mut moment, mut solution) = (0.0, 0.0);
        if has_element {
            moment = forgetting * memory::load(moment_at) + new_moment;
            solution = memory::load(coefficient_at);
            memory::store(moment_at, moment);
        }
        let trace = forgetting * memory::load(scalars.add(state::TRACE)) + block.sum(diagonal);
        let ridge = ridge(args.ridge, block.sum(centred_diagonal), trace, f64::from(r));
        let system = System { block, covariance, ridge };
        let solution = system.improve(moment, solution);
        if has_element {
            memory::store(coefficient_at, solution);
        }
        let explained = block.sum(if has_element { solution * mean } else { 0.0 });
        combine(args, &state, block, solution);
        if thread() == 0 {
            let intercept = mean_log - explained;
            memory::store(scalars.add(state::TRACE), trace);
            memory::store(scalars.add(state::INTERCEPT), intercept);
            memory::store(scalars.add(state::LEVEL), level);
            memory::store(scalars.add(state::EXCESS), intercept - level);
            let blend = |i: usize| {
                let at = scalars.add(state::BLEND + i);
                let total = forgetting * memory::load(at) + sum(sums::BLEND + i);
                memory::store(at, total);
                total
            };
            let (shift, slope) = solve(&[blend(0), blend(1), blend(2), blend(3), blend(4)]);
            let placement = at::<f64>(args.state, state.placement);
            memory::store(placement, intercept - level);
            memory::store(placement.add(1), intercept);
            memory::store(placement.add(2), shift);
            memory::store(placement.add(3), slope);
            memory::store(args.status, Outcome::Learned as u32);
        }
    }
}

/// The threads' places: column c of group g belongs to thread g·columns + c, with `columns` r rounded up to a power of two.
#[derive(Clone, Copy)]
struct Block {
    r: u32,
    columns: u32,
    column: u32,
    group: u32,
    groups: u32,
    /// One vector that all threads see.
    vector: Shared<f64>,
    partials: Shared<f64>,
    warp_sums: Shared<f64>,
}

impl Block {
    #[inline(always)]
    fn new(r: u32) -> Self {
        let shift = if r <= 1 { 0 } else { u32::BITS - (r - 1).leading_zeros() };
        let (vector, columns) = (Shared::new(0, THREADS), 1 << shift);
        let partials = Shared::new(vector.end(), THREADS);
        let warp_sums = Shared::new(partials.end(), WARPS);
        let (column, group) = (thread() & (columns - 1), thread() >> shift);
        Self { r, columns, column, group, groups: THREADS >> shift, vector, partials, warp_sums }
    }

    /// The sum over all threads, the same bits in each: over lanes, then over warps.
    #[inline(always)]
    unsafe fn sum(self, value: f64) -> f64 {
        let butterfly = |mut sum: f64, lanes: u32| {
            let mut flip = lanes / 2;
            while flip > 0 {
                sum += shuffle_xor(FULL, sum, flip);
                flip /= 2;
            }
            sum
        };
        let sum = butterfly(value, WARP);
        // SAFETY: there is an entry for each warp; the barriers keep this sum from the one before.
        unsafe {
            barrier();
            if lane() == 0 {
                self.warp_sums.write(warp(), sum);
            }
            barrier();
            butterfly(self.warp_sums.read(lane() & (WARPS - 1)), WARPS)
        }
    }

    /// The first group's values become the vector that all threads see.
    #[inline(always)]
    unsafe fn share(self, value: f64) {
        barrier();
        if self.group == 0 {
            // SAFETY: the window has an entry for each thread; a barrier before and after.
            unsafe { self.vector.write(self.column, value) };
        }
        barrier();
    }

    /// The same, and further values become the vector in `partials`.
    #[inline(always)]
    unsafe fn share_two(self, value: f64, further: f64) {
        // SAFETY: the window has an entry for each thread; no thread reads it before the barrier.
        unsafe {
            if self.group == 0 {
                self.partials.write(self.column, further);
            }
            self.share(value);
        }
    }

    /// Element i < columns of the shared vector.
    #[inline(always)]
    unsafe fn shared(self, i: u32) -> f64 {
        // SAFETY: it was written before the last barrier.
        unsafe { self.vector.read(i) }
    }
}

/// C + λI.
struct System {
    block: Block,
    covariance: *const f64,
    ridge: f64,
}

impl System {
    /// The first group's elements of (C + λI)·v, for its elements of v.
    #[inline(always)]
    unsafe fn apply(&self, v: f64) -> f64 {
        let Self { block, covariance, ridge } = *self;
        let mut sum = 0.0;
        // SAFETY: rows and columns are less than r; partial sums are read after the barrier.
        unsafe {
            block.share(v);
            let mut row = block.group;
            // C is symmetric: the product with a column is the product with a row.
            while row < block.r && block.column < block.r {
                let entry = memory::load(covariance.add(row as usize * block.r as usize + block.column as usize));
                sum = fma_f64(entry, block.shared(row), sum);
                row += block.groups;
            }
            block.partials.write(thread(), sum);
            barrier();
            if block.group != 0 {
                return 0.0;
            }
            for group in 1..block.groups {
                sum += block.partials.read(group * block.columns + block.column);
            }
        }
        sum + ridge * v
    }

    /// Elements of the solution, moved towards (C + λI)⁻¹ · right; zeros outside the first group.
    #[inline(always)]
    unsafe fn improve(&self, right: f64, from: f64) -> f64 {
        // SAFETY: all threads of the block run the same iterations, as sums are the same in all of them.
        unsafe {
            let mut solution = from;
            let mut residual = right - self.apply(solution);
            let mut direction = residual;
            let mut size = self.block.sum(residual * residual);
            let enough = TOLERANCE * self.block.sum(right * right);
            let mut iteration = 0;
            while iteration < ITERATIONS && size > enough {
                let image = self.apply(direction);
                let step = size / self.block.sum(direction * image);
                // Only rounding makes the curvature zero, negative or too small: further iterations gain nothing.
                if !(step > 0.0 && step < f64::INFINITY) {
                    break;
                }
                solution += step * direction;
                residual -= step * image;
                let next = self.block.sum(residual * residual);
                direction = residual + next / size * direction;
                size = next;
                iteration += 1;
            }
            solution
        }
    }
}

/// θ ← Pᵀc: spread over the transform's width, transformed, signs taken back.
#[inline(always)]
unsafe fn combine(args: &Args, state: &State, block: Block, coefficient: f64) {
    let width = args.projection().width;
    let spread = block.vector;
    // SAFETY: the width is at most the window's; pairs of a round are disjoint, and a barrier is between rounds.
    unsafe {
        // The width is r rounded up to a power of two, so each place has a column, though perhaps no coefficient.
        block.share(coefficient);
        let mut half = 1;
        while half < width {
            if thread() < width / 2 {
                let low = thread() & (half - 1);
                let left = (thread() - low) * 2 + low;
                let (a, b) = (spread.read(left), spread.read(left + half));
                spread.write(left, a + b);
                spread.write(left + half, a - b);
            }
            barrier();
            half *= 2;
        }
        let mut j = thread();
        while j < args.in_features {
            let word = memory::load_constant(at::<u32>(args.state, state.signs).add(j as usize / 32));
            let value = spread.read(j & (width - 1));
            let signed = if word >> (j % 32) & 1 == 0 { value } else { -value };
            memory::store(at::<f32>(args.state, state.theta).add(j as usize), signed as f32);
            j += THREADS;
        }
    }
}
