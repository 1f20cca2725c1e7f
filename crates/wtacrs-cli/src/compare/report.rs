//! What a comparison finds, in types that are also the JSON that the command writes: an array of [`LayerReport`]s.
//!
//! The JSON is stable: fields may be added, but none is renamed, removed or given another meaning. Numbers that do not
//! exist, such as the bias of an estimate without error, are null.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use wtacrs_core::Selection;
use wtacrs_core::sampling::design::BuiltIn;

/// One layer's results: an object of the JSON array.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// The file, or the files, that it is from.
    pub file: String,
    /// Rows of H and of dZ.
    pub tokens: usize,
    /// Columns of H.
    pub in_features: usize,
    /// Columns of dZ.
    pub out_features: usize,
    /// Bytes of one element of H.
    #[serde(skip)]
    pub element_bytes: usize,
    /// For each source of weights, budget and design, in the order of the plan.
    pub results: Vec<DesignReport>,
}

/// One design at one budget with one source of weights.
#[derive(Clone, Debug, Serialize)]
pub struct DesignReport {
    /// "exact", "stale" or "input".
    pub weights: WeightSource,
    /// The design's name.
    #[serde(serialize_with = "as_name")]
    pub design: BuiltIn,
    /// `budget` / tokens.
    pub fraction: f64,
    /// The number of tokens to keep, k.
    pub budget: usize,
    /// Of them, how many are kept for certain, |C|.
    pub winners: usize,
    /// Distinct rows kept, the mean over the trials.
    pub kept: f64,
    /// Independent draws that the statistics are from.
    pub trials: usize,
    /// √(mean over the trials of ‖ĝ − g‖²_F / ‖g‖²_F). 0 if no larger than rounding.
    pub rel_error: f64,
    /// Standard deviation over the trials of ‖ĝ − g‖_F / ‖g‖_F.
    pub rel_error_sd: f64,
    /// ‖mean ĝ − g‖² / (mean ‖ĝ − g‖² / trials): about 1 if unbiased, up to `trials` if biased; null if there is no
    /// error.
    pub bias_ratio: Option<f64>,
    /// mean ‖ĝ − g‖² over the variance of plain column-row sampling, in closed form; null if that has none.
    pub variance_vs_crs: Option<f64>,
    /// How long the steps take.
    pub time_ms: StepTimes,
}

/// Medians, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StepTimes {
    /// Row norms of H and of dZ.
    pub norms: f64,
    /// Weights from the norms, threshold and draws.
    pub select: f64,
    /// Copying the kept rows of H.
    pub gather: f64,
    /// The estimate of dW from them.
    pub product: f64,
    /// The exact dW, for comparison.
    pub exact: f64,
}

/// What is known of ‖dZ_i‖ when weights are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightSource {
    /// The norms themselves: w_i = ‖H_i‖ · ‖dZ_i‖.
    Exact,
    /// The norms when the token was last seen, from a warm cache with the default mix.
    Stale,
    /// Nothing: w_i = ‖H_i‖.
    Input,
}

/// A name that no source of weights has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no weights '{name}': choose from exact, stale, input")]
pub struct UnknownWeights {
    /// The offending name.
    pub name: String,
}

impl StepTimes {
    /// What an estimate takes in all, as a share of the exact product's time.
    pub fn total_vs_exact(&self) -> f64 {
        (self.norms + self.select + self.gather + self.product) / self.exact
    }
}

impl DesignReport {
    /// Memory that lives from the forward to the backward pass, kept rows with their indices and scales, as a share of
    /// all of H.
    pub fn memory_share(&self, layer: &LayerReport) -> f64 {
        let row = (layer.in_features * layer.element_bytes) as f64;
        let kept_row = row + Selection::BYTES_PER_PAIR as f64;
        self.kept * kept_row / (layer.tokens as f64 * row)
    }
}

impl WeightSource {
    /// The name in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Stale => "stale",
            Self::Input => "input",
        }
    }
}

impl FromStr for WeightSource {
    type Err = UnknownWeights;

    fn from_str(name: &str) -> Result<Self, UnknownWeights> {
        let all = [Self::Exact, Self::Stale, Self::Input];
        all.into_iter().find(|source| source.name() == name).ok_or_else(|| UnknownWeights { name: name.to_owned() })
    }
}

impl fmt::Display for WeightSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn as_name<S: Serializer>(design: &BuiltIn, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(design)
}
