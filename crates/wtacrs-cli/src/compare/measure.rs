//! The measurement: every design at every budget, with every source of weights and every way to save rows, on one layer.
//!
//! Estimates ĝ of g = Hᵀ dZ are made as training would make them, in the layer's own types and timed step by step, and
//! compared with g in f64. On one machine the statistics depend on the layer, the plan and its seed alone, not on the
//! number of threads.

use super::limit::{Input, Limit};
use super::report::{DesignReport, LayerReport, StepTimes};
use crate::estimates::{self, KeptRows, MOST_ROUNDING, MeasureError, Norms, Terms};
use crate::input::{Layer, with_values};
use crate::labels::{BudgetReport, WeightSource, bits_of};
use crate::statistics::{ErrorSummary, Errors, Reference, mean, median_ms};
use ndarray::{Array2, ArrayView2};
use std::hint::black_box;
use std::time::{Duration, Instant};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::product::{self, Packing, ShapeError, Update};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Weights};
use wtacrs_core::theory;

/// Steps outside the trials are timed at least so often, and for at least so long.
const FEWEST_TIMINGS: usize = 9;
const TIMING_SPAN: Duration = Duration::from_millis(100);
/// Below this share of ‖g‖², crs's variance is the rounding of its closed form.
const LEAST_CRS_VARIANCE: f64 = 1e-12;

/// What to compare, and how thoroughly.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How much to keep.
    pub limits: Vec<Limit>,
    /// The designs that choose rows, each with a way to save them.
    pub methods: Vec<Method>,
    /// How many estimates to make for each result.
    pub trials: usize,
    /// The seed of all draws; trials follow one another by their offsets.
    pub seed: u64,
}

