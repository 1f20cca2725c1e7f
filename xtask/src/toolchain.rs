//! Where a compiler for NVPTX and the assembler ptxas are.
//!
//! The compiler is any rustc that has its library's sources beside it: Debian's rustc-web with rust-web-src, or a rustup
//! nightly with rust-src. It is another one than builds this program, so cargo's environment is not passed on.

use crate::error::Error;
use crate::workspace;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A rustc with its library's sources, and its cargo.
pub(crate) struct Compiler {
    rustc: PathBuf,
    cargo: PathBuf,
    /// rustc's own name for its version, and LLVM's version.
    pub(crate) version: String,
}

impl Compiler {
    /// The compiler of the wanted version, or else any.
    pub(crate) fn find(wanted: Option<&str>) -> Result<Self, Error> {
        let mut found: Vec<Self> = candidates().filter_map(|folder| Self::at(&folder)).collect();
        let place = found.iter().position(|compiler| Some(compiler.version.as_str()) == wanted).unwrap_or(0);
        if found.is_empty() { Err(Error::NoCompiler) } else { Ok(found.swap_remove(place)) }
    }

    /// The compiler in this folder, if it has sources.
    fn at(folder: &Path) -> Option<Self> {
        let (rustc, cargo) = (folder.join("rustc"), folder.join("cargo"));
        if !cargo.exists() {
            return None;
        }
        let sysroot = quiet(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
        if !library.join("core/src/lib.rs").exists() {
            return None;
        }
        let version = version(&quiet(Command::new(&rustc).arg("-Vv"))?)?;
        Some(Self { rustc, cargo, version })
    }

    /// A cargo that calls this compiler, with unstable features and nothing of the environment that builds this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let kept = ["CARGO_HOME", "CARGO_TERM_COLOR", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS"];
            if (name.starts_with("CARGO") || name.starts_with("RUST")) && !kept.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1").current_dir(workspace::root());
        command
    }
}

/// Folders that may have a compiler.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let nightly = quiet(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .and_then(|path| Some(Path::new(path.trim()).parent()?.to_owned()));
    [PathBuf::from("/usr/bin")].into_iter().chain(nightly)
}

/// `rustc 1.96.0 (…), LLVM 22.1.8` of what `rustc -Vv` says.
fn version(verbose: &str) -> Option<String> {
    let llvm = verbose.lines().find(|line| line.starts_with("LLVM version"))?;
    Some(format!("{}, LLVM {}", verbose.lines().next()?, llvm.rsplit(' ').next()?))
}

/// ptxas.
pub(crate) struct Assembler {
    pub(crate) path: PathBuf,
    /// As `V13.0.88`.
    pub(crate) version: String,
}

impl Assembler {
    /// `WTACRS_PTXAS`, else what is on the path, in the CUDA toolkit or in Python's package.
    pub(crate) fn find() -> Result<Self, Error> {
        let named = std::env::var_os("WTACRS_PTXAS").map(PathBuf::from);
        let places: Vec<PathBuf> = match named {
            Some(path) => vec![path],
            None => folders().map(|folder| folder.join("ptxas")).chain(python_package()).collect(),
        };
        let mut found = places.into_iter().filter_map(|path| {
            let text = quiet(Command::new(&path).arg("--version"))?;
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

/// The ptxas of the package nvidia-cuda-nvcc, if python3 has it.
fn python_package() -> Option<PathBuf> {
    let script = "import importlib.metadata as m; d = m.distribution('nvidia-cuda-nvcc'); \
                  print(next(d.locate_file(f) for f in d.files if f.name == 'ptxas'))";
    let path = quiet(Command::new("python3").args(["-c", script]))?;
    Some(PathBuf::from(path.trim()))
}

/// The standard output of a program, if it is there and succeeds.
fn quiet(command: &mut Command) -> Option<String> {
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
