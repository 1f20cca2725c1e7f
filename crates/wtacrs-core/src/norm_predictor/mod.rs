//! A guess of ‖dZ_i‖ from h_i: the weights' other half in a forward pass, learned online and without a cache.
//!
//! ```text
//! log‖dZ_i‖ ≈ c · P(h_i/‖h_i‖) + b = θ · h_i/‖h_i‖ + b,   P (r × in_features), c (r), θ = Pᵀc (in_features)
//! ```
//!
//! The logarithm of a token's gradient norm is largely linear in its activation. Each step's kept rows, of which the
//! backward pass knows the exact norm, teach a ridge regression with forgetting on r random projections of h, and the
//! next forward pass guesses every token by one dot product, in the pass over H that its norms need anyway. A guess
//! sets inclusion probabilities only: a bad one costs variance, and can bring no bias as long as no weight is zero,
//! which the clamp sees to.
//!
//! One step, with ω_i the square root of the scale 1/π_i of kept row i, x_i = P(h_i/‖h_i‖) and y_i = log‖dZ_i‖:
//!
//! ```text
//! C ← φC + Σ ω_i (x_i − x̄)(x_i − x̄)ᵀ        (r × r; φ is the forgetting, x̄ and ȳ the step's own means)
//! m ← φm + Σ ω_i (x_i − x̄)(y_i − ȳ)         (r)
//! c ← a few conjugate-gradient iterations from c towards (C + λI)⁻¹ m,   θ ← Pᵀc,   b ← ȳ − c·x̄
//! ```
//!
//! Centring each step by its own means makes a change of scale, from a loss scaler or from the loss itself, invisible
//! to C and m. docs/norm-predictor.md has the reasons and the measurements.

mod blend;
mod bounds;
mod bytes;
mod error;
mod features;
mod numbers;
mod settings;
mod solve;
mod square;
mod statistics;

pub use self::error::PredictorError;
pub use self::settings::Settings;
pub use self::statistics::StepStatistics;

use self::blend::SUMS;
use self::bounds::Bounds;
use self::error::{check_cached, check_len, check_norms};
use self::features::Projection;
use self::statistics::Row;
use crate::element::Element;
use crate::predictor_rules::{self, LARGEST_VALID_SCALE, Target, chosen_row, grid, squared_weight};
use crate::product;
use ndarray::{ArrayView1, ArrayView2, Axis, aview1};
use rayon::prelude::*;

/// Kept rows whose features are computed by one task.
const ROWS_PER_TASK: usize = 16;

/// What is known of a batch's tokens in the forward pass, one entry each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guess {
    /// ‖h_i‖, as [`product::row_norms`] gives them.
    pub input_norms: Vec<f32>,
    /// The guess of ‖dZ_i‖: positive and finite.
    pub dz_norms: Vec<f32>,
}

/// An online guess of one layer's ‖dZ_i‖, or of √(Σ_l ‖dZ_i^l‖²) for layers that share H.
///
/// # Example
///
/// ```
/// use ndarray::{Array2, Axis};
/// use wtacrs_core::norm_predictor::{NormPredictor, Settings};
/// use wtacrs_core::{Keep, Weights, design::{BuiltIn, Design}, product};
///
/// let mut predictor = NormPredictor::new(8, Settings::default())?;
/// # let h = Array2::from_shape_fn((64, 8), |(i, j)| ((i * 5 + j * 3) % 7) as f32 - 2.9);
/// # let dz = &h;
/// // forward
/// let guess = predictor.guess(h.view())?;
/// let weights = Weights::from_norms(&guess.input_norms, &guess.dz_norms)?;
/// let selection = BuiltIn::WtaPivotal.select_seeded(&weights, weights.budget(Keep::Fraction(0.3))?, 0, 0);
/// let kept = product::gather(h.view(), &selection)?;
/// // backward
/// let norms = product::row_norms(dz.view());
/// let kept_norms: Vec<f32> = selection.indices().iter().map(|&i| norms[i as usize]).collect();
/// predictor.update(kept.view(), &kept_norms, selection.scales())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Performance
///
/// [`Self::guess`] reads H once. [`Self::update`] costs O(rows · (in_features + r²) + r²) for at most
/// [`Settings::rows_per_update`] rows, whatever the number of tokens. The state is about 8 r² bytes.
///
/// # Numerics
///
/// Statistics are in f64 and summed in an order fixed by shapes: results are the same for every number of threads.
///
/// `Send` and `Sync`; guesses may be made concurrently.
#[derive(Clone, Debug)]
pub struct NormPredictor {
    settings: Settings,
    projection: Projection,
    /// C, r × r, row by row.
    covariance: Vec<f64>,
    /// m.
    moment: Vec<f64>,
    /// Σω‖x‖² with forgetting, not centred: what the ridge is measured by.
    trace: f64,
    /// c.
    coefficients: Vec<f64>,
    /// b.
    intercept: f64,
    /// θ, made of c.
    theta: Vec<f64>,
    /// Mean log‖dZ‖ of the last step's rows that had one; none before the first.
    level: Option<f64>,
    /// b less the level, as the last step that was learned from left them.
    offset: f64,
    /// How to move a guess towards a cached norm.
    blend: [f64; SUMS],
}

