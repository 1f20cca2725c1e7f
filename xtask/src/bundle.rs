//! `cargo xtask gpu-bundle`: makes a folder to copy to a machine that has a GPU and no Rust.
//!
//! ```text
//! out/bin/*       GPU tests and benches, stripped and packed: each contains all kernels as text, tests contain them twice
//! out/testdata/   the files that tests read
//! out/run.sh      runs the tests, the benches, and the tests again under compute-sanitizer's tools, in ten minutes or in full
//! out/results/    what the script leaves, a file for each job while it runs
//! ```

use crate::error::Error;
use crate::report;
use crate::workspace::{self, Artifact};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package whose integration tests run on a GPU where there is one.
struct Tests {
    package: &'static str,
    /// A line that the source of each such test contains.
    mark: &'static str,
    /// The features that they need.
    features: &'static str,
}

const TESTS: &[Tests] = &[
    Tests { package: "wtacrs-kernels", mark: "mod common;", features: "" },
    Tests { package: "wtacrs-ffi", mark: "mod machine;", features: "emulator" },
];

/// The benches that need a GPU: package and name.
const BENCHES: &[(&str, &str)] = &[("wtacrs-benches", "gpu")];

/// The limit of the folder's size, with packed executables.
const LIMIT_MIB: u64 = 60;

const SCRIPT: &str = include_str!("run.sh");

/// Builds the executables and fills the folder.
pub(crate) fn run(out: &Path) -> Result<(), Error> {
    let target = workspace::target()?.join("gpu-bundle");
    let mut count = 0;
    for Tests { package, mark, features } in TESTS {
        report::step("Building", format_args!("the tests of {package}"));
        let names = tests(&workspace::root().join("crates").join(package).join("tests"), mark)?;
        let mut arguments = vec!["test", "--package", package, "--release", "--features", features];
        arguments.extend(names.iter().flat_map(|name| ["--test", name]));
        let executables = build(&target, &arguments)?;
        count += pack(&executables, &out.join("bin/tests").join(package))?;
    }
    for (package, bench) in BENCHES {
        report::step("Building", format_args!("the bench {bench} of {package}"));
        let executables = build(&target, &["bench", "--package", package, "--bench", bench])?;
        count += pack(&executables, &out.join("bin/benches"))?;
    }
    if count == 0 {
        return Err(Error::Empty);
    }
    copy_folder(&workspace::root().join("testdata"), &out.join("testdata"))?;
    let script = out.join("run.sh");
    fs::write(&script, SCRIPT).map_err(Error::file(&script))?;
    make_executable(&script)?;

    let found_mib = size(out)?.div_ceil(1 << 20);
    if found_mib > LIMIT_MIB {
        return Err(Error::Large { found_mib, limit_mib: LIMIT_MIB });
    }
    report::step("Bundled", format_args!("{count} executables, {found_mib} MiB, into {}", out.display()));
    Ok(())
}

/// The names of a folder's tests (files, and folders with a main.rs) whose source contains the line `mark`.
fn tests(folder: &Path, mark: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        let main = if path.is_dir() { path.join("main.rs") } else { path.clone() };
        if main.extension().is_none_or(|extension| extension != "rs") || !main.is_file() {
            continue;
        }
        let source = fs::read_to_string(&main).map_err(Error::file(&main))?;
        if source.lines().any(|line| line == mark) {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds what these arguments name, and returns the executables with their targets' names.
fn build(target: &Path, arguments: &[&str]) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut command = Command::new(workspace::cargo());
    command
        .args(arguments)
        .args(["--locked", "--no-run", "--message-format=json-render-diagnostics", "--target-dir"])
        .arg(target)
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .current_dir(workspace::root());
    let messages = workspace::output(&mut command)?;
    let wanted = |artifact: &Artifact| artifact.target.kind.iter().any(|kind| kind == "test" || kind == "bench");
    let artifacts = Artifact::all(&messages).filter(wanted);
    Ok(artifacts.filter_map(|artifact| Some((artifact.target.name, artifact.executable?))).collect())
}

/// Empties the folder, packs the executables into it under their names, and returns their number.
fn pack(executables: &[(String, PathBuf)], folder: &Path) -> Result<usize, Error> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::file(folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    for (name, path) in executables {
        let copy = folder.join(name);
        fs::copy(path, &copy).map_err(Error::file(path))?;
        workspace::output(Command::new("gzip").arg(copy))?;
    }
    Ok(executables.len())
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::file(to))?;
    for entry in fs::read_dir(from).map_err(Error::file(from))? {
        let path = entry.map_err(Error::file(from))?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &to)?;
        } else {
            fs::copy(&path, &to).map_err(Error::file(&path))?;
        }
    }
    Ok(())
}

