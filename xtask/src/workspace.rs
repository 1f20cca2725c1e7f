//! The repository's folders and files, and the programs that tasks run.

use crate::error::Error;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The folder of the built PTX and its manifest, in the package that contains it.
pub(crate) const PTX: &str = "crates/wtacrs-kernels/ptx";

/// The folder that a build of the same package looks for cubins in.
pub(crate) const CUBINS: &str = "crates/wtacrs-kernels/cubins";

/// Cargo's target folder.
pub(crate) fn target() -> Result<PathBuf, Error> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut command = Command::new(cargo());
    command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root());
    let text = output(&mut command)?;
    let metadata: Metadata =
        serde_json::from_str(&text).map_err(|source| Error::Json { path: "cargo metadata".into(), source })?;
    Ok(metadata.target_directory)
}

/// The tracked files with an extension, as paths relative to the repository's folder.
pub(crate) fn tracked(extension: &str) -> Result<Vec<PathBuf>, Error> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--"]).arg(format!("*.{extension}")).current_dir(root());
    Ok(output(&mut command)?.split_terminator('\0').map(PathBuf::from).collect())
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or("cargo".into(), PathBuf::from)
}

/// Runs a program that must succeed, and returns its standard output. Its standard error goes to ours.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| Error::Start { program: program.clone(), source })?;
    if !output.status.success() {
        return Err(Error::Failed { program });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// cargo's JSON message about an artifact.
#[derive(Deserialize)]
pub(crate) struct Artifact {
    pub(crate) manifest_path: PathBuf,
    pub(crate) target: ArtifactTarget,
    pub(crate) filenames: Vec<PathBuf>,
    pub(crate) executable: Option<PathBuf>,
}

/// The cargo target of an artifact.
#[derive(Deserialize)]
pub(crate) struct ArtifactTarget {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Artifact {
    /// The artifacts among the lines of `--message-format=json-render-diagnostics`.
    pub(crate) fn all(messages: &str) -> impl Iterator<Item = Self> {
        messages.lines().filter_map(|line| serde_json::from_str(line).ok())
    }
}
