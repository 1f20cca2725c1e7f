//! `cargo xtask`: builds and checks the GPU code, packs GPU tests for a machine without Rust, installs the C library, and
//! checks that no files import each other.
//!
//! | module | contains |
//! |---|---|
//! | [`ptx`] | the PTX: its build, its checks, the manifest, and machine code |
//! | [`bundle`] | GPU tests and benches, as executables in a folder |
//! | [`install`] | the C library, its headers and its configuration, installed under a prefix |
//! | [`circles`] | the search for files that import each other |
//! | [`toolchain`] | the search for a compiler for NVPTX and for ptxas |

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
        /// Write nothing; fail if the committed PTX differs from what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Assemble the committed PTX for every architecture, for builds of the library that contain machine code
    Cubins,
    /// Put GPU tests and benches, and a script that runs them, into a folder
    GpuBundle {
        /// The folder; created if it does not exist
        #[arg(long)]
        out: PathBuf,
    },
    /// Build libwtacrs and put it, its headers, its pkg-config file and its CMake configuration under a prefix
    Install(install::InstallArgs),
    /// Fail if files of a crate import each other
    Circles {
        /// List what was read, and what could not be resolved
        #[arg(long)]
        verbose: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ptx { check } => ptx::run(check),
        Command::Cubins => ptx::cubins::run(),
        Command::GpuBundle { out } => bundle::run(&out),
        Command::Install(arguments) => install::run(&arguments),
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
