//! The ridge, and how long the regression is iterated.

/// λ of the ridge: a share of C's mean diagonal. A small part of the diagonal before it is centred comes with it, as
/// much as rows that hardly differ have from being rounded to the [`grid`](super::grid).
#[inline(always)]
pub const fn ridge(share: f64, diagonal_sum: f64, trace: f64, features: f64) -> f64 {
    share * (diagonal_sum + 1e-2 * trace) / features
}

/// Conjugate-gradient iterations of a step: more did not lower the tail error on recorded steps
/// (docs/norm-predictor.md).
pub const ITERATIONS: u32 = 8;

/// Squared residual, relative to the right side's, at which the solution is exact for our purpose.
pub const TOLERANCE: f64 = 1e-20;
