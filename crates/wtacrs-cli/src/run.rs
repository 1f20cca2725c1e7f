//! How subcommands run: threads, progress, and printing to standard output.

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// Shorter work shows no progress bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Flags for running and printing.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunArgs {
    /// Threads to use; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    pub threads: u16,

    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    Table,
    /// JSON, documented by --help.
    Json,
    /// CSV.
    Csv,
}

/// Why threads cannot start, or results cannot be printed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Threads that cannot start.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: u16,
        /// The system's reason.
        source: ThreadPoolBuildError,
    },
    /// Results that cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Standard output does not take the results.
    #[error("cannot write the results: {0}")]
    Output(io::Error),
}

/// The threads that measurements run on.
pub(crate) fn thread_pool(threads: u16) -> Result<ThreadPool, RunError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads.into()).build();
    pool.map_err(|source| RunError::Threads { threads, source })
}

/// Indented JSON.
pub(crate) fn json(results: &impl Serialize) -> Result<String, RunError> {
    Ok(serde_json::to_string_pretty(results)? + "\n")
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is not an error.
pub(crate) fn print(text: &str) -> Result<(), RunError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(RunError::Output(error)),
        _ => Ok(()),
    }
}

/// A progress bar on stderr, removed when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(parts: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(parts as u64), ProgressDrawTarget::hidden());
        Self { bar: bar.with_style(ProgressStyle::default_bar()) }
    }

    /// There are fewer parts than were expected.
    pub(crate) fn drop_parts(&self, parts: usize) {
        self.bar.dec_length(parts as u64);
    }

    /// One more part is done.
    pub(crate) fn advance(&self) {
        if self.bar.is_hidden() && self.bar.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
