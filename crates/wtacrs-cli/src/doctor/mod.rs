//! What this machine can run the library on, and why not on more.

pub mod text;

use serde::Serialize;
use std::env::consts::ARCH;
use wtacrs_kernels::launch::driver::{Driver, DriverError, Installation, Ptx};

/// What was found. Serialised as it is documented in `wtacrs doctor --help`.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Of this command and the library.
    pub version: &'static str,
    /// What a layer runs on that may run on either.
    pub path: Path,
    /// Why, in one line.
    pub reason: String,
    /// The CPU.
    pub cpu: Cpu,
    /// The kernels that come with the library.
    pub kernels: Kernels,
    /// The CUDA driver.
    pub driver: CudaDriver,
    /// Every GPU that the driver finds.
    pub gpus: Vec<Gpu>,
}

/// Where layers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// On a GPU.
    Gpu,
    /// On the CPU.
    Cpu,
}

/// The CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// x86_64, aarch64, …
    pub architecture: &'static str,
    /// As many as work at a time.
    pub threads: usize,
    /// The vector instructions it has, of those that matter here.
    pub simd: Vec<&'static str>,
}

/// The kernels that come with the library.
#[derive(Clone, Debug, Serialize)]
pub struct Kernels {
    /// The version of their PTX.
    pub ptx: String,
    /// The least compute capability that runs them.
    pub compute_capability: String,
    /// The CUDA version of the oldest driver that loads them.
    pub needs_cuda: String,
}

/// The CUDA driver.
#[derive(Clone, Debug, Serialize)]
pub struct CudaDriver {
    /// The CUDA version that it is of; none without a driver.
    pub cuda: Option<String>,
    /// The newest PTX that such a driver reads; none without a driver.
    pub ptx: Option<String>,
    /// Why it cannot be used, if it cannot.
    pub error: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct Gpu {
    /// Its number.
    pub ordinal: u32,
    /// As the vendor calls it.
    pub name: String,
    /// Such as 9.0.
    pub compute_capability: String,
    /// How many it has.
    pub multiprocessors: u32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes of its L2 cache.
    pub l2_bytes: u64,
    /// The most shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Why the kernels do not load on it, if they do not.
    pub error: Option<String>,
}

impl Findings {
    /// Looks at this machine. On a GPU it loads the kernels, which may take some seconds the first time.
    pub fn of_this_machine() -> Self {
        let found = Installation::find();
        let gpus = found.as_ref().map_or_else(|_| Vec::new(), |installation| gpus(installation));
        let version = Installation::driver_version().ok();
        let driver = CudaDriver {
            cuda: version.map(|version| version.to_string()),
            ptx: version.map(|version| version.newest_ptx().to_string()),
            error: found.err().map(|error| error.to_string()),
        };
        Self::new(Cpu::of_this_machine(), driver, gpus)
    }

    /// Findings with what follows from them.
    pub fn new(cpu: Cpu, driver: CudaDriver, gpus: Vec<Gpu>) -> Self {
        let usable = gpus.iter().find(|gpu| gpu.error.is_none());
        let (path, reason) = match (usable, &driver.error, gpus.first()) {
            (Some(gpu), ..) => (Path::Gpu, format!("the kernels load on GPU {}, {}", gpu.ordinal, gpu.name)),
            (None, Some(error), _) => (Path::Cpu, error.clone()),
            (None, None, Some(Gpu { error: Some(error), .. })) => (Path::Cpu, error.clone()),
            (None, None, _) => (Path::Cpu, DriverError::NoDevice.to_string()),
        };
        let ptx = Ptx::bundled();
        let kernels = Kernels {
            ptx: ptx.version.to_string(),
            compute_capability: ptx.target.to_string(),
            needs_cuda: ptx.needed_driver().to_string(),
        };
        Self { version: env!("CARGO_PKG_VERSION"), path, reason, cpu, kernels, driver, gpus }
    }
}

impl Cpu {
    fn of_this_machine() -> Self {
        Self { architecture: ARCH, threads: rayon::current_num_threads(), simd: simd() }
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<&'static str> {
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    found.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> Vec<&'static str> {
    if cfg!(target_feature = "neon") { vec!["neon"] } else { Vec::new() }
}

fn gpus(installation: &Installation) -> Vec<Gpu> {
    // A driver that was just asked for its devices, and had one, has them still.
    let count = installation.device_count().unwrap_or_default();
    let described = (0..count).filter_map(|ordinal| installation.device(ordinal).ok().map(|device| (ordinal, device)));
    described
        .map(|(ordinal, device)| Gpu {
            ordinal,
            name: device.name,
            compute_capability: format!("{}.{}", device.compute_capability.0, device.compute_capability.1),
            multiprocessors: device.multiprocessors,
            memory_bytes: device.memory_bytes,
            l2_bytes: device.l2_bytes,
            shared_bytes: device.shared_bytes,
            error: Driver::open(ordinal).err().map(|error| error.to_string()),
        })
        .collect()
}
