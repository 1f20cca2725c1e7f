//! Shared by the benches: test data, and ratios of times that hold on a noisy machine.
//!
//! Criterion times each case by itself, minutes apart from the others. A ratio of two such times carries whatever the
//! machine did in between. [`median_times`] runs all cases in turn, round after round, and takes the median of each, so
//! the compared times were measured under the same conditions.

use ndarray::Array2;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};
use wtacrs_core::rand_core::Rng;
use wtacrs_core::sampling::Philox4x32_10;

/// One case of a comparison.
pub struct Case<'a> {
    /// Its name.
    pub name: &'a str,
    /// One run of it.
    pub run: Box<dyn FnMut() + 'a>,
}

impl<'a> Case<'a> {
    /// A case.
    pub fn new(name: &'a str, run: impl FnMut() + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Each case's median time over `rounds` rounds, after one round to warm up.
pub fn median_times(cases: &mut [Case<'_>], rounds: usize) -> Vec<Duration> {
    time_quantiles(cases, rounds, 0.5)
}

/// The `quantile` of each case's time over `rounds` rounds, after one round to warm up. A low quantile suits cases that
/// are far shorter than a scheduler's time slice, since other users of the machine can only make them slower.
pub fn time_quantiles(cases: &mut [Case<'_>], rounds: usize, quantile: f64) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..=rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            let start = Instant::now();
            (case.run)();
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            times.get((times.len() as f64 * quantile) as usize).copied().unwrap_or_default()
        })
        .collect()
}

/// Whether every bench is to run only once: in `cargo test --benches` and `cargo bench -- --test`.
pub fn test_mode() -> bool {
    let args: Vec<String> = std::env::args().collect();
    args.iter().any(|arg| arg == "--test") || !args.iter().any(|arg| arg == "--bench")
}

/// A matrix (rows × columns) like a layer's: the sizes of rows are spread over two orders of magnitude.
pub fn layer_like(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let unit = |index: u64| {
        let bits = Philox4x32_10::new(seed, index).next_u64();
        (bits >> 40) as f32 / (1 << 24) as f32
    };
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let size = (6.0 * unit(i as u64) - 3.0).exp();
        size * (unit((1 << 40) + (i * columns + j) as u64) - 0.5)
    })
}

/// The bytes a second that all cores together read from a buffer far larger than any cache.
pub fn read_bandwidth() -> f64 {
    let words: usize = if test_mode() { 1 << 20 } else { 1 << 26 };
    let buffer = vec![1_u64; words];
    let read =
        || buffer.par_chunks(1 << 16).map(|chunk| chunk.iter().fold(0_u64, |a, b| a ^ b)).reduce(|| 0, |a, b| a ^ b);
    let mut cases = [Case::new("read", || {
        black_box(read());
    })];
    let time = median_times(&mut cases, if test_mode() { 1 } else { 11 })[0];
    size_of_val::<[u64]>(&buffer) as f64 / time.as_secs_f64()
}

/// A duration in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
