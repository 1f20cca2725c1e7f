//! proptest's inputs where designs break.

use ndarray::Array2;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::SizeRange;

/// Weights of one of these kinds: plain, many ties, some zeros, a huge range, one giant, all equal, all zero.
pub fn weights(pairs: impl Into<SizeRange>) -> BoxedStrategy<Vec<f64>> {
    let pairs = pairs.into();
    let plain = vec(1e-3..1e3_f64, pairs.clone());
    let ties = vec((1..=3_u8).prop_map(f64::from), pairs.clone());
    let zeros = vec(prop_oneof![Just(0.0), 0.1..1.0_f64], pairs.clone());
    let huge_range = vec((-30.0..30.0_f64).prop_map(|exponent| 10_f64.powf(exponent)), pairs.clone());
    let giant = (vec(0.5..1.5_f64, pairs.clone()), any::<prop::sample::Index>()).prop_map(|(mut weights, at)| {
        if !weights.is_empty() {
            let at = at.index(weights.len());
            weights[at] = 1e12;
        }
        weights
    });
    let equal = (vec(Just(1.0), pairs.clone()), 1e-20..1e20_f64)
        .prop_map(|(ones, value)| ones.into_iter().map(|one: f64| one * value).collect());
    let zero = vec(Just(0.0), pairs);
    prop_oneof![4 => plain, 3 => ties, 3 => zeros, 3 => huge_range, 3 => giant, 1 => equal, 1 => zero].boxed()
}

/// rows × columns with entries of mixed sizes and signs, some rows zero.
pub fn matrix(rows: usize, columns: usize) -> BoxedStrategy<Array2<f64>> {
    let entries = vec(-1.0..1.0_f64, rows * columns);
    let row_sizes = vec(prop_oneof![1 => Just(0.0), 9 => (-3.0..3.0_f64).prop_map(f64::exp)], rows);
    (entries, row_sizes)
        .prop_map(move |(entries, row_sizes)| {
            Array2::from_shape_fn((rows, columns), |(i, j)| entries[i * columns + j] * row_sizes[i])
        })
        .boxed()
}
