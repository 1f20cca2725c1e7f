//! The sums that one step adds to what a predictor knows.
//!
//! Over the step's kept rows, with weight ω, features x in R^r and y = log‖dZ‖, they are Σω, Σωy, Σωx, Σωyx and
//! Σωxxᵀ, and Σω, Σωx once more for the rows whose norm vanishes, as their y is known only when the step's mean is.
//! So the sums of several ranks add up to those of all their rows, and exactly so, as [`grid`] says.

use super::settings::{PredictorError, check_len};
use super::square;
use crate::parallel;
use wtacrs_exact::predictor::sums::{self, BLEND, FAINT, LOG_SUM, PRESENT, SCALARS, VANISHED};
use wtacrs_exact::predictor::{LARGEST_SUM, Target, are_sums_of_rows, blend, grid};

/// n, Σd, Σe, Σd², Σde, with d = c − g, e = log‖dZ‖ − g, each row counted with its weight.
pub(super) const BLEND_SUMS: usize = sums::BLEND_SUMS;

/// One step's sums, to be added over ranks before [`NormPredictor::apply`](super::NormPredictor::apply).
///
/// An all-reduce may add [`Self::sums`] in place: every entry is a plain sum over rows, and exact for up to 2^20 rows over all ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct StepStatistics {
    features: usize,
    /// The scalars above, then Σωx (present), Σωx (vanished), Σωyx, then the upper triangle of Σωxxᵀ, row by row.
    sums: Vec<f64>,
}

/// One kept row: √ω, and what is known of its ‖dZ‖.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) root: f64,
    pub(super) target: Target,
    /// The cached log-norm less the guess, and the true one less the guess, both times √ω.
    pub(super) blend: Option<(f64, f64)>,
}

impl StepStatistics {
    /// `x` holds the rows' features times √ω on the grid, rows × [`square::stride`].
    pub(super) fn new(features: usize, x: &[i32], rows: &[Row]) -> Self {
        let mut sums = vec![0.0; Self::len(features)];
        let (head, triangle) = sums.split_at_mut(SCALARS + 3 * features);
        parallel::join(|| add_rows(features, x, rows, head), || square::upper_triangle(features, x, triangle));
        Self { features, sums }
    }

    /// Adds another rank's sums of the same step.
    ///
    /// # Errors
    ///
    /// If the other counts another number of features.
    pub fn add(&mut self, other: &Self) -> Result<(), PredictorError> {
        check_len("the other rank's sums", other.sums.len(), self.sums.len())?;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| *sum += other);
        Ok(())
    }

    /// How many sums there are for a number of features.
    pub(super) fn len(features: usize) -> usize {
        sums::len(features)
    }

    /// All sums, for an all-reduce; their order is a private matter.
    pub fn sums(&self) -> &[f64] {
        &self.sums
    }

    /// All sums, to be written by an all-reduce.
    pub fn sums_mut(&mut self) -> &mut [f64] {
        &mut self.sums
    }

    pub(super) fn check(&self) -> Result<(), PredictorError> {
        let is_valid = |sum: &f64| sum.abs() <= LARGEST_SUM;
        // Whole chunks without an early exit, so that the check runs on vectors.
        if !self.sums.chunks(64).all(|chunk| chunk.iter().fold(true, |all, sum| all & is_valid(sum)))
            && let Some((index, &value)) = self.sums.iter().enumerate().find(|(_, sum)| !is_valid(sum))
        {
            return Err(PredictorError::InvalidStatistics { index, value });
        }
        let sum = |i: usize| self.sums[i];
        if are_sums_of_rows(sum(PRESENT), sum(LOG_SUM), sum(VANISHED), sum(FAINT)) {
            return Ok(());
        }
        Err(PredictorError::InvalidStatistics { index: PRESENT, value: sum(PRESENT) })
    }

    pub(super) fn has_present(&self) -> bool {
        self.sums[PRESENT] > 0.0
    }

    pub(super) fn has_faint(&self) -> bool {
        self.sums[FAINT] > 0.0
    }

    /// Σω‖x‖²: the diagonal's sum.
    pub(super) fn trace(&self) -> f64 {
        let r = self.features;
        let triangle = &self.sums[SCALARS + 3 * r..];
        (0..r).scan(0, |at, i| Some(std::mem::replace(at, *at + r - i))).map(|at| triangle[at]).sum()
    }

    pub(super) fn blend(&self) -> &[f64] {
        &self.sums[BLEND..SCALARS]
    }

    /// The centred step; some row is present. A vanished row counts as `clamp` below the mean of the others.
    pub(super) fn centred(&self, clamp: f64) -> Centred<'_> {
        let r = self.features;
        let vector = |i: usize| &self.sums[SCALARS + i * r..][..r];
        let (present, vanished, moment) = (vector(0), vector(1), vector(2));
        let level = self.sums[LOG_SUM] / self.sums[PRESENT];
        let floor = level - clamp;
        let weight = self.sums[PRESENT] + self.sums[VANISHED];
        let mean_log = (self.sums[LOG_SUM] + floor * self.sums[VANISHED]) / weight;
        let sum: Vec<f64> = present.iter().zip(vanished).map(|(a, b)| a + b).collect();
        let moment = (0..r).map(|i| moment[i] + floor * vanished[i] - mean_log * sum[i]).collect();
        let mean = sum.iter().map(|s| s / weight).collect();
        Centred { level, mean_log, mean, sum, moment, square: &self.sums[SCALARS + 3 * r..] }
    }
}

