//! A program that was built against the first ABI baseline, and never since, runs against the library of today.

mod common;

use common::{crate_path, library, run, scratch};
use std::collections::BTreeSet;
use std::process::Command;

const FOLDER: &str = "testdata/first-baseline";
const PROGRAM: &str = "client-x86_64-linux-gnu";

#[test]
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")),
    ignore = "the program is one for x86-64 Linux with glibc"
)]
fn the_first_client_still_runs() {
    let folder = scratch("first-baseline");
    // The name that the program was linked with: the SONAME of ABI 0.
    std::os::unix::fs::symlink(library(), folder.join("libwtacrs.so.0")).expect("temporary files can be written");
    let program = crate_path(FOLDER).join(PROGRAM);
    let output = run(Command::new(program).env("LD_LIBRARY_PATH", &folder));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("verified: ").count(), source().matches("  verified(\"").count(), "{text}");
    assert!(text.ends_with("serves a client of ABI 0\n"), "{text}");
    let _ = std::fs::remove_dir_all(folder);
}

fn source() -> String {
    std::fs::read_to_string(crate_path(FOLDER).join("client.c")).expect("the source")
}

/// The source beside it names every function that the program was linked with, and all of them are still exported.
#[test]
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")),
    ignore = "the program is one for x86-64 Linux with glibc"
)]
fn nothing_it_was_linked_with_is_lost() {
    let source = source();
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("(void (*)(void))")?.strip_suffix(','));
    let names: BTreeSet<&str> = names.collect();
    let nm = run(Command::new("nm").args(["-D", "--undefined-only"]).arg(crate_path(FOLDER).join(PROGRAM)));
    let symbols = String::from_utf8(nm.stdout).expect("ASCII");
    let symbols = symbols.lines().filter_map(|line| line.split_whitespace().last());
    let linked: BTreeSet<&str> = symbols.filter(|name| name.starts_with("wtacrs_")).collect();
    assert!(!linked.is_empty() && names == linked, "the program was made of another source");
    let exports = std::fs::read_to_string(crate_path("exports.txt")).expect("the list");
    let lost: Vec<&&str> = names.iter().filter(|name| !exports.lines().any(|line| line == **name)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
