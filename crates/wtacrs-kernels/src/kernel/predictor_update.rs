//! The norm predictor learns from a step's kept rows, in three launches: wtacrs-core's `NormPredictor::learn`.
//!
//! | launch | blocks | does |
//! |---|---|---|
//! | `predictor_features` | one for each row learned from | √ω·P(h/‖h‖) on the grid, and the row's targets |
//! | `predictor_sums` | one for each tile of 32 × 32 of Σωxxᵀ's upper triangle, and one for each 32 features | the step's sums |
//! | `predictor_apply` | one | C, m ← decayed, plus the centred sums; c by conjugate gradients; θ ← Pᵀc, b, level |
//!
//! The sums lie in a buffer of their own, in the order of wtacrs-core's `StepStatistics::sums`. Between the second launch and
//! the third, a framework may add those of all ranks, CPUs among them. They are exact, like wtacrs-core's.
//!
//! Saved rows may carry their scale 1/π. Features are those of h/‖h‖, from which every factor is divided out, so they differ
//! by the rounding of the scaled elements only. Packed rows carry no scale. They are unpacked and turned back with the CPU's
//! bits, 4096 columns at a time.
//!
//! # Differences from the CPU
//!
//! Elements are folded and transformed in f32 in the CPU's order, to its bits. A row's norm is summed in f64 here and in
//! lanes of f32 there. Where both round to the same f32, as they mostly do, features are equal. Otherwise they are within a
//! relative (in_features/32 + 6)·2⁻²⁴, and rounding to the grid of 2⁻⁶ moves a few of them to the neighbouring unit. Sums
//! of equal units are equal to the bit, and so are C, m and the level. The solution's dot products are in f64 on both sides,
//! in different orders. Logarithms are within 4 units in the last place before they are rounded to 2⁻¹⁰, or to 2⁻⁸ for the
//! distances of the blend, whose guess is a dot product in another order too.

use super::packed_rows::PackedRows;
use super::row_team::THREADS;
use crate::launch::Shape;
use wtacrs_exact::predictor::{grid, state, sums};
use wtacrs_simt::WARP;

/// The most features that a GPU's predictor has: the solution's vectors are held by one block.
pub const MOST_FEATURES: u32 = 512;

/// The arguments of all three launches.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// budget × in_features elements: the kept rows of H, scaled or not.
    pub rows: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Columns of H.
    pub in_features: u32,
    /// `Settings::features`, at most [`MOST_FEATURES`].
    pub features: u32,
    /// Rows of the buffer.
    pub budget: u32,
    /// The most rows that a step learns from, at least 1.
    pub rows_per_update: u32,
    /// How many of the rows were selected; null: all.
    pub count: *const u32,
    /// For each row its token; null: row i is token i.
    pub indices: *const u32,
    /// For each token its exact ‖dZ‖.
    pub dz_norms: *const f32,
    /// For each token the norm that a cache had in the forward pass, negative where it had none; null without a cache.
    pub cached_norms: *const f32,
    /// For each row its scale 1/π; null: 1.
    pub scales: *const f64,
    /// φ.
    pub forgetting: f64,
    /// λ, as a share of C's mean diagonal.
    pub ridge: f64,
    /// Norms below e^−clamp of the last step's mean count as that.
    pub clamp: f64,
    /// The state: see [`State`]. Aligned to 16.
    pub state: *mut u8,
    /// [`scratch_bytes`], aligned to 16; dead after the second launch.
    pub scratch: *mut u8,
    /// The step's sums: [`sums_len`] numbers.
    pub sums: *mut f64,
    /// Two words. The last launch writes the first: an [`Outcome`]. The launch before writes the second: 0, or 1 + the least
    /// kept row with an invalid scale, norm of dZ, cached norm or norm.
    pub status: *mut u32,
}

/// The arguments of the first launch for packed rows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PackedArgs {
    /// All but the rows, which are null.
    pub update: Args,
    /// The packed rows, unscaled.
    pub packed: PackedRows,
}

/// The outcome of a step: the first word of [`Args::status`]. The state changes only if something was learned or the level
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Outcome {
    /// The state has moved on.
    Learned = 0,
    /// No row has a logarithm, so there is nothing to learn.
    Nothing = 1,
    /// No row has a logarithm, and norms have fallen by more than the clamp: the next step finds the level anew.
    LevelDropped = 2,
    /// A sum is not finite, because a row was invalid on some rank.
    Refused = 3,
}

/// Where the parts of a predictor's state lie, in bytes from its first: wtacrs-core's `NormPredictor::state` (f64), then θ
/// (f32), then the projection's signs (one bit for each input feature), then its placement (f64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Trace, intercept, level, excess, and the five sums of the blend.
    pub scalars: u64,
    /// c: r numbers.
    pub coefficients: u64,
    /// m: r numbers.
    pub moment: u64,
    /// C: r × r numbers.
    pub covariance: u64,
    /// θ: in_features numbers, aligned to 16, as `row_norms` takes them.
    pub theta: u64,
    /// ⌈in_features/32⌉ words.
    pub signs: u64,
    /// Excess, intercept, shift and slope: `NormPredictor::placement`, which follows from the other numbers.
    pub placement: u64,
    /// The whole state.
    pub bytes: u64,
}

impl State {
    /// For a layer of so many input features, and the setting `features`.
    #[inline(always)]
    pub const fn new(in_features: u32, features: u32) -> Self {
        let r = Projection::new(in_features, features).features as u64;
        let coefficients = 8 * state::SCALARS as u64;
        let moment = coefficients + 8 * r;
        let covariance = moment + 8 * r;
        let theta = (covariance + 8 * r * r).next_multiple_of(16);
        let signs = theta + (4 * in_features as u64).next_multiple_of(16);
        let placement = (signs + 4 * in_features.div_ceil(32) as u64).next_multiple_of(8);
        Self { scalars: 0, coefficients, moment, covariance, theta, signs, placement, bytes: placement + 4 * 8 }
    }
}

