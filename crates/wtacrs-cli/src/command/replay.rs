//! `wtacrs replay` from its arguments to its output.

use super::{CommandError, Progress, print, thread_pool};
use crate::args::{Format, ReplayArgs};
use crate::input::{Recording, RecordingKeys};
use crate::plot::{self, PlotFile};
use crate::replay::report::RecordingReport;
use crate::replay::{Plan, formats, replay as replay_recording, table};
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

const BUNDLED_NAME: &str = "minilm_steps_l2_value_small_bf16 (bundled)";
const BUNDLED: &[u8] = include_bytes!("../../data/minilm_steps_l2_value_small_bf16.safetensors");

/// Where a recording is read from.
trait Source: Read + Seek + Send {}
impl<R: Read + Seek + Send> Source for R {}

/// A recording with the name that reports give it.
struct NamedRecording {
    file: String,
    recording: Recording<Box<dyn Source>>,
}

/// Runs `wtacrs replay`: reads step by step, prints the results to standard output, and draws the figure.
///
/// # Errors
///
/// See [`CommandError`]. Nothing is printed unless all recordings were replayed to their end.
pub fn replay(args: &ReplayArgs) -> Result<(), CommandError> {
    let plot_file = args.plot.as_deref().map(PlotFile::new).transpose()?;
    let mut recordings = open_recordings(args)?;
    let pool = thread_pool(args.run.threads)?;
    let reports = pool.install(|| replay_all(&mut recordings, args))?;
    let text = match args.run.format {
        Format::Table => table::render(&reports),
        Format::Json => formats::json(&reports)?,
        Format::Csv => formats::csv(&reports),
    };
    print(&text)?;
    if let Some(file) = plot_file {
        plot::draw_replay(&reports, &file)?;
    }
    Ok(())
}

fn open_recordings(args: &ReplayArgs) -> Result<Vec<NamedRecording>, CommandError> {
    if args.files.is_empty() {
        let bundled = open(BUNDLED_NAME.to_owned(), Box::new(Cursor::new(BUNDLED)), &RecordingKeys::default())?;
        return Ok(vec![bundled]);
    }
    let keys = args.keys();
    args.files.iter().map(|path| open(path.display().to_string(), open_file(path)?, &keys)).collect()
}

fn open_file(path: &Path) -> Result<Box<dyn Source>, CommandError> {
    let file = File::open(path).map_err(|source| CommandError::Read { path: path.to_owned(), source })?;
    Ok(Box::new(file))
}

fn open(file: String, source: Box<dyn Source>, keys: &RecordingKeys) -> Result<NamedRecording, CommandError> {
    match Recording::open(source, keys) {
        Ok(recording) => Ok(NamedRecording { file, recording }),
        Err(source) => Err(CommandError::Recording { file, source }),
    }
}

fn replay_all(recordings: &mut [NamedRecording], args: &ReplayArgs) -> Result<Vec<RecordingReport>, CommandError> {
    let plan =
        Plan { budgets: args.budget.clone(), sources: args.source.0.clone(), settings: args.predictor.settings() };
    let progress = Progress::new(recordings.iter().map(|named| named.recording.steps()).sum());
    let reports = recordings.iter_mut().map(|NamedRecording { file, recording }| {
        replay_recording(file, recording, &plan, &|| progress.advance())
            .map_err(|source| CommandError::Replay { file: file.clone(), source })
    });
    reports.collect()
}