impl NormPredictor {
    /// A predictor that knows nothing yet, for a layer whose H is tokens × `in_features`.
    ///
    /// # Errors
    ///
    /// A setting out of range, or no input features.
    pub fn new(in_features: usize, settings: Settings) -> Result<Self, PredictorError> {
        settings.check(in_features)?;
        let projection = Projection::new(in_features, settings.features, settings.seed);
        let r = projection.features();
        Ok(Self {
            settings,
            covariance: vec![0.0; r * r],
            moment: vec![0.0; r],
            trace: 0.0,
            coefficients: vec![0.0; r],
            intercept: 0.0,
            theta: vec![0.0; in_features],
            level: None,
            offset: 0.0,
            blend: [0.0; SUMS],
            projection,
        })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Columns of H.
    pub fn in_features(&self) -> usize {
        self.projection.in_features()
    }

    /// Bytes of its state.
    pub fn bytes(&self) -> usize {
        let numbers = self.covariance.len() + self.moment.len() + self.coefficients.len() + self.theta.len();
        size_of::<Self>() + numbers * size_of::<f64>() + self.projection.bytes()
    }

    /// ‖h_i‖ and a guess of ‖dZ_i‖ for every row of H (tokens × in_features), in one pass over H.
    ///
    /// Guesses are positive, finite and within e^±clamp of the last step's geometric mean, and all equal before the
    /// first update. A row whose norm is not finite gets an average guess and keeps its norm, which
    /// [`Weights::from_norms`](crate::Weights::from_norms) will refuse by its index.
    ///
    /// # Errors
    ///
    /// If H has another number of columns.
    pub fn guess<T: Element>(&self, h: ArrayView2<'_, T>) -> Result<Guess, PredictorError> {
        self.check_columns(h)?;
        let bounds = self.bounds();
        Ok(self.pass(h, |_, logs| bounds.apply(logs)))
    }

    /// [`Self::guess`] with the norms that a [`NormCache`](crate::norm_cache::NormCache) remembers, as far as it does.
    ///
    /// # Errors
    ///
    /// Another number of columns; not one entry for each row; a cached norm that is negative or not finite.
    pub fn guess_with_cache<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        cached: &[Option<f32>],
    ) -> Result<Guess, PredictorError> {
        self.check_columns(h)?;
        check_cached(cached, h.nrows())?;
        let (shift, slope) = blend::solve(&self.blend);
        let bounds = self.bounds();
        Ok(self.pass(h, |first, logs| {
            for (log, cached) in logs.iter_mut().zip(&cached[first..]) {
                if let Some(cached) = *cached {
                    let guess = self.intercept + f64::from(*log);
                    *log += (shift + slope * blend::distance(cached, guess, self.settings.clamp)) as f32;
                }
            }
            bounds.apply(logs);
        }))
    }

