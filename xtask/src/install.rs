//! libwtacrs as any C library is installed: shared and static library, header, pkg-config file, CMake configuration.
//!
//! ```text
//! PREFIX/include/wtacrs.h
//! PREFIX/lib/libwtacrs.so → .so.0 → .so.0.1.0 (SONAME libwtacrs.so.0: the ABI's major version), libwtacrs.a
//! PREFIX/lib/pkgconfig/wtacrs.pc      PREFIX/lib/cmake/wtacrs/wtacrs-config{,-version}.cmake
//! ```
//!
//! Nothing in the tree names the prefix, so it may be moved.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The number in the SONAME: WTACRS_ABI_VERSION of the header.
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
pub(crate) fn install(prefix: &Path) -> io::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = build(&repository)?;
    let library = prefix.join("lib");
    for folder in [prefix.join("include"), library.join("pkgconfig"), library.join("cmake/wtacrs")] {
        fs::create_dir_all(folder)?;
    }
    let full = format!("libwtacrs.so.{VERSION}");
    let soname = format!("libwtacrs.so.{ABI}");
    fs::copy(built.join("libwtacrs.so"), library.join(&full))?;
    fs::copy(built.join("libwtacrs.a"), library.join("libwtacrs.a"))?;
    link(&full, &library.join(&soname))?;
    link(&soname, &library.join("libwtacrs.so"))?;
    fs::copy(repository.join("crates/wtacrs-ffi/include/wtacrs.h"), prefix.join("include/wtacrs.h"))?;
    for (path, template) in TEMPLATES {
        fs::write(prefix.join(path), template.replace("@VERSION@", VERSION).replace("@ABI@", ABI))?;
    }
    println!("libwtacrs {VERSION} (ABI {ABI}) is under {}", prefix.display());
    Ok(())
}

/// The folder that cargo has built the libraries into.
fn build(repository: &Path) -> io::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository).args(["rustc", "--locked", "--release", "-p", "wtacrs-ffi", "--lib", "--"]);
    command.arg(format!("-Clink-arg=-Wl,-soname,libwtacrs.so.{ABI}"));
    command.arg("-Cstrip=debuginfo");
    // Threads of its pool may outlive a dlclose: once loaded, it stays.
    command.arg("-Clink-arg=-Wl,-z,nodelete");
    if !command.status()?.success() {
        return Err(io::Error::other("libwtacrs could not be built"));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    Ok(repository.join(target).join("release"))
}

fn link(to: &str, at: &Path) -> io::Result<()> {
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(to, at)
}
