//! `wtacrs doctor`: what this machine can run the library on, and why.

use crate::run::{self, RunError};
use crate::text::counted;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::env::consts::ARCH;
use std::fmt::Write;
use wtacrs_kernels::launch::driver::{Cubin, Driver, DriverError, Image, Installation, Ptx};

const JSON_FORMAT: &str = "\
JSON: {version, path, reason, cpu: {architecture, threads, simd: […]},
  kernels: {ptx, compute_capability, needs_cuda, machine_code: […]}, driver: {cuda, ptx, error},
  gpus: [{ordinal, name, compute_capability, multiprocessors, memory_bytes, l2_bytes, shared_bytes, image,
          load_seconds, error}]}
  path           gpu or cpu: where layers run that can run on either
  kernels        versions of the PTX in the library, the CUDA version of the oldest driver that loads it, and the compute
                 capabilities that the library has machine code for
  driver         cuda is the driver's version and ptx the newest PTX that it reads, null without a driver;
                 error says why the driver cannot be used, null if it can
  gpus           image is what the kernels were loaded from, \"cubin\" or \"ptx\", and load_seconds the time that it took;
                 both are null, and error says why, where the kernels do not load

Exit code: 0, with or without a GPU.";

/// Arguments of `wtacrs doctor`.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_long_help = JSON_FORMAT)]
pub struct DoctorArgs {
    /// How to print the findings
    #[arg(long, value_enum, default_value_t = DoctorFormat::Text)]
    pub format: DoctorFormat,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// Lines for people.
    Text,
    /// JSON, documented by --help.
    Json,
}

/// Runs `wtacrs doctor`: looks at the machine and prints the findings. A machine without a GPU is a finding, not a
/// failure.
///
/// # Errors
///
/// Only if the findings cannot be printed.
pub fn run(args: &DoctorArgs) -> Result<(), RunError> {
    let findings = Findings::of_this_machine();
    run::print(&match args.format {
        DoctorFormat::Text => findings.lines(),
        DoctorFormat::Json => run::json(&findings)?,
    })
}

/// What this machine has, and what follows from it. Serialised as `wtacrs doctor --help` documents it.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// Of this command and the library.
    pub version: &'static str,
    /// Where layers run that can run on either.
    pub path: Path,
    /// Why, in one line.
    pub reason: String,
    /// The CPU.
    pub cpu: Cpu,
    /// The kernels in the library.
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
    /// How many threads work at a time.
    pub threads: usize,
    /// The vector instructions that it has, of those that the library uses.
    pub simd: Vec<&'static str>,
}

/// The kernels in the library.
#[derive(Clone, Debug, Serialize)]
pub struct Kernels {
    /// The version of their PTX.
    pub ptx: String,
    /// The least compute capability that runs them.
    pub compute_capability: String,
    /// The CUDA version of the oldest driver that loads them.
    pub needs_cuda: String,
    /// The compute capabilities that the library has machine code for, oldest first.
    pub machine_code: Vec<String>,
}

/// The CUDA driver.
#[derive(Clone, Debug, Serialize)]
pub struct CudaDriver {
    /// Its CUDA version; none without a driver.
    pub cuda: Option<String>,
    /// The newest PTX that it reads; none without a driver.
    pub ptx: Option<String>,
    /// Why it cannot be used, if it cannot.
    pub error: Option<String>,
}

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct Gpu {
    /// Its number.
    pub ordinal: u32,
    /// Its name, as the driver reports it.
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
    /// What the kernels were loaded from.
    pub image: Option<&'static str>,
    /// The time that loading took.
    pub load_seconds: Option<f64>,
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

    /// The path that these parts allow, and the reason.
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
            machine_code: Cubin::bundled().iter().rev().map(|cubin| cubin.target().to_string()).collect(),
        };
        Self { version: env!("CARGO_PKG_VERSION"), path, reason, cpu, kernels, driver, gpus }
    }

    /// For people, a line for each finding; the path and its reason last.
    pub fn lines(&self) -> String {
        let Self { version, path, reason, cpu, kernels, driver, gpus } = self;
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<8} {value}");
        };
        line("wtacrs", (*version).to_owned());
        let simd = if cpu.simd.is_empty() { "none known".to_owned() } else { cpu.simd.join(", ") };
        line("CPU", format!("{}, {}, SIMD: {simd}", cpu.architecture, counted(cpu.threads, "thread")));
        line(
            "kernels",
            format!(
                "PTX {} for GPUs of compute capability {} and later, drivers of CUDA {} and later; machine code for {}",
                kernels.ptx,
                kernels.compute_capability,
                kernels.needs_cuda,
                if kernels.machine_code.is_empty() { "none".to_owned() } else { kernels.machine_code.join(", ") }
            ),
        );
        line(
            "driver",
            match (&driver.cuda, &driver.ptx, &driver.error) {
                (Some(cuda), Some(ptx), None) => format!("CUDA {cuda}, which reads PTX {ptx} and older"),
                (Some(cuda), _, Some(error)) => format!("CUDA {cuda}, not usable: {error}"),
                (Some(cuda), None, None) => format!("CUDA {cuda}"),
                (None, ..) => "none".to_owned(),
            },
        );
        if gpus.is_empty() {
            line("GPU", "none".to_owned());
        }
        for gpu in gpus {
            line(&format!("GPU {}", gpu.ordinal), gpu.describe());
        }
        let path = match path {
            Path::Gpu => "GPU",
            Path::Cpu => "CPU",
        };
        line("runs on", format!("{path}: {reason}"));
        text
    }
}

