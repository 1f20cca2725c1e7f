//! `wtacrs compare`: the error of each design's estimates of a weight gradient on recorded layers, and their cost.

mod figure;
pub mod limit;
pub mod measure;
pub mod report;

use self::limit::Limit;
use self::measure::{Method, Plan};
use self::report::LayerReport;
use crate::estimates::{MeasureError, SOURCES};
use crate::figure::{FigureError, FigureFile};
use crate::input::{self, Bytes, InputError, Keys, Layer, LayerError, read_npy, read_safetensors};
use crate::labels::{Dtype, MemoryShare, WeightSource, WeightSources};
use crate::run::{self, Format, Progress, RunArgs, RunError};
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use wtacrs_core::Keep;
use wtacrs_core::product::{Packing, UnknownPacking};
use wtacrs_core::sampling::design::{BuiltIn, UnknownDesign};

const BUNDLED_NAME: &str = "minilm_l3_value_imdb_1024 (bundled)";
const BUNDLED: &[u8] = include_bytes!("../../data/minilm_l3_value_imdb_1024.safetensors");

const EXAMPLES: &str = "\
Examples:
  wtacrs compare
  wtacrs compare --budget 0.1 --design wta-pivotal,crs layer3.safetensors layer4.safetensors
  wtacrs compare --h-key x --dz-key grad recorded.safetensors
  wtacrs compare h.npy dz.npy --dz-norm-npy previous_norms.npy --format csv
  wtacrs compare --budget 0.05,0.1,0.2,0.3,0.5 --bits native --plot errors.svg
  wtacrs compare --memory 0.03,0.1,0.3 --bits native,8,4,2 --design wta-pivotal --dtype bf16 --plot memory.svg";

const JSON_FORMAT: &str = "\
JSON: an array with one object for each layer,
  {file, tokens, in_features, out_features, results: [{weights, design, fraction, budget, budget_share, memory, bits,
   winners, kept, saved_bytes, saved_share, trials, rel_error, rel_error_sd, bias_ratio, variance_vs_crs,
   time_ms: {norms, select, gather, pack, unpack, product, exact}}]}
With g = dW exact in f64, and ĝ an estimate made in the layer's own types:
  weights          stale, exact or input
  fraction         the share of the tokens to keep that was asked for; null where a count was
  budget           the number of tokens to keep, k; budget_share is k / tokens
  memory           the share of H's bytes that was asked for; null where a budget was
  bits             of an element of a kept row: 16 or 32, those of H's type, for exact copies; 8, 4 or 2 if packed
  winners          tokens of the budget that are kept for certain
  kept             distinct rows kept, mean over the trials
  saved_bytes      bytes of the rows kept, with an index (4) and a scale (8) each unless all rows are packed; mean over
                   the trials; saved_share is their share of H's bytes
  trials           estimates made: as asked for, at most 9 where all are equal because nothing is drawn (native top-k)
  rel_error        √(mean over trials of ‖ĝ − g‖² / ‖g‖²), Frobenius norms; 0 if it could be rounding alone
  rel_error_sd     standard deviation over trials of ‖ĝ − g‖ / ‖g‖
  bias_ratio       ‖mean ĝ − g‖² / (mean ‖ĝ − g‖² / trials): about 1 if unbiased, up to trials if biased; null if no error
  variance_vs_crs  mean ‖ĝ − g‖² / the variance of plain column-row sampling, in closed form; null if that is 0
  time_ms          medians in milliseconds; norms of H and dZ, exact is the exact product. Packed rows have pack in the
                   place of gather, which is null, and unpack: all rows read back, which is not a part of an estimate;
                   norms and select are 0 if all rows are packed
CSV has the same numbers, one line for each result.

Exit code: 0, or 2 if an argument, a file or a layer is refused. Results of the files before it are still printed.";

