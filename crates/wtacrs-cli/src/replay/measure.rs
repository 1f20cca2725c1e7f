//! The replay of recorded steps: how much error each source of weights leaves, step after step.
//!
//! At step t a source guesses ‖dZ_i‖, which gives weights and with a budget the inclusion probabilities π_i. The error is
//! that of Poisson sampling with them, in closed form and in f64, so that chance plays no part in it:
//!
//! error_t = √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖_F
//!
//! The predictor starts cold for each budget. It guesses before it sees a step, and then learns what training could
//! teach it: the rows that the default design keeps under the predictor's own weights, with their norms and scales.

use super::report::{RecordingReport, Source, SourceReport};
use crate::input::{Recording, RecordingError, with_values};
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::io::{Read, Seek};
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::guesses::{NormPredictor, PredictorError, PredictorSettings};
use wtacrs_core::product::{self, ShapeError};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, BudgetError, Keep, Weights, WeightsError};
use wtacrs_core::theory;

/// What to replay.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many tokens to keep at each step.
    pub budgets: Vec<Keep>,
    /// Where the weights come from.
    pub sources: Vec<Source>,
    /// Of the predictor; its seed is the seed of the rows kept for it, too.
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
    /// Settings that the predictor refuses.
    #[error(transparent)]
    Settings(PredictorError),
    /// A row of H whose norm is no weight.
    #[error("step {step}: {source}")]
    Weights {
        /// The step, from 0.
        step: usize,
        /// What is wrong with it.
        source: WeightsError,
    },
    /// Rows that the predictor refuses.
    #[error("step {step}: the predictor refuses it: {source}")]
    Predictor {
        /// The step, from 0.
        step: usize,
        /// What it says.
        source: PredictorError,
    },
    /// Rows that do not fit the selection made of them.
    #[error("step {step}: {source}")]
    Shape {
        /// The step, from 0.
        step: usize,
        /// What does not fit.
        source: ShapeError,
    },
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
            runs.push(Run::new(source, (keep, budget), in_features, &plan.settings)?);
        }
    }
    for step in 0..steps {
        let recorded = recording.read_step(step)?;
        with_values!(&recorded.h, h => {
            let subject = Subject::new(step, h.view(), &recorded.dz_norms, recorded.g_norm);
            // Collected before the first failure is looked for, so that the same one is reported every time.
            let done: Vec<_> = runs.par_iter_mut().map(|run| run.step(&subject)).collect();
            done.into_iter().collect::<Result<(), _>>()?;
        });
        progress();
    }
    let results = runs.into_iter().map(Run::report).collect();
    Ok(RecordingReport { file: file.to_owned(), steps, tokens, in_features, results })
}

/// The state of one line of the figure.
struct Run {
    /// As it was asked for.
    keep: Keep,
    budget: Budget,
    guesser: Guesser,
    errors: Vec<f64>,
}

/// One recorded step, with what all runs need of it.
struct Subject<'a, T> {
    step: usize,
    h: ArrayView2<'a, T>,
    h_norms: Vec<f32>,
    dz_norms: &'a [f32],
    g_norm: f64,
}

enum Guesser {
    Exact,
    Input,
    Predictor { predictor: Box<NormPredictor>, offset: u64 },
}

impl<'a, T: Element> Subject<'a, T> {
    fn new(step: usize, h: ArrayView2<'a, T>, dz_norms: &'a [f32], g_norm: f32) -> Self {
        Self { step, h, h_norms: product::row_norms(h), dz_norms, g_norm: g_norm.into() }
    }

    /// ‖h_i‖² ‖dz_i‖².
    fn squared_norm(&self, token: usize) -> f64 {
        (f64::from(self.h_norms[token]) * f64::from(self.dz_norms[token])).powi(2)
    }
}

impl Run {
    fn new(
        source: Source,
        (keep, budget): (Keep, Budget),
        in_features: usize,
        settings: &PredictorSettings,
    ) -> Result<Self, MeasureError> {
        let guesser = match source {
            Source::Exact => Guesser::Exact,
            Source::Input => Guesser::Input,
            Source::Predictor => Guesser::Predictor {
                predictor: Box::new(NormPredictor::new(in_features, *settings).map_err(MeasureError::Settings)?),
                offset: 0,
            },
        };
        Ok(Self { keep, budget, guesser, errors: Vec::new() })
    }

