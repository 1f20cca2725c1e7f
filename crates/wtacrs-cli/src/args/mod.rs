//! The command line of `wtacrs`.

mod compare;
mod doctor;
mod memory;
mod replay;

pub use self::{
    compare::{CompareArgs, Designs},
    doctor::{DoctorArgs, DoctorFormat},
    memory::{Dtype, MemoryArgs},
    replay::{PredictorArgs, ReplayArgs, Sources},
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Unbiased, low-variance estimates of matrix products from a few column-row pairs.
#[derive(Debug, Parser)]
#[command(name = "wtacrs", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `wtacrs` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare sampling designs on a layer: how far off their estimate of dW = Hᵀ dZ is, and what it costs
    Compare(CompareArgs),
    /// Replay recorded training steps: how well exact norms, a norm predictor and the input alone choose what to keep
    Replay(ReplayArgs),
    /// Tell what a layer or a transformer saves from the forward to the backward pass, exactly and at each budget
    Memory(MemoryArgs),
    /// Say what this machine can run on: its GPUs, driver and kernels, which of CPU and GPU it will be, and why
    Doctor(DoctorArgs),
}

/// How to run, and how to print what comes out.
#[derive(Clone, Copy, Debug, Args)]
pub struct RunArgs {
    /// Threads to use; 0 means one for each core
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1024))]
    pub threads: u16,

    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    Table,
    /// JSON, see the long help.
    Json,
    /// CSV.
    Csv,
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
