//! Prints progress and failures in cargo's style.

use std::fmt::Display;
use std::io::IsTerminal;

/// Prints a step: a verb, and its object.
pub(crate) fn step(verb: &str, about: impl Display) {
    line("1;32", verb, about);
}

/// Prints something that the reader should know and that is not wrong.
pub(crate) fn note(about: impl Display) {
    line("1;36", "Note", about);
}

/// Prints one of several things that are wrong.
pub(crate) fn finding(about: impl Display) {
    line("1;31", "Found", about);
}

/// Prints why the task fails.
pub(crate) fn failure(about: impl Display) {
    line("1;31", "Failed", about);
}

fn line(color: &str, verb: &str, about: impl Display) {
    let never = std::env::var_os("CARGO_TERM_COLOR").is_some_and(|when| when == "never");
    if std::io::stderr().is_terminal() && !never {
        eprintln!("\x1b[{color}m{verb:>12}\x1b[0m {about}");
    } else {
        eprintln!("{verb:>12} {about}");
    }
}