    /// Learns from kept rows of H, unscaled (kept × in_features), their exact ‖dZ‖, and their scales 1/π.
    ///
    /// A row whose norm is zero, or below e^−clamp of the last step's geometric mean, is learned as e^−clamp of this
    /// step's. Nothing is learned from a step without any other row, nor from a row of scale zero.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit; a norm that is negative or not finite, a row of H with such a norm, or an invalid scale.
    pub fn update<T: Element>(
        &mut self,
        rows: ArrayView2<'_, T>,
        dz_norms: &[f32],
        scales: &[f64],
    ) -> Result<(), PredictorError> {
        self.apply(&self.statistics(rows, dz_norms, scales, None)?)
    }

    /// [`Self::update`] that also learns how far to trust the norms that were cached for these rows.
    ///
    /// # Errors
    ///
    /// As for [`Self::update`]; also for the cached norms.
    pub fn update_with_cache<T: Element>(
        &mut self,
        rows: ArrayView2<'_, T>,
        dz_norms: &[f32],
        scales: &[f64],
        cached: &[Option<f32>],
    ) -> Result<(), PredictorError> {
        self.apply(&self.statistics(rows, dz_norms, scales, Some(cached))?)
    }

    /// The sums that one rank's rows bring to a step: `update` is `statistics`, added over ranks, then [`Self::apply`].
    ///
    /// Ranks whose predictors are equal, and which apply the same added sums, stay equal. Sums are exact: those of any
    /// parts, added in any order, are those of the whole to the bit, as long as no part exceeds
    /// [`Settings::rows_per_update`] and all of them 2^20 rows.
    ///
    /// # Errors
    ///
    /// As for [`Self::update_with_cache`].
    pub fn statistics<T: Element>(
        &self,
        rows: ArrayView2<'_, T>,
        dz_norms: &[f32],
        scales: &[f64],
        cached: Option<&[Option<f32>]>,
    ) -> Result<StepStatistics, PredictorError> {
        self.check_columns(rows)?;
        let given = rows.nrows();
        check_len("the norms of dZ", dz_norms.len(), given)?;
        check_len("the scales", scales.len(), given)?;
        check_norms("the norm of dZ", dz_norms)?;
        if let Some(cached) = cached {
            check_cached(cached, given)?;
        }
        if let Some((index, &value)) = scales.iter().enumerate().find(|(_, s)| !(0.0..=LARGEST_VALID_SCALE).contains(*s)) {
            return Err(PredictorError::InvalidScale { index, value });
        }

        let count = given.min(self.settings.rows_per_update);
        let chosen: Vec<usize> = (0..count).map(|i| chosen_row(i as u64, given as u64, count as u64) as usize).collect();
        let share = if count > 0 { given as f64 / count as f64 } else { 1.0 };
        let r = self.projection.features();
        let stride = square::stride(r);
        let mut x = vec![0; count * stride];
        let learn = |features: &mut Vec<f64>, (x, &i): (&mut [i32], &usize)| {
            let cached = cached.and_then(|cached| cached[i]);
            features.fill(0.0);
            self.row(rows.index_axis(Axis(0), i), dz_norms[i], share * scales[i], cached, features, x)
        };
        let tasks = x.par_chunks_mut(stride).zip(&chosen).with_min_len(ROWS_PER_TASK);
        let facts: Vec<Result<Row, f32>> = tasks.map_init(|| vec![0.0; r], learn).collect();
        let named = |(fact, &index): (Result<Row, f32>, &usize)| {
            fact.map_err(|value| PredictorError::InvalidNorm { what: "the norm of H's row", index, value })
        };
        let facts = facts.into_iter().zip(&chosen).map(named).collect::<Result<Vec<Row>, _>>()?;
        Ok(StepStatistics::new(r, &x, &facts))
    }

