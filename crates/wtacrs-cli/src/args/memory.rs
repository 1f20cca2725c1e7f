//! The arguments of `wtacrs memory`.

use super::Format;
use crate::memory::Batch;
use crate::memory::shape::{self, Model};
use clap::{Args, ValueEnum};
use wtacrs_core::Keep;

const EXAMPLES: &str = "\
Examples:
  wtacrs memory t5-3b --batch 32 --length 128
  wtacrs memory bert-base --budget 0.3,0.2,0.1 --dtype f32
  wtacrs memory --tokens 16384 --in-features 4096";

const JSON_FORMAT: &str = "\
JSON: {name, element_bytes, inputs: [{name, layers, count, tokens, in_features, exact_bytes,
       saved: [{budget, fraction, bytes}], predictor_bytes}], exact_bytes, saved_bytes: […], predictor_bytes}
  inputs            the matrices that linear layers read; `layers` of them share one, `count` of them are in the model
  exact_bytes       of one such matrix, kept whole; at the top, of all of them
  saved             for each budget, the rows kept, with indices and scales
  predictor_bytes   the state of a norm predictor
CSV has one line for each input and budget.

Exit code: 0, or 2 if anything was wrong with the arguments.";

/// Arguments of `wtacrs memory`.
#[derive(Debug, Args)]
#[command(after_help = examples(), after_long_help = format!("{}\n\n{JSON_FORMAT}", examples()))]
pub struct MemoryArgs {
    /// A transformer by name; without one, a single layer of --tokens and --in-features
    #[arg(value_name = "SHAPE", required_unless_present_all = ["tokens", "in_features"])]
    pub model: Option<Model>,

    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "tokens")]
    pub batch: usize,

    /// Tokens of a sequence, padding included
    #[arg(long, value_name = "N", default_value_t = 128, conflicts_with = "tokens")]
    pub length: usize,

    /// Tokens of a target, for shapes with a decoder; as long as the sequence by default
    #[arg(long, value_name = "N", conflicts_with = "tokens")]
    pub target_length: Option<usize>,

    /// Rows of a single layer's input
    #[arg(long, value_name = "N", requires = "in_features", conflicts_with = "model")]
    pub tokens: Option<usize>,

    /// Columns of a single layer's input
    #[arg(long, value_name = "N", requires = "tokens", conflicts_with = "model")]
    pub in_features: Option<usize>,

    /// What budgets keep, as fractions (0.3) or counts (128)
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "0.3,0.1")]
    pub budget: Vec<Keep>,

    /// Type of the activations
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,

    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

fn examples() -> String {
    format!("{EXAMPLES}\n\nShapes: {}.", shape::names())
}

/// Types of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// Four bytes.
    F32,
    /// Two bytes.
    F16,
    /// Two bytes.
    Bf16,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl MemoryArgs {
    /// What passes through a model.
    pub fn batch(&self) -> Batch {
        let &Self { batch, length, target_length, .. } = self;
        Batch { sequences: batch, length, target_length: target_length.unwrap_or(length) }
    }
}
