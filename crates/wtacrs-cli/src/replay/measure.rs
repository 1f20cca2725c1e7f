//! The measurement: the error that each source of weights leaves at each recorded step.
//!
//! At step t a source gives a guess of ‖dz_i‖, the guess gives weights, and weights with a budget give the inclusion
//! probabilities π_i. The error is that of Poisson sampling with them, in closed form and in f64, so that it has no noise
//! of its own:
//!
//! error_t = √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖_F
//!
//! The predictor starts cold for each budget. At each step it guesses first; then it learns from the rows that training
//! would have: those that the default design keeps by the predictor's own weights, with their norms and scales, as they
//! are read back if they are packed.

use super::report::{RecordingReport, SourceReport};
use crate::input::{Recording, RecordingError, with_values};
use crate::labels::{BudgetReport, WeightSource, bits_of};
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::io::{Read, Seek};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::guesses::{NormPredictor, PredictorError, PredictorSettings};
use wtacrs_core::product::{PackError, Packing, Saved, row_norms};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, BudgetError, Keep, Weights, WeightsError};
use wtacrs_core::theory;
use wtacrs_exact::packing::PackingBits;

/// The sources of weights that a recording allows, in the order of tables.
pub const SOURCES: [WeightSource; 3] = [WeightSource::Exact, WeightSource::Predictor, WeightSource::Input];

/// What to replay.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many tokens to keep at each step.
    pub budgets: Vec<Keep>,
    /// The sources of weights, of [`SOURCES`].
    pub sources: Vec<WeightSource>,
    /// How the rows are saved that the predictor learns from.
    pub packing: Packing,
    /// Of the predictor. Its seed is also that of the rows kept for it.
    pub settings: PredictorSettings,
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A step that cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// A budget that the tokens of a step do not allow.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A source of weights that no recording allows.
    #[error("stale weights need the norms of an earlier visit, which recordings do not have")]
    NoPreviousNorms,
    /// Settings that the predictor refuses.
    #[error(transparent)]
    Settings(PredictorError),
    /// A row of H whose norm cannot be a weight.
    #[error("step {step}: {source}")]
    Weights {
        /// The step, from 0.
        step: usize,
        /// The reason.
        source: WeightsError,
    },
    /// Rows that the predictor refuses.
    #[error("step {step}: the predictor refuses it: {source}")]
    Predictor {
        /// The step, from 0.
        step: usize,
        /// The predictor's reason.
        source: PredictorError,
    },
    /// Rows that do not fit the selection made of them, or that cannot be packed.
    #[error("step {step}: {source}")]
    Save {
        /// The step, from 0.
        step: usize,
        /// The reason.
        source: PackError,
    },
}

/// One source of weights at one budget, carried from step to step.
struct Run {
    norms: Norms,
    keep: Keep,
    budget: Budget,
    errors: Vec<f64>,
}

/// Where a run takes ‖dz_i‖ from.
enum Norms {
    Exact,
    Predictor { predictor: Box<NormPredictor>, packing: Packing, randomness: Randomness },
    Unknown,
}

/// One recorded step, with the numbers that all runs need of it.
struct PreparedStep<'a, T> {
    step: usize,
    h: ArrayView2<'a, T>,
    h_norms: Vec<f32>,
    dz_norms: &'a [f32],
    g_norm: f64,
}

/// Replays on the current rayon pool, and calls `progress` after every step. The results do not depend on the number of
/// threads.
///
/// # Errors
///
/// See [`MeasureError`].
pub fn measure<R: Read + Seek>(
    file: &str,
    recording: &mut Recording<R>,
    plan: &Plan,
    progress: &dyn Fn(),
) -> Result<RecordingReport, MeasureError> {
    let (steps, tokens, in_features) = (recording.steps(), recording.tokens(), recording.in_features());
    let mut runs = Vec::new();
    for &keep in &plan.budgets {
        let budget = keep.budget(tokens)?;
        for &source in &plan.sources {
            let norms = Norms::new(source, in_features, plan)?;
            runs.push(Run { norms, keep, budget, errors: Vec::new() });
        }
    }
    for step in 0..steps {
        let recorded = recording.read_step(step)?;
        with_values!(&recorded.h, h => {
            let prepared = PreparedStep::new(step, h.view(), &recorded.dz_norms, recorded.g_norm);
            // Collected before the first failure is looked for, so that the same one is reported every time.
            let done: Vec<_> = runs.par_iter_mut().map(|run| run.step(&prepared)).collect();
            done.into_iter().collect::<Result<(), _>>()?;
        });
        progress();
    }
    let results = runs.into_iter().map(Run::report).collect();
    let bits = bits_of(plan.packing, recording.element_bytes());
    Ok(RecordingReport { file: file.to_owned(), steps, tokens, in_features, bits, results })
}

