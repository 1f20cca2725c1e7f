//! `wtacrs replay`: the error that each source of weights leaves when it chooses the rows of recorded training steps.

mod figure;
pub mod measure;
pub mod report;

use self::measure::{MeasureError, Plan, SOURCES};
use self::report::RecordingReport;
use crate::figure::{FigureError, FigureFile};
use crate::input::{self, Bytes, Recording, RecordingError, RecordingKeys, SourceError};
use crate::labels::WeightSources;
use crate::run::{self, Format, Progress, RunArgs, RunError};
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::io::Cursor;
use std::path::PathBuf;
use wtacrs_core::Keep;
use wtacrs_core::guesses::PredictorSettings;
use wtacrs_core::product::Packing;

const BUNDLED_NAME: &str = "minilm_steps_l2_value_small_bf16 (bundled)";
const BUNDLED: &[u8] = include_bytes!("../../data/minilm_steps_l2_value_small_bf16.safetensors");

const EXAMPLES: &str = "\
Examples:
  wtacrs replay
  wtacrs replay --budget 0.3,0.2,0.1 layer2.safetensors layer4.safetensors
  wtacrs replay --weights exact,predictor --features 128 --plot errors.svg layer2.safetensors
  wtacrs replay --weights exact,predictor --bits 4 layer2.safetensors
  wtacrs replay --h-key x --format csv recorded.safetensors";

const JSON_FORMAT: &str = "\
JSON: an array with one object for each file,
  {file, steps, tokens, in_features, bits, results: [{weights, fraction, budget, budget_share, features,
   mean_error_second_half, errors: […]}]}
  bits                    of an element of the kept rows, from which the predictor learns: 16 or 32, those of H's type, for
                          exact copies; 8, 4 or 2 if packed
  weights                 exact, predictor or input
  fraction                the share of the tokens to keep that was asked for; null where a count was
  budget                  the number of tokens to keep, k; budget_share is k / tokens
  features                of the predictor, at most in_features rounded up to a power of two; null for the other sources
  errors                  √(Σ (1/π_i − 1) ‖h_i‖² ‖dz_i‖²) / ‖dW‖_F of every step, from the first on
  mean_error_second_half  the mean of errors[⌊steps/2⌋…]
CSV has the same errors, one line for each step.

Exit code: 0, or 2 if an argument or a file is refused. Results of the files before it are still printed.";

/// Arguments of `wtacrs replay`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{JSON_FORMAT}"))]
pub struct ReplayArgs {
    /// safetensors files with recorded steps [default: a real recording that comes with the command]
    ///
    /// Each has H (steps × tokens × in_features), the norms of dZ's rows (steps × tokens) and ‖dW‖_F (steps), in f32,
    /// f16 or bf16. Files are read step by step, so that they may be larger than memory. Pipes and standard input cannot
    /// be read so.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Tokens to keep at each step, as fractions (0.3) or counts (128)
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "0.3,0.1")]
    pub budget: Vec<Keep>,

    /// Sources of the weights: exact (‖h‖·‖dz‖), predictor (‖h‖ and a guess of ‖dz‖), input (‖h‖ alone), or all
    #[arg(long, value_name = "NAME,…", default_value = "all",
          value_parser = |names: &str| WeightSources::parse(names, &SOURCES))]
    pub weights: WeightSources,

    /// How kept rows are saved: native (exact copies), or packed in 8, 4 or 2 bits an element
    ///
    /// The predictor learns from packed rows as they are read back. Errors are those of the choice of rows alone, without
    /// the noise that packing adds to an estimate: `wtacrs compare` measures both together.
    #[arg(long, value_name = "BITS", default_value_t = Packing::Native)]
    pub bits: Packing,

    /// The norm predictor.
    #[command(flatten)]
    pub predictor: PredictorArgs,

    /// How to run and how to print.
    #[command(flatten)]
    pub run: RunArgs,

    /// Draw error against step into FILE.svg or FILE.png
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(FigureFile::try_from))]
    pub plot: Option<FigureFile>,

    /// Name of H
    #[arg(long, value_name = "KEY", default_value = "h")]
    pub h_key: String,

    /// Name of the norms of dZ's rows
    #[arg(long, value_name = "KEY", default_value = "dz_norm")]
    pub dz_norm_key: String,

    /// Name of ‖dW‖_F
    #[arg(long, value_name = "KEY", default_value = "g_norm")]
    pub g_norm_key: String,
}

/// Settings of the norm predictor.
#[derive(Clone, Debug, Args)]
pub struct PredictorArgs {
    /// Features of the predictor, random projections of h; at most in_features, rounded up to a power of two, are used
    #[arg(long, value_name = "R", default_value_t = PredictorSettings::default().features)]
    pub features: usize,

    /// Share of the predictor's statistics that remains at the next step, at most 1
    #[arg(long, value_name = "SHARE", default_value_t = PredictorSettings::default().forgetting)]
    pub forgetting: f64,

