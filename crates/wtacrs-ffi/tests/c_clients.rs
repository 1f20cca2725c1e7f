//! C programs against the built library: what a client does, and what it must not do. Again under valgrind if it is there.

mod common;

use common::{compile, crate_path, library_folder, run, scratch};
use safetensors::SafeTensors;
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
    let bytes = std::fs::read(crate_path("../../testdata/minilm_l3_value_imdb_1024.safetensors")).expect("testdata");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    for name in ["h", "dz"] {
        let file = folder.join(format!("{name}.raw"));
        std::fs::write(file, tensors.tensor(name).expect("recorded").data()).expect("temporary files can be written");
    }
    let program = compile("client.c", &folder);
    let output = run(Command::new(&program).arg(&folder));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok\n"));
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn misuse() {
    let folder = scratch("misuse");
    let program = compile("misuse.c", &folder);
    let output = run(&mut Command::new(&program));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("ok\n"), "{text}");
    under_valgrind(&program, &[]);
    let _ = std::fs::remove_dir_all(folder);
}

/// Every entry point that returns a status contains a panic.
#[test]
fn every_entry_point_has_its_guard() {
    let exports = std::fs::read_to_string(crate_path("exports.txt")).expect("the list");
    let mut sources = String::new();
    for folder in ["src", "src/tensor_mul"] {
        for file in std::fs::read_dir(crate_path(folder)).expect("sources").map(|entry| entry.expect("an entry").path())
        {
            if file.extension().is_some_and(|extension| extension == "rs") {
                sources += &std::fs::read_to_string(file).expect("text");
            }
        }
    }
    let without = ["wtacrs_version", "wtacrs_abi_version", "wtacrs_status_string", "wtacrs_last_error"];
    for name in exports.lines().filter(|name| !without.contains(name)) {
        assert!(sources.contains(&format!("guard(\"{name}\"")), "{name}");
    }
    assert!(library_folder().join("libwtacrs.a").exists());
}
