//! The cached norm as one more feature: how far to move a guess g towards a remembered log-norm c.
//!
//! log‖dZ_i‖ ≈ g_i + α + β(c_i − g_i), fitted by least squares over the rows that have a c_i, with the guess g_i that
//! was made before their gradients were seen. A row without a cached norm keeps its g_i, and the fit costs five sums,
//! where a column more in the statistics would need a made-up value for such rows.

use crate::predictor_rules::{blend, sums};

pub(super) use crate::predictor_rules::blend::solve;

/// n, Σd, Σe, Σd², Σde, with d = c − g, e = log‖dZ‖ − g, each row counted with its weight.
pub(super) const SUMS: usize = sums::BLEND_SUMS;

/// The cached log-norm less the guess, bounded.
pub(super) fn distance(cached: f32, guess: f64, clamp: f64) -> f64 {
    blend::distance(f64::from(cached).ln(), guess, clamp)
}

/// One row, its distance and error times its `root`, of which the weight is the square.
pub(super) fn add(sums: &mut [f64], root: f64, distance: f64, error: f64) {
    let terms = [root * root, root * distance, root * error, distance * distance, distance * error];
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_planted_blend() {
        let mut sums = [0.0; SUMS];
        assert_eq!(solve(&sums), (0.0, 0.0));
        for i in 0..100 {
            let d = f64::from(i % 13) - 6.0;
            add(&mut sums, 2.0, 2.0 * d, 2.0 * (0.7 * d + 0.2));
        }
        let (shift, slope) = solve(&sums);
        assert!((shift - 0.2).abs() < 1e-2 && (slope - 0.7).abs() < 1e-2, "{shift} {slope}");
        assert_eq!(distance(0.0, 1.0, 6.0), -6.0);
        assert_eq!(distance(1.0, 1.0, 6.0), -1.0);
    }

    #[test]
    fn a_constant_distance_shifts_only() {
        let mut sums = [0.0; SUMS];
        (0..10).for_each(|_| add(&mut sums, 1.0, 3.0, 1.0));
        let (shift, slope) = solve(&sums);
        assert!((shift + slope * 3.0 - 1.0).abs() < 1e-9);
    }
}
