//! Installs libwtacrs as C libraries are installed: shared and static library, headers, pkg-config file, CMake
//! configuration.
//!
//! ```text
//! PREFIX/include/wtacrs.h, wtacrs.hpp
//! PREFIX/LIBDIR/libwtacrs.so → .so.0 → .so.0.1.0 (SONAME libwtacrs.so.0: the ABI's major version), libwtacrs.a
//! PREFIX/LIBDIR/libwtacrs.so.0.1.0.debug, with --debug-info
//! PREFIX/LIBDIR/pkgconfig/wtacrs.pc      PREFIX/LIBDIR/cmake/wtacrs/wtacrs-config{,-version}.cmake
//! ```
//!
//! LIBDIR is `lib`, or a folder such as `lib/x86_64-linux-gnu`. Only `wtacrs.pc` contains the prefix, and not even that
//! with `--relocatable`.
//!
//! | module | contains |
//! |---|---|
//! | [`archive`] | the static library: what programs need of it, with all other symbols hidden |
//! | [`layout`] | the folders that a prefix and a library folder stand for |

mod archive;
mod layout;

use crate::error::Error;
use crate::report::step;
use crate::workspace::{Artifact, cargo, output, root};
use clap::Args;
use layout::Layout;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// The number in the SONAME: WTACRS_ABI_VERSION of the header, as `tests/installed.rs` of wtacrs-ffi checks.
const ABI: &str = "0";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const HEADERS: [&str; 2] = ["wtacrs.h", "wtacrs.hpp"];

/// Each template, and where it goes in the library folder.
const TEMPLATES: [(&str, &str); 3] = [
    ("pkgconfig/wtacrs.pc", include_str!("install/wtacrs.pc.in")),
    ("cmake/wtacrs/wtacrs-config.cmake", include_str!("install/wtacrs-config.cmake.in")),
    ("cmake/wtacrs/wtacrs-config-version.cmake", include_str!("install/wtacrs-config-version.cmake.in")),
];

/// Where the library goes, and how it is built.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The prefix; include/ and the library folder are created below it. With DESTDIR set, they are created below
    /// DESTDIR/PREFIX, for packages
    #[arg(long)]
    prefix: PathBuf,
    /// The library folder below the prefix, such as lib64 or lib/x86_64-linux-gnu
    #[arg(long, default_value = "lib")]
    libdir: PathBuf,
    /// Let wtacrs.pc find the prefix by its own place, so that the tree can be moved
    #[arg(long)]
    relocatable: bool,
    /// Install the shared library's debug information too, in a file beside it that debuggers find
    #[arg(long)]
    debug_info: bool,
    /// Cargo's profile: `release`, or `dev` for a library that checks itself
    #[arg(long, default_value = "release")]
    profile: String,
}

/// Builds the library and installs it.
///
/// # Errors
///
/// If the folders make no sense, the build fails, or something cannot be written.
pub(crate) fn run(arguments: &InstallArgs) -> Result<(), Error> {
    let layout = Layout::new(&arguments.prefix, &arguments.libdir)?;
    let built = build(arguments)?;
    let (include, libraries) = (layout.include_folder(), layout.library_folder());
    for folder in [include.clone(), libraries.join("pkgconfig"), libraries.join("cmake/wtacrs")] {
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    }
    let full_name = format!("libwtacrs.so.{VERSION}");
    let soname = format!("libwtacrs.so.{ABI}");
    copy(&built.shared, &libraries.join(&full_name))?;
    if arguments.debug_info {
        split_debug_info(&libraries, &full_name)?;
    }
    link(&full_name, &libraries.join(&soname))?;
    link(&soname, &libraries.join("libwtacrs.so"))?;
    archive::install(&built.archive, &libraries.join("libwtacrs.a"))?;
    for header in HEADERS {
        copy(&root().join("crates/wtacrs-ffi/include").join(header), &include.join(header))?;
    }
    for (path, template) in TEMPLATES {
        let path = libraries.join(path);
        let text = layout.fill(template, arguments.relocatable).replace("@VERSION@", VERSION).replace("@ABI@", ABI);
        fs::write(&path, text).map_err(Error::file(&path))?;
    }
    step("Installed", format_args!("libwtacrs {VERSION} (ABI {ABI}) under {}", layout.staged_prefix().display()));
    Ok(())
}

/// The libraries as cargo built them.
struct Built {
    shared: PathBuf,
    archive: PathBuf,
}

fn build(arguments: &InstallArgs) -> Result<Built, Error> {
    let mut command = Command::new(cargo());
    command.current_dir(root()).args([
        "rustc",
        "--locked",
        "-p",
        "wtacrs-ffi",
        "--lib",
        "--profile",
        &arguments.profile,
    ]);
    command.args(["--message-format=json-render-diagnostics", "--"]);
    command.arg(format!("-Clink-arg=-Wl,-soname,libwtacrs.so.{ABI}"));
    command.arg(if arguments.debug_info { "-Cstrip=none" } else { "-Cstrip=debuginfo" });
    // Threads of the library's pool may outlive a dlclose, so it stays loaded.
    command.arg("-Clink-arg=-Wl,-z,nodelete");
    let messages = output(&mut command)?;
    let files: Vec<PathBuf> = Artifact::all(&messages)
        .filter(|artifact| artifact.target.name == "wtacrs")
        .flat_map(|a| a.filenames)
        .collect();
    let find = |extension: &str| {
        let found = files.iter().find(|file| file.extension().is_some_and(|found| found == extension));
        found
            .cloned()
            .ok_or_else(|| Error::NotReported { program: "cargo".into(), what: format!("libwtacrs.{extension}") })
    };
    Ok(Built { shared: find("so")?, archive: find("a")? })
}

/// Moves a library's debug information into a file of its own, whose name the library then contains.
fn split_debug_info(folder: &Path, library: &str) -> Result<(), Error> {
    let (objcopy, separate) = (archive::tool("OBJCOPY", "objcopy"), format!("{library}.debug"));
    let objcopy = || {
        let mut command = Command::new(&objcopy);
        command.current_dir(folder);
        command
    };
    output(objcopy().args(["--only-keep-debug", library, &separate]))?;
    output(objcopy().args(["--strip-debug", library]))?;
    output(objcopy().arg(format!("--add-gnu-debuglink={separate}")).arg(library)).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(drop).map_err(Error::file(to))
}

fn link(to: &str, at: &Path) -> Result<(), Error> {
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::file(at)(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(to, at).map_err(Error::file(at))
}