impl Run {
    /// Measures the weights of a step, and only then learns from it.
    fn step<T: Element>(&mut self, prepared: &PreparedStep<'_, T>) -> Result<(), MeasureError> {
        let weights = self.norms.weights(prepared)?;
        let variance = theory::poisson_variance(&weights, self.budget, |token| prepared.squared_norm(token));
        self.errors.push(variance.sqrt() / prepared.g_norm);
        self.norms.learn(prepared, &weights, self.budget)
    }

    fn report(self) -> SourceReport {
        let (source, features) = match self.norms {
            Norms::Exact => (WeightSource::Exact, None),
            Norms::Predictor { predictor, .. } => (WeightSource::Predictor, Some(predictor.features())),
            Norms::Unknown => (WeightSource::Input, None),
        };
        SourceReport::new(source, BudgetReport::new(self.keep, self.budget), features, self.errors)
    }
}

impl Norms {
    fn new(source: WeightSource, in_features: usize, plan: &Plan) -> Result<Self, MeasureError> {
        let Plan { packing, settings, .. } = plan;
        Ok(match source {
            WeightSource::Exact => Self::Exact,
            WeightSource::Predictor => Self::Predictor {
                predictor: Box::new(NormPredictor::new(in_features, *settings).map_err(MeasureError::Settings)?),
                packing: *packing,
                randomness: Randomness::new(settings.seed, 0),
            },
            WeightSource::Stale => return Err(MeasureError::NoPreviousNorms),
            WeightSource::Input => Self::Unknown,
        })
    }

    fn weights<T: Element>(&self, prepared: &PreparedStep<'_, T>) -> Result<Weights, MeasureError> {
        let &PreparedStep { step, h, ref h_norms, dz_norms, .. } = prepared;
        let weights = match self {
            Self::Exact => Weights::from_norms(h_norms, dz_norms),
            Self::Predictor { predictor, .. } => {
                let guess = predictor.guess(h, None).map_err(|source| MeasureError::Predictor { step, source })?;
                Weights::from_norms(&guess.input_norms, &guess.dz_norms)
            }
            Self::Unknown => Weights::from_input(h_norms),
        };
        weights.map_err(|source| MeasureError::Weights { step, source })
    }

    /// From the rows that the default design keeps, as training would.
    fn learn<T: Element>(
        &mut self,
        prepared: &PreparedStep<'_, T>,
        weights: &Weights,
        budget: Budget,
    ) -> Result<(), MeasureError> {
        let Self::Predictor { predictor, packing, randomness } = self else { return Ok(()) };
        let &PreparedStep { step, h, dz_norms, .. } = prepared;
        let (design, tokens) = (BuiltIn::default(), h.nrows());
        let choose = || design.select_seeded(weights, budget, *randomness);
        let (saved, draws) = match packing.bits() {
            None => (Saved::gather(h, choose()).map_err(PackError::from), design.draws(budget)),
            Some(bits) => {
                let selection = if packing.keeps_all(budget.get(), tokens) { None } else { Some(choose()) };
                let saved = Saved::pack(h, selection, bits, PackingBits::new(*randomness, 0));
                (saved, design.draws(budget).max(tokens as u64))
            }
        };
        let saved = saved.map_err(|source| MeasureError::Save { step, source })?;
        *randomness = randomness.next(draws);
        predictor.learn(&saved, dz_norms, None).map_err(|source| MeasureError::Predictor { step, source })?;
        Ok(())
    }
}

impl<'a, T: Element> PreparedStep<'a, T> {
    fn new(step: usize, h: ArrayView2<'a, T>, dz_norms: &'a [f32], g_norm: f32) -> Self {
        Self { step, h, h_norms: row_norms(h), dz_norms, g_norm: g_norm.into() }
    }

