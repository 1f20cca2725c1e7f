//! `wtacrs memory`: the bytes that a layer, or a whole transformer, saves from the forward to the backward pass, exactly
//! and by estimates.
//!
//! The inputs of linear layers are counted, which training keeps for dW = Hᵀ dZ: tokens × in_features elements, of which
//! an estimate keeps `budget` rows, native or packed, with an index (4 bytes) and a scale (8 bytes) each unless all rows
//! are packed. They lie in one block ([`SavedLayout`]), as in a plan of the C library on the CPU. Layers that read the same
//! input share one selection. The activations of
//! attention, norms and dropout are not counted: estimates do not change them.

pub mod report;
pub mod shapes;

use self::report::{InputReport, MemoryReport, SavedReport};
use self::shapes::{Batch, Input, Model, Rows};
use crate::labels::{BudgetReport, Dtype, bits_of};
use crate::run::{self, Format, RunError};
use clap::Args;
use wtacrs_core::guesses::{NormPredictor, PredictorError, PredictorSettings};
use wtacrs_core::product::{Packing, SavedLayout};
use wtacrs_core::sampling::{BudgetError, Keep};

const EXAMPLES: &str = "\
Examples:
  wtacrs memory t5-3b --batch 32 --length 128
  wtacrs memory bert-base --budget 0.3,0.2,0.1 --dtype f32
  wtacrs memory t5-3b --budget 1.0,0.3 --bits 4
  wtacrs memory --tokens 16384 --in-features 4096";

const JSON_FORMAT: &str = "\
JSON: {name, element_bytes, bits, inputs: [{name, layers, count, tokens, in_features, exact_bytes,
       saved: [{fraction, budget, budget_share, bytes}], predictor_bytes}], exact_bytes, saved_bytes: […],
       predictor_bytes}
  bits              of an element of a kept row: 16 or 32, those of the type, for exact copies; 8, 4 or 2 if packed
  inputs            the matrices that linear layers read; `layers` of them share one, `count` of them are in the model
  exact_bytes       of one such matrix, kept whole; at the top, of all of them
  saved             for each budget, the bytes of the block of rows kept, indices and scales, as a plan of the C library
                    reports on the CPU
  fraction          the share of the tokens to keep that was asked for; null where a count was
  budget            the number of tokens to keep, k; budget_share is k / tokens
  predictor_bytes   the state of a norm predictor
CSV has one line for each input and budget.

Exit code: 0, or 2 if an argument is refused.";

/// Arguments of `wtacrs memory`.
#[derive(Debug, Args)]
#[command(after_help = examples(), after_long_help = format!("{}\n\n{JSON_FORMAT}", examples()))]
pub struct MemoryArgs {
    /// A transformer by name; without it, --tokens and --in-features describe a single layer
    #[arg(value_name = "SHAPE", required_unless_present_all = ["tokens", "in_features"])]
    pub model: Option<Model>,

    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "tokens")]
    pub batch: usize,

    /// Tokens of a sequence, padding included
    #[arg(long, value_name = "N", default_value_t = 128, conflicts_with = "tokens")]
    pub length: usize,

    /// Tokens of a target, for shapes with a decoder [default: --length]
    #[arg(long, value_name = "N", conflicts_with = "tokens")]
    pub target_length: Option<usize>,

    /// Rows of a single layer's input
    #[arg(long, value_name = "N", requires = "in_features", conflicts_with = "model")]
    pub tokens: Option<usize>,

    /// Columns of a single layer's input
    #[arg(long, value_name = "N", requires = "tokens", conflicts_with = "model")]
    pub in_features: Option<usize>,

    /// Tokens to keep, as fractions (0.3) or counts (128)
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "0.3,0.1")]
    pub budget: Vec<Keep>,

    /// How kept rows are saved: native (exact copies), or packed in 8, 4 or 2 bits an element
    #[arg(long, value_name = "BITS", default_value_t = Packing::Native)]
    pub bits: Packing,

    /// Type of the activations
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,

    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How rows lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowType {
    /// Bytes of an element of H.
    pub element_bytes: usize,
    /// How kept rows are saved.
    pub packing: Packing,
}

/// Why bytes cannot be counted or printed, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A budget does not fit the tokens of some input.
    #[error("{input}: {source}")]
    Budget {
        /// The input.
        input: &'static str,
        /// Why the budget is refused.
        source: BudgetError,
    },
    /// More features than a predictor can have.
    #[error("{input}: {source}")]
    Predictor {
        /// The input.
        input: &'static str,
        /// Why the predictor is refused.
        source: PredictorError,
    },
    /// More bytes than can be counted.
    #[error("{input}: more bytes than 64 bits can count")]
    TooLarge {
        /// The input.
        input: &'static str,
    },
    /// Output that cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs `wtacrs memory`: counts, and prints the report.
