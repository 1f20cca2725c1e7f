//! C programs on the CUDA path, with the emulator instead of a GPU: what a client does, and what it must not do.

mod common;

use common::{compile, run, scratch, write_layer};
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
