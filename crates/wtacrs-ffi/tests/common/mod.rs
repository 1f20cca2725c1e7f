//! Where things are, and how C is compiled and run against the library.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A path within this crate.
pub fn crate_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The folder where cargo has put libwtacrs.so and libwtacrs.a for this test.
pub fn library_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().expect("target/…/deps").to_path_buf()
}

pub fn library() -> PathBuf {
    library_folder().join("libwtacrs.so")
}

/// A folder of this test process alone.
pub fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("wtacrs-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("temporary files can be written");
    folder
}

/// Whether committed files are to become what the code makes now.
pub fn blesses() -> bool {
    std::env::var_os("WTACRS_BLESS").is_some_and(|value| value == "1")
}

/// Compares a committed file with what it should be now; WTACRS_BLESS=1 rewrites it instead.
pub fn check_file(path: &str, now: &str) {
    let file = crate_path(path);
    if blesses() {
        std::fs::write(&file, now).expect("the crate can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == now,
        "{path} is not what the code makes: run the test with WTACRS_BLESS=1, and look at the diff"
    );
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    output
}

/// The recorded layer as the C programs read it: h.raw and dz.raw.
pub fn write_layer(folder: &Path) {
    let bytes = std::fs::read(crate_path("../../testdata/minilm_l3_value_imdb_1024.safetensors")).expect("testdata");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    for name in ["h", "dz"] {
        let file = folder.join(format!("{name}.raw"));
        std::fs::write(file, tensors.tensor(name).expect("recorded").data()).expect("temporary files can be written");
    }
}

/// Compiles a C program, whose path is relative to tests/c, and links it with the shared library.
pub fn compile(source: &str, folder: &Path) -> PathBuf {
    let program = folder.join(Path::new(source).file_stem().expect("a name"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-I")
        .arg(crate_path("include"))
        .arg(crate_path("tests/c").join(source))
        .arg(library())
        .arg(format!("-Wl,-rpath,{}", library_folder().display()))
        .args(["-Wl,--no-as-needed", "-lm", "-ldl", "-pthread", "-o"])
        .arg(&program);
    run(&mut gcc);
    program
}
