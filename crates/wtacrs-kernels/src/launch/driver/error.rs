//! The errors of the CUDA driver layer.

use super::ptx::Version;
use crate::launch::dense::DenseError;

/// Why the CUDA driver cannot be used, or refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No driver library can be loaded.
    #[error("there is no CUDA driver on this machine (no libcuda.so)")]
    NoLibrary,
    /// The driver library lacks a call that all NVIDIA drivers of the last years have.
    #[error("the CUDA driver library has no {call}: it is damaged, or too old")]
    MissingCall {
        /// The call.
        call: &'static str,
    },
    /// The kernels' PTX is of a newer version than the driver understands.
    #[error(
        "the CUDA driver is too old: it is of CUDA {found} and reads PTX {}, and the kernels' PTX {ptx} needs CUDA {needed} or later",
        found.newest_ptx()
    )]
    TooOld {
        /// The CUDA version that first understood it.
        needed: Version,
        /// The CUDA version of the driver.
        found: Version,
        /// The PTX version of the kernels.
        ptx: Version,
    },
    /// A driver without a GPU that it can use.
    #[error("the CUDA driver finds no GPU")]
    NoDevice,
    /// A GPU with a number that the driver does not have.
    #[error("there is no GPU {ordinal}: the CUDA driver finds {count}")]
    NoSuchDevice {
        /// The number asked for.
        ordinal: u32,
        /// How many GPUs there are.
        count: u32,
    },
    /// A GPU that the kernels cannot run on.
    #[error("{name} has compute capability {found}, and the kernels need {needed} or later")]
    DeviceTooOld {
        /// The GPU.
        name: String,
        /// The least compute capability that the kernels need.
        needed: Version,
        /// The GPU's compute capability.
        found: Version,
    },
    /// No context to work in.
    #[error("no CUDA context is current on this thread")]
    NoContext,
    /// The PTX does not have a kernel of this library: they were not built together.
    #[error("the kernels' PTX has no kernel {kernel}: build it again (cargo xtask ptx)")]
    NoKernel {
        /// The kernel.
        kernel: &'static str,
    },
    /// The vendor's library computes no product.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// A call failed.
    #[error("{call}{} failed with {name} ({code}){detail}", kernel.map(|kernel| format!(" of {kernel}")).unwrap_or_default())]
    Cuda {
        /// The driver's call.
        call: &'static str,
        /// The kernel that the call is about, if any.
        kernel: Option<&'static str>,
        /// The error's number.
        code: u32,
        /// The driver's name of the error.
        name: String,
        /// Further text of the driver; empty, or begins with a colon.
        detail: String,
    },
}

impl DriverError {
    /// The same error, with the kernel that it is about.
    #[must_use]
    pub(super) fn of(mut self, about: &'static str) -> Self {
        if let Self::Cuda { kernel, .. } = &mut self {
            *kernel = Some(about);
        }
        self
    }
}
