//! What the norm predictor of the CPU and the one of the GPU must agree on: which rows are learned from, what they
//! count, how their targets are classed, where a step's sums and a predictor's numbers lie.

pub mod blend;
pub mod grid;

/// The i-th of `count` rows that are evenly spaced over those given; i < count ≤ given.
#[inline(always)]
pub const fn chosen_row(i: u64, given: u64, count: u64) -> u64 {
    match ((2 * i + 1) * given).checked_div(2 * count) {
        Some(row) => row,
        None => 0,
    }
}

/// Scales count as no more than this: a few rows that were kept against all odds must not outweigh all that is known.
pub const LARGEST_SCALE: f64 = 4096.0;

/// Scales beyond this are refused.
pub const LARGEST_VALID_SCALE: f64 = 18_446_744_073_709_551_616.0; // 2^64

/// ω² of a row's scale 1/π; the weight ω is its root.
#[inline(always)]
pub const fn squared_weight(scale: f64) -> f64 {
    if scale < LARGEST_SCALE { scale } else { LARGEST_SCALE }
}

/// λ of the ridge: a share of C's mean diagonal. A small part of the diagonal before it is centred comes with it, as
/// much as rows that hardly differ have from being rounded to the [`grid`].
#[inline(always)]
pub const fn ridge(share: f64, diagonal_sum: f64, trace: f64, features: f64) -> f64 {
    share * (diagonal_sum + 1e-2 * trace) / features
}

/// What is learned from a row's ‖dZ‖.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Its logarithm.
    Log(f64),
    /// Too small beside the others for its logarithm to mean anything.
    Faint,
    /// Zero.
    Zero,
}

impl Target {
    /// By the norm's logarithm (of no meaning for a norm of 0) and the mean logarithm of the last step, NaN if there
    /// was none.
    #[inline(always)]
    pub const fn new(dz_norm: f32, log: f64, level: f64, clamp: f64) -> Self {
        if dz_norm == 0.0 {
            Self::Zero
        } else if log < level - clamp {
            Self::Faint
        } else {
            Self::Log(log)
        }
    }
}

/// A sum beyond this, 2^53, is of no rows.
pub const LARGEST_SUM: f64 = 9_007_199_254_740_992.0;

/// Whether rows can have sums with these of the first scalars.
#[inline(always)]
pub const fn are_sums_of_rows(present: f64, log_sum: f64, vanished: f64, faint: f64) -> bool {
    let least = grid::LEAST_WEIGHT;
    let is_weight = (present == 0.0 || present >= least) && vanished >= 0.0 && faint >= 0.0 && faint <= vanished;
    // A target is rounded after the root, so that a row of the least root may exceed the bound by as much.
    is_weight && log_sum.abs() <= 2.0 * grid::LARGEST_TARGET * present
}

/// Conjugate-gradient iterations of a step: more did not lower the tail error on recorded steps
/// (docs/norm-predictor.md).
pub const ITERATIONS: u32 = 8;

/// Squared residual, relative to the right side's, at which the solution is exact for our purpose.
pub const TOLERANCE: f64 = 1e-20;

/// Where a step's sums lie: scalars, then Σωx of the rows that have a logarithm, Σωx of those that vanish, Σωyx (r
/// each), then the upper triangle of Σωxxᵀ, row by row.
pub mod sums {
    /// Σω of the rows with a logarithm.
    pub const PRESENT: usize = 0;
    /// Σωy over them.
    pub const LOG_SUM: usize = 1;
    /// Σω of the rows whose norm vanishes.
    pub const VANISHED: usize = 2;
    /// Σω of those among them whose norm is small but not zero.
    pub const FAINT: usize = 3;
    /// The first of the sums that tell how far to trust cached norms.
    pub const BLEND: usize = 4;
    /// How many those are.
    pub const BLEND_SUMS: usize = 5;
    /// How many scalars there are.
    pub const SCALARS: usize = BLEND + BLEND_SUMS;

    /// How many sums there are for a number of features.
    #[inline(always)]
    pub const fn len(features: usize) -> usize {
        triangle(features, features)
    }

    /// Where row i of the triangle begins, with its entry (i, i).
    #[inline(always)]
    pub const fn triangle(features: usize, i: usize) -> usize {
        SCALARS + 3 * features + i * features - (i * i - i) / 2
    }
}

/// Where a predictor's numbers lie: scalars, then c (r), m (r), C (r × r).
pub mod numbers {
    /// Σω‖x‖² with forgetting.
    pub const TRACE: usize = 0;
    /// b.
    pub const INTERCEPT: usize = 1;
    /// Mean log‖dZ‖ of the last step's rows that had one; NaN for none.
    pub const LEVEL: usize = 2;
    /// b less the level, as the last step that was learned from left them: what guesses are bounded about.
    pub const OFFSET: usize = 3;
    /// How to move a guess towards a cached norm.
    pub const BLEND: usize = 4;
    /// How many scalars there are.
    pub const SCALARS: usize = BLEND + super::sums::BLEND_SUMS;

    /// How many numbers there are for a number of features.
    #[inline(always)]
    pub const fn len(features: usize) -> usize {
        SCALARS + 2 * features + features * features
    }
}
