//! The static library that is installed: one object, in which only the interface's symbols are visible.
//!
//! rustc's archive contains the whole standard library with its debug information and LLVM bitcode, and exports its symbols
//! and those of every crate. Whoever makes a shared library of it exports them too, and a second Rust library in the same
//! program defines some of them again. So `ld -r` links what the interface reaches into one object, and `objcopy` makes all
//! other symbols local. Functions keep sections of their own, of which a program's linker with `--gc-sections` keeps what
//! the program calls.

use crate::error::Error;
use crate::report::{note, step};
use crate::workspace::{output, root};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Installs rustc's archive at `to`. Without GNU ld and objcopy it stays as it is, and a note says so.
pub(super) fn install(from: &Path, to: &Path) -> Result<(), Error> {
    let (ld, objcopy, ar) = (tool("LD", "ld"), tool("OBJCOPY", "objcopy"), tool("AR", "ar"));
    if let Some(missing) = missing(&ld, &objcopy, &ar) {
        note(format_args!("libwtacrs.a is installed as rustc made it, with the symbols of every crate: {missing}"));
        return fs::copy(from, to).map(drop).map_err(Error::file(to));
    }
    let exports = root().join("crates/wtacrs-ffi/exports.txt");
    let names = fs::read_to_string(&exports).map_err(Error::file(&exports))?;
    let object = to.with_extension("o");
    let mut link = Command::new(&ld);
    // Groups of sections that linkers merge by name would be merged with those of another library, whose symbols are not
    // these.
    link.args(["-r", "--gc-sections", "--force-group-allocation"]);
    link.args(names.lines().map(|name| format!("--undefined={name}")));
    link.arg("-o").arg(&object).arg(from);
    output(&mut link)?;
    let mut hide = Command::new(&objcopy);
    hide.args(["--strip-debug", "--strip-unneeded", "--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    hide.arg("--keep-global-symbols").arg(&exports).arg(&object);
    output(&mut hide)?;
    // `ar` adds to an archive that is there.
    if to.exists() {
        fs::remove_file(to).map_err(Error::file(to))?;
    }
    output(Command::new(&ar).arg("rcs").arg(to).arg(&object))?;
    fs::remove_file(&object).map_err(Error::file(&object))?;
    step("Linked", format_args!("libwtacrs.a: {} of rustc's {}", mebibytes(to)?, mebibytes(from)?));
    Ok(())
}

/// The tool that an environment variable names, as make has it.
pub(super) fn tool(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).filter(|named| !named.is_empty()).unwrap_or(name.into())
}

/// What is missing, in words, if anything is.
fn missing(ld: &OsString, objcopy: &OsString, ar: &OsString) -> Option<String> {
    // Of the linkers, only GNU's removes sections from an object that is to be linked again.
    if !version(ld).is_some_and(|text| text.starts_with("GNU ld")) {
        return Some(format!("{} is not GNU ld; install binutils, or set LD", ld.to_string_lossy()));
    }
    let absent = [("OBJCOPY", objcopy), ("AR", ar)].into_iter().find(|(_, tool)| version(tool).is_none());
    absent.map(|(variable, tool)| {
        format!("{} does not start; install binutils, or set {variable}", tool.to_string_lossy())
    })
}

fn version(tool: &OsString) -> Option<String> {
    let output = Command::new(tool).arg("--version").stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mebibytes(file: &Path) -> Result<String, Error> {
    let bytes = fs::metadata(file).map_err(Error::file(file))?.len();
    Ok(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}
