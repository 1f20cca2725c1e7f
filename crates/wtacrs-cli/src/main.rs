//! The `wtacrs` command; `wtacrs --help` tells what it does.

use clap::Parser;
use clap::error::ErrorKind;
use std::io::{self, Write};
use std::process::ExitCode;
use wtacrs_cli::args::{Cli, Command};
use wtacrs_cli::command;
use wtacrs_cli::input::one_line;

/// For everything that a user can mend.
const FAILURE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => return fail(&first_paragraph(&error.to_string())),
        },
    };
    let done = match cli.command {
        Command::Compare(args) => command::compare(&args),
        Command::Replay(args) => command::replay(&args),
        Command::Memory(args) => command::memory(&args),
        Command::Doctor(args) => command::doctor(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("error: {error}")),
    }
}

/// The message itself, in one line, without usage and hints.
fn first_paragraph(message: &str) -> String {
    message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn fail(message: &str) -> ExitCode {
    // There is nobody left to tell if stderr is closed.
    let _ = writeln!(io::stderr(), "{}", one_line(message));
    ExitCode::from(FAILURE)
}
