//! ‖row‖₂ of a matrix, and optionally each row's dot product with a vector, in one pass.
//!
//! ```text
//! norms[i] = √(Σ_j x[i,j]²),   directions[i] = Σ_j x[i,j]·θ_j / norms[i]        x (rows × columns), θ (columns)
//! ```
//!
//! # Error
//!
//! A thread adds the words of its vectors in four chains of fused multiply-adds, each of at most
//!
//! L = ⌈vectors / threads⌉ · (elements of a word) + 1
//!
//! terms; two additions join the chains and log₂(threads) more the threads. All terms are positive, so with u = 2⁻²⁴
//! the sum of squares is within a relative (L + 2 + log₂ threads)·u/(1 − …) of the exact one. The norm, whose root
//! halves that and rounds once more, is within ½(L + 2 + log₂ threads)·u + u to first order: [`error_bound`]. The dot
//! product is within (L + 2 + log₂ threads)·u·Σ|x_j θ_j| ≤ … ·‖x‖‖θ‖.
//!
//! A sum below 10⁻³⁰, whose terms may have lost digits to underflow, or beyond f32 is taken again in f64.

use super::matrix::{Spacing, VECTOR_BYTES, is_aligned};
use super::row_team::{RowTeam, THREADS};
use crate::launch::Shape;
use wtacrs_simt::WARP;

/// The arguments of a launch. One grid.z for each matrix of a batch.
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
    /// batch × rows logarithms of norms that a predictor guesses, relative to its level: dot products divided by the row's
    /// norm (0 where the norm is 0 or the quotient not finite) and placed. Not written if `theta` is null.
    pub directions: *mut f32,
    /// batch × rows norms from a cache, negative where it has none, towards which guesses move; null without a cache. A
    /// guess beside a cached norm that is not finite becomes NaN.
    pub cached: *const f32,
    /// Where guesses lie and how they move: excess, intercept, shift and slope, as in wtacrs-core's `Placement`. Not read if
    /// `theta` is null.
    pub placement: *const f64,
    /// The most by which a predictor's guess may differ from a cached log-norm.
    pub clamp: f64,
    /// matrices × `exchange_words` words that become zero: the exchange of a selection that follows this launch.
    pub exchange: *mut u64,
    /// For each matrix; 0 for none.
    pub exchange_words: u32,
}

impl Args {
    /// Whether the rows, of elements of so many bytes, and θ are aligned to a vector: they then have a kernel of their own.
    pub fn is_aligned(&self, element_bytes: u32) -> bool {
        let stride = (self.leading | self.spacing.bits()) * u64::from(element_bytes);
        is_aligned(self.x, stride | self.theta.addr() as u64)
    }
}

/// The loss of a square to underflow, 2⁻¹⁵⁰, relative to the least safe sum.
pub(super) const LOST_TO_UNDERFLOW: f64 = 7.1e-16;

/// Bytes of shared memory for four sums of up to 8 bytes for each warp.
const SCRATCH_BYTES: u32 = 4 * 8 * THREADS / WARP;

/// The launch for a batch of matrices of elements of so many bytes (2 or 4); at most 65535 matrices.
pub fn shape(rows: u32, columns: u32, batch: u32, bytes: u32) -> Shape {
    let team = RowTeam::new(columns.div_ceil(VECTOR_BYTES / bytes));
    let shared_bytes = if team.is_block() { SCRATCH_BYTES } else { 0 };
    Shape { grid: [rows.div_ceil(team.rows()).max(1), 1, batch], block: THREADS, shared_bytes, cooperative: false }
}

/// The bound on the relative error of a norm above, for elements of so many bytes (2 or 4).
pub fn error_bound(columns: u32, bytes: u32) -> f64 {
    let vectors = columns.div_ceil(VECTOR_BYTES / bytes);
    let threads = RowTeam::new(vectors).threads();
    let chain = vectors.div_ceil(threads) * (4 / bytes) + 1;
    let unit = f64::from(f32::EPSILON) / 2.0;
    let sum = f64::from(chain + 2 + threads.ilog2()) * unit;
    0.5 * (sum / (1.0 - sum) + f64::from(columns) * LOST_TO_UNDERFLOW) + unit
}
