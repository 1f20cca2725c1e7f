//! No entry point is left out of fuzzing: each is called by name in a fuzz target, or in what the targets share.

mod common;

use common::crate_path;

#[test]
fn every_entry_point_is_called_by_a_fuzz_target() {
    let mut calls = String::new();
    for folder in ["../../fuzz/fuzz_targets", "../../fuzz/src"] {
        for file in std::fs::read_dir(crate_path(folder)).expect("the fuzz targets") {
            calls += &std::fs::read_to_string(file.expect("a file").path()).expect("UTF-8");
        }
    }
    let exports = std::fs::read_to_string(crate_path("exports.txt")).expect("the export list");
    let is_left_out = |name: &&str| !calls.contains(&format!("{name}("));
    let left_out: Vec<&str> = exports.lines().filter(is_left_out).collect();
    assert!(left_out.is_empty(), "no fuzz target calls {left_out:#?}");
}
