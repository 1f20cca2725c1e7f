//! The arguments of `wtacrs compare`.

use super::RunArgs;
use crate::compare::report::WeightSource;
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use wtacrs_core::Keep;
use wtacrs_core::sampling::design::{BuiltIn, UnknownDesign};

const EXAMPLES: &str = "\
Examples:
  wtacrs compare
  wtacrs compare --budget 0.1 --design wta-pivotal,crs layer3.safetensors layer4.safetensors
  wtacrs compare --h-key x --dz-key grad recorded.safetensors
  wtacrs compare h.npy dz.npy --dz-norm-npy previous_norms.npy --format csv
  wtacrs compare --budget 0.05,0.1,0.2,0.3,0.5 --plot errors.svg";

const JSON_FORMAT: &str = "\
JSON: an array with one object for each layer,
  {file, tokens, in_features, out_features, results: [{weights, design, fraction, budget, winners, kept, trials,
   rel_error, rel_error_sd, bias_ratio, variance_vs_crs, time_ms: {norms, select, gather, product, exact}}]}
With g = dW exact in f64, and ĝ an estimate made in the layer's own types:
  fraction         budget / tokens; winners of the budget are kept for certain
  kept             distinct rows kept, mean over the trials
  rel_error        √(mean over trials of ‖ĝ − g‖² / ‖g‖²), Frobenius norms; 0 if no larger than rounding
  rel_error_sd     standard deviation over trials of ‖ĝ − g‖ / ‖g‖
  bias_ratio       ‖mean ĝ − g‖² / (mean ‖ĝ − g‖² / trials): about 1 if unbiased, up to trials if biased; null if no error
  variance_vs_crs  mean ‖ĝ − g‖² / the variance of plain column-row sampling, in closed form; null if that is 0
  time_ms          medians in milliseconds; norms are those of H and dZ, exact is the exact product
CSV has the same numbers, one line for each result.

Exit code: 0, or 2 if anything was wrong with the arguments, the files or the layers.";

/// Arguments of `wtacrs compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{JSON_FORMAT}"))]
pub struct CompareArgs {
    /// safetensors files, or two .npy files, H and then dZ; without any, a real layer that comes with the command
    ///
    /// H is tokens × in_features and dZ tokens × out_features, in f32, f16 or bf16. In .npy files bf16 is V2, as
    /// ml_dtypes stores it, and f64 is rounded to f32.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How many tokens to keep, as fractions (0.3) or counts (128)
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "0.3,0.1")]
    pub budget: Vec<Keep>,

    /// Designs to compare: uniform, crs, top-k, wta-iid, wta-stratified, wta-pivotal, or all
    #[arg(long, value_name = "NAME,…", default_value = "all")]
    pub design: Designs,

    /// What weights are made from: exact (‖H‖·‖dZ‖), stale (‖H‖ and previous norms of dZ), input (‖H‖ alone)
    ///
    /// By default exact, and stale where the file has the previous norms.
    #[arg(long, value_name = "SOURCE,…", value_delimiter = ',')]
    pub weights: Option<Vec<WeightSource>>,

    /// Chance for each result, at least 2
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub trials: u32,

    /// Seed of the draws: the same seed chooses the same rows on any machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Threads and format.
    #[command(flatten)]
    pub run: RunArgs,

    /// Draw relative error against budget into FILE.svg or FILE.png
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Name of H in safetensors files
    #[arg(long, value_name = "KEY", default_value = "h")]
    pub h_key: String,

    /// Name of dZ in safetensors files
    #[arg(long, value_name = "KEY", default_value = "dz")]
    pub dz_key: String,

    /// Name of the previous norms of dZ's rows in safetensors files; they may be missing [default: dz_norm_prev]
    #[arg(long, value_name = "KEY")]
    pub norm_key: Option<String>,

    /// Previous norms of dZ's rows, for a pair of .npy files
    #[arg(long, value_name = "FILE")]
    pub dz_norm_npy: Option<PathBuf>,
}

/// A list of designs by name, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designs(pub Vec<BuiltIn>);

impl FromStr for Designs {
    type Err = UnknownDesign;

    fn from_str(names: &str) -> Result<Self, UnknownDesign> {
        if names == "all" {
            return Ok(Self(BuiltIn::ALL.to_vec()));
        }
        names.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designs_by_name() {
        assert_eq!("all".parse(), Ok(Designs(BuiltIn::ALL.to_vec())));
        assert_eq!("crs,top-k".parse(), Ok(Designs(vec![BuiltIn::Crs, BuiltIn::TopK])));
        assert_eq!("crs,best".parse::<Designs>(), Err(UnknownDesign { name: "best".to_owned() }));
        assert!("".parse::<Designs>().is_err());
    }
}