    /// ‖h_i‖² ‖dz_i‖².
    fn squared_norm(&self, token: usize) -> f64 {
        (f64::from(self.h_norms[token]) * f64::from(self.dz_norms[token])).powi(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::RecordingKeys;
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    use std::cell::Cell;
    use std::io::Cursor;

    /// Steps of two tokens with one feature.
    fn recording(h: &[f32], dz_norms: &[f32], g_norms: &[f32]) -> Recording<Cursor<Vec<u8>>> {
        let steps = g_norms.len();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let parts = [
            ("h", vec![steps, 2, 1], bytes(h)),
            ("dz_norm", vec![steps, 2], bytes(dz_norms)),
            ("g_norm", vec![steps], bytes(g_norms)),
        ];
        let views = parts.iter().map(|(name, shape, data)| {
            (*name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a valid tensor"))
        });
        let file = safetensors::serialize(views, None).expect("valid tensors");
        Recording::open(Cursor::new(file), &RecordingKeys::default()).expect("a recording")
    }

    fn plan(keep: Keep) -> Plan {
        Plan {
            budgets: vec![keep],
            sources: SOURCES.to_vec(),
            packing: Packing::Native,
            settings: PredictorSettings::default(),
        }
    }

    /// π = (¾, ¼) for weights 3 and 1, and (½, ½) for equal ones, as the predictor's are before it has learned.
    #[test]
    fn errors_worked_out_by_hand() {
        let mut recording = recording(&[1.0, -1.0, 2.0, 2.0], &[3.0, 1.0, 1.0, 1.0], &[2.0, 4.0]);
        let calls = Cell::new(0);
        let progress = || calls.set(calls.get() + 1);
        let report = measure("file", &mut recording, &plan(Keep::Rows(1)), &progress).expect("a replay");
        assert_eq!((report.steps, report.tokens, report.in_features, calls.get()), (2, 2, 1, 2));
        let errors = |source: WeightSource| {
            let result = report.results.iter().find(|result| result.weights == source).expect("a result");
            assert_eq!(result.budget, BudgetReport { fraction: None, count: 1, share: 0.5 });
            (result.errors[0], result.errors[1])
        };
        let by_weights = |share: f64| ((1.0 / share - 1.0) * 9.0 + (1.0 / (1.0 - share) - 1.0)).sqrt() / 2.0;
        let is_close = |(first, second): (f64, f64), expected: f64| {
            assert!((first - expected).abs() < 1e-6 && (second - 8.0_f64.sqrt() / 4.0).abs() < 1e-6);
        };
        is_close(errors(WeightSource::Exact), by_weights(0.75));
        is_close(errors(WeightSource::Input), by_weights(0.5));
        assert!((errors(WeightSource::Predictor).0 - by_weights(0.5)).abs() < 1e-6);
    }

    #[test]
    fn a_whole_budget_has_no_error() {
        let mut recording = recording(&[1.0, 2.0], &[3.0, 0.0], &[2.0]);
        let report = measure("file", &mut recording, &plan(Keep::Fraction(1.0)), &|| ()).expect("a replay");
        assert!(report.results.iter().all(|result| result.errors == [0.0] && result.mean_error_second_half == 0.0));
    }

    #[test]
    fn packed_rows_are_learned_from_with_a_choice_or_without() {
        let h: Vec<f32> = (0..20).map(|at| 1.0 + (at % 7) as f32).collect();
        let dz_norms: Vec<f32> = h.iter().map(|h| 1.0 / h).collect();
        let errors = |packing, keep| {
            let plan = Plan { packing, ..plan(keep) };
            let report = measure("file", &mut recording(&h, &dz_norms, &[1.0; 10]), &plan, &|| ()).expect("a replay");
            (report.bits, report.results.into_iter().map(|result| result.errors).collect::<Vec<_>>())
        };
        let (native, packed) = (errors(Packing::Native, Keep::Rows(1)), errors(Packing::Bits2, Keep::Rows(1)));
        assert_eq!((native.0, packed.0), (32, 2));
        // Sources that learn nothing.
        assert_eq!([&native.1[0], &native.1[2]], [&packed.1[0], &packed.1[2]]);
        assert_eq!(errors(Packing::Bits4, Keep::Rows(2)).1, [[0.0; 10]; 3]);
    }

    #[test]
    fn steps_without_gradients_or_activations() {
        let mut recording = recording(&[0.0; 6], &[0.0, 0.0, 1.0, 1.0, 0.0, 2.0], &[f32::MIN_POSITIVE; 3]);
        let report = measure("file", &mut recording, &plan(Keep::Rows(1)), &|| ()).expect("a replay");
        assert!(report.results.iter().all(|result| result.errors == [0.0; 3]));
    }

    #[test]
    fn what_cannot_be_replayed() {
        let refusal = |h: &[f32], keep, settings| {
            let mut recording = recording(h, &[1.0; 4], &[1.0; 2]);
            let plan = Plan { settings, ..plan(keep) };
            measure("file", &mut recording, &plan, &|| ()).expect_err("must be refused")
        };
        let usual = PredictorSettings::default();
        assert!(matches!(refusal(&[1.0; 4], Keep::Rows(3), usual), MeasureError::Budget(_)));
        let none = usual.with_features(0);
        assert!(matches!(refusal(&[1.0; 4], Keep::Rows(1), none), MeasureError::Settings(_)));
        let mut recording = recording(&[1.0; 4], &[1.0; 4], &[1.0; 2]);
        let stale = Plan { sources: vec![WeightSource::Stale], ..plan(Keep::Rows(1)) };
        let refused = measure("file", &mut recording, &stale, &|| ());
        assert!(matches!(refused, Err(MeasureError::NoPreviousNorms)));
        let nan = refusal(&[1.0, 1.0, 1.0, f32::NAN], Keep::Rows(1), usual).to_string();
        assert!(nan.starts_with("step 1: tensor 'h' is NaN at row 1"), "{nan}");
    }
}
