//! Installs libwtacrs as C libraries are installed: shared and static library, header, pkg-config file, CMake
//! configuration.
//!
//! ```text
//! PREFIX/include/wtacrs.h
//! PREFIX/lib/libwtacrs.so → .so.0 → .so.0.1.0 (SONAME libwtacrs.so.0: the ABI's major version), libwtacrs.a
//! PREFIX/lib/pkgconfig/wtacrs.pc      PREFIX/lib/cmake/wtacrs/wtacrs-config{,-version}.cmake
//! ```
//!
//! No file in the tree contains the prefix, so the tree can be moved.

use crate::error::Error;
use crate::report::step;
use crate::workspace::{cargo, output, root, target};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// The number in the SONAME: WTACRS_ABI_VERSION of the header, as `tests/installed.rs` of wtacrs-ffi checks.
const ABI: &str = "0";
const VERSION: &str = env!("CARGO_PKG_VERSION");

const TEMPLATES: [(&str, &str); 3] = [
    ("lib/pkgconfig/wtacrs.pc", include_str!("install/wtacrs.pc.in")),
    ("lib/cmake/wtacrs/wtacrs-config.cmake", include_str!("install/wtacrs-config.cmake.in")),
    ("lib/cmake/wtacrs/wtacrs-config-version.cmake", include_str!("install/wtacrs-config-version.cmake.in")),
];

/// Builds the library in the release profile and installs it under `prefix`.
///
/// # Errors
///
/// If the build fails, or something cannot be written.
pub(crate) fn run(prefix: &Path) -> Result<(), Error> {
    let build_folder = build()?;
    let library_folder = prefix.join("lib");
    for folder in [prefix.join("include"), library_folder.join("pkgconfig"), library_folder.join("cmake/wtacrs")] {
        fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    }
    let full_name = format!("libwtacrs.so.{VERSION}");
    let soname = format!("libwtacrs.so.{ABI}");
    copy(&build_folder.join("libwtacrs.so"), &library_folder.join(&full_name))?;
    copy(&build_folder.join("libwtacrs.a"), &library_folder.join("libwtacrs.a"))?;
    link(&full_name, &library_folder.join(&soname))?;
    link(&soname, &library_folder.join("libwtacrs.so"))?;
    copy(&root().join("crates/wtacrs-ffi/include/wtacrs.h"), &prefix.join("include/wtacrs.h"))?;
    for (path, template) in TEMPLATES {
        let path = prefix.join(path);
        let text = template.replace("@VERSION@", VERSION).replace("@ABI@", ABI);
        fs::write(&path, text).map_err(Error::file(&path))?;
    }
    step("Installed", format_args!("libwtacrs {VERSION} (ABI {ABI}) under {}", prefix.display()));
    Ok(())
}

/// Builds the libraries, and returns the folder that contains them.
fn build() -> Result<PathBuf, Error> {
    let mut command = Command::new(cargo());
    command.current_dir(root()).args(["rustc", "--locked", "--release", "-p", "wtacrs-ffi", "--lib", "--"]);
    command.arg(format!("-Clink-arg=-Wl,-soname,libwtacrs.so.{ABI}"));
    command.arg("-Cstrip=debuginfo");
    // Threads of the library's pool may outlive a dlclose, so it stays loaded.
    command.arg("-Clink-arg=-Wl,-z,nodelete");
    output(&mut command)?;
    Ok(target()?.join("release"))
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
