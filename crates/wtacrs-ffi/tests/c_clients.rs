//! C programs against the built library: what a client does, and what it must not do. Again under valgrind if it is there.

mod common;

use common::{compile, crate_path, run, scratch, write_layer};
use std::path::Path;
use std::process::Command;

fn under_valgrind(program: &Path, arguments: &[&Path]) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("no valgrind: leaks and stray accesses were not looked for");
        return;
    }
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]);
    run(command.arg(program).args(arguments).env("RAYON_NUM_THREADS", "2"));
}

#[test]
fn a_client() {
    let folder = scratch("client");
    write_layer(&folder);
    let program = compile("client.c", &folder);
    let output = run(Command::new(&program).arg(&folder));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn packed_rows() {
    let folder = scratch("packed");
    write_layer(&folder);
    let program = compile("packed.c", &folder);
    let output = run(Command::new(&program).arg(&folder));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"));
    let _ = std::fs::remove_dir_all(folder);
}

/// A program that ends by saying that all is well; the same again under valgrind.
fn misuses(source: &str) {
    let folder = scratch(source);
    let program = compile(source, &folder);
    let output = run(&mut Command::new(&program));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("ok\n"), "{text}");
    under_valgrind(&program, &[]);
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn misuse() {
    misuses("misuse.c");
}

#[test]
fn operators() {
    misuses("operators.c");
}

#[test]
fn structs_that_carry_their_size() {
    misuses("options.c");
}

#[test]
fn objects_in_every_wrong_order() {
    misuses("lifetimes.c");
}

#[test]
fn objects_shared_by_threads() {
    misuses("threads.c");
}

/// Not under valgrind, which has threads and limits of its own.
#[test]
fn a_process_forks_and_has_limits() {
    let folder = scratch("process");
    let program = compile("process.c", &folder);
    let output = run(Command::new(&program).env_remove("RAYON_NUM_THREADS"));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn strides_of_every_kind() {
    misuses("strides.c");
}

#[test]
fn every_entry_point_contains_a_panic_and_answers_null() {
    let folder = scratch("panics");
    let program = compile("panics.c", &folder);
    let output = run(Command::new(&program).arg(crate_path("exports.txt")));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("ok\n"), "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_dir_all(folder);
}
