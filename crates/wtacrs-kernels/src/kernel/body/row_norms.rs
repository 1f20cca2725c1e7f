//! Threads take vectors of 16 bytes, four at a time where they are aligned, so that many loads are in flight. θ comes from cache.
//! Rows that are not aligned have a kernel of their own. The columns and their type alone decide which thread adds which elements ([`RowTeam`]), so neither alignment nor
//! geometry changes a bit.

use super::block::functions::ln_norm;
use super::block::vector::{self, Packed};
use super::element::F32;
use crate::kernel::matrix::VECTOR_BYTES;
use crate::kernel::row_norms::Args;
use crate::kernel::row_team::RowTeam;
use wtacrs_exact::predictor::blend;
use wtacrs_simt::index::{block, block_threads, block_warps, thread};
use wtacrs_simt::math::{fma_f32, fma_f64, sqrt_f32, sqrt_f64};
use wtacrs_simt::memory::{self, U32x4};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::warp::{self, FULL};

/// Sums of squares below this may have lost digits to underflow, and are taken again in f64.
pub(super) const LEAST_SAFE_SUM: f32 = 1e-30;

/// Norms of rows, and their dot products with θ. If `ALIGNED`, rows and θ are aligned to a vector.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::row_norms::shape) of these arguments. Their pointers lead to as many
/// elements as their documentation says, `x` is aligned to its elements, and the outputs overlap nothing.
#[inline(always)]
pub unsafe fn row_norms<E: Packed, const ALIGNED: bool>(args: &Args) {
    let team = RowTeam::new(args.columns.div_ceil(E::PER_VECTOR));
    let [first, _, matrix] = block();
    let mut word = if first == 0 { thread() } else { args.exchange_words };
    while word < args.exchange_words {
        let at = u64::from(matrix) * u64::from(args.exchange_words) + u64::from(word);
        // SAFETY: the matrix's own words, which no other thread accesses in this launch.
        unsafe { memory::store(args.exchange.wrapping_add(at as usize), 0) };
        word += block_threads();
    }
    let row = first * team.rows() + team.row();
    let is_row = row < args.rows;
    // A thread without a row takes part in the sums with nothing to add.
    let columns = if is_row { args.columns } else { 0 };
    let bytes = u64::from(E::BYTES);
    let offset = args.spacing.of(matrix) + if is_row { u64::from(row) * args.leading } else { 0 };
    let theta = args.theta;
    // SAFETY: the row begins here, if there is one, and has so many columns; the sums' windows do not overlap.
    unsafe {
        let x = args.x.add((offset * bytes) as usize);
        let sums = if theta.is_null() {
            add_row::<E, ALIGNED, false>(team, x, theta, columns)
        } else {
            add_row::<E, ALIGNED, true>(team, x, theta, columns)
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

/// A direction relative to the level, moved towards the cached norm of its row, if there is one, as
/// `NormPredictor::guess_with_cache` moves it.
///
/// # Safety
///
/// `at` is a row's place among the cached norms, if there are any.
#[inline(always)]
unsafe fn placed(args: &Args, at: usize, direction: f32) -> f32 {
    // SAFETY: there are four numbers.
    let number = |i: usize| unsafe { memory::load_constant(args.placement.add(i)) };
    let excess = number(0) as f32;
    // SAFETY: the caller's promise.
    let cached = if args.cached.is_null() { -1.0 } else { unsafe { memory::load_constant(args.cached.add(at)) } };
    if cached < 0.0 {
        return direction + excess;
    }
    if !cached.is_finite() {
        return f32::NAN;
    }
    let guess = number(1) + f64::from(direction);
    let moved = direction + (number(2) + number(3) * blend::distance(ln_norm(cached), guess, args.clamp)) as f32;
    moved + excess
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
                unsafe { vector::load::<E, ALIGNED>(x.add(v as usize * VECTOR_BYTES as usize)) }
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
        if ALIGNED {
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

/// Adds the squares of each word to a sum of its own.
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

/// The sums of a row once more, in f64: slow, and rarely needed.
///
/// # Safety
///
/// All lanes call it together for the team's row of so many elements, and `theta` is null or has as many. The block has
/// shared memory for the sums, or the team is no more than a warp.
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
    // SAFETY: windows of these sums alone.
    let (squares, dot) = unsafe { (team.sum(squares, scratch(2)), team.sum(dot, scratch(3))) };
    let norm = sqrt_f64(squares);
    Found { norm: norm as f32, direction: (dot / norm) as f32 }
}

/// A window with a number for each warp.
#[inline(always)]
fn scratch<T: memory::Word>(sum: u32) -> Shared<T> {
    Shared::new(sum * 8 * block_warps(), block_warps())
}
