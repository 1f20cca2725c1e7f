//! The measurement: every design at every budget with every source of weights, on one layer.
//!
//! Estimates ĝ of g = Hᵀ dZ are made as training would make them, in the layer's own types and timed step by step, and
//! compared with g in f64. On one machine the statistics depend on the layer, the plan and its seed alone, not on the
//! number of threads.

use super::report::{DesignReport, LayerReport, StepTimes};
use super::terms::{BLOCK, Terms};
use crate::input::{Layer, with_values};
use crate::labels::{BudgetReport, WeightSource};
use crate::statistics::{Errors, Reference, mean, median_ms};
use ndarray::{Array2, ArrayView2, s};
use std::hint::black_box;
use std::time::{Duration, Instant};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::product::{self, Scratch, ShapeError, Update};
use wtacrs_core::sampling::DEFAULT_MIX;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, BudgetError, Keep, Weights, WeightsError};
use wtacrs_core::theory;

/// The sources of weights that one recorded step allows, in the order of tables: first what training has, then what no
/// forward pass knows.
pub const SOURCES: [WeightSource; 3] = [WeightSource::Stale, WeightSource::Exact, WeightSource::Input];
/// Steps outside the trials are timed at least so often, and for at least so long.
const FEWEST_TIMINGS: usize = 9;
const TIMING_SPAN: Duration = Duration::from_millis(100);
/// Below this share of ‖g‖², crs's variance is the rounding of its closed form.
const LEAST_CRS_VARIANCE: f64 = 1e-12;
/// Where f32 rounds more than this share of ‖g‖ away, the last digit of a table's errors would be rounding. An error
/// below it may be rounding, too, and is looked at.
const MOST_ROUNDING: f64 = 1e-3;

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
    /// f32 has no digits left for the exact product.
    #[error(
        "dW underflows f32, in which estimates are made: its largest element is {largest:.1e}. Multiply dZ by a constant, \
         which changes no relative error"
    )]
    Underflow {
        /// The largest absolute value of dW.
        largest: f64,
    },
    /// The terms of the exact product cancel, so that estimates in f32 consist of rounding.
    #[error(
        "dW cancels to rounding: ‖dW‖ is {norm:.1e}, but its terms' norms ‖h_i‖·‖dz_i‖ add up to {sum_of_norms:.1e}, so f32 \
         has no digits left for it and no error can be relative to it"
    )]
    Cancelled {
        /// ‖dW‖_F in f64.
        norm: f64,
        /// Σ‖h_i‖·‖dz_i‖.
        sum_of_norms: f64,
    },
    /// Too little memory for the measurement.
    #[error("measuring needs {bytes} bytes of memory beside the layer, more than is available")]
    NotEnoughMemory {
        /// Those bytes.
        bytes: usize,
    },
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
        check_sizes(h, dz, plan)?;
        PreparedLayer::new(h.view(), dz.view(), norms)?.measure_all(file, sources, plan, progress)
    }))
}

