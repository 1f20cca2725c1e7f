//! rustc, for NVPTX: the raw text of one crate, and which sources it came from.

use super::product::{Product, Target};
use crate::error::Error;
use crate::report;
use crate::toolchain::Compiler;
use crate::workspace::{self, Artifact};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const TRIPLE: &str = "nvptx64-nvidia-cuda";

/// Beside the target's own flags.
///
/// Two optimisations copy code into both arms of a branch without asking whether lanes must execute it together: rustc's
/// jump threading, which LLVM's marks do not reach, and LLVM's threading through small blocks, for `asm!`, which rustc
/// does not mark.
const FLAGS: &str = "-Zmir-enable-passes=-JumpThreading -C llvm-args=-simplifycfg-max-small-block-size=0";

/// The raw text that rustc makes of a crate.
pub(super) fn build(
    compiler: &Compiler,
    product: &Product,
    target: &Target,
    hasher: &mut SourceHasher,
) -> Result<String, Error> {
    let Target { capability, ptx } = target;
    report::step("Building", format_args!("{} for sm_{capability}", product.package));
    let flags = format!(
        "-C target-cpu=sm_{capability} -C target-feature=+ptx{ptx} --remap-path-prefix={}= {FLAGS}",
        workspace::root().display()
    );
    let mut command = compiler.cargo();
    command
        .args(["rustc", "--locked", "--release", "--lib", "--target", TRIPLE, "-Zbuild-std=core"])
        .args(["--package", product.package, "--message-format=json-render-diagnostics"])
        .arg("--target-dir")
        .arg(workspace::target()?.join("ptx"))
        .args(["--", "--emit=asm", "-C", "panic=abort", "-C", "codegen-units=1"])
        .env("CARGO_TARGET_NVPTX64_NVIDIA_CUDA_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    let messages = workspace::output(&mut command)?;

    let missing = |what: &str| Error::NotTold { program: "cargo".into(), what: what.into() };
    let crate_name = product.package.replace('-', "_");
    let mut assembly = None;
    for artifact in Artifact::all(&messages) {
        let ours = artifact.manifest_path.starts_with(workspace::root());
        let metadata = artifact.filenames.iter().find(|path| path.extension().is_some_and(|e| e == "rmeta"));
        // Procedural macros are built for this machine.
        let Some(metadata) = metadata.filter(|path| ours && path.components().any(|c| c.as_os_str() == TRIPLE)) else {
            continue;
        };
        let name = metadata.file_stem().unwrap_or_default().to_string_lossy();
        let stem = metadata.with_file_name(name.trim_start_matches("lib"));
        hasher.add(&stem.with_extension("d"))?;
        if artifact.target.name.replace('-', "_") == crate_name {
            assembly = Some(stem.with_extension("s"));
        }
    }
    let path = assembly.ok_or_else(|| missing("the PTX"))?;
    fs::read_to_string(&path).map_err(Error::file(&path))
}

/// The sources that device code came from, whatever the order in which they are added.
#[derive(Default)]
pub(super) struct SourceHasher {
    sources: BTreeSet<PathBuf>,
}

impl SourceHasher {
    /// Adds the sources that a dependency file of rustc's names.
    fn add(&mut self, dependencies: &Path) -> Result<(), Error> {
        let text = fs::read_to_string(dependencies).map_err(Error::file(dependencies))?;
        // One line `source:` for each of them.
        let names = text.lines().filter_map(|line| line.strip_suffix(':'));
        self.sources.extend(names.map(|name| workspace::root().join(name.replace("\\ ", " "))));
        Ok(())
    }

    /// Their hash, with the flags'.
    pub(super) fn finish(self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(FLAGS);
        for path in self.sources {
            let name = path.strip_prefix(workspace::root()).unwrap_or(&path);
            hasher.update(name.to_string_lossy().as_bytes());
            // A file that cannot be read has no content; another hash then says so.
            hasher.update(fs::read(&path).unwrap_or_default());
        }
        hex(&hasher.finalize())
    }
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
