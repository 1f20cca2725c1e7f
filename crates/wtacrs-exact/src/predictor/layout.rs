//! Where a step's sums and a predictor's state lie in their arrays of f64.

/// A step's sums: scalars, then Σωx of the rows that have a logarithm, Σωx of those that vanish, Σωyx (r each), then the
/// upper triangle of Σωxxᵀ, row by row.
pub mod sums {
    /// Σω of the rows with a logarithm.
    pub const PRESENT: usize = 0;
    /// Σωy over them.
    pub const LOG_SUM: usize = 1;
    /// Σω of the rows whose norm vanishes.
    pub const VANISHED: usize = 2;
    /// Σω of those among them whose norm is small but not zero.
    pub const FAINT: usize = 3;
    /// The first of the sums from which the blend with cached norms is fitted.
    pub const BLEND: usize = 4;
    /// How many sums the blend has.
    pub const BLEND_SUMS: usize = 5;
    /// How many scalars there are.
    pub const SCALARS: usize = BLEND + BLEND_SUMS;

    /// How many sums there are for r features.
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

/// A predictor's state: scalars, then c (r), m (r), C (r × r).
pub mod state {
    /// Σω‖x‖² with forgetting.
    pub const TRACE: usize = 0;
    /// b.
    pub const INTERCEPT: usize = 1;
    /// The level: mean log‖dZ‖ of the last step's rows that had one; NaN for none.
    pub const LEVEL: usize = 2;
    /// The excess: b less the level, as the last step that was learned from left them. Guesses are bounded about it.
    pub const EXCESS: usize = 3;
    /// How a guess moves towards a cached norm.
    pub const BLEND: usize = 4;
    /// How many scalars there are.
    pub const SCALARS: usize = BLEND + super::sums::BLEND_SUMS;

    /// How many numbers there are for r features.
    #[inline(always)]
    pub const fn len(features: usize) -> usize {
        SCALARS + 2 * features + features * features
    }
}
