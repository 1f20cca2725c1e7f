//! Why the CUDA driver cannot be used, or refuses a call.

use super::ptx::Version;

/// Why the CUDA driver cannot be used, or refuses a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No driver library can be loaded.
    #[error("there is no CUDA driver on this machine (no libcuda.so)")]
    NoLibrary,
    /// The driver library lacks a call: no NVIDIA driver of the last years does.
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
    /// A driver, but no GPU that it can use.
    #[error("the CUDA driver finds no GPU")]
    NoDevice,
    /// A GPU that is not there.
    #[error("there is no GPU {ordinal}: the CUDA driver finds {count}")]
    NoSuchDevice {
        /// The number asked for.
        ordinal: u32,
        /// How many there are.
        count: u32,
    },
    /// A GPU that the kernels cannot run on.
    #[error("{name} has compute capability {found}, and the kernels need {needed} or later")]
    DeviceTooOld {
        /// The GPU.
        name: String,
        /// The least that the kernels need.
        needed: Version,
        /// What it has.
        found: Version,
    },
    /// No context to work in.
    #[error("no CUDA context is current on this thread")]
    NoContext,
    /// The PTX and this library were not made together.
    #[error("the kernels' PTX has no kernel {kernel}: build it again (cargo xtask ptx)")]
    NoKernel {
        /// The kernel.
        kernel: &'static str,
    },
    /// A call failed.
    #[error("{call}{} failed with {name} ({code}){detail}", kernel.map(|kernel| format!(" of {kernel}")).unwrap_or_default())]
    Cuda {
        /// The driver's call.
        call: &'static str,
        /// The kernel, if it is about one.
        kernel: Option<&'static str>,
        /// The error's number.
        code: u32,
        /// Its name, as the driver knows it.
        name: String,
        /// What else the driver says; empty, or begins with a colon.
        detail: String,
    },
}

impl DriverError {
    /// The same failure, with the kernel that it is about.
    #[must_use]
    pub(super) fn of(mut self, about: &'static str) -> Self {
        if let Self::Cuda { kernel, .. } = &mut self {
            *kernel = Some(about);
        }
        self
    }
}
