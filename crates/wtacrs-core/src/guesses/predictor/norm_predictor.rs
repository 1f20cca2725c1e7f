//! The predictor itself: what it knows, how it guesses, and how it learns.

use super::bounds::Bounds;
use super::projection::Projection;
use super::settings::{PredictorError, PredictorSettings, check_cached, check_len, check_norms};
use super::solve::improve;
use super::square::{self, mirror};
use super::statistics::{BLEND_SUMS, Row, StepStatistics, blend_distance};
use crate::element::Element;
use crate::parallel;
use crate::product::{Rows, Saved, row_norms, row_norms_and_components};
use ndarray::{ArrayView1, ArrayView2, Axis, aview1};
use rayon::prelude::*;
use wtacrs_exact::predictor::solver::ridge;
use wtacrs_exact::predictor::{LARGEST_VALID_SCALE, Target, blend, chosen_row, grid, squared_weight};

/// Kept rows whose features are computed by one task.
const ROWS_PER_TASK: usize = 16;

/// What is known of a batch's tokens in the forward pass, one entry each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guess {
    /// ‖h_i‖, as [`row_norms`] returns them.
    pub input_norms: Vec<f32>,
    /// The guess of ‖dZ_i‖: positive and finite.
    pub dz_norms: Vec<f32>,
}

/// Where a predictor's guesses lie, in logarithms: a guess is g = θ·h/‖h‖ + `intercept`, moved towards a cached log-norm c
/// by `shift` + `slope` · (c − g), and bounded about the level of the last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// How far the intercept lies above the level.
    pub excess: f64,
    /// b.
    pub intercept: f64,
    /// α.
    pub shift: f64,
    /// β, between 0 and 1.
    pub slope: f64,
}

/// What came of a step that a predictor was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It has learned.
    Learned,
    /// No row had a norm to learn from, so nothing changed.
    NothingToLearn,
    /// Every norm has fallen by more than the clamp. Nothing was learned, and the next step finds a new level.
    LevelLost,
}

/// An online guess of one layer's ‖dZ_i‖, or of √(Σ_l ‖dZ_i^l‖²) for layers that share H.
///
/// # Example
///
/// ```
/// use ndarray::Array2;
/// use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
/// use wtacrs_core::product::{Saved, row_norms};
/// use wtacrs_core::sampling::design::{BuiltIn, Design};
/// use wtacrs_core::sampling::{Keep, Randomness, Weights};
///
/// let mut predictor = NormPredictor::new(8, PredictorSettings::default())?;
/// # let h = Array2::from_shape_fn((64, 8), |(i, j)| ((i * 5 + j * 3) % 7) as f32 - 2.9);
/// # let dz = &h;
/// // forward
/// let guess = predictor.guess(h.view(), None)?;
/// let weights = Weights::from_norms(&guess.input_norms, &guess.dz_norms)?;
/// let budget = weights.budget(Keep::Fraction(0.3))?;
/// let saved = Saved::gather(h.view(), BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(0, 0)))?;
/// // backward
/// predictor.learn(&saved, &row_norms(dz.view()), None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Performance
///
/// [`Self::guess`] reads H once. [`Self::learn`] costs O(rows · (in_features + r²) + r²) for at most
/// [`PredictorSettings::rows_per_update`] rows, whatever the number of tokens. The state is about 8 r² bytes.
///
/// # Numerics
///
/// Statistics are in f64 and summed in an order fixed by shapes: results are the same for every number of threads.
///
/// `Send` and `Sync`; guesses may be made concurrently.
#[derive(Clone, Debug)]
pub struct NormPredictor {
    pub(super) settings: PredictorSettings,
    pub(super) projection: Projection,
    /// C, r × r, row by row.
    pub(super) covariance: Vec<f64>,
    /// m.
    pub(super) moment: Vec<f64>,
    /// Σω‖x‖² with forgetting, not centred: what the ridge is measured by.
    pub(super) trace: f64,
    /// c.
    pub(super) coefficients: Vec<f64>,
    /// b.
    pub(super) intercept: f64,
    /// θ, made of c.
    pub(super) theta: Vec<f64>,
    /// Mean log‖dZ‖ of the last step's rows that had one; none before the first.
    pub(super) level: Option<f64>,
    /// b less the level, as the last step that was learned from left them.
    pub(super) excess: f64,
    /// The sums that say how to move a guess towards a cached norm.
    pub(super) blend: [f64; BLEND_SUMS],
}

