//! `Σ_i x[i,:]` and `‖x[i,:]‖₂` of a matrix from one read of it: the bias gradient beside the norms of dZ's rows.
//!
//! ```text
//! row_norms_sums     x ── norms[i] = √(Σ_j x[i,j]²),   partials[r,j] = Σ_(i in range r) x[i,j]
//! row_norms_gather   the same, and out[m,:] = x[indices[m],:]
//! split_reduce_sums  partials ── sums[j] (+)= Σ_r partials[r,j], in blocks beside those that add up dW
//! ```
//!
//! Rows are cut into ranges, which have a row of f32 sums each: 8 rows or more for a range, and at most 256 ranges up to
//! 65,536 rows, so that the sums stay in the cache that multiprocessors share. The ranges follow from rows and columns
//! alone, every sum has one order, and no float is added atomically: the bits are the same for every alignment and on every
//! machine.
//!
//! # Error
//!
//! With u = 2⁻²⁴, G groups, R rows in a range, S ranges: no term of an entry takes part in more than
//! n = ⌈R/G⌉ + G + ⌈S/8⌉ + 8 additions, so the entry is within γ_n · `Σ_i |x[i,j]|` of the exact sum, with
//! γ_n = nu/(1 − nu): [`sum_error_bound`]. Adding it to an old value rounds once more. A row's squares take
//! part in a chain of as many products as a word has elements, two additions of chains, log₂ of lanes, one addition for
//! each strip and one for each warp: [`norm_error_bound`], derived as in [`row_norms`](super::row_norms), which also
//! says which sums are taken again in f64.

use super::matrix::{Spacing, VECTOR_BYTES};
use super::row_norms::LOST_TO_UNDERFLOW;
use super::row_team::{RowTeam, THREADS};
use crate::launch::Shape;
use wtacrs_simt::WARP;

/// The arguments of the first launch. One grid.z for each matrix of a batch, one grid.x for each range.
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
    /// batch × rows norms, or null if they are not wanted.
    pub norms: *mut f32,
    /// batch × [`ranges`] rows of [`partial_leading`] sums, aligned to 16; null in a gather whose sums are not wanted.
    pub partials: *mut f32,
}

/// The arguments of the first launch where it also copies some rows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GatherArgs {
    /// The matrix, its norms and its sums.
    pub of: Args,
    /// batch × `kept` indices of rows, ascending and each once, of which the first `count` are used.
    pub indices: *const u32,
    /// For each matrix, how many indices are used; null: all.
    pub count: *const u32,
    /// Rows of `out` of each matrix; those beyond the count become zero.
    pub kept: u32,
    /// batch × kept rows, aligned to 16.
    pub out: *mut u8,
    /// Elements from one of them to the next: a row's length, rounded up to 16 bytes.
    pub out_leading: u64,
}

/// The arguments of the second launch's part that ends the sums.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FinishArgs {
    /// batch × `ranges` rows of [`partial_leading`] sums.
    pub partials: *const f32,
    /// How many partial sums each column has.
    pub ranges: u32,
    /// Columns.
    pub columns: u32,
    /// Whether `sums` are added to.
    pub accumulate: u32,
    /// batch × columns sums.
    pub sums: *mut f32,
}

impl FinishArgs {
    /// Blocks that end the sums of a matrix.
    pub fn blocks(&self) -> u32 {
        self.columns.div_ceil(WARP)
    }
}

/// Warps of a block that ends the sums.
pub(super) const WARPS: u32 = 8;
/// Bytes of shared memory of such a block.
pub(super) const SHARED_BYTES: u32 = 4 * WARPS * WARP;

/// Fewest and most rows of a range: few enough that a matrix of a thousand rows gives most multiprocessors some, and no more
/// than shared memory holds the squares of.
const FEWEST_ROWS: u32 = 8;
const MOST_ROWS: u32 = 256;
/// Between the two, about so many ranges of a matrix: two blocks on each of an H100's multiprocessors.
const RANGES: u32 = 256;
/// Rows that a thread loads at a time.
pub(super) const AT_ONCE: u32 = 4;

/// How a matrix is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partition {
    /// The threads that share a row; so many rows are visited at a time.
    pub(super) team: RowTeam,
    /// Rows of a range, the last of which may have fewer.
    pub(super) rows: u32,
}

impl Partition {
    /// For rows of so many vectors, the last of which may be partial.
    #[inline(always)]
    pub(super) const fn new(rows: u32, vectors: u32) -> Self {
        let team = RowTeam::of_threads(vectors);
        let mut wanted = FEWEST_ROWS;
        // A group with fewer rows would load zeros beside them.
        if wanted < AT_ONCE * team.rows() {
            wanted = AT_ONCE * team.rows();
        }
        if wanted < rows.div_ceil(RANGES) {
            wanted = rows.div_ceil(RANGES).next_multiple_of(FEWEST_ROWS);
        }
        Self { team, rows: if wanted < MOST_ROWS { wanted } else { MOST_ROWS } }
    }

