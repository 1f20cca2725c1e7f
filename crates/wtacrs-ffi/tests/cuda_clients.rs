//! C programs on the CUDA path, with the emulator instead of a GPU: what a client does, and what it must not do.

mod common;

use common::{compile, crate_path, run, scratch, write_layer};
use std::process::Command;

fn on_the_emulator(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.env("WTACRS_CUDA_STANDIN", "emulator");
    command
}

#[test]
fn a_client_of_cuda() {
    let folder = scratch("cuda");
    write_layer(&folder);
    let program = compile("cuda.c", &folder);
    let output = run(on_the_emulator(&program).arg(&folder));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("ok\n"), "{text}");
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn misuse_of_cuda() {
    let folder = scratch("cuda-misuse");
    let program = compile("cuda_misuse.c", &folder);
    let output = run(&mut on_the_emulator(&program));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("ok\n"), "{text}");
    let _ = std::fs::remove_dir_all(folder);
}

/// With a driver that has the host's memory, which is what the emulator works on.
#[test]
fn the_example_with_the_driver_api() {
    let folder = scratch("cuda-example");
    let program = compile("../../../../examples/c/cuda_layer.c", &folder);
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC"]);
    run(gcc.arg(crate_path("tests/driver/libcuda.c")).arg("-o").arg(folder.join("libcuda.so.1")));
    let layer = crate_path("../../testdata/minilm_l3_value_imdb_1024.safetensors");
    let output = run(on_the_emulator(&program).arg(layer).env("LD_LIBRARY_PATH", &folder));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors: Vec<f64> =
        text.lines().filter_map(|line| line.split_once("relative error of dW ")?.1.parse().ok()).collect();
    // The predictor knows nothing in the first step, and much in the next ones.
    assert!(errors.len() == 3 && errors[2] < 0.3, "{text}");
    let _ = std::fs::remove_dir_all(folder);
}
