//! The measurement: every design at every budget with every source of weights, on one layer.
//!
//! Estimates ĝ of g = Hᵀ dZ are made as training would make them, in the layer's own types and timed step by step, and
//! compared with g in f64. On one machine the statistics depend on the layer, the plan and its seed alone, not on the
//! number of threads.

use super::report::{DesignReport, LayerReport, StepTimes};
use crate::input::{Layer, with_values};
use crate::labels::{BudgetReport, WeightSource};
use crate::statistics::{Errors, Reference, mean, median_ms};
use ndarray::{Array2, ArrayView2, s};
use std::time::{Duration, Instant};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::product::{self, Scratch, ShapeError, Update};
use wtacrs_core::sampling::DEFAULT_MIX;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, BudgetError, Keep, Weights, WeightsError};
use wtacrs_core::theory::{self, OuterProducts};

/// The sources of weights that one recorded step allows, in the order of tables.
pub const SOURCES: [WeightSource; 3] = [WeightSource::Exact, WeightSource::Stale, WeightSource::Input];
/// Steps outside the trials are timed at least so often, and for at least so long.
const FEWEST_TIMINGS: usize = 9;
const TIMING_SPAN: Duration = Duration::from_millis(100);
/// Below this share of ‖g‖², crs's variance is the rounding of its closed form.
const LEAST_CRS_VARIANCE: f64 = 1e-12;

/// What to compare, and how thoroughly.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many tokens to keep.
    pub budgets: Vec<Keep>,
    /// The designs that choose them.
    pub designs: Vec<BuiltIn>,
    /// How many estimates to make for each result.
    pub trials: usize,
    /// The seed of all draws; trials follow one another by their offsets.
    pub seed: u64,
}

/// Why a layer cannot be measured on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A budget that this layer's tokens do not allow.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A row whose norm cannot be a weight.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// H and dZ have different numbers of tokens.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Stale weights of a layer without previous norms.
    #[error("stale weights need the norms of an earlier step")]
    NoPreviousNorms,
    /// A predictor's weights, which one step cannot teach it.
    #[error("predictor weights need recorded steps: `wtacrs replay` measures them")]
    NeedsSteps,
    /// Nothing to measure an error against.
    #[error("the exact dW is zero, so no error can be relative to it")]
    ZeroGradient,
    /// The exact product does not fit f32.
    #[error("the exact dW overflows f32")]
    Overflow,
}

/// Measures on the current rayon pool, and calls `progress` after every result.
///
/// # Errors
///
/// See [`MeasureError`].
pub fn measure(
    file: &str,
    layer: &Layer,
    sources: &[WeightSource],
    plan: &Plan,
    progress: &(dyn Fn() + Sync),
) -> Result<LayerReport, MeasureError> {
    let norms = layer.dz_norm_prev.as_deref();
    with_values!(&layer.h, h => with_values!(&layer.dz, dz => {
        PreparedLayer::new(h.view(), dz.view(), norms)?.measure_all(file, sources, plan, progress)
    }))
}

/// A layer in its own types, with the numbers that all its results share.
struct PreparedLayer<'a, T, U> {
    h: ArrayView2<'a, T>,
    dz: ArrayView2<'a, U>,
    h_f64: Array2<f64>,
    dz_f64: Array2<f64>,
    h_norms: Vec<f32>,
    dz_norms: Vec<f32>,
    cached_norms: Option<Vec<Option<f32>>>,
    reference: Reference,
    norms_ms: f64,
    exact_ms: f64,
}

impl<'a, T: Element<Accumulator = f32>, U: Element<Accumulator = f32>> PreparedLayer<'a, T, U> {
    fn new(h: ArrayView2<'a, T>, dz: ArrayView2<'a, U>, dz_norm_prev: Option<&[f32]>) -> Result<Self, MeasureError> {
        let dw_shape = (h.ncols(), dz.ncols());
        let (mut h_norms, mut dz_norms) = (vec![0.0; h.nrows()], vec![0.0; dz.nrows()]);
        let norms_ms = time_repeatedly(|| {
            product::row_norms_into(h, &mut h_norms)?;
            product::row_norms_into(dz, &mut dz_norms)
        })?;
        let mut rounded = Array2::zeros(dw_shape);
        let exact_ms =
            time_repeatedly(|| product::exact_weight_gradient(h, dz, rounded.view_mut(), Update::Overwrite))?;

        let (h_f64, dz_f64) = (h.mapv(|v| f64::from(v.widen())), dz.mapv(|v| f64::from(v.widen())));
        let mut exact = Array2::zeros(dw_shape);
        product::exact_weight_gradient(h_f64.view(), dz_f64.view(), exact.view_mut(), Update::Overwrite)?;
        let reference = Reference::new(exact, rounded.view());
        if !reference.is_finite() {
            return Err(MeasureError::Overflow);
        }
        if reference.squared_norm() == 0.0 {
            return Err(MeasureError::ZeroGradient);
        }
        let cached_norms = dz_norm_prev.map(|norms| norms.iter().copied().map(Some).collect());
        Ok(Self { h, dz, h_f64, dz_f64, h_norms, dz_norms, cached_norms, reference, norms_ms, exact_ms })
    }

