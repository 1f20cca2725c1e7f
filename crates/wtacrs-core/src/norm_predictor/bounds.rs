//! From log-norms to norms: positive, finite, and not too far from one another.

use rayon::prelude::*;

/// Farthest that the guesses' geometric mean may lie from e⁰, so that with the clamp all of them are normal in f32.
const FARTHEST_CENTRE: f64 = 60.0;

/// e^log, held within e^±clamp of the results' geometric mean.
pub(super) fn bounded(logs: &[f64], clamp: f64) -> Vec<f32> {
    let centre = centre(logs, clamp);
    let unit = centre.clamp(-FARTHEST_CENTRE, FARTHEST_CENTRE).exp() as f32;
    let guess = |log: &f64| unit * ((log - centre).clamp(-clamp, clamp) as f32).exp();
    logs.par_iter().with_min_len(1024).map(guess).collect()
}

/// The m with Σ clamp(log_i − m) = 0: the mean of what is left after clamping around it.
fn centre(logs: &[f64], clamp: f64) -> f64 {
    if logs.is_empty() {
        return 0.0;
    }
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let (mut low, mut high) =
        logs.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &log| (low.min(log), high.max(log)));
    if mean - low <= clamp && high - mean <= clamp {
        return mean;
    }
    // The sum falls as m grows.
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        let sum: f64 = logs.iter().map(|log| (log - middle).clamp(-clamp, clamp)).sum();
        if sum > 0.0 { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_is_the_mean_of_what_clamping_leaves() {
        for logs in [
            vec![0.0, 1.0, 2.0],
            vec![-100.0, 1.0, 1.0, 1.5],
            vec![-1e9, 1e9],
            vec![700.0, 701.0, 900.0],
            vec![-900.0; 3],
        ] {
            let norms = bounded(&logs, 6.0);
            assert!(norms.iter().all(|norm| norm.is_normal() && *norm > 0.0), "{logs:?} {norms:?}");
            let mean = norms.iter().map(|norm| f64::from(*norm).ln()).sum::<f64>() / norms.len() as f64;
            assert!((mean - centre(&logs, 6.0).clamp(-60.0, 60.0)).abs() < 1e-4, "{logs:?} {norms:?}");
            assert!(norms.iter().all(|norm| (f64::from(*norm).ln() - mean).abs() < 6.0001), "{logs:?} {norms:?}");
        }
        assert!(bounded(&[], 6.0).is_empty());
    }
}