/// The sizes of the projection P.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projection {
    /// n, a power of two.
    pub(super) width: u32,
    /// r.
    pub(super) features: u32,
}

impl Projection {
    #[inline(always)]
    pub(super) const fn new(in_features: u32, features: u32) -> Self {
        let least = if features < in_features { features } else { in_features };
        let width = if least <= 1 { 1 } else { 1 << (u32::BITS - (least - 1).leading_zeros()) };
        Self { width, features: if features < width { features } else { width } }
    }
}

/// Where the parts of the scratch lie, in bytes from its first.
#[derive(Clone, Copy, Debug)]
pub struct Scratch {
    /// √ω·x in units of the grid: chosen × r.
    pub x: u64,
    /// √ω for each row.
    pub roots: u64,
    /// √ω·log‖dZ‖ for each row, −∞ for a norm that is too small for one, ∞ for zero.
    pub targets: u64,
    /// For each row √ω times (cached log-norm − guess), or infinity if there is nothing to compare, and √ω times (true
    /// log-norm − guess). Not written without cached norms.
    pub blends: u64,
    /// For each block the least invalid row that it found, or `u32::MAX`.
    pub invalid: u64,
}

impl Scratch {
    #[inline(always)]
    pub(super) const fn new(blocks: u32, features: u32) -> Self {
        let rows = blocks as u64;
        let roots = (4 * rows * features as u64).next_multiple_of(8);
        let targets = roots + 8 * rows;
        let blends = targets + 8 * rows;
        Self { x: 0, roots, targets, blends, invalid: blends + 16 * rows }
    }
}

/// Shared memory of `predictor_features` for the norm's sum and the least invalid row of each warp.
pub(super) const FEATURES_SCRATCH_BYTES: u32 = (8 + 4) * (THREADS / WARP);
/// Features of a side of a tile of `predictor_sums`.
pub(super) const TILE: u32 = 32;
/// Threads of a block of `predictor_sums`: 8 × 8.
pub(super) const SUMS_THREADS: u32 = 64;
/// Rows that `predictor_sums` has in shared memory at a time.
pub(super) const SUMS_ROWS: u32 = grid::ROWS_IN_I32 as u32;
/// So many rows of two tiles.
const SUMS_SHARED_BYTES: u32 = 2 * 4 * SUMS_ROWS * TILE;
/// Threads of `predictor_apply`.
pub(super) const APPLY_THREADS: u32 = 512;
/// A number for each thread twice, one for each warp.
const APPLY_SHARED_BYTES: u32 = 8 * (2 * APPLY_THREADS + APPLY_THREADS / WARP);

/// The launch of `predictor_features`, for the arguments' `budget`, `rows_per_update`, `in_features` and `features`.
pub fn features_shape(budget: u32, rows_per_update: u32, in_features: u32, features: u32) -> Shape {
    let width = Projection::new(in_features, features).width;
    let shared_bytes = FEATURES_SCRATCH_BYTES + 4 * width;
    Shape { grid: [budget.min(rows_per_update).max(1), 1, 1], block: THREADS, shared_bytes, cooperative: false }
}

/// Columns that a block of `predictor_features_packed` has unpacked at a time: 16 for each thread.
pub(super) const PACKED_TILE: u32 = 16 * THREADS;

/// Where the tile lies in shared memory, behind the folded row.
#[inline(always)]
pub(super) const fn packed_tile_begin(in_features: u32, features: u32) -> u32 {
    (FEATURES_SCRATCH_BYTES + 4 * Projection::new(in_features, features).width).next_multiple_of(16)
}

/// The launch of `predictor_features_packed`, for the arguments that [`features_shape`] has.
pub fn packed_features_shape(budget: u32, rows_per_update: u32, in_features: u32, features: u32) -> Shape {
    let shared_bytes = packed_tile_begin(in_features, features) + 4 * PACKED_TILE;
    Shape { shared_bytes, ..features_shape(budget, rows_per_update, in_features, features) }
}

/// The launch of `predictor_sums`.
pub fn sums_shape(in_features: u32, features: u32) -> Shape {
    let tiles = Projection::new(in_features, features).features.div_ceil(TILE);
    let grid = [tiles, tiles + 1, 1];
    Shape { grid, block: SUMS_THREADS, shared_bytes: SUMS_SHARED_BYTES, cooperative: false }
}

/// The launch of `predictor_apply`.
pub fn apply_shape() -> Shape {
    Shape { grid: [1, 1, 1], block: APPLY_THREADS, shared_bytes: APPLY_SHARED_BYTES, cooperative: false }
}

/// Bytes of `Args::scratch`.
pub fn scratch_bytes(budget: u32, rows_per_update: u32, in_features: u32, features: u32) -> u64 {
    let blocks = budget.min(rows_per_update).max(1);
    Scratch::new(blocks, Projection::new(in_features, features).features).invalid + 4 * u64::from(blocks)
}

/// How many numbers `Args::sums` has: as many as `StepStatistics::sums` of wtacrs-core.
pub fn sums_len(in_features: u32, features: u32) -> usize {
    sums::len(Projection::new(in_features, features).features as usize)
}

/// Bytes of `Args::sums`.
pub fn sums_bytes(in_features: u32, features: u32) -> u64 {
    8 * sums_len(in_features, features) as u64
}
