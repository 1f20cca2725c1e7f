//! Progress and failures, in cargo's manner.

use std::fmt::Display;
use std::io::IsTerminal;

/// A step that begins: a verb in -ing, and what it is about.
pub(crate) fn step(verb: &str, about: impl Display) {
    line("1;32", verb, about);
}

/// What a reader should know, though nothing is wrong.
pub(crate) fn note(about: impl Display) {
    line("1;36", "Note", about);
}

/// One of several things that are wrong.
pub(crate) fn finding(about: impl Display) {
    line("1;31", "Found", about);
}

/// Why the task ends here.
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