    fn measure_all(
        &self,
        file: &str,
        sources: &[WeightSource],
        plan: &Plan,
        progress: &(dyn Fn() + Sync),
    ) -> Result<LayerReport, MeasureError> {
        let mut results = Vec::new();
        for &source in sources {
            let weights = self.weights(source)?;
            for &keep in &plan.budgets {
                let budget = weights.budget(keep)?;
                let crs_variance = self.crs_variance(&weights, budget);
                for &design in &plan.designs {
                    results.push(self.measure(source, (keep, budget), design, plan, crs_variance)?);
                    progress();
                }
            }
        }
        Ok(LayerReport {
            file: file.to_owned(),
            tokens: self.h.nrows(),
            in_features: self.h.ncols(),
            out_features: self.dz.ncols(),
            element_bytes: size_of::<T>(),
            results,
        })
    }

    fn weights(&self, source: WeightSource) -> Result<Weights, MeasureError> {
        Ok(match source {
            WeightSource::Exact => Weights::from_norms(&self.h_norms, &self.dz_norms)?,
            WeightSource::Stale => {
                let cached = self.cached_norms.as_ref().ok_or(MeasureError::NoPreviousNorms)?;
                Weights::from_cache(&self.h_norms, cached, DEFAULT_MIX)?
            }
            WeightSource::Predictor => return Err(MeasureError::NeedsSteps),
            WeightSource::Input => Weights::from_input(&self.h_norms)?,
        })
    }

    fn crs_variance(&self, weights: &Weights, budget: Budget) -> Option<f64> {
        let contributions = OuterProducts { x: self.h_f64.view(), y: self.dz_f64.view() };
        let variance = theory::crs_variance(weights, budget, &contributions);
        (variance > LEAST_CRS_VARIANCE * self.reference.squared_norm()).then_some(variance)
    }

    fn measure(
        &self,
        source: WeightSource,
        (keep, budget): (Keep, Budget),
        design: BuiltIn,
        plan: &Plan,
        crs_variance: Option<f64>,
    ) -> Result<DesignReport, MeasureError> {
        let draws = design.draws(budget);
        // A design that draws nothing makes the same estimate every time: further trials would only take time.
        let trials = if draws == 0 { plan.trials.min(FEWEST_TIMINGS) } else { plan.trials };
        let mut randomness = Randomness::new(plan.seed, 0);
        let mut kept_rows = Array2::from_elem((budget.get(), self.h.ncols()), T::ZERO);
        let mut estimate = Array2::zeros((self.h.ncols(), self.dz.ncols()));
        let mut scratch = Scratch::new();
        let mut errors = Errors::new(&self.reference);
        let (mut winners, mut kept) = (0, Vec::new());
        let (mut select, mut gather, mut product) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..trials {
            let selection = timed(&mut select, || -> Result<_, MeasureError> {
                let weights = self.weights(source)?;
                Ok(design.select_seeded(&weights, budget, randomness))
            })?;
            randomness = randomness.next(draws);
            let mut rows = kept_rows.slice_mut(s![..selection.len(), ..]);
            timed(&mut gather, || product::gather_into(self.h, &selection, rows.view_mut()))?;
            timed(&mut product, || {
                let (rows, target) = (rows.view(), estimate.view_mut());
                product::weight_gradient_into(rows, self.dz, &selection, target, Update::Overwrite, &mut scratch)
            })?;
            errors.add(estimate.view());
            winners = selection.winners();
            kept.push(selection.len() as f64);
        }
        let summary = errors.summary();
        if !summary.mean_squared.is_finite() {
            return Err(MeasureError::Overflow);
        }
        Ok(DesignReport {
            weights: source,
            design,
            budget: BudgetReport::new(keep, budget),
            winners,
            kept: mean(&kept),
            trials,
            rel_error: summary.rel_error,
            rel_error_sd: summary.rel_error_sd,
            bias_ratio: summary.bias_share.map(|share| share * trials as f64),
            variance_vs_crs: crs_variance.map(|variance| summary.mean_squared / variance),
            time_ms: StepTimes {
                norms: self.norms_ms,
                select: median_ms(&mut select),
                gather: median_ms(&mut gather),
                product: median_ms(&mut product),
                exact: self.exact_ms,
            },
        })
    }
}

/// Runs one step, and records its time.
fn timed<R>(times: &mut Vec<Duration>, step: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = step();
    times.push(start.elapsed());
    result
}

/// The median time of a step, in milliseconds.
fn time_repeatedly(mut step: impl FnMut() -> Result<(), ShapeError>) -> Result<f64, ShapeError> {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < FEWEST_TIMINGS || start.elapsed() < TIMING_SPAN {
        timed(&mut times, &mut step)?;
    }
    Ok(median_ms(&mut times))
}