/// A layer in its own types, with the numbers that all its results share.
struct PreparedLayer<'a, T, U> {
    h: ArrayView2<'a, T>,
    dz: ArrayView2<'a, U>,
    terms: Terms<'a, T, U>,
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

        let terms = Terms::new(h, dz)?;
        let reference = Reference::new(terms.sum()?, rounded.view());
        if !reference.is_finite() {
            return Err(MeasureError::Overflow);
        }
        if reference.squared_norm() == 0.0 {
            return Err(MeasureError::ZeroGradient);
        }
        if reference.relative_rounding() > MOST_ROUNDING {
            return Err(lost_to_rounding(&reference, &terms, h.nrows() * rounded.len()));
        }
        let cached_norms = dz_norm_prev.map(|norms| norms.iter().copied().map(Some).collect());
        Ok(Self { h, dz, terms, h_norms, dz_norms, cached_norms, reference, norms_ms, exact_ms })
    }

    fn measure_all(
        &self,
        file: &str,
        sources: &[WeightSource],
        plan: &Plan,
        progress: &(dyn Fn() + Sync),
    ) -> Result<LayerReport, MeasureError> {
        // All of them before the first estimate, so that what is refused is refused at once.
        let weights = sources.iter().map(|&source| self.weights(source)).collect::<Result<Vec<_>, _>>()?;
        let mut results = Vec::new();
        for (&source, weights) in sources.iter().zip(&weights) {
            for &keep in &plan.budgets {
                let budget = weights.budget(keep)?;
                let crs_variance = self.crs_variance(weights, budget);
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
        let variance = theory::crs_variance(weights, budget, &self.terms);
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
        let (mut winners, mut kept, mut last) = (0, Vec::new(), Vec::new());
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
            last.clear();
            last.extend(selection.iter());
        }
        let mut summary = errors.summary();
        if !summary.mean_squared.is_finite() {
            return Err(MeasureError::Overflow);
        }
        if summary.mean_squared > 0.0 && summary.rel_error < MOST_ROUNDING {
            summary = summary.without_rounding(&self.terms.weighted_sum(&last)?, estimate.view());
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

/// Refuses a budget that the tokens do not allow, and a layer for whose measurement there is no memory: the first
/// allocation that fails would end the command without a word on what is needed.
fn check_sizes<T: Element, U: Element>(h: &Array2<T>, dz: &Array2<U>, plan: &Plan) -> Result<(), MeasureError> {
    let (tokens, in_features, out_features) = (h.nrows(), h.ncols(), dz.ncols());
    let mut kept = 0;
    for keep in &plan.budgets {
        kept = kept.max(keep.budget(tokens)?.get());
    }
    let bytes = |numbers: [usize; 3]| numbers.iter().fold(1_usize, |product, &size| product.saturating_mul(size));
    let wide = |is_wide: bool, rows, columns| if is_wide { 0 } else { bytes([rows, columns, size_of::<f32>()]) };
    // The exact product in f64 and f32, the sum of the errors, an estimate, and one in f64.
    let products = bytes([in_features, out_features, 3 * size_of::<f64>() + 2 * size_of::<f32>()]);
    let block = bytes([BLOCK.min(tokens), in_features.saturating_add(out_features), size_of::<f64>()]);
    // For the exact product H and dZ in f32; after it, the kept rows of H, in its type and in f32, and those of dZ.
    let exact = [wide(T::IS_ACCUMULATOR, tokens, in_features), wide(U::IS_ACCUMULATOR, tokens, out_features)];
    let estimate = [
        bytes([kept, in_features, size_of::<T>()]),
        wide(T::IS_ACCUMULATOR, kept, in_features),
        bytes([kept, out_features, size_of::<f32>()]),
    ];
    let sum = |parts: &[usize]| parts.iter().fold(0_usize, |sum, &part| sum.saturating_add(part));
    let bytes = sum(&[products, block, sum(&exact).max(sum(&estimate))]);
    // Else the compiler may see that nothing is done with it, and ask nobody.
    match black_box(&mut Vec::<u8>::new()).try_reserve_exact(bytes) {
        Ok(()) => Ok(()),
        Err(_) => Err(MeasureError::NotEnoughMemory { bytes }),
    }
}

/// Why f32 has no digits left for the exact product: each of its roundings, so many, is either of a tiny number or of a
/// large sum.
fn lost_to_rounding<T, U>(reference: &Reference, terms: &Terms<'_, T, U>, roundings: usize) -> MeasureError
where
    T: Element<Accumulator = f32>,
    U: Element<Accumulator = f32>,
{
    let sum_of_norms = terms.sum_of_norms();
    let of_tiny_numbers = f64::from(f32::MIN_POSITIVE) * f64::from(f32::EPSILON) * (roundings as f64).sqrt();
    if of_tiny_numbers > f64::from(f32::EPSILON) * sum_of_norms {
        MeasureError::Underflow { largest: reference.largest() }
    } else {
        MeasureError::Cancelled { norm: reference.squared_norm().sqrt(), sum_of_norms }
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
