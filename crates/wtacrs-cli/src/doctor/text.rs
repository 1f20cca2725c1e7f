//! Findings for people, a line each.

use super::{Findings, Gpu, Path};
use std::fmt::Write;

/// Lines of a word and what is to say about it; what runs, and why, last.
pub fn render(findings: &Findings) -> String {
    let Findings { version, path, reason, cpu, kernels, driver, gpus } = findings;
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
            "PTX {} for GPUs of compute capability {} and later, drivers of CUDA {} and later",
            kernels.ptx, kernels.compute_capability, kernels.needs_cuda
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
        line(&format!("GPU {}", gpu.ordinal), described(gpu));
    }
    let path = match path {
        Path::Gpu => "GPU",
        Path::Cpu => "CPU",
    };
    line("runs on", format!("{path}: {reason}"));
    text
}

fn described(gpu: &Gpu) -> String {
    let Gpu { name, compute_capability, multiprocessors, memory_bytes, error, .. } = gpu;
    let memory = *memory_bytes as f64 / f64::from(1 << 30);
    let what = format!(
        "{name}, compute capability {compute_capability}, {}, {memory:.1} GiB",
        counted(*multiprocessors as usize, "multiprocessor")
    );
    match error {
        None => what + "; the kernels load",
        Some(error) => format!("{what}; the kernels do not load: {error}"),
    }
}

fn counted(count: usize, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::{Cpu, CudaDriver};
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
            error: error.map(str::to_owned),
        }
    }

    fn last_lines(cuda: Option<&str>, error: Option<&str>, gpus: Vec<Gpu>) -> Vec<String> {
        let cpu = Cpu { architecture: "x86_64", threads: 1, simd: vec!["avx2", "fma"] };
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let text = render(&Findings::new(
            cpu,
            CudaDriver { cuda: owned(cuda), ptx: owned(cuda.map(|_| "8.4")), error: owned(error) },
            gpus,
        ));
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
                format!("GPU 1    {what}; the kernels load"),
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
