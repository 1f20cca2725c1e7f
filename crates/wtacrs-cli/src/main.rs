//! The `wtacrs` command line: its subcommands, and exit codes.

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use wtacrs_cli::allocate::AllocateArgs;
use wtacrs_cli::compare::CompareArgs;
use wtacrs_cli::doctor::DoctorArgs;
use wtacrs_cli::memory::MemoryArgs;
use wtacrs_cli::replay::ReplayArgs;
use wtacrs_cli::text::one_line;
use wtacrs_cli::{allocate, compare, doctor, memory, replay};

/// The exit code for everything that a user can mend.
const FAILURE: u8 = 2;

/// Unbiased, low-variance estimates of matrix products from a few column-row pairs.
#[derive(Debug, Parser)]
#[command(name = "wtacrs", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare sampling designs on a layer: the error of their estimates of dW = Hᵀ dZ, and what they cost
    Compare(CompareArgs),
    /// Replay recorded training steps: how well exact norms, a norm predictor and the input alone choose the rows to keep
    Replay(ReplayArgs),
    /// Share one memory budget out among recorded layers: rows and bits to each, so that their gradients err least
    Allocate(AllocateArgs),
    /// Count the bytes that a layer or a transformer saves for the backward pass, exactly and at each budget
    Memory(MemoryArgs),
    /// Report what this machine can run on: GPUs, driver and kernels, and why layers run on the GPU or the CPU
    Doctor(DoctorArgs),
}

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
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("error: {error}")),
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Compare(args) => compare::run(&args)?,
        Command::Replay(args) => replay::run(&args)?,
        Command::Allocate(args) => allocate::run(&args)?,
        Command::Memory(args) => memory::run(&args)?,
        Command::Doctor(args) => doctor::run(&args)?,
    }
    Ok(())
}

/// The message itself, in one line, without usage and hints.
fn first_paragraph(message: &str) -> String {
    message.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn fail(message: &str) -> ExitCode {
    // If stderr is closed, the exit code is all that is left to report by.
    let _ = writeln!(io::stderr(), "{}", one_line(message));
    ExitCode::from(FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
