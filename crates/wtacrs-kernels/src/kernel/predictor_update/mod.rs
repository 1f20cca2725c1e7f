//! The norm predictor learns from a step's kept rows: wtacrs-core's `NormPredictor::update`, in three launches.
//!
//! | launch | blocks | does |
//! |---|---|---|
//! | [`predictor_features`] | one for each row learned from | √ω·P(h/‖h‖) on the grid, and what is known of the row's ‖dZ‖ |
//! | [`predictor_sums`] | one for each tile of 32 × 32 of Σωxxᵀ's upper triangle, and one for each 32 features | the step's sums |
//! | [`predictor_apply`] | one | C, m ← decayed, plus the centred sums; c by conjugate gradients; θ ← Pᵀc, b, level |
//!
//! The sums lie in a buffer of their own, in the order of wtacrs-core's `StepStatistics::sums`: a framework may add those
//! of all ranks between the second launch and the third, some of them from CPUs. They are exact, as wtacrs-core's are.
//!
//! Saved rows may carry their scale 1/π: features are those of h/‖h‖, from which every factor is divided out, so that
//! they differ by the rounding of the scaled elements only.
//!
//! # Differences from the CPU
//!
//! Elements are folded and transformed in f32 in the CPU's order, to its bits. A row's norm is summed in f64 here and in
//! lanes of f32 there: where both round to the same f32 (as they do unless its last bits differ) features are equal,
//! otherwise within a relative (in_features/32 + 6)·2⁻²⁴, and then rounding to the grid of 2⁻⁶ takes a few of them to
//! the neighbouring unit. Sums of equal units are equal to the bit, and so are C, m and the level; the solution's dot
//! products are in f64 on both sides, in different orders. Logarithms are within 4 units in the last place before they
//! are rounded to 2⁻¹⁰, or to 2⁻⁸ for the distances of the blend, whose guess is a dot product in another order too.

mod apply;
mod features;
#[cfg(not(target_arch = "nvptx64"))]
mod host;
mod sums;

pub use self::apply::predictor_apply;
pub use self::features::predictor_features;
#[cfg(not(target_arch = "nvptx64"))]
pub use self::host::{
    apply_shape, features_shape, load_state, scratch_bytes, state_bytes, sums_bytes, sums_len, sums_shape,
};
pub use self::sums::predictor_sums;

use wtacrs_exact::predictor::state;
use wtacrs_simt::memory;

/// The most features that a GPU's predictor has: the solution's vectors are held by one block.
pub const MOST_FEATURES: u32 = 512;

/// What the three launches are given, the same to each.
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
    /// How many rows there is room for.
    pub budget: u32,
    /// At most so many rows are learned from, at least 1.
    pub rows_per_update: u32,
    /// How many of the rows were selected; null: all.
    pub count: *const u32,
    /// For each row its token; null: row i is token i.
    pub indices: *const u32,
    /// For each token its exact ‖dZ‖.
    pub dz_norms: *const f32,
    /// For each token the norm that a cache remembered in the forward pass, negative where it did not; null for none.
    pub cached_norms: *const f32,
    /// For each row its scale 1/π.
    pub scales: *const f64,
    /// φ.
    pub forgetting: f64,
    /// λ, as a share of C's mean diagonal.
    pub ridge: f64,
    /// What is fainter than e^−clamp of the last step's mean counts as that.
    pub clamp: f64,
    /// The state: see [`State`]. Aligned to 16.
    pub state: *mut u8,
    /// [`scratch_bytes`], aligned to 16; dead after the second launch.
    pub scratch: *mut u8,
    /// The step's sums: [`sums_len`] numbers.
    pub sums: *mut f64,
    /// Two words. The first is written by the last launch: an [`Outcome`]. The second is written by the launch before:
    /// 0, or 1 + the least kept row whose scale, norm of dZ, cached norm or norm is none.
    pub status: *mut u32,
}

