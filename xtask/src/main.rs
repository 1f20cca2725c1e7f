//! `cargo xtask`: builds and checks the GPU code, packs GPU tests for a machine that has no Rust, installs the C library.
//!
//! | room | holds |
//! |---|---|
//! | [`toolchain`] | where a compiler for NVPTX and ptxas are, and how to install what is missing |
//! | [`ptx`] | kernels to PTX text, its checks, and the manifest |
//! | [`bundle`] | GPU tests and benches as executables in a folder |
//! | [`install`] | the C library, its header and its configuration under a prefix |
//! | [`circles`] | files that import each other |

mod bundle;
mod circles;
mod error;
mod install;
mod ptx;
mod report;
mod toolchain;
mod workspace;

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
    /// Build the PTX from the kernels' sources, and check it
    Ptx {
        /// Write nothing; fail where the committed PTX is not what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Put GPU tests and benches, stripped, and a script that runs them into a folder
    GpuBundle {
        /// The folder, made if it is not there
        #[arg(long)]
        out: PathBuf,
    },
    /// Build libwtacrs and put it, its header, its pkg-config file and its CMake configuration under a prefix
    Install {
        /// Where: lib/ and include/ are made below it
        #[arg(long)]
        prefix: PathBuf,
    },
    /// Fail where files of a crate import each other
    Circles {
        /// List what was read, and what could not be looked into
        #[arg(long)]
        verbose: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ptx { check } => ptx::run(check),
        Command::GpuBundle { out } => bundle::run(&out),
        Command::Install { prefix } => install::run(&prefix),
        Command::Circles { verbose } => circles::run(verbose),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