impl NormPredictor {
    /// A predictor that knows nothing yet, for a layer whose H is tokens × `in_features`.
    ///
    /// # Errors
    ///
    /// A setting out of range, or no input features.
    pub fn new(in_features: usize, settings: PredictorSettings) -> Result<Self, PredictorError> {
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
            excess: 0.0,
            blend: [0.0; BLEND_SUMS],
            projection,
        })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> PredictorSettings {
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
    /// first step. A row whose norm is not finite gets an average guess and keeps its norm, which
    /// [`Weights::from_norms`](crate::sampling::Weights::from_norms) will refuse by its index.
    ///
    /// `cached` has one entry for each row: what a [`NormCache`](crate::guesses::NormCache) remembers. Such norms move the
    /// guess as far as the predictor has learned to trust them.
    ///
    /// # Errors
    ///
    /// Another number of columns; not one cached entry for each row; a cached norm that is negative or not finite.
    pub fn guess<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        cached: Option<&[Option<f32>]>,
    ) -> Result<Guess, PredictorError> {
        self.check_columns(h.ncols())?;
        let bounds = self.bounds();
        let Some(cached) = cached else { return Ok(self.pass(h, |_, logs| bounds.apply(logs))) };
        check_cached(cached, h.nrows())?;
        let (shift, slope) = blend::solve(&self.blend);
        Ok(self.pass(h, |first, logs| {
            for (log, cached) in logs.iter_mut().zip(&cached[first..]) {
                if let Some(cached) = *cached {
                    let guess = self.intercept + f64::from(*log);
                    *log += (shift + slope * blend_distance(cached, guess, self.settings.clamp)) as f32;
                }
            }
            bounds.apply(logs);
        }))
    }

    /// Learns from the rows that a forward pass kept, once the backward pass knows ‖dZ_i‖ of all tokens; for layers that
    /// share H, their [joint norms](crate::product::joint_norms). With `cached`, which is what [`Self::guess`] was given for
    /// this step, it also learns how far to trust a cache.
    ///
    /// A row whose norm is zero, or below e^−clamp of the last step's geometric mean, is learned as e^−clamp of this
    /// step's. Nothing is learned from a step without any other row, nor from a row of scale zero.
    ///
    /// # Errors
    ///
    /// Not one norm, or cached entry, for each token; a norm that is negative or not finite; rows of another number of
    /// columns. The predictor has then learned nothing.
    pub fn learn<T: Element>(
        &mut self,
        saved: &Saved<T>,
        dz_norms: &[f32],
        cached: Option<&[Option<f32>]>,
    ) -> Result<StepOutcome, PredictorError> {
        let kept = saved.kept();
        check_len("the norms of dZ", dz_norms.len(), kept.pairs())?;
        if let Some(cached) = cached {
            check_len("the cached norms", cached.len(), kept.pairs())?;
        }
        let tokens = 0..kept.len();
        let kept_norms: Vec<f32> = tokens.clone().map(|at| dz_norms[kept.index(at)]).collect();
        let scales: Vec<f64> = tokens.clone().map(|at| kept.scale(at)).collect();
        let kept_cached: Option<Vec<_>> = cached.map(|cached| tokens.map(|at| cached[kept.index(at)]).collect());
        self.update(saved.rows(), &kept_norms, &scales, kept_cached.as_deref())
    }

    /// [`Self::learn`] from parts: kept rows of H, unscaled (kept × in_features), as they are or packed, their exact ‖dZ‖,
    /// their scales 1/π and, if there are any, their cached norms.
    ///
    /// # Errors
    ///
    /// Shapes that do not fit; a norm that is negative or not finite, a row of H with such a norm, or an invalid scale.
    pub fn update<'a, T: Element>(
        &mut self,
        rows: impl Into<Rows<'a, T>>,
        dz_norms: &[f32],
        scales: &[f64],
        cached: Option<&[Option<f32>]>,
    ) -> Result<StepOutcome, PredictorError> {
        self.apply(&self.statistics(rows, dz_norms, scales, cached)?)
    }

    /// The sums that one rank's rows bring to a step: `update` is `statistics`, added over ranks, then [`Self::apply`].
    ///
    /// Ranks whose predictors are equal, and which apply the same added sums, stay equal. Sums are exact: those of any
    /// parts, added in any order, are those of the whole to the bit, as long as no part exceeds
    /// [`PredictorSettings::rows_per_update`] and all of them 2^20 rows.
    ///
    /// # Errors
    ///
    /// As for [`Self::update`].
    pub fn statistics<'a, T: Element>(
        &self,
        rows: impl Into<Rows<'a, T>>,
        dz_norms: &[f32],
        scales: &[f64],
        cached: Option<&[Option<f32>]>,
    ) -> Result<StepStatistics, PredictorError> {
        let rows = rows.into();
        self.check_columns(rows.ncols())?;
        let given = rows.nrows();
        check_len("the norms of dZ", dz_norms.len(), given)?;
        check_len("the scales", scales.len(), given)?;
        check_norms("the norm of dZ", dz_norms)?;
        if let Some(cached) = cached {
            check_cached(cached, given)?;
        }
        if let Some((index, &value)) =
            scales.iter().enumerate().find(|(_, s)| !(0.0..=LARGEST_VALID_SCALE).contains(*s))
        {
            return Err(PredictorError::InvalidScale { index, value });
        }

        let count = given.min(self.settings.rows_per_update);
        let chosen: Vec<usize> =
            (0..count).map(|i| chosen_row(i as u64, given as u64, count as u64) as usize).collect();
        let share = if count > 0 { given as f64 / count as f64 } else { 1.0 };
        let r = self.projection.features();
        let stride = square::stride(r);
        let mut x = vec![0; count * stride];
        let learn = |features: &mut Vec<f64>, (x, &i): (&mut [i32], &usize)| {
            let cached = cached.and_then(|cached| cached[i]);
            features.fill(0.0);
            let scale = share * scales[i];
            match &rows {
                Rows::Native(rows) => self.row(rows.index_axis(Axis(0), i), dz_norms[i], scale, cached, features, x),
                Rows::Packed(rows) => self.row(aview1(&rows.unpack_row(i)), dz_norms[i], scale, cached, features, x),
            }
        };
        let tasks = x.par_chunks_mut(stride).zip(&chosen).with_min_len(ROWS_PER_TASK);
        let facts: Vec<Result<Row, f32>> = parallel::map_with(tasks, || vec![0.0; r], learn);
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
    pub fn apply(&mut self, step: &StepStatistics) -> Result<StepOutcome, PredictorError> {
        let r = self.projection.features();
        check_len("the step's sums", step.sums().len(), StepStatistics::len(r))?;
        step.check()?;
        if !step.has_present() {
            if !step.has_faint() {
                return Ok(StepOutcome::NothingToLearn);
            }
            self.level = None;
            return Ok(StepOutcome::LevelLost);
        }
        let PredictorSettings { forgetting, clamp, .. } = self.settings;
        let centred = step.centred(clamp);
        let mut squares = centred.square;
        for (i, (row, mean)) in self.covariance.chunks_exact_mut(r).zip(&centred.mean).enumerate() {
            let (of_row, rest) = squares.split_at(r - i);
            squares = rest;
            for ((entry, square), sum) in row[i..].iter_mut().zip(of_row).zip(&centred.sum[i..]) {
                *entry = forgetting * *entry + (square - mean * sum);
            }
        }
        mirror(r, &mut self.covariance);
        decay_and_add(&mut self.moment, forgetting, &centred.moment);
        decay_and_add(&mut self.blend, forgetting, step.blend());
        self.trace = forgetting * self.trace + step.trace();
        let diagonal_sum: f64 = self.covariance.iter().step_by(r + 1).sum();
        let ridge = ridge(self.settings.ridge, diagonal_sum, self.trace, r as f64);
        improve(&self.covariance, ridge, &self.moment, &mut self.coefficients);
        self.theta = self.projection.combine(&self.coefficients);
        let explained: f64 = self.coefficients.iter().zip(&centred.mean).map(|(c, x)| c * x).sum();
        self.intercept = centred.mean_log - explained;
        self.level = Some(centred.level);
        self.excess = self.intercept - centred.level;
        Ok(StepOutcome::Learned)
    }

    /// ‖h_i‖, and what `norms` makes, in place, of log-norms less b, θ·h_i/‖h_i‖, from some row on.
    fn pass<T: Element>(&self, h: ArrayView2<'_, T>, norms: impl Fn(usize, &mut [f32]) + Sync) -> Guess {
        let (mut input_norms, mut dz_norms) = (vec![0.0; h.nrows()], vec![0.0; h.nrows()]);
        if self.has_learned() {
            row_norms_and_components(h, &self.theta, &mut input_norms, &mut dz_norms, norms);
        } else {
            input_norms = row_norms(h);
            norms(0, &mut dz_norms);
        }
        Guess { input_norms, dz_norms }
    }

    /// r: how many features it has, at most [`PredictorSettings::features`].
    pub fn features(&self) -> usize {
        self.projection.features()
    }

    /// θ, of which a row's guess is the component along h/‖h‖.
    pub fn theta(&self) -> &[f64] {
        &self.theta
    }

    /// The projection's signs, a bit for each input feature: set where it is −1.
    pub fn sign_words(&self) -> Vec<u32> {
        let word = |signs: &[f32]| signs.iter().rev().fold(0, |word, &sign| word << 1 | u32::from(sign < 0.0));
        self.projection.signs().chunks(32).map(word).collect()
    }

    /// Where guesses lie.
    pub fn placement(&self) -> Placement {
        let (shift, slope) = blend::solve(&self.blend);
        Placement { excess: self.excess, intercept: self.intercept, shift, slope }
    }

    fn bounds(&self) -> Bounds {
        Bounds::new(self.excess, self.level.unwrap_or(0.0), self.settings.clamp)
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
        let norm = row_norms(h.insert_axis(Axis(0)))[0];
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
                let distance = blend_distance(cached, guess, self.settings.clamp);
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

    fn check_columns(&self, found: usize) -> Result<(), PredictorError> {
        let expected = self.in_features();
        if found == expected { Ok(()) } else { Err(PredictorError::WrongColumns { expected, found }) }
    }
}

fn decay_and_add(sums: &mut [f64], forgetting: f64, step: &[f64]) {
    sums.iter_mut().zip(step).for_each(|(sum, step)| *sum = forgetting * *sum + step);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_bits() {
        let predictor = NormPredictor::new(70, PredictorSettings::default()).expect("valid settings");
        let words = predictor.sign_words();
        assert_eq!(words.len(), 3);
        for (j, &sign) in predictor.projection.signs().iter().enumerate() {
            assert_eq!(words[j / 32] >> (j % 32) & 1 == 1, sign < 0.0);
        }
    }
}
