//! What is wrong with GPU code, with the kernel named.

use super::text::Problem;
use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The text shows it.
    Text { file: String, problem: Problem },
    /// Values do not fit the registers.
    Spill { file: String, kernel: String, architectures: Architectures, bytes: u32 },
    /// An array lives in local memory.
    StackFrame { file: String, kernel: String, architectures: Architectures, bytes: u32 },
    /// ptxas says something.
    Assembler { file: String, architectures: Architectures, message: String },
    /// The committed text is not what the sources give.
    Stale { file: String, kernel: Option<String> },
    /// The committed text is not what the manifest was made with.
    Edited { file: String },
    /// The manifest was made of other sources.
    Sources,
    /// The manifest and the build name different kernels or files.
    Missing { what: String, built: bool },
    /// A number differs from the manifest's.
    Changed { kernel: String, architecture: String, what: &'static str, was: u32, is: u32 },
}

/// Where something was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Architectures(pub(super) Vec<u32>);

impl fmt::Display for Architectures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|architecture| format!("sm_{architecture}")).collect();
        write!(f, "{}", names.join(", "))
    }
}

impl Finding {
    pub(super) fn text(file: &str, problem: &Problem) -> Self {
        Self::Text { file: file.into(), problem: problem.clone() }
    }
}

/// How to bring the committed PTX up to date.
const REBUILD: &str = "run cargo xtask ptx";

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { file, problem } => write!(f, "{file}: {problem}"),
            Self::Spill { file, kernel, architectures, bytes } => {
                write!(f, "{file}: {kernel} spills {bytes} bytes on {architectures}")
            }
            Self::StackFrame { file, kernel, architectures, bytes } => {
                write!(f, "{file}: {kernel} has a stack frame of {bytes} bytes on {architectures}")
            }
            Self::Assembler { file, architectures, message } => write!(f, "{file}: {architectures}: {message}"),
            Self::Stale { file, kernel: Some(kernel) } => {
                write!(f, "{file} is not what the sources give, from {kernel} on: {REBUILD}")
            }
            Self::Stale { file, kernel: None } => write!(f, "{file} is not what the sources give: {REBUILD}"),
            Self::Edited { file } => write!(f, "{file} is not what the manifest was made with: {REBUILD}"),
            Self::Sources => write!(f, "the sources changed since the PTX was made: {REBUILD}"),
            Self::Missing { what, built: true } => write!(f, "{what} is not in the manifest: {REBUILD}"),
            Self::Missing { what, built: false } => {
                write!(f, "{what} is in the manifest and no longer built: {REBUILD}")
            }
            Self::Changed { kernel, architecture, what, was, is } => {
                write!(f, "{kernel} on {architecture}: {what} {is}, the manifest says {was}: {REBUILD}")
            }
        }
    }
}
