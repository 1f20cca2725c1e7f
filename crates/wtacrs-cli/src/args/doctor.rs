//! The arguments of `wtacrs doctor`.

use clap::{Args, ValueEnum};

const JSON_FORMAT: &str = "\
JSON: {version, path, reason, cpu: {architecture, threads, simd: […]},
  kernels: {ptx, compute_capability, needs_cuda}, driver: {cuda, ptx, error},
  gpus: [{ordinal, name, compute_capability, multiprocessors, memory_bytes, l2_bytes, shared_bytes, error}]}
  path           gpu or cpu: what a layer runs on that may run on either
  kernels        versions of the PTX that comes with the library, and the CUDA version of the oldest driver that loads it
  driver         cuda is the driver's version and ptx the newest PTX that it reads, null without one; error says why it
                 cannot be used, null if it can
  gpus           error says why the kernels do not load, null if they do

Exit code: 0, with or without a GPU.";

/// Arguments of `wtacrs doctor`.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_long_help = JSON_FORMAT)]
pub struct DoctorArgs {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = DoctorFormat::Text)]
    pub format: DoctorFormat,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// Lines for people.
    Text,
    /// JSON, see the long help.
    Json,
}