    /// Learns from one step's sums, over all ranks.
    ///
    /// # Errors
    ///
    /// Sums of another number of features, or that no rows can have.
    pub fn apply(&mut self, step: &StepStatistics) -> Result<(), PredictorError> {
        let r = self.projection.features();
        check_len("the step's sums", step.sums().len(), StepStatistics::len(r))?;
        step.check()?;
        if !step.has_present() {
            if step.has_faint() {
                // The scale has fallen by more than the clamp: what is faint is to be found anew.
                self.level = None;
            }
            return Ok(());
        }
        let Settings { forgetting, ridge, clamp, .. } = self.settings;
        let centred = step.centred(clamp);
        let mut squares = centred.square;
        for (i, (row, mean)) in self.covariance.chunks_exact_mut(r).zip(&centred.mean).enumerate() {
            let (of_row, rest) = squares.split_at(r - i);
            squares = rest;
            for ((entry, square), sum) in row[i..].iter_mut().zip(of_row).zip(&centred.sum[i..]) {
                *entry = forgetting * *entry + (square - mean * sum);
            }
        }
        square::mirror(r, &mut self.covariance);
        decay_and_add(&mut self.moment, forgetting, &centred.moment);
        decay_and_add(&mut self.blend, forgetting, step.blend());
        self.trace = forgetting * self.trace + step.trace();
        let diagonal_sum: f64 = self.covariance.iter().step_by(r + 1).sum();
        let ridge = predictor_rules::ridge(ridge, diagonal_sum, self.trace, r as f64);
        solve::improve(&self.covariance, ridge, &self.moment, &mut self.coefficients);
        self.theta = self.projection.combine(&self.coefficients);
        let explained: f64 = self.coefficients.iter().zip(&centred.mean).map(|(c, x)| c * x).sum();
        self.intercept = centred.mean_log - explained;
        self.level = Some(centred.level);
        self.offset = self.intercept - centred.level;
        Ok(())
    }

    /// ‖h_i‖, and what `norms` makes, in place, of log-norms less b, θ·h_i/‖h_i‖, from some row on.
    fn pass<T: Element>(&self, h: ArrayView2<'_, T>, norms: impl Fn(usize, &mut [f32]) + Sync) -> Guess {
        let (mut input_norms, mut dz_norms) = (vec![0.0; h.nrows()], vec![0.0; h.nrows()]);
        if self.has_learned() {
            product::row_norms_and_components(h, &self.theta, &mut input_norms, &mut dz_norms, norms);
        } else {
            input_norms = product::row_norms(h);
            norms(0, &mut dz_norms);
        }
        Guess { input_norms, dz_norms }
    }

    fn bounds(&self) -> Bounds {
        Bounds::new(self.offset, self.level.unwrap_or(0.0), self.settings.clamp)
    }

    /// What one kept row teaches, and `x` ← √ω·P(h/‖h‖) on the grid; ‖h‖ itself if it is not finite. `features`, all
    /// zero, is scratch.
    fn row<T: Element>(
        &self,
        h: ArrayView1<'_, T>,
        dz_norm: f32,
        scale: f64,
        cached: Option<f32>,
        features: &mut [f64],
        x: &mut [i32],
    ) -> Result<Row, f32> {
        let norm = product::row_norms(h.insert_axis(Axis(0)))[0];
        if !norm.is_finite() {
            return Err(norm);
        }
        if norm > 0.0 {
            self.projection.project(h, norm, features);
        }
        let root = grid::root(squared_weight(scale).sqrt().sqrt());
        x.iter_mut().zip(&*features).for_each(|(units, &feature)| *units = grid::units(feature, root));
        let target = self.target(dz_norm);
        let blend = match (target, cached) {
            (Target::Log(log), Some(cached)) if self.has_learned() => {
                let guess = self.intercept + aview1(&self.coefficients).dot(&aview1(features));
                let distance = blend::distance(cached, guess, self.settings.clamp);
                Some((grid::distance(distance, root), grid::distance(log - guess, root)))
            }
            _ => None,
        };
        Ok(Row { root, target, blend })
    }

    fn target(&self, dz_norm: f32) -> Target {
        let level = self.level.unwrap_or(f64::NAN);
        Target::new(dz_norm, f64::from(dz_norm).ln(), level, self.settings.clamp)
    }

    fn has_learned(&self) -> bool {
        self.trace > 0.0
    }

    fn check_columns<T>(&self, h: ArrayView2<'_, T>) -> Result<(), PredictorError> {
        let (expected, found) = (self.in_features(), h.ncols());
        if found == expected { Ok(()) } else { Err(PredictorError::WrongColumns { expected, found }) }
    }
}

fn decay_and_add(sums: &mut [f64], forgetting: f64, step: &[f64]) {
    sums.iter_mut().zip(step).for_each(|(sum, step)| *sum = forgetting * *sum + step);
}