///
/// # Errors
///
/// See [`MemoryError`].
pub fn run(args: &MemoryArgs) -> Result<(), MemoryError> {
    let (row_type, keeps) = (RowType { element_bytes: args.dtype.bytes(), packing: args.bits }, args.budget.as_slice());
    let report = match (&args.model, args.tokens.zip(args.in_features)) {
        (None, Some((tokens, in_features))) => of_layer(tokens, in_features, row_type, keeps)?,
        (Some(model), _) => of_model(model, args.batch(), row_type, keeps)?,
        (None, None) => unreachable!("clap requires one of them"),
    };
    run::print(&match args.format {
        Format::Table => report::table(&report, keeps),
        Format::Json => run::json(&report)?,
        Format::Csv => report::csv(&report),
    })?;
    Ok(())
}

/// The report of a whole model.
///
/// # Errors
///
/// [`MemoryError`] names the input at fault.
pub fn of_model(model: &Model, batch: Batch, row_type: RowType, keeps: &[Keep]) -> Result<MemoryReport, MemoryError> {
    let tokens = |rows| match rows {
        Rows::Source => batch.sequences.checked_mul(batch.length),
        Rows::Target => batch.sequences.checked_mul(batch.target_length),
    };
    let inputs = model.inputs();
    let sized = inputs.iter().map(|input| match tokens(input.rows) {
        Some(tokens) => Ok((*input, tokens)),
        None => Err(MemoryError::TooLarge { input: input.name }),
    });
    of_inputs(model.name, &sized.collect::<Result<Vec<_>, _>>()?, row_type, keeps)
}

/// The report of a single layer.
///
/// # Errors
///
/// See [`MemoryError`].
pub fn of_layer(
    tokens: usize,
    in_features: usize,
    row_type: RowType,
    keeps: &[Keep],
) -> Result<MemoryReport, MemoryError> {
    let input = Input { name: "input", layers: 1, count: 1, rows: Rows::Source, features: in_features };
    of_inputs("one linear layer", &[(input, tokens)], row_type, keeps)
}

fn of_inputs(
    name: &str,
    inputs: &[(Input, usize)],
    row_type: RowType,
    keeps: &[Keep],
) -> Result<MemoryReport, MemoryError> {
    let inputs = inputs.iter().map(|&(input, tokens)| of_input(input, tokens, row_type, keeps));
    let inputs = inputs.collect::<Result<Vec<InputReport>, _>>()?;
    let too_large = || MemoryError::TooLarge { input: "the sum" };
    let sum = |bytes: &dyn Fn(&InputReport) -> u64| {
        let times = |input: &InputReport| bytes(input).checked_mul(input.count as u64);
        inputs.iter().try_fold(0_u64, |sum, input| sum.checked_add(times(input)?)).ok_or_else(too_large)
    };
    let saved_bytes = (0..keeps.len()).map(|at| sum(&|input| input.saved[at].bytes)).collect::<Result<_, _>>()?;
    let predictor_bytes = sum(&|input| input.predictor_bytes)?;
    let exact_bytes = sum(&|input| input.exact_bytes)?;
    let RowType { element_bytes, packing } = row_type;
    let (name, bits) = (name.to_owned(), bits_of(packing, element_bytes));
    Ok(MemoryReport { name, element_bytes, bits, inputs, exact_bytes, saved_bytes, predictor_bytes })
}

fn of_input(input: Input, tokens: usize, row_type: RowType, keeps: &[Keep]) -> Result<InputReport, MemoryError> {
    let RowType { element_bytes, packing } = row_type;
    let Input { name, layers, count, features: in_features, .. } = input;
    let exact = tokens.checked_mul(in_features).and_then(|elements| elements.checked_mul(element_bytes));
    let exact_bytes = exact.ok_or(MemoryError::TooLarge { input: name })? as u64;
    let saved = keeps.iter().map(|&keep| -> Result<SavedReport, MemoryError> {
        let budget = keep.budget(tokens).map_err(|source| MemoryError::Budget { input: name, source })?;
        let layout = SavedLayout::new(packing, budget.pairs(), budget.get(), in_features, element_bytes);
        let bytes = layout.ok_or(MemoryError::TooLarge { input: name })?.bytes as u64;
        Ok(SavedReport { budget: BudgetReport::new(keep, budget), bytes })
    });
    let saved = saved.collect::<Result<_, _>>()?;
    let predictor = NormPredictor::new(in_features, PredictorSettings::default());
    let predictor_bytes = predictor.map_err(|source| MemoryError::Predictor { input: name, source })?.bytes() as u64;
    Ok(InputReport { name: name.to_owned(), layers, count, tokens, in_features, exact_bytes, saved, predictor_bytes })
}

impl MemoryArgs {
    /// The sequences that pass through a model.
    pub fn batch(&self) -> Batch {
        let &Self { batch, length, target_length, .. } = self;
        Batch { sequences: batch, length, target_length: target_length.unwrap_or(length) }
    }
}

fn examples() -> String {
    format!("{EXAMPLES}\n\nShapes: {}.", shapes::names())
}
