//! `wtacrs allocate`: one memory budget shared out among recorded layers, rows and bits to each, so that their weight
//! gradients err least.

mod figure;
mod measure;
pub mod report;
pub mod ways;

use self::measure::{Estimates, MeasuredLayer, Trials};
use self::report::{AllocationReport, KeptReport, LayerReport, TotalReport};
use self::ways::Way;
use crate::estimates::{MeasureError, SOURCES};
use crate::figure::{FigureError, FigureFile};
use crate::input::{self, Keys, LayerError, read_safetensors};
use crate::labels::{Dtype, MemoryShare, WeightSource, bits_of};
use crate::run::{self, Format, Progress, RunArgs, RunError};
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::path::PathBuf;
use wtacrs_core::allocation::{AllocationError, Layer, LayerBudget};

const EXAMPLES: &str = "\
Examples:
  wtacrs allocate recorded/layers/*.safetensors
  wtacrs allocate --memory 0.03 --trials 32 layer3.safetensors layer4.safetensors
  wtacrs allocate --weights stale --dtype bf16 --plot shared.svg layer3.safetensors layer4.safetensors";

const JSON_FORMAT: &str = "\
JSON: {memory, weights, trials, h_bytes,
       layers: [{file, tokens, in_features, out_features, h_bytes,
                 results: [{way, budget, budget_share, bits, saved_bytes, saved_share, expected_error, measured_error}]}],
       all: [{way, saved_bytes, saved_share, expected_error, measured_error}]}
  memory           the share of all layers' H that was asked for
  weights          what rows are drawn by: stale, exact or input
  trials           estimates made for each measured error; null without --trials
  h_bytes          of all layers' H; in a layer, of its own
  way              fraction_native and fraction_4_bits: the same share of each layer's bytes, in native rows or in 4 bits;
                   shared_out: rows and bits of each layer so that the squared errors add up to the least
  budget           the number of tokens to keep, k; budget_share is k / tokens
  bits             of an element of a kept row: 16 or 32, those of H's type, for exact copies; 8, 4 or 2 if packed
  saved_bytes      bytes of the rows, with an index (4) and a scale (8) each unless all rows are kept; saved_share is their
                   share of h_bytes
  expected_error   √(Σ ‖h_i‖² ‖dz_i‖² ((1 + q)/π_i − 1)) / ‖dW‖_F, of Poisson sampling, with q the noise of packing
  measured_error   √(mean over trials of ‖ĝ − g‖² / ‖g‖²) of estimates ĝ of g = dW by wta-pivotal; null without --trials
  all              for all layers together; errors are root mean squares over the layers, null if a layer keeps no row
A way is missing in a layer's results if not even one row fits. CSV has the layers' results, one line for each.

Exit code: 0, or 2 if an argument, a file or a layer is refused.";

/// Arguments of `wtacrs allocate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{JSON_FORMAT}"))]
pub struct AllocateArgs {
    /// safetensors files, one for each layer; `wtacrs.record` makes them of a PyTorch model
    ///
    /// H is tokens × in_features and dZ tokens × out_features, in f32, f16 or bf16. With --trials all layers are in
    /// memory together. "-" reads a file from standard input.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Memory to share out, as a share of the bytes of all layers' H
    ///
    /// A row takes its bytes in H's type or packed, and 12 for its index and scale unless all rows are kept.
    #[arg(long, value_name = "SHARE", default_value = "0.1")]
    pub memory: MemoryShare,

    /// Source of the weights that rows are drawn by: stale (‖H‖ and previous norms of dZ), exact (‖H‖·‖dZ‖), or input (‖H‖)
    ///
    /// Errors are those of the exact norms in any case.
    #[arg(long, value_name = "NAME", default_value = "exact",
          value_parser = |name: &str| WeightSource::of(name, &SOURCES))]
    pub weights: WeightSource,

    /// Also make so many estimates by wta-pivotal for each layer and way, and print their error beside the expected one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub trials: Option<u32>,

    /// Seed of the draws of --trials
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// How to run and how to print.
    #[command(flatten)]
    pub run: RunArgs,

    /// Type to which H and dZ are rounded first [default: the types of the files]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Dtype>,

    /// Draw error against saved bytes into FILE.svg or FILE.png, for shares of memory from 0.01 to 1
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(FigureFile::try_from))]
    pub plot: Option<FigureFile>,

    /// Name of H
    #[arg(long, value_name = "KEY", default_value = "h")]
    pub h_key: String,

    /// Name of dZ
    #[arg(long, value_name = "KEY", default_value = "dz")]
    pub dz_key: String,

    /// Name of the previous norms of dZ's rows, which stale weights need
    #[arg(long, value_name = "KEY", default_value = "dz_norm_prev")]
    pub norm_key: String,
}

impl AllocateArgs {
    fn keys(&self) -> Keys {
        Keys { h: self.h_key.clone(), dz: self.dz_key.clone(), dz_norm_prev: self.norm_key.clone() }
    }
}

/// Why memory cannot be shared out, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// Nothing to share memory out among.
    #[error("there is no layer to share memory out among: give at least one file, as wtacrs.record writes them")]
    NoFiles,
    /// A layer that cannot be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layer that cannot be measured on.
    #[error("{file}: {source}")]
    Measure {
        /// The file.
        file: String,
        /// The reason.
        source: MeasureError,
    },
    /// Too little memory for the layers.
    #[error("a share of {memory} of all layers' H is too small: {source}")]
    Allocation {
        /// The share.
        memory: MemoryShare,
        /// The reason.
        source: AllocationError,
    },
    /// A figure that cannot be drawn or written.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// No threads, or output that cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Runs `wtacrs allocate`: reads and measures all layers, shares memory out, prints the report to standard output, and draws
/// the figure.
///
/// # Errors
///
/// See [`AllocateError`]. Nothing is printed then, since a layer's budget depends on all layers.
pub fn run(args: &AllocateArgs) -> Result<(), AllocateError> {
    if args.files.is_empty() {
        return Err(AllocateError::NoFiles);
    }
    input::check_standard_input(args.files.iter().map(PathBuf::as_path))?;
    let pool = run::thread_pool(args.run.threads)?;
    let (layers, report) = pool.install(|| allocate(args))?;
    run::print(&match args.run.format {
        Format::Table => report::tables(&report),
        Format::Json => run::json(&report)?,
        Format::Csv => report::csv(&report),
    })?;
    if let Some(file) = &args.plot {
        file.draw(&figure::figure(&layers, args.weights))?;
    }
    Ok(())
}

/// The layers as memory is shared out among them, and the report.
fn allocate(args: &AllocateArgs) -> Result<(Vec<Layer>, AllocationReport), AllocateError> {
    let estimated = if args.trials.is_some() { Way::ALL.len() } else { 0 };
    let progress = Progress::new(args.files.len() * (1 + estimated));
    let (measured, estimates) = measure_layers(args, &progress)?;
    let layers: Vec<Layer> = measured.iter().map(|measured| measured.layer.clone()).collect();
    let mut budgets = Vec::new();
    for way in Way::ALL {
        let of_way = way.budgets(&layers, args.memory);
        budgets.push((way, of_way.map_err(|source| AllocateError::Allocation { memory: args.memory, source })?));
    }
    let mut reports = Vec::new();
    for (at, layer) in measured.iter().enumerate() {
        let mut results = Vec::new();
        for (way, budgets) in &budgets {
            if let Some(budget) = budgets[at] {
                let estimated = args.trials.zip(estimates.get(at));
                let error =
                    estimated.map(|(count, estimates)| estimates.error(budget, Trials { count, seed: args.seed }));
                let error =
                    error.transpose().map_err(|source| AllocateError::Measure { file: layer.file.clone(), source })?;
                results.push(kept_report(*way, &layer.layer, budget, error));
            }
            if args.trials.is_some() {
                progress.advance();
            }
        }
        reports.push(layer_report(layer, results));
    }
    let h_bytes = layers.iter().map(ways::native_bytes).sum();
    let all = budgets.iter().map(|(way, budgets)| total_report(*way, &layers, budgets, h_bytes, &reports)).collect();
    let (memory, weights, trials) = (args.memory.get(), args.weights, args.trials);
    Ok((layers, AllocationReport { memory, weights, trials, h_bytes, layers: reports, all }))
}

/// The layers; and what estimates of each of them need, if there are trials.
fn measure_layers(
    args: &AllocateArgs,
    progress: &Progress,
) -> Result<(Vec<MeasuredLayer>, Vec<Estimates>), AllocateError> {
    let keys = args.keys();
    let (mut measured, mut estimates) = (Vec::new(), Vec::new());
    for path in &args.files {
        let file = input::file_name(path);
        let read = read_safetensors(input::open(path).map_err(LayerError::from)?, &keys);
        let layer = input::rounded_layer(&file, read, args.dtype)?;
        if args.weights == WeightSource::Stale && layer.dz_norm_prev.is_none() {
            let wanted = format!("tensor '{}'", args.norm_key);
            return Err(LayerError::NoPreviousNorms { file, wanted }.into());
        }
        let layer = measure::measure(file.clone(), layer, args.weights);
        let (layer, of_layer) = layer.map_err(|source| AllocateError::Measure { file, source })?;
        measured.push(layer);
        if args.trials.is_some() {
            estimates.push(of_layer);
        }
        progress.advance();
    }
    Ok((measured, estimates))
}

fn kept_report(way: Way, layer: &Layer, budget: LayerBudget, measured_error: Option<f64>) -> KeptReport {
    let saved_bytes = layer.bytes(budget);
    KeptReport {
        way,
        budget: budget.rows,
        budget_share: budget.rows as f64 / layer.curve.pairs() as f64,
        bits: bits_of(budget.packing, layer.element_bytes),
        saved_bytes,
        saved_share: saved_bytes as f64 / ways::native_bytes(layer) as f64,
        expected_error: layer.squared_error(budget).sqrt(),
        measured_error,
    }
}

fn layer_report(measured: &MeasuredLayer, results: Vec<KeptReport>) -> LayerReport {
    let &MeasuredLayer { ref file, tokens, in_features, out_features, ref layer, .. } = measured;
    let h_bytes = ways::native_bytes(layer);
    LayerReport { file: file.clone(), tokens, in_features, out_features, h_bytes, results }
}

fn total_report(
    way: Way,
    layers: &[Layer],
    budgets: &[Option<LayerBudget>],
    h_bytes: u64,
    reports: &[LayerReport],
) -> TotalReport {
    let total = ways::total(layers, budgets);
    let errors = reports.iter().map(|report| {
        let result = report.results.iter().find(|result| result.way == way);
        result.and_then(|result| result.measured_error)
    });
    let errors: Option<Vec<f64>> = errors.collect();
    TotalReport {
        way,
        saved_bytes: total.map(|total| total.bytes),
        saved_share: total.map(|total| total.bytes as f64 / h_bytes as f64),
        expected_error: total.map(|total| total.error),
        measured_error: errors.map(|errors| ways::root_mean(errors.iter().map(|error| error.powi(2)))),
    }
}
