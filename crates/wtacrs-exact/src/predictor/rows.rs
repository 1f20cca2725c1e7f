//! The rows of a step: which are learned from, what they count, and what each teaches.

use super::grid;

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

/// The largest sum that rows can have: 2^53.
pub const LARGEST_SUM: f64 = 9_007_199_254_740_992.0;

/// Whether rows can have sums with these of the first scalars.
#[inline(always)]
pub const fn are_sums_of_rows(present: f64, log_sum: f64, vanished: f64, faint: f64) -> bool {
    let least = grid::LEAST_WEIGHT;
    let is_weight = (present == 0.0 || present >= least) && vanished >= 0.0 && faint >= 0.0 && faint <= vanished;
    // A target is rounded after the root, so that a row of the least root may exceed the bound by as much.
    is_weight && log_sum.abs() <= 2.0 * grid::LARGEST_TARGET * present
}
