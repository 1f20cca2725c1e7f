//! Statistics of repeated estimates of one matrix: the size of their error, its spread, and how much of it is bias.
//!
//! With g exact, ĝ_t the estimate of trial t and d_t = ĝ_t − g, all in f64:
//! rel_error = √(mean ‖d_t‖²/‖g‖²), bias_ratio = ‖mean d_t‖² / (mean ‖d_t‖² / trials).

use ndarray::{Array2, ArrayView1, ArrayView2, Axis, Zip};
use rayon::prelude::*;
use std::time::Duration;

/// An error of at most this many times the exact product's own counts as rounding.
const ROUNDING_MARGIN: f64 = 2.0;
/// An error of at most this many times the measured rounding of an estimate is not told from it: with less distance,
/// the rounding, which repeats from trial to trial, would show as a bias.
const INDISTINCT_MARGIN: f64 = 10.0;

/// The exact matrix g in f64, and the error of rounding alone.
#[derive(Clone, Debug)]
pub struct Reference {
    exact: Array2<f64>,
    squared_norm: f64,
    /// ‖rounded − g‖²_F.
    squared_rounding: f64,
    /// Squared errors up to this count as 0, so that a design that keeps everything has no error.
    negligible: f64,
}

impl Reference {
    /// From g, and the same product in the arithmetic of the estimates.
    pub fn new(exact: Array2<f64>, rounded: ArrayView2<'_, f32>) -> Self {
        let squared_norm = exact.iter().map(|v| v * v).sum();
        let squared_rounding = squared_distance(&exact, rounded);
        Self { exact, squared_norm, squared_rounding, negligible: ROUNDING_MARGIN.powi(2) * squared_rounding }
    }

    /// ‖g‖²_F.
    pub fn squared_norm(&self) -> f64 {
        self.squared_norm
    }

    /// ‖rounded − g‖_F / ‖g‖_F of the exact product, for a g that is not zero.
    pub fn relative_rounding(&self) -> f64 {
        (self.squared_rounding / self.squared_norm).sqrt()
    }

    /// The largest absolute value of g.
    pub fn largest(&self) -> f64 {
        self.exact.iter().fold(0.0, |largest, value| value.abs().max(largest))
    }

    /// Whether the product in the arithmetic of the estimates is within f32's range.
    pub fn is_finite(&self) -> bool {
        self.negligible.is_finite()
    }
}

/// Errors of the estimates added so far.
#[derive(Debug)]
pub struct Errors<'a> {
    reference: &'a Reference,
    deviation_sum: Array2<f64>,
    squared: Vec<f64>,
}

/// The summary of [`Errors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorSummary {
    /// mean ‖ĝ − g‖²_F.
    pub mean_squared: f64,
    /// √(mean ‖ĝ − g‖²_F / ‖g‖²_F).
    pub rel_error: f64,
    /// Standard deviation over the trials of ‖ĝ − g‖_F / ‖g‖_F.
    pub rel_error_sd: f64,
    /// ‖mean ĝ − g‖² / mean ‖ĝ − g‖²: 1 if every error is the same, 1/trials on average if they are independent and
    /// without bias; `None` if there is no error.
    pub bias_share: Option<f64>,
}

impl ErrorSummary {
    /// The same without error, if that could be rounding alone. `in_f64` is what `estimate`, one of those that were added,
    /// is without rounding.
    #[must_use]
    pub fn without_rounding(self, in_f64: &Array2<f64>, estimate: ArrayView2<'_, f32>) -> Self {
        let last_place: f64 = in_f64.iter().map(|value| (value * f64::from(f32::EPSILON)).powi(2)).sum();
        let rounding = squared_distance(in_f64, estimate).max(last_place);
        if self.mean_squared > INDISTINCT_MARGIN.powi(2) * rounding {
            return self;
        }
        Self { mean_squared: 0.0, rel_error: 0.0, rel_error_sd: 0.0, bias_share: None }
    }
}

impl<'a> Errors<'a> {
    /// Without estimates.
    pub fn new(reference: &'a Reference) -> Self {
        Self { reference, deviation_sum: Array2::zeros(reference.exact.dim()), squared: Vec::new() }
    }

    /// Adds one estimate, of g's shape.
    pub fn add(&mut self, estimate: ArrayView2<'_, f32>) {
        let squared = squared_distance(&self.reference.exact, estimate);
        if squared <= self.reference.negligible {
            self.squared.push(0.0);
            return;
        }
        self.squared.push(squared);
        Zip::from(&mut self.deviation_sum)
            .and(estimate)
            .and(&self.reference.exact)
            .par_for_each(|sum, &estimate, exact| *sum += f64::from(estimate) - exact);
    }

