//! Why a task stops: one line that says what to do.

use std::path::{Path, PathBuf};

/// Why a task stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{program} does not start: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("{program} failed")]
    Failed { program: String },
    #[error("{program} did not report where it wrote {what}")]
    NotReported { program: String, what: String },
    #[error(
        "no compiler for NVPTX: apt-get install rustc-web rust-web-src cargo-web (1.96 or newer), or rustup toolchain \
         install nightly --component rust-src"
    )]
    NoCompiler,
    #[error("no ptxas: pip install nvidia-cuda-nvcc==13.0.88, or set WTACRS_PTXAS to its path")]
    NoAssembler,
    #[error("{path} is version {found}, which does not know {architecture}: pip install nvidia-cuda-nvcc==13.0.88", path = path.display())]
    OldAssembler { path: PathBuf, found: String, architecture: String },
    #[error("{count} findings")]
    Findings { count: usize },
    #[error("the bundle has {found_mib} MiB, more than {limit_mib}")]
    Large { found_mib: u64, limit_mib: u64 },
    #[error("--libdir {}: it must be a folder below the prefix {}", libdir.display(), prefix.display())]
    LibraryFolder { libdir: PathBuf, prefix: PathBuf },
    #[error("no test or bench to bundle")]
    Empty,
}

impl Error {
    /// For `map_err` of an operation on a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::File { path: path.to_owned(), source }
    }
}
