//! Random sign projections of a row, r numbers for in_features, without a stored matrix.
//!
//! P (r × in_features) = W · F · D: D flips signs at random, F folds column j onto place j mod n (n = r rounded up to a
//! power of two), and W is the first r rows of the n × n Walsh-Hadamard matrix of entries 1 and −1. These are the first
//! r rows of the Walsh-Hadamard transform of all columns, at the cost of one fold and a transform of n: n log₂ n
//! additions. With r ≥ in_features nothing is folded, and no information is lost. For a row of length one a
//! feature has a standard deviation of one over the signs, whatever in_features and r are.

use crate::element::{Accumulator, Element};
use crate::rows::walsh_hadamard;
use ndarray::ArrayView1;
use wtacrs_exact::philox;

/// Keeps these bits apart from those of designs under the same seed (in the counter's top word).
const TAG: u128 = 0x7774_6670 << 96;

/// The projection P.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    /// One for each column of H: 1 or −1.
    signs: Vec<f32>,
    /// n, a power of two.
    width: usize,
    features: usize,
}

impl Projection {
    pub(super) fn new(in_features: usize, features: usize, seed: u64) -> Self {
        let width = features.min(in_features).next_power_of_two();
        let sign = |j: usize| {
            let bits = philox::bits(TAG | (j / 128) as u128, seed);
            if bits >> (j % 128) & 1 == 0 { 1.0 } else { -1.0 }
        };
        Self { signs: (0..in_features).map(sign).collect(), width, features: features.min(width) }
    }

    pub(super) fn in_features(&self) -> usize {
        self.signs.len()
    }

    /// r, which is never more than in_features rounded up to a power of two.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    /// One for each column of H: 1 or −1.
    pub(super) fn signs(&self) -> &[f32] {
        &self.signs
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.signs)
    }

    /// `features` ← P·row/‖row‖, for a row of finite, positive norm.
    pub(super) fn project<T: Element>(&self, row: ArrayView1<'_, T>, norm: f32, features: &mut [f64]) {
        // A power of two brings the row near length one, exactly, so that sums of extreme elements stay finite.
        let exponent = (-f64::from(norm).log2().floor()).clamp(-126.0, 126.0);
        let unit = exponent.exp2();
        let prescale = T::Accumulator::from_f64(unit);
        let zero = T::Accumulator::ZERO;
        let mut folded = vec![zero; self.width];
        let mut widened = vec![zero; self.width];
        for (i, signs) in self.signs.chunks(self.width).enumerate() {
            let first = i * self.width;
            let block = match row.as_slice() {
                Some(row) => T::widen_block(&row[first..first + signs.len()], &mut widened),
                None => {
                    let elements = row.iter().skip(first).take(signs.len());
                    widened.iter_mut().zip(elements).for_each(|(to, from)| *to = from.widen());
                    &widened[..signs.len()]
                }
            };
            for ((sum, &value), &sign) in folded.iter_mut().zip(block).zip(signs) {
                *sum += value * prescale * T::Accumulator::from_f64(sign.into());
            }
        }
        walsh_hadamard(&mut folded, 1);
        let scale = 1.0 / (f64::from(norm) * unit);
        for (feature, &sum) in features.iter_mut().zip(&folded) {
            *feature = sum.to_f64() * scale;
        }
    }

    /// θ = Pᵀ·coefficients, so that θ·h = coefficients·(P·h).
    pub(super) fn combine(&self, coefficients: &[f64]) -> Vec<f64> {
        let mut spread = vec![0.0; self.width];
        spread[..self.features].copy_from_slice(coefficients);
        walsh_hadamard(&mut spread, 1);
        self.signs.iter().enumerate().map(|(j, &sign)| f64::from(sign) * spread[j % self.width]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use ndarray::Array1;

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn norm(row: &Array1<f32>) -> f32 {
        row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() as f32
    }

    #[test]
    fn equals_the_matrix_that_is_not_stored() {
        for (in_features, features) in [(1, 1), (20, 8), (20, 256), (300, 64), (300, 100), (1536, 256)] {
            let projection = Projection::new(in_features, features, 5);
            let r = projection.features();
            assert_eq!(r, features.min(in_features.next_power_of_two()));
            let row = Array1::from_shape_fn(in_features, |j| ((j * 7) % 11) as f32 - 4.5);
            let mut found = vec![0.0; r];
            projection.project(row.view(), norm(&row), &mut found);
            let naive = |i: usize| {
                let walsh = |j: usize| 1.0 - 2.0 * f64::from((i & (j % projection.width)).count_ones() % 2);
                let sum: f64 = (0..in_features).map(|j| walsh(j) * f64::from(projection.signs[j] * row[j])).sum();
                sum / f64::from(norm(&row))
            };
            for (i, &feature) in found.iter().enumerate() {
                assert!((feature - naive(i)).abs() < 1e-4, "{in_features} {features} {i}: {feature} {}", naive(i));
            }
            // θ·h is the same number as coefficients·(P·h).
            let coefficients: Vec<f64> = (0..r).map(|i| (i % 5) as f64 - 2.0).collect();
            let theta = projection.combine(&coefficients);
            let wide: Vec<f64> = row.iter().map(|&v| f64::from(v / norm(&row))).collect();
            assert!((dot(&theta, &wide) - dot(&coefficients, &found)).abs() < 1e-3);
            if features >= in_features {
                assert!((dot(&found, &found) / projection.width as f64 - 1.0).abs() < 1e-5, "lossless");
            }
        }
    }

    #[test]
    fn extremes_and_types() {
        let projection = Projection::new(300, 64, 1);
        let row = Array1::from_shape_fn(300, |j| ((j * 7) % 16) as f32 / 8.0 - 1.0);
        let mut expected = vec![0.0; 64];
        projection.project(row.view(), norm(&row), &mut expected);
        for factor in [f32::MIN_POSITIVE, 2e-30, 3e30, f32::MAX / 32.0] {
            let scaled = &row * factor;
            let mut found = vec![0.0; 64];
            projection.project(scaled.view(), norm(&scaled), &mut found);
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{factor}");
        }
        let mut found = vec![0.0; 64];
        projection.project(row.mapv(bf16::from_f32).view(), norm(&row), &mut found);
        assert_eq!(found, expected);
        let reversed = Array1::from_iter(row.iter().rev().copied());
        projection.project(reversed.slice(ndarray::s![..;-1]), norm(&row), &mut found);
        assert_eq!(found, expected);
    }

    #[test]
    fn signs_are_balanced_and_seeded() {
        let signs = |seed| Projection::new(4096, 256, seed).signs;
        assert!(signs(0).iter().sum::<f32>().abs() < 5.0 * 64.0);
        assert_ne!(signs(0), signs(1));
        assert_eq!(signs(3), signs(3));
    }
}
