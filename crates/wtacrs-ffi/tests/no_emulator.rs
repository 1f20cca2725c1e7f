//! The library that users link and the command are built without the emulator, which runs kernels on stacks of its own.
//! `.ci/installed-clients` looks for it in the installed library's code.

mod common;

use common::{crate_path, run};
use std::process::Command;

/// The crate by which the emulator switches stacks.
const STACKS: &str = "corosensei";

/// Packages that `package` is built from, with some features beside its default ones.
fn packages(package: &str, features: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").expect("cargo runs tests");
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--locked", "--offline", "--features", features])
        .current_dir(crate_path(""));
    let listed = String::from_utf8(run(&mut tree).stdout).expect("UTF-8");
    listed.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn only_tests_have_the_emulator() {
    let has = |packages: &[String], name: &str| packages.iter().any(|package| package == name);
    let tested = packages("wtacrs-ffi", "emulator");
    assert!(has(&tested, STACKS), "the emulator is built without {STACKS}: {tested:?}");
    for package in ["wtacrs-ffi", "wtacrs-cli"] {
        let installed = packages(package, "");
        assert!(has(&installed, "wtacrs-kernels"), "{package}: {installed:?}");
        assert!(!has(&installed, STACKS), "{package}: {installed:?}");
    }
}