    /// Measures the weights of a step, and only then learns from it.
    fn step<T: Element>(&mut self, subject: &Subject<'_, T>) -> Result<(), MeasureError> {
        let weights = self.guesser.weights(subject)?;
        let variance = theory::poisson_variance(&weights, self.budget, |token| subject.squared_norm(token));
        self.errors.push(variance.sqrt() / subject.g_norm);
        self.guesser.learn(subject, &weights, self.budget)
    }

    fn report(self) -> SourceReport {
        let (source, features) = match self.guesser {
            Guesser::Exact => (Source::Exact, None),
            Guesser::Input => (Source::Input, None),
            Guesser::Predictor { predictor, .. } => (Source::Predictor, Some(predictor.features())),
        };
        SourceReport::new(source, self.keep, self.budget, features, self.errors)
    }
}

impl Guesser {
    fn weights<T: Element>(&self, subject: &Subject<'_, T>) -> Result<Weights, MeasureError> {
        let weights = match self {
            Self::Exact => Weights::from_norms(&subject.h_norms, subject.dz_norms),
            Self::Input => Weights::from_input(&subject.h_norms),
            Self::Predictor { predictor, .. } => {
                let guess = predictor
                    .guess(subject.h, None)
                    .map_err(|source| MeasureError::Predictor { step: subject.step, source })?;
                Weights::from_norms(&guess.input_norms, &guess.dz_norms)
            }
        };
        weights.map_err(|source| MeasureError::Weights { step: subject.step, source })
    }

    /// From the rows that the default design keeps, as training would.
    fn learn<T: Element>(
        &mut self,
        subject: &Subject<'_, T>,
        weights: &Weights,
        budget: Budget,
    ) -> Result<(), MeasureError> {
        let Self::Predictor { predictor, offset } = self else { return Ok(()) };
        let design = BuiltIn::WtaPivotal;
        let selection = design.select_seeded(weights, budget, Randomness::new(predictor.settings().seed, *offset));
        *offset += design.draws(budget);
        let step = subject.step;
        let rows = product::gather(subject.h, &selection).map_err(|source| MeasureError::Shape { step, source })?;
        let dz_norms: Vec<f32> = selection.iter().map(|(token, _)| subject.dz_norms[token]).collect();
        predictor
            .update(rows.view(), &dz_norms, selection.scales(), None)
            .map_err(|source| MeasureError::Predictor { step, source })
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
        Plan { budgets: vec![keep], sources: Source::ALL.to_vec(), settings: PredictorSettings::default() }
    }

    /// π = (¾, ¼) for weights 3 and 1, and (½, ½) for equal ones, as the predictor's are before it has learned.
    #[test]
    fn errors_worked_out_by_hand() {
        let mut recording = recording(&[1.0, -1.0, 2.0, 2.0], &[3.0, 1.0, 1.0, 1.0], &[2.0, 4.0]);
        let calls = Cell::new(0);
        let progress = || calls.set(calls.get() + 1);
        let report = measure("file", &mut recording, &plan(Keep::Rows(1)), &progress).expect("a replay");
        assert_eq!((report.steps, report.tokens, report.in_features, calls.get()), (2, 2, 1, 2));
        let errors = |source: Source| {
            let result = report.results.iter().find(|result| result.source == source).expect("a result");
            assert_eq!((result.fraction, result.budget), (0.5, 1));
            (result.errors[0], result.errors[1])
        };
        let by_weights = |share: f64| ((1.0 / share - 1.0) * 9.0 + (1.0 / (1.0 - share) - 1.0)).sqrt() / 2.0;
        let is_close = |(first, second): (f64, f64), expected: f64| {
            assert!((first - expected).abs() < 1e-6 && (second - 8.0_f64.sqrt() / 4.0).abs() < 1e-6);
        };
        is_close(errors(Source::Exact), by_weights(0.75));
        is_close(errors(Source::Input), by_weights(0.5));
        assert!((errors(Source::Predictor).0 - by_weights(0.5)).abs() < 1e-6);
    }

    #[test]
    fn a_whole_budget_has_no_error() {
        let mut recording = recording(&[1.0, 2.0], &[3.0, 0.0], &[2.0]);
        let report = measure("file", &mut recording, &plan(Keep::Fraction(1.0)), &|| ()).expect("a replay");
        assert!(report.results.iter().all(|result| result.errors == [0.0] && result.mean_error_second_half == 0.0));
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
        let nan = refusal(&[1.0, 1.0, 1.0, f32::NAN], Keep::Rows(1), usual).to_string();
        assert!(nan.starts_with("step 1: tensor 'h' is NaN at row 1"), "{nan}");
    }
}
