//! A program that was built against the first ABI baseline, and never since, runs against the library of today.

mod common;

use common::{crate_path, library, run, scratch};
use std::process::Command;

const FOLDER: &str = "testdata/first-baseline";

#[test]
#[cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")),
    ignore = "the program is one for x86-64 Linux with glibc"
)]
fn the_first_client_still_runs() {
    let folder = scratch("first-baseline");
    // The name that the program was linked with: the SONAME of ABI 0.
    std::os::unix::fs::symlink(library(), folder.join("libwtacrs.so.0")).expect("temporary files can be written");
    let program = crate_path(FOLDER).join("client-x86_64-linux-gnu");
    let output = run(Command::new(program).env("LD_LIBRARY_PATH", &folder));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("verified: ").count(), 8, "{text}");
    assert!(text.ends_with("serves a client of ABI 0\n"), "{text}");
    let _ = std::fs::remove_dir_all(folder);
}

/// The source beside it names every function that the program was linked with, and all of them are still exported.
#[test]
fn nothing_it_was_linked_with_is_lost() {
    let source = std::fs::read_to_string(crate_path(FOLDER).join("client.c")).expect("the source");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("(void (*)(void))")?.strip_suffix(','));
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 74);
    let exports = std::fs::read_to_string(crate_path("exports.txt")).expect("the list");
    let lost: Vec<&&str> = names.iter().filter(|name| !exports.lines().any(|line| line == **name)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