/// Arguments of `wtacrs compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{JSON_FORMAT}"))]
pub struct CompareArgs {
    /// safetensors files, or two .npy files, H and then dZ [default: a real layer that comes with the command]
    ///
    /// H is tokens × in_features and dZ tokens × out_features, in f32, f16 or bf16. In .npy files bf16 is V2, as
    /// ml_dtypes stores it, and f64 is rounded to f32. "-" reads a safetensors file from standard input.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Tokens to keep, as fractions (0.3) or counts (128)
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_value = "0.3,0.1")]
    pub budget: Vec<Keep>,

    /// Memory to keep in the place of a budget, as shares of H's bytes (0.1)
    ///
    /// Every design keeps as many rows as fit: a row takes its bytes in H's type or packed, and 12 for its index and
    /// scale. A share that is more than all rows need keeps all of them; one that is too small for a row is refused.
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',', conflicts_with = "budget")]
    pub memory: Vec<MemoryShare>,

    /// How kept rows are saved: native (exact copies in H's type), or packed in 8, 4 or 2 bits an element
    #[arg(long, value_name = "BITS,…", value_delimiter = ',', default_value = "native,4")]
    pub bits: Vec<Packing>,

    /// Designs to compare: uniform, crs, top-k, wta-iid, wta-stratified, wta-pivotal, or all
    ///
    /// A name may be followed by bits of its own, in the place of those of --bits: wta-iid:native.
    #[arg(long, value_name = "NAME,…", default_value = "all")]
    pub design: Designs,

    /// Sources of the weights: stale (‖H‖ and previous norms of dZ), exact (‖H‖·‖dZ‖), input (‖H‖ alone), or all
    ///
    /// The default is exact, and before it stale if the file has the previous norms.
    #[arg(long, value_name = "NAME,…", value_parser = |names: &str| WeightSources::parse(names, &SOURCES))]
    pub weights: Option<WeightSources>,

    /// Estimates to make for each result, at least 2
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub trials: u32,

    /// Seed of the draws; equal seeds choose equal rows on any machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// How to run and how to print.
    #[command(flatten)]
    pub run: RunArgs,

    /// Type to which H and dZ are rounded first [default: the types of the file]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Dtype>,

    /// Draw relative error against budget, or against saved bytes with --memory, into FILE.svg or FILE.png
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(FigureFile::try_from))]
    pub plot: Option<FigureFile>,

    /// Name of H in safetensors files
    #[arg(long, value_name = "KEY", default_value = "h")]
    pub h_key: String,

    /// Name of dZ in safetensors files
    #[arg(long, value_name = "KEY", default_value = "dz")]
    pub dz_key: String,

    /// Name of the previous norms of dZ's rows in safetensors files, which may lack them [default: dz_norm_prev]
    #[arg(long, value_name = "KEY")]
    pub norm_key: Option<String>,

    /// File with the previous norms of dZ's rows, for a pair of .npy files
    #[arg(long, value_name = "FILE")]
    pub dz_norm_npy: Option<PathBuf>,
}

impl CompareArgs {
    /// Every design with every way to save its rows: first in the order of --bits, then in that of the designs.
    fn methods(&self) -> Vec<Method> {
        let of_design = |design: &NamedDesign| design.packing;
        let mut packings = self.bits.clone();
        packings.extend(self.design.0.iter().filter_map(of_design).filter(|own| !self.bits.contains(own)));
        let with = |packing: Packing| {
            let is_asked = move |design: &&NamedDesign| match design.packing {
                None => self.bits.contains(&packing),
                Some(own) => own == packing,
            };
            self.design.0.iter().filter(is_asked).map(move |design| Method { design: design.design, packing })
        };
        let mut methods: Vec<Method> = Vec::new();
        for method in packings.into_iter().flat_map(with) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        methods
    }

    /// Tokens or bytes to keep.
    fn limits(&self) -> Vec<Limit> {
        if self.memory.is_empty() {
            self.budget.iter().copied().map(Limit::Tokens).collect()
        } else {
            self.memory.iter().copied().map(Limit::Memory).collect()
        }
    }
}

/// A list of designs: names separated by commas, or "all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designs(pub Vec<NamedDesign>);

/// A design, and how its rows are saved if not as those of the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedDesign {
    /// The design.
    pub design: BuiltIn,
    /// Bits of its own.
    pub packing: Option<Packing>,
}