    /// The summary of at least one estimate of a g that is not zero.
    pub fn summary(&self) -> ErrorSummary {
        let norm = self.reference.squared_norm.sqrt();
        let relative: Vec<f64> = self.squared.iter().map(|squared| squared.sqrt() / norm).collect();
        let mean_squared = mean(&self.squared);
        let estimates = self.squared.len() as f64;
        let bias = self.deviation_sum.iter().map(|sum| (sum / estimates).powi(2)).sum::<f64>();
        ErrorSummary {
            mean_squared,
            rel_error: mean_squared.sqrt() / norm,
            rel_error_sd: standard_deviation(&relative),
            bias_share: (mean_squared > 0.0).then(|| bias / mean_squared),
        }
    }
}

/// ‖estimate − exact‖²_F, summed in an order that does not depend on the number of threads.
fn squared_distance(exact: &Array2<f64>, estimate: ArrayView2<'_, f32>) -> f64 {
    let row_distance = |(estimate, exact): (ArrayView1<'_, f32>, ArrayView1<'_, f64>)| -> f64 {
        estimate.iter().zip(exact).map(|(&estimate, exact)| (f64::from(estimate) - exact).powi(2)).sum()
    };
    let rows: Vec<_> = estimate.axis_iter(Axis(0)).zip(exact.axis_iter(Axis(0))).collect();
    rows.into_par_iter().map(row_distance).collect::<Vec<f64>>().into_iter().sum()
}

/// The mean of at least one value.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The square root of the unbiased variance; 0 for fewer than two values.
fn standard_deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// The median in milliseconds, the upper one of two; 0 if nothing was timed.
pub fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn reference() -> Reference {
        Reference::new(array![[3.0, 0.0], [0.0, 4.0]], array![[3.0, 0.0], [0.0, 4.0]].view())
    }

    #[test]
    fn errors_that_cancel() {
        let reference = reference();
        let mut errors = Errors::new(&reference);
        errors.add(array![[4.0, 0.0], [0.0, 4.0]].view());
        errors.add(array![[2.0, 0.0], [0.0, 4.0]].view());
        let summary = errors.summary();
        assert_eq!(summary.mean_squared, 1.0);
        assert_eq!((summary.rel_error, summary.rel_error_sd, summary.bias_share), (0.2, 0.0, Some(0.0)));
    }

    #[test]
    fn an_error_that_repeats_is_all_bias() {
        let reference = reference();
        let mut errors = Errors::new(&reference);
        for _ in 0..5 {
            errors.add(array![[3.0, 2.0], [0.0, 4.0]].view());
        }
        assert_eq!(errors.summary().bias_share, Some(1.0));
        assert_eq!(errors.summary().rel_error, 0.4);
    }

    #[test]
    fn spread_is_that_of_relative_errors() {
        let reference = reference();
        let mut errors = Errors::new(&reference);
        errors.add(array![[4.0, 0.0], [0.0, 4.0]].view());
        errors.add(array![[6.0, 0.0], [0.0, 4.0]].view());
        let expected = (0.2_f64 - 0.4).powi(2) + (0.6_f64 - 0.4).powi(2);
        assert!((errors.summary().rel_error_sd - expected.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn rounding_is_not_an_error() {
        let exact = array![[0.1, 0.2], [0.3, 0.4]];
        let rounded = exact.mapv(|v| v as f32);
        let reference = Reference::new(exact, rounded.view());
        let mut errors = Errors::new(&reference);
        errors.add(rounded.view());
        errors.add(rounded.view());
        let summary = errors.summary();
        assert_eq!((summary.rel_error, summary.rel_error_sd, summary.bias_share), (0.0, 0.0, None));
    }

    #[test]
    fn an_error_that_could_be_rounding_is_none() {
        let reference = reference();
        let summary = |by: f32| {
            let mut errors = Errors::new(&reference);
            let estimate = array![[3.0 + by, 0.0], [0.0, 4.0]];
            errors.add(estimate.view());
            errors.add(estimate.view());
            (errors.summary(), errors.summary().without_rounding(&array![[3.0, 0.0], [0.0, 4.0]], estimate.view()))
        };
        // The estimate should have been g itself, so that all of its error is rounding.
        let (before, after) = summary(1e-6);
        assert!(before.rel_error > 0.0 && before.bias_share == Some(1.0));
        assert_eq!((after.mean_squared, after.rel_error, after.rel_error_sd, after.bias_share), (0.0, 0.0, 0.0, None));
        // One rounded in its last place, and twenty times as far off.
        let mut errors = Errors::new(&reference);
        let estimate = array![[3.0, 0.0], [0.0, 4.000_02]];
        errors.add(estimate.view());
        assert_eq!(errors.summary().without_rounding(&estimate.mapv(f64::from), estimate.view()), errors.summary());
    }

    #[test]
    fn an_overflow_shows() {
        assert!(!Reference::new(array![[1.0]], array![[f32::INFINITY]].view()).is_finite());
    }

    #[test]
    fn medians() {
        let ms = |values: &[u64]| median_ms(&mut values.iter().map(|&v| Duration::from_millis(v)).collect::<Vec<_>>());
        assert_eq!((ms(&[]), ms(&[7]), ms(&[9, 1, 5]), ms(&[4, 1, 3, 2])), (0.0, 7.0, 5.0, 3.0));
    }
}