    /// Ridge of the predictor, as a share of the mean diagonal
    #[arg(long, value_name = "SHARE", default_value_t = PredictorSettings::default().ridge)]
    pub ridge: f64,

    /// Largest distance of a guess of log ‖dz‖ from the last step's mean; norms further below it count as zero
    #[arg(long, value_name = "BOUND", default_value_t = PredictorSettings::default().clamp)]
    pub clamp: f64,

    /// Largest number of kept rows that the predictor learns from at a step
    #[arg(long, value_name = "N", default_value_t = PredictorSettings::default().rows_per_update)]
    pub rows_per_update: usize,

    /// Seed of the predictor's projections, and of the rows kept for it
    #[arg(long, value_name = "N", default_value_t = PredictorSettings::default().seed)]
    pub seed: u64,
}

impl ReplayArgs {
    /// The names of the tensors.
    pub fn keys(&self) -> RecordingKeys {
        RecordingKeys { h: self.h_key.clone(), dz_norm: self.dz_norm_key.clone(), g_norm: self.g_norm_key.clone() }
    }
}

impl PredictorArgs {
    /// The settings. [`NormPredictor::new`](wtacrs_core::guesses::NormPredictor::new) checks them.
    pub fn settings(&self) -> PredictorSettings {
        let &Self { features, forgetting, ridge, clamp, rows_per_update, seed } = self;
        PredictorSettings::default()
            .with_features(features)
            .with_forgetting(forgetting)
            .with_ridge(ridge)
            .with_clamp(clamp)
            .with_rows_per_update(rows_per_update)
            .with_seed(seed)
    }
}

/// Why a replay fails, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A file that cannot be opened, or cannot be read step by step.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A recording that is refused before its steps are read.
    #[error("{file}: {source}")]
    Recording {
        /// The file.
        file: String,
        /// The reason.
        source: RecordingError,
    },
    /// A recording that cannot be measured on.
    #[error("{file}: {source}")]
    Measure {
        /// The file.
        file: String,
        /// The reason.
        source: MeasureError,
    },
    /// A figure that cannot be drawn or written.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// No threads, or output that cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// A recording, and its name in reports.
struct NamedRecording {
    file: String,
    recording: Recording<Box<dyn Bytes>>,
}

/// Runs `wtacrs replay`: reads step by step, prints the results to standard output, and draws the figure.
///
/// # Errors
///
/// See [`ReplayError`]. The results of recordings before the one that is refused are printed and drawn.
pub fn run(args: &ReplayArgs) -> Result<(), ReplayError> {
    let (mut recordings, opened) = open_recordings(args);
    let pool = run::thread_pool(args.run.threads)?;
    let mut reports = Vec::new();
    let replayed = pool.install(|| replay_all(&mut recordings, args, &mut reports));
    let shown = if reports.is_empty() { Ok(()) } else { show(&reports, args) };
    replayed.and(opened).and(shown)
}

fn show(reports: &[RecordingReport], args: &ReplayArgs) -> Result<(), ReplayError> {
    run::print(&match args.run.format {
        Format::Table => report::tables(reports),
        Format::Json => run::json(&reports)?,
        Format::Csv => report::csv(reports),
    })?;
    if let Some(file) = &args.plot {
        file.draw(&figure::figure(reports))?;
    }
    Ok(())
}

/// The recordings before the first one that is refused, and why that is.
fn open_recordings(args: &ReplayArgs) -> (Vec<NamedRecording>, Result<(), ReplayError>) {
    let mut recordings = Vec::new();
    let mut opened = || {
        if args.files.is_empty() {
            let bundled = Box::new(Cursor::new(BUNDLED));
            recordings.push(open(BUNDLED_NAME.to_owned(), bundled, &RecordingKeys::default())?);
        }
        for path in &args.files {
            recordings.push(open(path.display().to_string(), input::open_seekable(path)?, &args.keys())?);
        }
        Ok(())
    };
    let opened = opened();
    (recordings, opened)
}

fn open(file: String, bytes: Box<dyn Bytes>, keys: &RecordingKeys) -> Result<NamedRecording, ReplayError> {
    match Recording::open(bytes, keys) {
        Ok(recording) => Ok(NamedRecording { file, recording }),
        Err(source) => Err(ReplayError::Recording { file, source }),
    }
}

/// `reports` has the recordings that were replayed to their end before an error.
fn replay_all(
    recordings: &mut [NamedRecording],
    args: &ReplayArgs,
    reports: &mut Vec<RecordingReport>,
) -> Result<(), ReplayError> {
    let plan = Plan {
        budgets: args.budget.clone(),
        sources: args.weights.as_slice().to_vec(),
        packing: args.bits,
        settings: args.predictor.settings(),
    };
    let progress = Progress::new(recordings.iter().map(|named| named.recording.steps()).sum());
    for NamedRecording { file, recording } in recordings {
        let report = measure::measure(file, recording, &plan, &|| progress.advance());
        reports.push(report.map_err(|source| ReplayError::Measure { file: file.clone(), source })?);
    }
    Ok(())
}
