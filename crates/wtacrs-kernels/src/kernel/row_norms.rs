//! ‖row‖₂ of a matrix, and optionally each row's dot product with a vector, in one pass.
//!
//! ```text
//! norms[i] = √(Σ_j x[i,j]²),   directions[i] = Σ_j x[i,j]·θ_j / norms[i]        x (rows × columns), θ (columns)
//! ```
//!
//! Threads take vectors of 16 bytes, four at a time (one beside θ, for the sake of registers), so that many loads are in
//! flight; which thread adds what depends on the columns and their type alone ([`RowTeam`]), so that neither alignment
//! nor geometry changes a bit.
//!
//! # Error
//!
//! A thread adds the words of its vectors in four chains of fused multiply-adds, each of at most
//!
//! L = ⌈vectors / threads⌉ · (elements of a word) + 1
//!
//! terms; two additions join the chains and log₂(threads) more the threads. All terms are positive, so with u = 2⁻²⁴
//! the sum of squares is within a relative (L + 2 + log₂ threads)·u/(1 − …) of the exact one, and the norm, whose root
//! halves that and rounds once more, within ½(L + 2 + log₂ threads)·u + u to first order: [`error_bound`]. The dot
//! product is within (L + 2 + log₂ threads)·u·Σ|x_j θ_j| ≤ … ·‖x‖‖θ‖.
//!
//! A sum below 10⁻³⁰, whose terms may have lost digits to underflow, or beyond f32 is taken again in f64.

use crate::block::logarithm::ln_norm;
use crate::block::row_team::RowTeam;
#[cfg(not(target_arch = "nvptx64"))]
use crate::block::row_team::THREADS;
use crate::block::spacing::Spacing;
use crate::block::vector::{self, Packed};
use crate::element::F32;
#[cfg(not(target_arch = "nvptx64"))]
use crate::launch::Shape;
use wtacrs_exact::predictor::blend;
use wtacrs_simt::index::{block, block_threads, block_warps, thread};
use wtacrs_simt::math::{fma_f32, fma_f64, sqrt_f32, sqrt_f64};
use wtacrs_simt::memory::{self, U32x4};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::{self, FULL};

/// What a launch is given. One grid.z for each matrix of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × columns elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Where the matrices of the batch begin.
    pub spacing: Spacing,
    /// Rows of each matrix.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// The vector of `columns` f32 that rows are multiplied with, or null.
    pub theta: *const f32,
    /// batch × rows norms.
    pub norms: *mut f32,
    /// batch × rows logarithms of norms that a predictor guesses, against its level: dot products divided by the row's
    /// norm (0 where the norm is 0 or the quotient not finite) and placed. Not written if `theta` is null.
    pub directions: *mut f32,
    /// batch × rows norms that a cache remembers, negative where it does not, towards which guesses move; null for
    /// none. A guess beside a norm that is none becomes NaN.
    pub cached: *const f32,
    /// Where guesses lie and how they move: four numbers, as `NormPredictor::placement` tells them. Not read if `theta`
    /// is null.
    pub placement: *const f64,
    /// What a predictor's guess may be away from a cached log-norm at most.
    pub clamp: f64,
    /// matrices × `board_words` words that become zero: the boards of a selection behind this launch.
    pub boards: *mut u64,
    /// For each matrix; 0 for none.
    pub board_words: u32,
}

/// Squares below this lose digits to underflow.
const LEAST_SAFE_SUM: f32 = 1e-30;

/// What a square may lose to underflow, 2⁻¹⁵⁰, as a part of the least safe sum.
#[cfg(not(target_arch = "nvptx64"))]
pub(super) const LOST_TO_UNDERFLOW: f64 = 7.1e-16;

/// The launch for a batch of matrices of elements of so many bytes (2 or 4); at most 65535 matrices.
#[cfg(not(target_arch = "nvptx64"))]
pub fn shape(rows: u32, columns: u32, batch: u32, bytes: u32) -> Shape {
    let team = RowTeam::new(columns.div_ceil(vector::BYTES / bytes));
    let shared_bytes = if team.is_block() { SCRATCH_BYTES } else { 0 };
    Shape { grid: [rows.div_ceil(team.rows()).max(1), 1, batch], block: THREADS, shared_bytes, cooperative: false }
}

/// The bound on the relative error of a norm above, for elements of so many bytes (2 or 4).
#[cfg(not(target_arch = "nvptx64"))]
pub fn error_bound(columns: u32, bytes: u32) -> f64 {
    let vectors = columns.div_ceil(vector::BYTES / bytes);
    let threads = RowTeam::new(vectors).threads();
    let chain = vectors.div_ceil(threads) * (4 / bytes) + 1;
    let unit = f64::from(f32::EPSILON) / 2.0;
    let sum = f64::from(chain + 2 + threads.ilog2()) * unit;
    0.5 * (sum / (1.0 - sum) + f64::from(columns) * LOST_TO_UNDERFLOW) + unit
}

