//! `wtacrs compare` from its arguments to its output.

use super::{CommandError, Progress, print, thread_pool};
use crate::args::{CompareArgs, Format};
use crate::compare::report::{LayerReport, WeightSource};
use crate::compare::{Plan, compare as compare_layer, formats, table};
use crate::input::{InputError, Keys, Layer, read_npy, read_safetensors};
use crate::plot::{self, PlotFile};
use std::fs;
use std::path::Path;

const BUNDLED_NAME: &str = "minilm_l3_value_imdb_1024 (bundled)";
const BUNDLED: &[u8] = include_bytes!("../../data/minilm_l3_value_imdb_1024.safetensors");

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
    let pool = thread_pool(args.run.threads)?;
    let reports = pool.install(|| compare_all(&layers, args))?;
    let text = match args.run.format {
        Format::Table => table::render(&reports, pool.current_num_threads()),
        Format::Json => formats::json(&reports)?,
        Format::Csv => formats::csv(&reports),
    };
    print(&text)?;
    if let Some(file) = plot_file {
        plot::draw_comparison(&reports, &file)?;
    }
    Ok(())
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
    let progress = Progress::new(sources * plan.budgets.len() * plan.designs.len());
    let reports = layers.iter().map(|NamedLayer { file, layer, sources }| {
        compare_layer(file, layer, sources, &plan, &|| progress.advance())
            .map_err(|source| CommandError::Compare { file: file.clone(), source })
    });
    reports.collect()
}
