//! The built `wtacrs`, from its arguments to its exit code, and the reader of recordings.

mod allocate;
mod compare;
mod doctor;
mod memory;
mod recording;
mod replay;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

fn wtacrs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wtacrs")).args(arguments).output().expect("the command starts")
}

fn stdout(arguments: &[&str]) -> String {
    let output = wtacrs(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "nothing on stderr, which is not a terminal");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Exit code 2, nothing on stdout, and one line on stderr with all of `parts` in it.
fn assert_refused(arguments: &[&str], parts: &[&str]) {
    let output = wtacrs(arguments);
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty());
    assert!(message.starts_with("error: ") && message.ends_with('\n') && message.lines().count() == 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

/// Exit code 2, one line on stderr with all of `parts` in it, and what was printed before.
fn refused_after_results(arguments: &[&str], parts: &[&str]) -> String {
    let output = wtacrs(arguments);
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The command with bytes on standard input, by a pipe.
fn with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wtacrs"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("the command ends")
}

/// A new file for one test.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command");
    fs::create_dir_all(&directory).expect("a writable directory");
    let path = directory.join(name);
    let _ = fs::remove_file(&path);
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
