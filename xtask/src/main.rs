//! `cargo xtask`: installs the C library.

mod install;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build libwtacrs and put it, its header, its pkg-config file and its CMake configuration under a prefix
    Install {
        /// Where: lib/ and include/ are made below it
        #[arg(long)]
        prefix: PathBuf,
    },
}

fn main() -> ExitCode {
    let Command::Install { prefix } = Arguments::parse().command;
    match install::install(&prefix) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