/// The size of all files of a folder, in bytes.
fn size(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        bytes += if path.is_dir() { size(&path)? } else { fs::metadata(&path).map_err(Error::file(&path))?.len() };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::file(path))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> Result<(), Error> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_can_use_a_gpu_is_found() {
        // tests/kernels.rs checks by itself that it declares every file.
        let expected = [["kernels"], ["cuda"]];
        for (Tests { package, mark, .. }, names) in TESTS.iter().zip(expected) {
            let found = tests(&workspace::root().join("crates").join(package).join("tests"), mark).expect("readable");
            for name in names {
                assert!(found.iter().any(|test| test == name), "{name} is not among {found:?}");
            }
        }
    }

    /// Runs the script on programs that are there in the place of tests, benches and the sanitizer, on a machine without CUDA, and
    /// returns its exit code and the lines of its summary, without the seconds.
    #[cfg(target_os = "linux")]
    fn rehearse(programs: &[(&str, &str)], arguments: &[&str], seconds: u32) -> (Option<i32>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("bin")).expect("writable");
        for &(place, source) in programs {
            let path = folder.path().join(place);
            fs::create_dir_all(path.parent().expect("a place in a folder")).expect("writable");
            fs::write(&path, format!("#!/bin/sh\n{source}\n")).expect("writable");
            make_executable(&path).expect("its owner");
        }
        let script = folder.path().join("run.sh");
        fs::write(&script, SCRIPT).expect("writable");
        let mut command = Command::new("bash");
        command.arg(&script).args(arguments).env_clear().env("WTACRS_SECONDS", seconds.to_string());
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", folder.path().join("tools").display());
        command.env("PATH", path).env("CUDA_HOME", folder.path());
        let output = command.output().expect("bash");
        let summary = fs::read_to_string(folder.path().join("results/summary.txt")).unwrap_or_default();
        let outcome = |line: &str| line.rsplit_once(", ").map_or(line, |(outcome, _)| outcome).to_owned();
        (output.status.code(), summary.lines().map(outcome).collect())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_job_that_fails_or_takes_too_long_leaves_what_others_have_found() {
        let hangs = ("bin/benches/hangs", "echo begun; exec sleep 60");
        let programs = [
            ("bin/tests/a/breaks", "exit 3"),
            ("bin/tests/b/kernels", "test -n \"$WTACRS_ONLY_GPU\" && test -n \"$WTACRS_REQUIRE_GPU\""),
            ("bin/benches/gpu", "test -n \"$WTACRS_HEADLINE\""),
            // With the test and its filter among the arguments.
            ("tools/compute-sanitizer", "case \"$*\" in *memcheck*kernels*layers) ;; *) exit 9 ;; esac"),
            hangs,
        ];
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let (code, summary) = rehearse(&programs[..4], &[], 60);
        let expected = [
            "tests-breaks: failed (3)",
            "tests-kernels: passed",
            "tests-early-start: passed",
            "benches-gpu: passed",
            "sanitizers-memcheck-kernels: passed",
            "sanitizers-racecheck-kernels: failed (9)",
            "sanitizers-synccheck-kernels: failed (9)",
            "sanitizers-initcheck-kernels: failed (9)",
            "benches-early-start: passed",
        ];
        assert_eq!((code, summary), (Some(1), lines(&expected)));
        let (code, summary) = rehearse(&programs[2..], &["benches"], 2);
        let cut_off = summary.iter().any(|line| line.starts_with("benches-hangs: cut off after "));
        assert!(code == Some(2) && summary[0] == "benches-gpu: passed" && cut_off, "{code:?} {summary:?}");
        let (code, summary) = rehearse(&programs[1..2], &["full", "tests"], 0);
        assert_eq!((code, summary), (Some(0), lines(&["tests-kernels: passed", "tests-early-start: passed"])));
        assert_eq!(rehearse(&programs, &["sanitizer"], 60), (Some(64), Vec::new()), "no such part");
        assert_eq!(rehearse(&[hangs], &["tests"], 60).0, Some(1), "nothing to run");
    }
}
