//! Finds a compiler for NVPTX, and the assembler ptxas.
//!
//! The compiler is any rustc that has its library's sources: Debian's rustc-web with rust-web-src, or a rustup nightly with
//! rust-src. It is not the compiler that builds this program, so cargo's environment is not passed on.

use crate::error::Error;
use crate::workspace;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A rustc with its library's sources, and its cargo.
pub(crate) struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    /// The version as rustc prints it, and LLVM's version.
    pub(crate) version: String,
}

impl Compiler {
    /// The compiler of the wanted version, or otherwise any.
    pub(crate) fn find(wanted: Option<&str>) -> Result<Self, Error> {
        let mut found: Vec<Self> = candidates().filter_map(|folder| Self::at(&folder)).collect();
        let place = found.iter().position(|compiler| Some(compiler.version.as_str()) == wanted).unwrap_or(0);
        if found.is_empty() { Err(Error::NoCompiler) } else { Ok(found.swap_remove(place)) }
    }

    /// The compiler in this folder, if it has its sources.
    fn at(folder: &Path) -> Option<Self> {
        let (rustc, cargo) = (folder.join("rustc"), folder.join("cargo"));
        if !cargo.exists() {
            return None;
        }
        let sysroot = output_if_ok(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        if !library.join("core/src/lib.rs").exists() {
            return None;
        }
        let version = version(&output_if_ok(Command::new(&rustc).arg("-Vv"))?)?;
        Some(Self { rustc, cargo, version })
    }

    /// A cargo that calls this compiler, with unstable features, and without the environment of this program's build.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let passed_on = ["CARGO_HOME", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"];
            if (name.starts_with("CARGO") || name.starts_with("RUST")) && !passed_on.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").current_dir(workspace::root());
        command
    }
}

/// Folders that may contain a compiler.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let nightly = output_if_ok(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .and_then(|path| Some(Path::new(path.trim()).parent()?.to_owned()));
    [PathBuf::from("/usr/bin")].into_iter().chain(nightly)
}

/// Makes `rustc 1.96.0 (…), LLVM 22.1.8` from the output of `rustc -Vv`.
fn version(verbose: &str) -> Option<String> {
    let llvm = verbose.lines().find(|line| line.starts_with("LLVM version"))?;
    Some(format!("{}, LLVM {}", verbose.lines().next()?, llvm.rsplit(' ').next()?))
}

/// ptxas.
pub(crate) struct Assembler {
    pub(crate) path: PathBuf,
    /// Such as `V13.0.88`.
    pub(crate) version: String,
}

impl Assembler {
    /// The ptxas that `WTACRS_PTXAS` names, or else one on the path, in the CUDA toolkit, or in Python's package.
    pub(crate) fn find() -> Result<Self, Error> {
        let named = std::env::var_os("WTACRS_PTXAS").map(PathBuf::from);
        let places: Vec<PathBuf> = match named {
            Some(path) => vec![path],
            None => folders().map(|folder| folder.join("ptxas")).chain(python_package()).collect(),
        };
        let mut found = places.into_iter().filter_map(|path| {
            let text = output_if_ok(Command::new(&path).arg("--version"))?;
            let version = text.rsplit(", ").next()?.split_whitespace().next()?.to_owned();
            Some(Self { path, version })
        });
        found.next().ok_or(Error::NoAssembler)
    }
}

fn folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let toolkit = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(|home| home_bin(&home));
    on_path.into_iter().chain(toolkit)
}

fn home_bin(home: &OsStr) -> PathBuf {
    Path::new(home).join("bin")
}

/// The ptxas of the package nvidia-cuda-nvcc, if it is installed for python3.
fn python_package() -> Option<PathBuf> {
    let script = "import importlib.metadata as m; d = m.distribution('nvidia-cuda-nvcc'); \
                  print(next(d.locate_file(f) for f in d.files if f.name == 'ptxas'))";
    let path = output_if_ok(Command::new("python3").args(["-c", script]))?;
    Some(PathBuf::from(path.trim()))
}

/// The standard output of a program, if it exists and succeeds.
fn output_if_ok(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compilers_version_names_its_llvm() {
        let verbose = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                       host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let expected = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball), LLVM 22.1.8";
        assert_eq!(version(verbose).as_deref(), Some(expected));
    }
}
