//! What a kept pair's product is multiplied by, where that is more than 1/π of a [`Threshold`].

use crate::threshold::Threshold;

/// Of a pair drawn `count` times: count/π, and 1 for a winner, which counts once.
#[inline]
pub const fn repeated(count: u32, threshold: &Threshold, weight: u64) -> f64 {
    count as f64 * threshold.scale(weight)
}

/// Of a pair drawn `count` times out of `draws` with probability weight/total: count / (draws · p).
#[inline]
pub const fn crs(count: u32, total: u64, draws: usize, weight: u64) -> f64 {
    count as f64 * total as f64 / (draws as f64 * weight as f64)
}

/// Of each of `places` out of `pairs` equally likely pairs.
#[inline]
pub const fn uniform(pairs: usize, places: usize) -> f64 {
    pairs as f64 / places as f64
}
