//! One source of weights at one budget, carried from step to step.

use super::ReplayError;
use super::report::{Source, SourceReport};
use ndarray::ArrayView2;
use wtacrs_core::Randomness;
use wtacrs_core::element::Element;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Keep, Weights};
use wtacrs_core::{product, theory};

/// The state of one line of the figure.
pub(super) struct Run {
    /// As it was asked for.
    keep: Keep,
    budget: Budget,
    guesser: Guesser,
    errors: Vec<f64>,
}

/// One recorded step, with what all runs need of it.
pub(super) struct Subject<'a, T> {
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
    pub(super) fn new(step: usize, h: ArrayView2<'a, T>, dz_norms: &'a [f32], g_norm: f32) -> Self {
        Self { step, h, h_norms: product::row_norms(h), dz_norms, g_norm: g_norm.into() }
    }

    /// ‖h_i‖² ‖dz_i‖².
    fn squared_norm(&self, token: usize) -> f64 {
        (f64::from(self.h_norms[token]) * f64::from(self.dz_norms[token])).powi(2)
    }
}

impl Run {
    pub(super) fn new(
        source: Source,
        (keep, budget): (Keep, Budget),
        in_features: usize,
        settings: &PredictorSettings,
    ) -> Result<Self, ReplayError> {
        let guesser = match source {
            Source::Exact => Guesser::Exact,
            Source::Input => Guesser::Input,
            Source::Predictor => Guesser::Predictor {
                predictor: Box::new(NormPredictor::new(in_features, *settings).map_err(ReplayError::Settings)?),
                offset: 0,
            },
        };
        Ok(Self { keep, budget, guesser, errors: Vec::new() })
    }

    /// Measures the weights of a step, and only then learns from it.
    pub(super) fn step<T: Element>(&mut self, subject: &Subject<'_, T>) -> Result<(), ReplayError> {
        let weights = self.guesser.weights(subject)?;
        let variance = theory::poisson_variance(&weights, self.budget, |token| subject.squared_norm(token));
        self.errors.push(variance.sqrt() / subject.g_norm);
        self.guesser.learn(subject, &weights, self.budget)
    }

    pub(super) fn report(self) -> SourceReport {
        let (source, features) = match self.guesser {
            Guesser::Exact => (Source::Exact, None),
            Guesser::Input => (Source::Input, None),
            Guesser::Predictor { predictor, .. } => (Source::Predictor, Some(predictor.features())),
        };
        SourceReport::new(source, self.keep, self.budget, features, self.errors)
    }
}

impl Guesser {
    fn weights<T: Element>(&self, subject: &Subject<'_, T>) -> Result<Weights, ReplayError> {
        let weights = match self {
            Self::Exact => Weights::from_norms(&subject.h_norms, subject.dz_norms),
            Self::Input => Weights::from_input(&subject.h_norms),
            Self::Predictor { predictor, .. } => {
                let guess = predictor
                    .guess(subject.h, None)
                    .map_err(|source| ReplayError::Predictor { step: subject.step, source })?;
                Weights::from_norms(&guess.input_norms, &guess.dz_norms)
            }
        };
        weights.map_err(|source| ReplayError::Weights { step: subject.step, source })
    }

    /// From the rows that the default design keeps, as training would.
    fn learn<T: Element>(
        &mut self,
        subject: &Subject<'_, T>,
        weights: &Weights,
        budget: Budget,
    ) -> Result<(), ReplayError> {
        let Self::Predictor { predictor, offset } = self else { return Ok(()) };
        let design = BuiltIn::WtaPivotal;
        let selection = design.select_seeded(weights, budget, Randomness::new(predictor.settings().seed, *offset));
        *offset += design.draws(budget);
        let step = subject.step;
        let rows = product::gather(subject.h, &selection).map_err(|source| ReplayError::Shape { step, source })?;
        let dz_norms: Vec<f32> = selection.iter().map(|(token, _)| subject.dz_norms[token]).collect();
        predictor
            .update(rows.view(), &dz_norms, selection.scales(), None)
            .map_err(|source| ReplayError::Predictor { step, source })
    }
}