    /// How many ranges; at least one, whose sums are zero if there are no rows.
    #[inline(always)]
    pub(super) const fn ranges(self, rows: u32) -> u32 {
        let ranges = rows.div_ceil(self.rows);
        if ranges == 0 { 1 } else { ranges }
    }

    /// Warps that share a row.
    #[inline(always)]
    pub(super) const fn warps(self) -> u32 {
        self.team.threads().div_ceil(WARP)
    }
}

/// How many partial sums each column has, for elements of so many bytes (2 or 4).
pub fn ranges(rows: u32, columns: u32, bytes: u32) -> u32 {
    partition(rows, columns, bytes).ranges(rows)
}

/// Floats from the sums of one element to those of the next, for vectors of so many elements: a lane's places of one element lie
/// side by side, and places of neighbouring columns in different banks.
#[inline(always)]
pub(crate) const fn group_pitch(elements: u32) -> u32 {
    THREADS + WARP / elements
}

/// Floats from one range's partial sums to the next.
#[inline(always)]
pub const fn partial_leading(columns: u32) -> u64 {
    (columns as u64).next_multiple_of(8)
}

/// The launch that also copies rows: shared memory for their places comes on top.
pub fn gather_shape(rows: u32, columns: u32, batch: u32, bytes: u32) -> Shape {
    let shape = shape(rows, columns, batch, bytes);
    Shape { shared_bytes: shape.shared_bytes + 4 * partition(rows, columns, bytes).rows, ..shape }
}

/// The launch for a batch of matrices of elements of so many bytes (2 or 4); at most 65535 matrices.
pub fn shape(rows: u32, columns: u32, batch: u32, bytes: u32) -> Shape {
    let partition = partition(rows, columns, bytes);
    let elements = VECTOR_BYTES / bytes;
    let groups = if partition.team.rows() > 1 { group_pitch(elements) * elements } else { 0 };
    Shape {
        grid: [partition.ranges(rows), 1, batch],
        block: THREADS,
        shared_bytes: 4 * (partition.warps() * partition.rows + groups),
        cooperative: false,
    }
}

/// The bound on the relative error of a norm.
pub fn norm_error_bound(rows: u32, columns: u32, bytes: u32) -> f64 {
    let partition = partition(rows, columns, bytes);
    let (threads, warps) = (partition.team.threads(), partition.warps());
    let strips = columns.div_ceil(VECTOR_BYTES / bytes).div_ceil(threads);
    let terms = 4 / bytes + 2 + threads.min(WARP).ilog2() + strips + warps;
    let unit = f64::from(f32::EPSILON) / 2.0;
    let sum = f64::from(terms) * unit;
    0.5 * (sum / (1.0 - sum) + f64::from(columns) * LOST_TO_UNDERFLOW) + unit
}

/// γ_n: the bound on the error of a column's sum, relative to the sum of its elements' magnitudes.
pub fn sum_error_bound(rows: u32, columns: u32, bytes: u32) -> f64 {
    let partition = partition(rows, columns, bytes);
    let groups = partition.team.rows();
    let terms = partition.rows.div_ceil(groups) + groups + partition.ranges(rows).div_ceil(WARPS) + WARPS;
    let sum = f64::from(terms) * f64::from(f32::EPSILON) / 2.0;
    sum / (1.0 - sum)
}

fn partition(rows: u32, columns: u32, bytes: u32) -> Partition {
    Partition::new(rows, columns.div_ceil(VECTOR_BYTES / bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_sums_are_little_memory() {
        for rows in [1, 31, 512, 4096, 16_384, 1 << 20] {
            for columns in [8, 100, 1024, 4096, 50_000] {
                for bytes in [2, 4] {
                    let ranges = ranges(rows, columns, bytes);
                    let partials = u64::from(ranges) * partial_leading(columns) * 4;
                    let matrix = u64::from(rows.next_multiple_of(FEWEST_ROWS) * bytes) * partial_leading(columns);
                    assert!(4 * partials <= matrix, "{rows} × {columns}, {bytes} bytes");
                    assert!(ranges <= RANGES.max(rows.div_ceil(MOST_ROWS)), "{rows} × {columns}, {bytes} bytes");
                    assert!(shape(rows, columns, 1, bytes).shared_bytes <= 16 << 10);
                }
            }
        }
    }

    #[test]
    fn every_row_has_one_range() {
        for rows in [0, 1, 32, 33, 8192, 8193, 70_000, 1 << 30] {
            for columns in [0, 1, 129, 4096] {
                let partition = partition(rows, columns, 2);
                assert!(u64::from(partition.rows) * u64::from(partition.ranges(rows)) >= u64::from(rows));
                assert!(rows == 0 || partition.rows * (partition.ranges(rows) - 1) < rows);
            }
        }
    }
}
