//! The subcommands of `wtacrs` from their arguments to their output.

mod compare;
mod doctor;
mod memory;
mod progress;
mod replay;

pub use self::{compare::compare, doctor::doctor, memory::memory, replay::replay};

use self::progress::Progress;
use crate::compare::CompareError;
use crate::input::{InputError, RecordingError};
use crate::memory::MemoryError;
use crate::plot::PlotError;
use crate::replay::ReplayError;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::io::{self, Write};
use std::path::PathBuf;

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
    /// A recording that is refused before its steps are read.
    #[error("{file}: {source}")]
    Recording {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: RecordingError,
    },
    /// A recording that cannot be replayed.
    #[error("{file}: {source}")]
    Replay {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: ReplayError,
    },
    /// Memory that cannot be told.
    #[error(transparent)]
    Memory(#[from] MemoryError),
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

fn thread_pool(threads: u16) -> Result<ThreadPool, CommandError> {
    let pool = ThreadPoolBuilder::new().num_threads(threads.into()).build();
    pool.map_err(|source| CommandError::Threads { threads, source })
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}