/// Norms of rows, and what they have of θ.
///
/// # Safety
///
/// The launch has the [`shape`] of these arguments, whose pointers lead to as many elements as their documentation
/// says; `x` is aligned to its elements, and no thread writes what another reads.
#[inline(always)]
pub unsafe fn row_norms<E: Packed>(args: &Args) {
    let team = RowTeam::new(args.columns.div_ceil(E::PER_VECTOR));
    let [first, _, matrix] = block();
    let mut word = if first == 0 { thread() } else { args.board_words };
    while word < args.board_words {
        let at = u64::from(matrix) * u64::from(args.board_words) + u64::from(word);
        // SAFETY: the matrix's own words, which nobody else accesses now.
        unsafe { memory::store(args.boards.wrapping_add(at as usize), 0) };
        word += block_threads();
    }
    let row = first * team.rows() + team.row();
    let is_row = row < args.rows;
    // A thread without a row takes part in the sums with nothing to add.
    let columns = if is_row { args.columns } else { 0 };
    let bytes = u64::from(E::BYTES);
    let offset = args.spacing.of(matrix) + if is_row { u64::from(row) * args.leading } else { 0 };
    let theta = args.theta;
    let stride = (args.leading | args.spacing.bits()) * bytes;
    // SAFETY: the row begins here, if there is one, and has so many columns; both sums' scratch is theirs alone.
    unsafe {
        let x = args.x.add((offset * bytes) as usize);
        let sums = match (vector::is_aligned(args.x, stride | theta.addr() as u64), theta.is_null()) {
            (true, true) => add_row::<E, true, false>(team, x, theta, columns),
            (true, false) => add_row::<E, true, true>(team, x, theta, columns),
            (false, true) => add_row::<E, false, false>(team, x, theta, columns),
            (false, false) => add_row::<E, false, true>(team, x, theta, columns),
        };
        let squares = team.sum(sums.squares, scratch(0));
        let dot = if theta.is_null() { 0.0 } else { team.sum(sums.dot, scratch(1)) };
        let norm = sqrt_f32(squares);
        let mut found = Found { norm, direction: dot / norm };
        // A row of no columns has a sum of 0, and nothing to add again.
        let is_safe = columns == 0 || is_precise(squares);
        if warp::any(FULL, !is_safe) {
            let columns = if is_safe { 0 } else { columns };
            let again = rescue::<E>(team, x, theta, columns);
            if !is_safe {
                found = again;
            }
        }
        if is_row && team.member() == 0 {
            let at = matrix as usize * args.rows as usize + row as usize;
            memory::store(args.norms.add(at), found.norm);
            if !theta.is_null() {
                let is_usable = found.norm > 0.0 && found.direction.abs() < f32::INFINITY;
                let direction = if is_usable { found.direction } else { 0.0 };
                memory::store(args.directions.add(at), placed(args, at, direction));
            }
        }
    }
}

/// A direction against the level, moved towards the cached norm of its row, if there is one, as
/// `NormPredictor::guess_with_cache` moves it.
///
/// # Safety
///
/// `at` is a row's place among the cached norms, if there are any.
#[inline(always)]
unsafe fn placed(args: &Args, at: usize, direction: f32) -> f32 {
    // SAFETY: there are four numbers.
    let number = |i: usize| unsafe { memory::load_constant(args.placement.add(i)) };
    let offset = number(0) as f32;
    // SAFETY: the caller's promise.
    let cached = if args.cached.is_null() { -1.0 } else { unsafe { memory::load_constant(args.cached.add(at)) } };
    if cached < 0.0 {
        return direction + offset;
    }
    if !cached.is_finite() {
        return f32::NAN;
    }
    let guess = number(1) + f64::from(direction);
    let moved = direction + (number(2) + number(3) * blend::distance(ln_norm(cached), guess, args.clamp)) as f32;
    moved + offset
}

struct Sums {
    squares: f32,
    dot: f32,
}

pub(super) struct Found {
    pub(super) norm: f32,
    direction: f32,
}

