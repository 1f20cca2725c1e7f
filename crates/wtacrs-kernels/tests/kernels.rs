//! The tests of kernels, plans and the driver layer: one executable, because each would compile the emulator's loops over
//! the kernels again.

mod common;
mod fake;
mod matrices;
mod selections;
mod sparse;
mod steps;

mod alias;
mod block_collectives;
mod column_sums;
mod columns;
mod driver;
mod engine;
mod gather_gemm;
mod gather_rows;
mod graph;
mod intrinsics;
mod layers;
mod machines;
mod norm_cache;
mod operators;
mod packed_layers;
mod packed_rows;
mod plan;
mod predictor;
mod replay;
mod row_norms;
mod row_norms_gather;
mod select;
mod split_reduce;
mod tiles;
mod traffic;

/// Cargo finds none of them by itself.
#[test]
fn every_file_of_tests_is_a_module() {
    // Not there on a machine that has the executable alone.
    let Ok(files) = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")) else { return };
    for file in files {
        let path = file.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let is_module = path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
        let declared = include_str!("kernels.rs").lines().any(|line| line == format!("mod {name};"));
        assert!(!is_module || declared || name == "kernels", "tests/kernels.rs does not declare {name}");
    }
}
