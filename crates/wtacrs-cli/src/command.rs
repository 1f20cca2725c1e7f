//! `wtacrs compare` from its arguments to its output.

use crate::args::{CompareArgs, Format};
use crate::compare::{CompareError, Plan, compare as compare_layer};
use crate::input::{InputError, Keys, Layer, read_npy, read_safetensors};
use crate::plot::{self, PlotError, PlotFile};
use crate::report::{LayerReport, WeightSource};
use crate::{formats, table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUNDLED_NAME: &str = "minilm_l3_value_imdb_1024 (bundled)";
const BUNDLED: &[u8] = include_bytes!("../../../testdata/minilm_l3_value_imdb_1024.safetensors");

/// Work that is done sooner shows no progress bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the command failed, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// A file that cannot be read at all.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file whose content is refused.
    #[error("{file}: {source}")]
    Input {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: InputError,
    },
    /// .npy files that do not form one pair.
    #[error("{} is a .npy file: exactly two of them form a layer, H and then dZ", path.display())]
    UnpairedNpy {
        /// The first such file.
        path: PathBuf,
    },
    /// Norms for a pair of .npy files that is not there.
    #[error("--dz-norm-npy {} goes with two .npy files, H and dZ", path.display())]
    NormsWithoutPair {
        /// The file with the norms.
        path: PathBuf,
    },
    /// Stale weights of a layer without previous norms.
    #[error("{file}: stale weights need {wanted}, which is missing")]
    NoPreviousNorms {
        /// The file.
        file: String,
        /// Where the norms were looked for.
        wanted: String,
    },
    /// A layer that cannot be compared on.
    #[error("{file}: {source}")]
    Compare {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: CompareError,
    },
    /// No figure.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// No threads.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: u16,
        /// What the system says.
        source: ThreadPoolBuildError,
    },
    /// Results that cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Standard output does not take the results.
    #[error("cannot write the results: {0}")]
    Output(io::Error),
}

/// A layer with the name that reports give it.
struct NamedLayer {
    file: String,
    layer: Layer,
    sources: Vec<WeightSource>,
}

/// Runs `wtacrs compare`: reads, compares, prints the results to standard output, and draws the figure.
///
/// # Errors
///
/// See [`CommandError`]. Nothing is printed unless all layers were compared.
pub fn compare(args: &CompareArgs) -> Result<(), CommandError> {
    let plot_file = args.plot.as_deref().map(PlotFile::new).transpose()?;
    let layers = read_layers(args)?;
    let pool = thread_pool(args.threads)?;
    let reports = pool.install(|| compare_all(&layers, args))?;
    let text = match args.format {
        Format::Table => table::render(&reports, pool.current_num_threads()),
        Format::Json => formats::json(&reports)?,
        Format::Csv => formats::csv(&reports),
    };
    print(&text)?;
    if let Some(file) = plot_file {
        plot::draw(&reports, &file)?;
    }
    Ok(())
}

fn thread_pool(threads: u16) -> Result<ThreadPool, CommandError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads.into()).build();
    pool.map_err(|source| CommandError::Threads { threads, source })
}

fn read_layers(args: &CompareArgs) -> Result<Vec<NamedLayer>, CommandError> {
    let npy = args.files.iter().find(|path| is_npy(path));
    match (args.files.as_slice(), npy, &args.dz_norm_npy) {
        ([h, dz], Some(_), norms) if is_npy(h) && is_npy(dz) => {
            let file = format!("{} + {}", h.display(), dz.display());
            let norms = norms.as_deref().map(read).transpose()?;
            let layer = read_npy(&read(h)?, &read(dz)?, norms.as_deref());
            Ok(vec![named(file, layer, "--dz-norm-npy", args)?])
        }
        (_, Some(path), _) => Err(CommandError::UnpairedNpy { path: path.clone() }),
        (_, None, Some(path)) => Err(CommandError::NormsWithoutPair { path: path.clone() }),
        ([], None, None) => Ok(vec![from_safetensors(BUNDLED_NAME.to_owned(), BUNDLED, &Keys::default(), args)?]),
        (files, None, None) => {
            let keys = keys(args);
            files.iter().map(|path| from_safetensors(path.display().to_string(), &read(path)?, &keys, args)).collect()
        }
    }
}

fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"))
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    fs::read(path).map_err(|source| CommandError::Read { path: path.to_owned(), source })
}

fn keys(args: &CompareArgs) -> Keys {
    let dz_norm_prev = args.norm_key.clone().unwrap_or_else(|| Keys::default().dz_norm_prev);
    Keys { h: args.h_key.clone(), dz: args.dz_key.clone(), dz_norm_prev }
}

fn from_safetensors(file: String, bytes: &[u8], keys: &Keys, args: &CompareArgs) -> Result<NamedLayer, CommandError> {
    named(file, read_safetensors(bytes, keys), &format!("tensor '{}'", keys.dz_norm_prev), args)
}

/// Decides on the sources of weights; `norms_at` is where a user would have put the previous norms.
fn named(
    file: String,
    layer: Result<Layer, InputError>,
    norms_at: &str,
    args: &CompareArgs,
) -> Result<NamedLayer, CommandError> {
    let layer = match layer {
        Ok(layer) => layer,
        Err(source) => return Err(CommandError::Input { file, source }),
    };
    let has_norms = layer.dz_norm_prev.is_some();
    let sources = match &args.weights {
        Some(sources) => sources.clone(),
        None if has_norms || args.norm_key.is_some() => vec![WeightSource::Exact, WeightSource::Stale],
        None => vec![WeightSource::Exact],
    };
    if sources.contains(&WeightSource::Stale) && !has_norms {
        return Err(CommandError::NoPreviousNorms { file, wanted: norms_at.to_owned() });
    }
    Ok(NamedLayer { file, layer, sources })
}

fn compare_all(layers: &[NamedLayer], args: &CompareArgs) -> Result<Vec<LayerReport>, CommandError> {
    let plan = Plan {
        budgets: args.budget.clone(),
        designs: args.design.0.clone(),
        trials: args.trials as usize,
        seed: args.seed,
    };
    let sources: usize = layers.iter().map(|layer| layer.sources.len()).sum();
    let bar = ProgressBar::with_draw_target(
        Some((sources * plan.budgets.len() * plan.designs.len()) as u64),
        ProgressDrawTarget::hidden(),
    )
    .with_style(ProgressStyle::default_bar());
    let progress = || {
        if bar.is_hidden() && bar.elapsed() > PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.inc(1);
    };
    let reports = layers.iter().map(|NamedLayer { file, layer, sources }| {
        compare_layer(file, layer, sources, &plan, &progress)
            .map_err(|source| CommandError::Compare { file: file.clone(), source })
    });
    let reports = reports.collect();
    bar.finish_and_clear();
    reports
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}