/// This thread's part of a row.
#[inline(always)]
unsafe fn add_row<E: Packed, const ALIGNED: bool, const DOT: bool>(
    team: RowTeam,
    x: *const u8,
    theta: *const f32,
    columns: u32,
) -> Sums {
    let (vectors, threads) = (columns / E::PER_VECTOR, team.threads());
    let (mut squares, mut dots) = ([0.0_f32; 4], [0.0_f32; 4]);
    let mut first = team.member();
    while first < vectors {
        // Vectors beyond the row are zeros: adding them changes no sum.
        let load = |k: u32| {
            let v = first + k * threads;
            if v < vectors {
                // SAFETY: the vector lies within the row.
                unsafe { vector::load::<E, ALIGNED>(x.add(v as usize * vector::BYTES as usize)) }
            } else {
                U32x4([0; 4])
            }
        };
        let mut add = |k: u32, vector: U32x4| {
            add_squares::<E>(&mut squares, vector);
            let v = first + k * threads;
            if DOT && v < vectors {
                // SAFETY: θ has as many elements as the row has columns.
                unsafe { add_dots::<E, ALIGNED>(&mut dots, vector, theta.add((v * E::PER_VECTOR) as usize).cast()) };
            }
        };
        if ALIGNED && !DOT {
            let (a, b, c, d) = (load(0), load(1), load(2), load(3));
            add(0, a);
            add(1, b);
            add(2, c);
            add(3, d);
            first += 4 * threads;
        } else {
            add(0, load(0));
            first += threads;
        }
    }
    let mut j = vectors * E::PER_VECTOR + team.member();
    while j < columns {
        // SAFETY: the element lies within the row.
        unsafe {
            let value = vector::value::<E>(vector::load_element::<E>(x.add(j as usize * E::BYTES as usize)));
            squares[0] = fma_f32(value, value, squares[0]);
            if DOT {
                dots[0] = fma_f32(value, memory::load_constant(theta.add(j as usize)), dots[0]);
            }
        }
        j += threads;
    }
    Sums { squares: join(squares), dot: join(dots) }
}

/// The sum of chains.
#[inline(always)]
pub(super) fn join([a, b, c, d]: [f32; 4]) -> f32 {
    (a + b) + (c + d)
}

/// Whether a sum of squares in f32 has lost no digits to underflow, and is finite.
#[inline(always)]
pub(super) fn is_precise(squares: f32) -> bool {
    (LEAST_SAFE_SUM..f32::INFINITY).contains(&squares)
}

/// Each word into a sum of its own.
#[inline(always)]
pub(super) fn add_squares<E: Packed>(sums: &mut [f32; 4], U32x4([a, b, c, d]): U32x4) {
    let [s0, s1, s2, s3] = sums;
    let add = |sum: &mut f32, word: u32| E::for_each(word, |_, value| *sum = fma_f32(value, value, *sum));
    add(s0, a);
    add(s1, b);
    add(s2, c);
    add(s3, d);
}

/// The same with the elements of θ at `theta`.
#[inline(always)]
unsafe fn add_dots<E: Packed, const ALIGNED: bool>(sums: &mut [f32; 4], U32x4([a, b, c, d]): U32x4, theta: *const u8) {
    let [s0, s1, s2, s3] = sums;
    let add = |sum: &mut f32, word: u32, low: u32, high: u32| {
        E::for_each(word, |half, value| {
            let theta = f32::from_bits(if half == 0 { low } else { high });
            *sum = fma_f32(value, theta, *sum);
        });
    };
    // SAFETY: the caller's promise: as many elements as the vector has.
    unsafe {
        let U32x4([t0, t1, t2, t3]) = vector::load::<F32, ALIGNED>(theta);
        if E::PER_WORD == 1 {
            add(s0, a, t0, 0);
            add(s1, b, t1, 0);
            add(s2, c, t2, 0);
            add(s3, d, t3, 0);
        } else {
            let U32x4([t4, t5, t6, t7]) = vector::load::<F32, ALIGNED>(theta.add(16));
            add(s0, a, t0, t1);
            add(s1, b, t2, t3);
            add(s2, c, t4, t5);
            add(s3, d, t6, t7);
        }
    }
}

/// The row once more, in f64: slow, and rarely needed.
///
/// # Safety
///
/// All lanes call it together for the team's row of so many elements, and `theta` is null or has as many. The scratch is
/// the block's, or the team no more than a warp.
#[inline(always)]
pub(super) unsafe fn rescue<E: Packed>(team: RowTeam, x: *const u8, theta: *const f32, columns: u32) -> Found {
    let (mut squares, mut dot) = (0.0_f64, 0.0_f64);
    let mut j = team.member();
    while j < columns {
        // SAFETY: the element lies within the row, and θ has as many.
        unsafe {
            let value = vector::value::<E>(vector::load_element::<E>(x.add(j as usize * E::BYTES as usize)));
            // Rows of padding are all zeros: they need no slow arithmetic.
            if value != 0.0 {
                let value = f64::from(value);
                squares = fma_f64(value, value, squares);
                if !theta.is_null() {
                    dot = fma_f64(value, f64::from(memory::load_constant(theta.add(j as usize))), dot);
                }
            }
        }
        j += team.threads();
    }
    // SAFETY: scratch of these sums alone.
    let (squares, dot) = unsafe { (team.sum(squares, scratch(2)), team.sum(dot, scratch(3))) };
    let norm = sqrt_f64(squares);
    Found { norm: norm as f32, direction: (dot / norm) as f32 }
}

/// Bytes of shared memory for four sums of up to 8 bytes for each warp.
#[cfg(not(target_arch = "nvptx64"))]
const SCRATCH_BYTES: u32 = 4 * 8 * THREADS / wtacrs_simt::index::WARP;

/// Room for one number of each warp.
#[inline(always)]
fn scratch<T: memory::Word>(sum: u32) -> Shared<T> {
    Shared::new(sum * 8 * block_warps(), block_warps())
}