/// A design, and how the rows are saved that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The design.
    pub design: BuiltIn,
    /// Native rows or packed ones.
    pub packing: Packing,
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
    norms: Norms,
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
        let reference = estimates::reference(&terms, rounded.view())?;
        let norms = Norms::new(h_norms, dz_norms, dz_norm_prev);
        Ok(Self { h, dz, terms, norms, reference, norms_ms, exact_ms })
    }

    fn measure_all(
        &self,
        file: &str,
        sources: &[WeightSource],
        plan: &Plan,
        progress: &(dyn Fn() + Sync),
    ) -> Result<LayerReport, MeasureError> {
        // All of them before the first estimate, so that what is refused is refused at once.
        let weights = sources.iter().map(|&source| self.norms.weights(source)).collect::<Result<Vec<_>, _>>()?;
        let mut results = Vec::new();
        for (&source, weights) in sources.iter().zip(&weights) {
            for &limit in &plan.limits {
                let mut known = None;
                for &method in &plan.methods {
                    let budget = limit.budget(method.packing, input(self.h))?;
                    let crs_variance = match known {
                        Some((of, variance)) if of == budget => variance,
                        _ => self.crs_variance(weights, budget),
                    };
                    known = Some((budget, crs_variance));
                    let case = Case { source, limit, budget, method };
                    results.push(self.measure(case, plan, crs_variance)?);
                    progress();
                }
            }
        }
        Ok(LayerReport {
            file: file.to_owned(),
            tokens: self.h.nrows(),
            in_features: self.h.ncols(),
            out_features: self.dz.ncols(),
            norms_ms: self.norms_ms,
            exact_ms: self.exact_ms,
            results,
        })
    }

    fn crs_variance(&self, weights: &Weights, budget: Budget) -> Option<f64> {
        let variance = theory::crs_variance(weights, budget, &self.terms);
        (variance > LEAST_CRS_VARIANCE * self.reference.squared_norm()).then_some(variance)
    }

    fn measure(&self, case: Case, plan: &Plan, crs_variance: Option<f64>) -> Result<DesignReport, MeasureError> {
        let Case { source, limit, budget, method: Method { design, packing } } = case;
        let (tokens, in_features) = self.h.dim();
        // Then nothing is chosen, and no norm is needed.
        let keeps_all = packing.keeps_all(budget.get(), tokens);
        let mut draws = design.draws(budget);
        if packing.is_packed() {
            draws = draws.max(tokens as u64);
        }
        // Without randomness the estimate is the same every time: further trials would only take time.
        let trials = if draws == 0 { plan.trials.min(FEWEST_TIMINGS) } else { plan.trials };
        let mut randomness = Randomness::new(plan.seed, 0);
        let mut rows = KeptRows::new(packing, budget.get(), in_features);
        let mut estimate = Array2::zeros((in_features, self.dz.ncols()));
        let mut errors = Errors::new(&self.reference);
        let (mut kept, mut bytes) = (Vec::new(), Vec::new());
        let (mut select, mut save, mut unpack, mut product) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for trial in 0..trials {
            let selection = if keeps_all {
                None
            } else {
                Some(timed(&mut select, || -> Result<_, MeasureError> {
                    let weights = self.norms.weights(source)?;
                    Ok(design.select_seeded(&weights, budget, randomness))
                })?)
            };
            timed(&mut save, || rows.fill(self.h, selection, randomness))?;
            timed(&mut product, || rows.multiply(self.dz, estimate.view_mut()))?;
            if packing.is_packed() && trial < FEWEST_TIMINGS {
                black_box(timed(&mut unpack, || rows.unpack()));
            }
            randomness = randomness.next(draws);
            errors.add(estimate.view());
            kept.push(rows.kept().len() as f64);
            bytes.push(rows.bytes() as f64);
        }
        let summary = self.without_rounding(errors.summary(), &rows, &estimate)?;
        let saved_bytes = mean(&bytes);
        let save = median_ms(&mut save);
        Ok(DesignReport {
            weights: source,
            design,
            budget: BudgetReport::new(limit.keep(budget), budget),
            memory: limit.memory(),
            bits: bits_of(packing, size_of::<T>()),
            winners: rows.winners(),
            kept: mean(&kept),
            saved_bytes,
            saved_share: saved_bytes / bytes_of(self.h),
            trials,
            rel_error: summary.rel_error,
            rel_error_sd: summary.rel_error_sd,
            bias_ratio: summary.bias_share.map(|share| share * trials as f64),
            variance_vs_crs: crs_variance.map(|variance| summary.mean_squared / variance),
            time_ms: StepTimes {
                norms: if keeps_all { 0.0 } else { self.norms_ms },
                select: median_ms(&mut select),
                gather: (!packing.is_packed()).then_some(save),
                pack: packing.is_packed().then_some(save),
                unpack: packing.is_packed().then(|| median_ms(&mut unpack)),
                product: median_ms(&mut product),
                exact: self.exact_ms,
            },
        })
    }

    /// The summary, without error if that could be the rounding of `estimate`, which was made of these rows.
    fn without_rounding(
        &self,
        summary: ErrorSummary,
        rows: &KeptRows<T>,
        estimate: &Array2<f32>,
    ) -> Result<ErrorSummary, MeasureError> {
        if !summary.mean_squared.is_finite() {
            return Err(MeasureError::Overflow);
        }
        if summary.mean_squared == 0.0 || summary.rel_error >= MOST_ROUNDING {
            return Ok(summary);
        }
        let in_f64 = match rows.unpack() {
            None => self.terms.weighted_sum(&rows.terms())?,
            Some(unpacked) => self.terms.weighted_sum_of(unpacked.view(), &rows.terms())?,
        };
        Ok(summary.without_rounding(&in_f64, estimate.view()))
    }
}

/// One line of a table, before it is measured.
#[derive(Clone, Copy)]
struct Case {
    source: WeightSource,
    limit: Limit,
    budget: Budget,
    method: Method,
}

fn input<T>(h: ArrayView2<'_, T>) -> Input {
    Input { tokens: h.nrows(), in_features: h.ncols(), element_bytes: size_of::<T>() }
}

/// Bytes of H.
fn bytes_of<T>(h: ArrayView2<'_, T>) -> f64 {
    (h.len() * size_of::<T>()) as f64
}

/// Refuses a budget that the tokens do not allow, and a layer for whose measurement there is no memory.
fn check_sizes<T: Element, U: Element>(h: &Array2<T>, dz: &Array2<U>, plan: &Plan) -> Result<(), MeasureError> {
    let packings = plan.methods.iter().map(|method| method.packing);
    let cases = plan.limits.iter().flat_map(|&limit| packings.clone().map(move |packing| (limit, packing)));
    let kept = |(limit, packing): (Limit, Packing)| -> Result<_, MeasureError> {
        Ok((limit.budget(packing, input(h.view()))?.get(), packing))
    };
    estimates::check_memory(h, dz, &cases.map(kept).collect::<Result<Vec<_>, _>>()?)
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
