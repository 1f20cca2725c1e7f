//! The library that users link is built without the emulator, which runs kernels on stacks of its own.

mod common;

use common::{crate_path, run};
use std::process::Command;

/// The crate by which the emulator switches stacks.
const STACKS: &str = "corosensei";

/// Packages that the library is built from, with some features beside its default ones.
fn packages(features: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").expect("cargo runs tests");
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--package", "wtacrs-ffi", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--locked", "--offline", "--features", features])
        .current_dir(crate_path(""));
    let listed = String::from_utf8(run(&mut tree).stdout).expect("UTF-8");
    listed.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn only_tests_have_the_emulator() {
    let (installed, tested) = (packages(""), packages("emulator"));
    let has = |packages: &[String], name: &str| packages.iter().any(|package| package == name);
    assert!(has(&installed, "wtacrs-kernels") && has(&tested, "wtacrs-kernels"), "{installed:?}");
    assert!(has(&tested, STACKS), "the emulator is built without {STACKS}: {tested:?}");
    assert!(!has(&installed, STACKS), "{installed:?}");
}