/// The sums without products of features.
fn add_rows(features: usize, x: &[i32], rows: &[Row], head: &mut [f64]) {
    let (scalars, vectors) = head.split_at_mut(SCALARS);
    let (present, rest) = vectors.split_at_mut(features);
    let (vanished, moment) = rest.split_at_mut(features);
    let add = |sums: &mut [f64], factor: f64, x: &[i32]| {
        sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += factor * grid::feature(x));
    };
    for (x, row) in x.chunks_exact(square::stride(features)).zip(rows) {
        let weight = row.root * row.root;
        match row.target {
            Target::Log(log) => {
                let log = grid::target(log, row.root);
                scalars[PRESENT] += weight;
                scalars[LOG_SUM] += row.root * log;
                add(present, row.root, x);
                add(moment, log, x);
            }
            Target::Faint | Target::Zero => {
                scalars[VANISHED] += weight;
                scalars[FAINT] += if row.target == Target::Faint { weight } else { 0.0 };
                add(vanished, row.root, x);
            }
        }
        if let Some((distance, error)) = row.blend {
            add_blend(&mut scalars[BLEND..], row.root, distance, error);
        }
    }
}

/// A step's statistics about its own means.
pub(super) struct Centred<'a> {
    /// Mean log‖dZ‖ of the rows that have one.
    pub(super) level: f64,
    /// The same with the vanished rows at their floor.
    pub(super) mean_log: f64,
    /// Mean features.
    pub(super) mean: Vec<f64>,
    /// Σωx.
    pub(super) sum: Vec<f64>,
    /// Σω(x − x̄)(y − ȳ).
    pub(super) moment: Vec<f64>,
    /// The upper triangle of Σωxxᵀ, not centred, row by row.
    pub(super) square: &'a [f64],
}

/// The cached log-norm less the guess, bounded.
pub(super) fn blend_distance(cached: f32, guess: f64, clamp: f64) -> f64 {
    blend::distance(f64::from(cached).ln(), guess, clamp)
}

/// Adds one row to the sums of the blend: its distance and error times its `root`, of which the weight is the square.
///
/// The blend treats the cached norm as one more feature: log‖dZ_i‖ ≈ g_i + α + β(c_i − g_i), fitted by least squares over
/// the rows that have a c_i, with the guess g_i that was made before their gradients were seen. A row without a cached
/// norm keeps its g_i, and the fit costs five sums, where one more column of the statistics would need a made-up value
/// for such rows.
fn add_blend(sums: &mut [f64], root: f64, distance: f64, error: f64) {
    let terms = [root * root, root * distance, root * error, distance * distance, distance * error];
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_planted_blend() {
        let mut sums = [0.0; BLEND_SUMS];
        assert_eq!(blend::solve(&sums), (0.0, 0.0));
        for i in 0..100 {
            let d = f64::from(i % 13) - 6.0;
            add_blend(&mut sums, 2.0, 2.0 * d, 2.0 * (0.7 * d + 0.2));
        }
        let (shift, slope) = blend::solve(&sums);
        assert!((shift - 0.2).abs() < 1e-2 && (slope - 0.7).abs() < 1e-2, "{shift} {slope}");
        assert_eq!(blend_distance(0.0, 1.0, 6.0), -6.0);
        assert_eq!(blend_distance(1.0, 1.0, 6.0), -1.0);
    }

    #[test]
    fn a_constant_distance_shifts_only() {
        let mut sums = [0.0; BLEND_SUMS];
        (0..10).for_each(|_| add_blend(&mut sums, 1.0, 3.0, 1.0));
        let (shift, slope) = blend::solve(&sums);
        assert!((shift + slope * 3.0 - 1.0).abs() < 1e-9);
    }
}