/// A design that there is not, or bits that rows do not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DesignsError {
    /// Another design.
    #[error(transparent)]
    Design(#[from] UnknownDesign),
    /// Other bits.
    #[error(transparent)]
    Packing(#[from] UnknownPacking),
}

impl FromStr for NamedDesign {
    type Err = DesignsError;

    fn from_str(name: &str) -> Result<Self, DesignsError> {
        Ok(match name.split_once(':') {
            None => Self { design: name.parse()?, packing: None },
            Some((design, bits)) => Self { design: design.parse()?, packing: Some(bits.parse()?) },
        })
    }
}

impl FromStr for Designs {
    type Err = DesignsError;

    fn from_str(names: &str) -> Result<Self, DesignsError> {
        if names == "all" {
            return Ok(Self(BuiltIn::ALL.map(|design| NamedDesign { design, packing: None }).to_vec()));
        }
        names.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Why a comparison fails, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A layer that cannot be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// .npy files that do not form one pair.
    #[error("{} is a .npy file: exactly two of them form a layer, H and then dZ", path.display())]
    UnpairedNpy {
        /// The first such file.
        path: PathBuf,
    },
    /// Norms for a pair of .npy files that is missing.
    #[error("--dz-norm-npy {} goes with two .npy files, H and dZ", path.display())]
    NormsWithoutPair {
        /// The file with the norms.
        path: PathBuf,
    },
    /// A layer that cannot be measured on.
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

/// Where a layer is read from.
enum Source<'a> {
    Bundled,
    Safetensors(&'a Path),
    Npy { h: &'a Path, dz: &'a Path, norms: Option<&'a Path> },
}

/// A layer, its name in reports, and the sources of weights to measure on it.
struct NamedLayer {
    file: String,
    layer: Layer,
    sources: Vec<WeightSource>,
}

/// Runs `wtacrs compare`: reads and measures one layer after another, prints the results to standard output, and draws
/// the figure.
///
/// # Errors
///
/// See [`CompareError`]. The results of layers before the one that is refused are printed and drawn.
pub fn run(args: &CompareArgs) -> Result<(), CompareError> {
    let sources = sources(args)?;
    let pool = run::thread_pool(args.run.threads)?;
    let mut reports = Vec::new();
    let measured = pool.install(|| measure_all(&sources, args, &mut reports));
    let shown = if reports.is_empty() { Ok(()) } else { show(&reports, args, pool.current_num_threads()) };
    measured.and(shown)
}

fn show(reports: &[LayerReport], args: &CompareArgs, threads: usize) -> Result<(), CompareError> {
    run::print(&match args.run.format {
        Format::Table => report::tables(reports, threads),
        Format::Json => run::json(&reports)?,
        Format::Csv => report::csv(reports),
    })?;
    if let Some(file) = &args.plot {
        file.draw(&figure::figure(reports))?;
    }
    Ok(())
}

/// The layers that the arguments name.
fn sources(args: &CompareArgs) -> Result<Vec<Source<'_>>, CompareError> {
    input::check_standard_input(args.files.iter().chain(&args.dz_norm_npy).map(PathBuf::as_path))?;
    let npy = args.files.iter().find(|path| is_npy(path));
    match (args.files.as_slice(), npy, &args.dz_norm_npy) {
        ([h, dz], Some(_), norms) if is_npy(h) && is_npy(dz) => {
            Ok(vec![Source::Npy { h, dz, norms: norms.as_deref() }])
        }
        (_, Some(path), _) => Err(CompareError::UnpairedNpy { path: path.clone() }),
        (_, None, Some(path)) => Err(CompareError::NormsWithoutPair { path: path.clone() }),
        ([], None, None) => Ok(vec![Source::Bundled]),
        (files, None, None) => Ok(files.iter().map(|path| Source::Safetensors(path)).collect()),
    }
}

fn is_npy(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npy"))
}

fn keys(args: &CompareArgs) -> Keys {
    let dz_norm_prev = args.norm_key.clone().unwrap_or_else(|| Keys::default().dz_norm_prev);
    Keys { h: args.h_key.clone(), dz: args.dz_key.clone(), dz_norm_prev }
}

impl Source<'_> {
    /// Its name in reports.
    fn name(&self) -> String {
        match self {
            Self::Bundled => BUNDLED_NAME.to_owned(),
            Self::Safetensors(path) => input::file_name(path),
            Self::Npy { h, dz, .. } => format!("{} + {}", h.display(), dz.display()),
        }
    }

    fn read(&self, args: &CompareArgs) -> Result<NamedLayer, LayerError> {
        let from = |file: Box<dyn Bytes>, keys: &Keys| {
            self.named(read_safetensors(file, keys), &format!("tensor '{}'", keys.dz_norm_prev), args)
        };
        match self {
            Self::Bundled => from(Box::new(Cursor::new(BUNDLED)), &Keys::default()),
            Self::Safetensors(path) => from(input::open(path)?, &keys(args)),
            Self::Npy { h, dz, norms } => {
                let norms = norms.map(input::open).transpose()?;
                self.named(read_npy(input::open(h)?, input::open(dz)?, norms), "--dz-norm-npy", args)
            }
        }
    }

    /// Chooses the sources of weights. `norms_at` is the flag or the tensor that a user would give previous norms by.
    fn named(
        &self,
        layer: Result<Layer, InputError>,
        norms_at: &str,
        args: &CompareArgs,
    ) -> Result<NamedLayer, LayerError> {
        let file = self.name();
        let layer = input::rounded_layer(&file, layer, args.dtype)?;
        let has_norms = layer.dz_norm_prev.is_some();
        let sources = match &args.weights {
            Some(sources) => sources.as_slice().to_vec(),
            None if has_norms || args.norm_key.is_some() => vec![WeightSource::Stale, WeightSource::Exact],
            None => vec![WeightSource::Exact],
        };
        if sources.contains(&WeightSource::Stale) && !has_norms {
            return Err(LayerError::NoPreviousNorms { file, wanted: norms_at.to_owned() });
        }
        Ok(NamedLayer { file, layer, sources })
    }
}

/// Reads and measures one layer after another, so that only one is in memory. `reports` has those that were measured
/// before an error.
fn measure_all(layers: &[Source<'_>], args: &CompareArgs, reports: &mut Vec<LayerReport>) -> Result<(), CompareError> {
    let plan = Plan { limits: args.limits(), methods: args.methods(), trials: args.trials as usize, seed: args.seed };
    let of_source = plan.limits.len() * plan.methods.len();
    let most = args.weights.as_ref().map_or(2, |sources| sources.as_slice().len());
    let progress = Progress::new(layers.len() * most * of_source);
    for source in layers {
        let NamedLayer { file, layer, sources } = source.read(args)?;
        progress.drop_parts((most - sources.len()) * of_source);
        let report = measure::measure(&file, &layer, &sources, &plan, &|| progress.advance());
        reports.push(report.map_err(|source| CompareError::Measure { file, source })?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designs_by_name() {
        let plain = |design| NamedDesign { design, packing: None };
        assert_eq!("all".parse(), Ok(Designs(BuiltIn::ALL.map(plain).to_vec())));
        assert_eq!("crs,top-k".parse(), Ok(Designs(vec![plain(BuiltIn::Crs), plain(BuiltIn::TopK)])));
        let own = NamedDesign { design: BuiltIn::Crs, packing: Some(Packing::Bits8) };
        assert_eq!("crs:8,top-k".parse(), Ok(Designs(vec![own, plain(BuiltIn::TopK)])));
        let unknown = UnknownDesign { name: "best".to_owned() };
        assert_eq!("crs,best".parse::<Designs>(), Err(DesignsError::Design(unknown)));
        assert!(matches!("crs:3".parse::<Designs>(), Err(DesignsError::Packing(_))));
        assert!("".parse::<Designs>().is_err());
    }

    #[test]
    fn designs_and_bits() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: CompareArgs,
        }
        let methods = |arguments: &[&str]| {
            let command = <Command as clap::Parser>::parse_from([&["compare"], arguments].concat());
            let named = |method: Method| format!("{}:{}", method.design, method.packing);
            command.args.methods().into_iter().map(named).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(methods(&["--design", "crs,top-k"]), "crs:native top-k:native crs:4 top-k:4");
        assert_eq!(methods(&["--design", "crs:native,top-k", "--bits", "8,2"]), "top-k:8 top-k:2 crs:native");
        assert_eq!(methods(&["--design", "crs:4,crs", "--bits", "4"]), "crs:4");
    }
}
