//! What the benches share: data, and ratios that a noisy machine cannot bend.
//!
//! Criterion times each case by itself, minutes apart from the others. A ratio of two such times carries whatever the
//! machine did in between. [`interleaved`] runs all cases in turn, round after round, and takes each one's median, so
//! that what it compares was measured under the same conditions.

use ndarray::Array2;
use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};
use wtacrs_core::rand_core::Rng;
use wtacrs_core::sampling::Philox4x32_10;

/// One case of a comparison.
pub struct Case<'a> {
    /// How tables call it.
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
pub fn interleaved(cases: &mut [Case<'_>], rounds: usize) -> Vec<Duration> {
    interleaved_quantile(cases, rounds, 0.5)
}

/// The time that a share `quantile` of each case's rounds was faster than, after one round to warm up. A low quantile
/// suits cases far shorter than a scheduler's time slice: other users of the machine only ever add to them.
pub fn interleaved_quantile(cases: &mut [Case<'_>], rounds: usize, quantile: f64) -> Vec<Duration> {
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

/// Whether the benches are only to be run once, as `cargo test --benches` and `cargo bench -- --test` ask.
pub fn test_mode() -> bool {
    let args: Vec<String> = std::env::args().collect();
    args.iter().any(|arg| arg == "--test") || !args.iter().any(|arg| arg == "--bench")
}

/// rows × columns of numbers as a layer's might be: row sizes spread over two orders of magnitude.
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

/// Bytes a second that all cores read together, from a buffer far larger than any cache.
pub fn read_bandwidth() -> f64 {
    let words: usize = if test_mode() { 1 << 20 } else { 1 << 26 };
    let buffer = vec![1_u64; words];
    let read =
        || buffer.par_chunks(1 << 16).map(|chunk| chunk.iter().fold(0_u64, |a, b| a ^ b)).reduce(|| 0, |a, b| a ^ b);
    let mut cases = [Case::new("read", || {
        black_box(read());
    })];
    let time = interleaved(&mut cases, if test_mode() { 1 } else { 11 })[0];
    size_of_val::<[u64]>(&buffer) as f64 / time.as_secs_f64()
}

/// A duration in milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