impl Cpu {
    fn of_this_machine() -> Self {
        Self { architecture: ARCH, threads: rayon::current_num_threads(), simd: simd() }
    }
}

impl Gpu {
    fn describe(&self) -> String {
        let Self { name, compute_capability, multiprocessors, memory_bytes, image, load_seconds, error, .. } = self;
        let memory = *memory_bytes as f64 / f64::from(1 << 30);
        let description = format!(
            "{name}, compute capability {compute_capability}, {}, {memory:.1} GiB",
            counted(*multiprocessors as usize, "multiprocessor")
        );
        match (error, image, load_seconds) {
            (Some(error), ..) => format!("{description}; the kernels do not load: {error}"),
            (None, Some(image), Some(seconds)) => {
                format!("{description}; the kernels load from {image} in {seconds:.2} s")
            }
            _ => description + "; the kernels load",
        }
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
    // The driver counted its devices a moment ago, when the installation was found; a failure since then counts as none.
    let count = installation.device_count().unwrap_or_default();
    let described = (0..count).filter_map(|ordinal| installation.device(ordinal).ok().map(|device| (ordinal, device)));
    described
        .map(|(ordinal, device)| {
            let opened = Driver::open(ordinal);
            let loaded = opened.as_ref().ok().map(Driver::loaded);
            Gpu {
                ordinal,
                name: device.name,
                compute_capability: format!("{}.{}", device.compute_capability.0, device.compute_capability.1),
                multiprocessors: device.multiprocessors,
                memory_bytes: device.memory_bytes,
                l2_bytes: device.l2_bytes,
                shared_bytes: device.shared_bytes,
                image: loaded.map(|loaded| match loaded.image {
                    Image::Cubin(_) => "cubin",
                    Image::Ptx(_) => "ptx",
                }),
                load_seconds: loaded.map(|loaded| loaded.time.as_secs_f64()),
                error: opened.err().map(|error| error.to_string()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(ordinal: u32, error: Option<&str>) -> Gpu {
        Gpu {
            ordinal,
            name: "NVIDIA A100".to_owned(),
            compute_capability: "8.0".to_owned(),
            multiprocessors: 108,
            memory_bytes: 40 << 30,
            l2_bytes: 40 << 20,
            shared_bytes: 163 << 10,
            image: error.is_none().then_some("cubin"),
            load_seconds: error.is_none().then_some(0.0625),
            error: error.map(str::to_owned),
        }
    }

    fn last_lines(cuda: Option<&str>, error: Option<&str>, gpus: Vec<Gpu>) -> Vec<String> {
        let cpu = Cpu { architecture: "x86_64", threads: 1, simd: vec!["avx2", "fma"] };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let findings = Findings::new(
            cpu,
            CudaDriver { cuda: owned(cuda), ptx: owned(cuda.map(|_| "8.4")), error: owned(error) },
            gpus,
        );
        let text = findings.lines();
        assert!(text.contains("CPU      x86_64, 1 thread, SIMD: avx2, fma\n"), "{text}");
        text.lines().skip(3).map(str::to_owned).collect()
    }

    #[test]
    fn a_gpu_that_works_beside_one_that_does_not() {
        let lines = last_lines(Some("12.4"), None, vec![gpu(0, Some("too old")), gpu(1, None)]);
        let what = "NVIDIA A100, compute capability 8.0, 108 multiprocessors, 40.0 GiB";
        assert_eq!(
            lines,
            [
                "driver   CUDA 12.4, which reads PTX 8.4 and older".to_owned(),
                format!("GPU 0    {what}; the kernels do not load: too old"),
                format!("GPU 1    {what}; the kernels load from cubin in 0.06 s"),
                "runs on  GPU: the kernels load on GPU 1, NVIDIA A100".to_owned(),
            ]
        );
    }

    #[test]
    fn why_it_is_the_cpu() {
        assert_eq!(
            last_lines(Some("10.2"), Some("the driver is too old"), vec![]),
            [
                "driver   CUDA 10.2, not usable: the driver is too old",
                "GPU      none",
                "runs on  CPU: the driver is too old"
            ]
        );
        assert_eq!(
            last_lines(None, Some("there is no driver"), vec![]),
            ["driver   none", "GPU      none", "runs on  CPU: there is no driver"]
        );
        let lines = last_lines(Some("12.4"), None, vec![gpu(0, Some("it is too old"))]);
        assert_eq!(lines.last().map(String::as_str), Some("runs on  CPU: it is too old"));
    }
}
