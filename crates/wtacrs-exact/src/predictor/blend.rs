//! How far to move a guess g towards a remembered log-norm c: the fit of log‖dZ_i‖ ≈ g_i + α + β(c_i − g_i).

use super::layout::sums::BLEND_SUMS;

/// The cached log-norm (−∞ for a norm of zero) less the guess, bounded: a remembered zero is a very small norm, not an
/// infinite distance.
#[inline(always)]
pub const fn distance(cached_log: f64, guess: f64, clamp: f64) -> f64 {
    (cached_log - guess).max(-clamp).min(clamp)
}

/// The fit's ridge, as a share of Σd².
const RIDGE: f64 = 1e-2;

/// α and β, from n, Σd, Σe, Σd², Σde; nothing moves where nothing was learned. β lies in [0, 1]: between the guess and the
/// cache.
#[inline(always)]
pub const fn solve(sums: &[f64; BLEND_SUMS]) -> (f64, f64) {
    let [n, d, e, dd, de] = *sums;
    if n <= 0.0 || dd <= 0.0 {
        return (0.0, 0.0);
    }
    let (variance, covariance) = (dd - d * d / n, de - d * e / n);
    let slope = (covariance / (variance + RIDGE * dd)).clamp(0.0, 1.0);
    if slope.is_finite() { ((e - slope * d) / n, slope) } else { (0.0, 0.0) }
}
