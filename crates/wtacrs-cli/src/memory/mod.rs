//! What a layer, or a whole transformer, saves from the forward to the backward pass: exactly, and by estimates.
//!
//! Counted are the inputs of linear layers, which training keeps for dW = Hᵀ dZ: tokens × in_features elements, of
//! which an estimate keeps `budget` rows with an index (4 bytes) and a scale (8 bytes) each. Layers that read the same
//! input share one selection. What attention, norms and dropout save is not counted: estimates do not change it.

pub mod formats;
pub mod report;
pub mod shape;
pub mod table;

use self::report::{InputReport, MemoryReport, SavedReport};
use self::shape::{Input, Model, Rows};
use wtacrs_core::guesses::{NormPredictor, PredictorError, PredictorSettings};
use wtacrs_core::layers::Linear;
use wtacrs_core::sampling::{BudgetError, Keep};

/// How much of a model passes through it.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each, padding included.
    pub length: usize,
    /// Tokens of each target, for a decoder.
    pub target_length: usize,
}

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A budget does not fit the tokens of some input.
    #[error("{input}: {source}")]
    Budget {
        /// The input.
        input: &'static str,
        /// What is wrong with the budget.
        source: BudgetError,
    },
    /// No predictor has so many features.
    #[error("{input}: {source}")]
    Predictor {
        /// The input.
        input: &'static str,
        /// Why not.
        source: PredictorError,
    },
    /// More bytes than can be counted.
    #[error("{input}: more bytes than 64 bits can count")]
    TooLarge {
        /// The input.
        input: &'static str,
    },
}

/// The report of a whole model.
///
/// # Errors
///
/// [`MemoryError`] names the input at fault.
pub fn of_model(
    model: &Model,
    batch: Batch,
    element_bytes: usize,
    keeps: &[Keep],
) -> Result<MemoryReport, MemoryError> {
    let tokens = |rows| match rows {
        Rows::Source => batch.sequences.checked_mul(batch.length),
        Rows::Target => batch.sequences.checked_mul(batch.target_length),
    };
    let inputs = model.inputs();
    let sized = inputs.iter().map(|input| match tokens(input.rows) {
        Some(tokens) => Ok((*input, tokens)),
        None => Err(MemoryError::TooLarge { input: input.name }),
    });
    report(model.name, &sized.collect::<Result<Vec<_>, _>>()?, element_bytes, keeps)
}

/// The report of a single layer.
///
/// # Errors
///
/// [`MemoryError`].
pub fn of_layer(
    tokens: usize,
    in_features: usize,
    element_bytes: usize,
    keeps: &[Keep],
) -> Result<MemoryReport, MemoryError> {
    let input = Input { name: "input", layers: 1, count: 1, rows: Rows::Source, features: in_features };
    report("one linear layer", &[(input, tokens)], element_bytes, keeps)
}

fn report(
    name: &str,
    inputs: &[(Input, usize)],
    element_bytes: usize,
    keeps: &[Keep],
) -> Result<MemoryReport, MemoryError> {
    let inputs = inputs.iter().map(|&(input, tokens)| of_input(input, tokens, element_bytes, keeps));
    let inputs = inputs.collect::<Result<Vec<InputReport>, _>>()?;
    let too_large = || MemoryError::TooLarge { input: "the sum" };
    let sum = |bytes: &dyn Fn(&InputReport) -> u64| {
        let times = |input: &InputReport| bytes(input).checked_mul(input.count as u64);
        inputs.iter().try_fold(0_u64, |sum, input| sum.checked_add(times(input)?)).ok_or_else(too_large)
    };
    let saved_bytes = (0..keeps.len()).map(|at| sum(&|input| input.saved[at].bytes)).collect::<Result<_, _>>()?;
    let predictor_bytes = sum(&|input| input.predictor_bytes)?;
    let exact_bytes = sum(&|input| input.exact_bytes)?;
    Ok(MemoryReport { name: name.to_owned(), element_bytes, inputs, exact_bytes, saved_bytes, predictor_bytes })
}

fn of_input(input: Input, tokens: usize, element_bytes: usize, keeps: &[Keep]) -> Result<InputReport, MemoryError> {
    let Input { name, layers, count, features: in_features, .. } = input;
    let exact = tokens.checked_mul(in_features).and_then(|elements| elements.checked_mul(element_bytes));
    let exact_bytes = exact.ok_or(MemoryError::TooLarge { input: name })? as u64;
    let saved = keeps.iter().map(|&keep| {
        let budget = keep.budget(tokens)?.get();
        let bytes = Linear::new(keep).saved_bytes(tokens, in_features, element_bytes)?;
        Ok(SavedReport { budget, fraction: budget as f64 / tokens.max(1) as f64, bytes })
    });
    let saved = saved.collect::<Result<_, _>>().map_err(|source| MemoryError::Budget { input: name, source })?;
    let predictor = NormPredictor::new(in_features, PredictorSettings::default());
    let predictor_bytes = predictor.map_err(|source| MemoryError::Predictor { input: name, source })?.bytes() as u64;
    Ok(InputReport { name: name.to_owned(), layers, count, tokens, in_features, exact_bytes, saved, predictor_bytes })
}