/// What came of a step: the first word of [`Args::status`]. The state changes only if something was learned or the level
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// The state has moved on.
    Learned = 0,
    /// No row has a logarithm: nothing to learn.
    Nothing = 1,
    /// The same, and norms have fallen by more than the clamp: the level is found anew in the next step.
    LevelDropped = 2,
    /// Some sum is not finite, as a row was invalid on some rank.
    Refused = 3,
}

/// Where a predictor's state lies, in bytes from its first: what wtacrs-core calls `numbers` (f64), then θ (f32), then
/// the projection's signs (one bit for each input feature), then where its guesses lie (f64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Trace, intercept, level, offset, and the five sums of the blend.
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
    /// Four numbers that are made of the others: `NormPredictor::placement`.
    pub placement: u64,
    /// All of it.
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

/// The sizes of P.
#[derive(Clone, Copy, Debug)]
struct Projection {
    /// n, a power of two.
    width: u32,
    /// r.
    features: u32,
}

impl Projection {
    #[inline(always)]
    const fn new(in_features: u32, features: u32) -> Self {
        let least = if features < in_features { features } else { in_features };
        let width = if least <= 1 { 1 } else { 1 << (u32::BITS - (least - 1).leading_zeros()) };
        Self { width, features: if features < width { features } else { width } }
    }
}

/// Where scratch lies, in bytes from its first.
#[derive(Clone, Copy, Debug)]
struct Scratch {
    /// √ω·x in units of the grid: chosen × r.
    x: u64,
    /// √ω for each row.
    roots: u64,
    /// √ω·log‖dZ‖ for each row, or one of [`FAINT`] and [`VANISHED`].
    targets: u64,
    /// √ω times the cached log-norm less the guess, and times the true one less the guess, for each row; the first is
    /// [`NOT_CACHED`] if there is nothing to compare. Not written if there are no cached norms.
    blends: u64,
    /// For each block the least invalid row that it found, or `u32::MAX`.
    invalid: u64,
}

/// In place of a logarithm: too small for one.
const FAINT: f64 = f64::NEG_INFINITY;
/// In place of a logarithm: of zero.
const VANISHED: f64 = f64::INFINITY;
/// In place of a distance on the grid, which is bounded.
const NOT_CACHED: f64 = f64::INFINITY;

impl Scratch {
    #[inline(always)]
    const fn new(blocks: u32, features: u32) -> Self {
        let rows = blocks as u64;
        let roots = (4 * rows * features as u64).next_multiple_of(8);
        let targets = roots + 8 * rows;
        let blends = targets + 8 * rows;
        Self { x: 0, roots, targets, blends, invalid: blends + 16 * rows }
    }
}

impl Args {
    /// Blocks of the first launch: the most rows that a step learns from.
    #[inline(always)]
    fn blocks(&self) -> u32 {
        let most = if self.budget < self.rows_per_update { self.budget } else { self.rows_per_update };
        if most > 1 { most } else { 1 }
    }

    #[inline(always)]
    fn projection(&self) -> Projection {
        Projection::new(self.in_features, self.features)
    }

    /// How many rows were selected, and how many of them are learned from.
    ///
    /// # Safety
    ///
    /// `count` is null or leads to a number.
    #[inline(always)]
    unsafe fn rows_given_and_chosen(&self) -> (u32, u32) {
        // SAFETY: the caller's promise.
        let given = if self.count.is_null() { self.budget } else { unsafe { memory::load_constant(self.count) } };
        let given = if given < self.budget { given } else { self.budget };
        (given, if given < self.rows_per_update { given } else { self.rows_per_update })
    }
}

/// The place so many bytes into a buffer, as numbers of T.
///
/// # Safety
///
/// It lies in the buffer.
#[inline(always)]
unsafe fn at<T>(buffer: *mut u8, bytes: u64) -> *mut T {
    // SAFETY: the caller's promise; buffers are aligned to 16 and offsets to their type.
    unsafe { buffer.add(bytes as usize).cast() }
}
