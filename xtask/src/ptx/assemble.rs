//! Runs ptxas, and reads what it reports for each kernel on each architecture.

use super::early_start;
use super::finding::{Architectures, Finding};
use super::manifest::Resources;
use crate::error::Error;
use crate::report;
use crate::toolchain::Assembler;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

/// What ptxas reports for a file on one architecture.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Assembly {
    pub(super) kernels: BTreeMap<String, Resources>,
    /// Errors, warnings and losses of performance (C75xx), each as its line.
    pub(super) messages: Vec<String>,
}

/// What is wrong with a file, each problem once for all architectures.
pub(super) fn findings(file: &str, assemblies: &BTreeMap<u32, Assembly>) -> Vec<Finding> {
    let mut spills: BTreeMap<&str, (Vec<u32>, u32)> = BTreeMap::new();
    let mut frames = spills.clone();
    let mut messages: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (&architecture, assembly) in assemblies {
        for (kernel, resources) in &assembly.kernels {
            let (place, bytes) = match resources {
                Resources { spill_bytes: bytes @ 1.., .. } => (&mut spills, *bytes),
                Resources { stack_bytes: bytes @ 1.., .. } => (&mut frames, *bytes),
                _ => continue,
            };
            let (architectures, most) = place.entry(kernel).or_default();
            architectures.push(architecture);
            *most = bytes.max(*most);
        }
        for message in &assembly.messages {
            messages.entry(message).or_default().push(architecture);
        }
    }
    let spills = spills.into_iter().map(|(kernel, (architectures, bytes))| Finding::Spill {
        file: file.into(),
        kernel: kernel.into(),
        architectures: Architectures(architectures),
        bytes,
    });
    let frames = frames.into_iter().map(|(kernel, (architectures, bytes))| Finding::StackFrame {
        file: file.into(),
        kernel: kernel.into(),
        architectures: Architectures(architectures),
        bytes,
    });
    let messages = messages.into_iter().map(|(message, architectures)| Finding::Assembler {
        file: file.into(),
        architectures: Architectures(architectures),
        message: message.into(),
    });
    spills.chain(frames).chain(messages).collect()
}

/// Assembles a file for all architectures, in parallel: each as drivers get it there.
pub(super) fn assemble(
    assembler: &Assembler,
    file: &Path,
    architectures: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, Assembly>, Error> {
    report::step("Assembling", file.file_name().unwrap_or_default().to_string_lossy());
    let text = fs::read_to_string(file).map_err(Error::file(file))?;
    let early = file.with_extension("early.ptx");
    fs::write(&early, early_start::starting_early(&text)).map_err(Error::file(&early))?;
    thread::scope(|scope| {
        let runs: Vec<_> = architectures
            .map(|architecture| {
                let source = if architecture >= early_start::ARCHITECTURE { &early } else { file };
                let run = move || one(assembler, source, &cubin(file, architecture), architecture);
                (architecture, scope.spawn(run))
            })
            .collect();
        let failed = || Error::Failed { program: "a thread".into() };
        runs.into_iter().map(|(architecture, run)| Ok((architecture, run.join().map_err(|_| failed())??))).collect()
    })
}

/// Where the machine code of a file goes.
pub(super) fn cubin(file: &Path, architecture: u32) -> PathBuf {
    file.with_extension(format!("sm_{architecture}.cubin"))
}

fn one(assembler: &Assembler, file: &Path, output: &Path, architecture: u32) -> Result<Assembly, Error> {
    let name = format!("sm_{architecture}");
    let mut command = Command::new(&assembler.path);
    command.args(["--verbose", "--gpu-name", &name]).arg(file);
    command.arg("--output-file").arg(output);
    let program = assembler.path.display().to_string();
    let output = command.output().map_err(|source| Error::Start { program: program.clone(), source })?;
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    if text.contains("is not defined for option 'gpu-name'") {
        let (path, found) = (assembler.path.clone(), assembler.version.clone());
        return Err(Error::OldAssembler { path, found, architecture: name });
    }
    let assembly = parse(&text);
    if !output.status.success() && assembly.messages.is_empty() {
        return Err(Error::Failed { program });
    }
    Ok(assembly)
}

/// Parses the output of `ptxas --verbose`.
fn parse(text: &str) -> Assembly {
    let mut assembly = Assembly::default();
    let mut kernel: Option<&str> = None;
    for line in text.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = rest.split('\'').next();
        } else if line.contains("Function properties for ") {
            // The entry, or a function that it calls.
            kernel = line.rsplit(' ').next();
        } else if is_complaint(line) {
            assembly.messages.push(line.trim().to_owned());
        } else if let Some(resources) = kernel.map(|kernel| assembly.kernels.entry(kernel.to_owned())) {
            let resources = resources.or_default();
            let before = |unit: &str| number_before(line, unit);
            resources.stack_bytes += before(" bytes stack frame").unwrap_or(0);
            resources.spill_bytes +=
                before(" bytes spill stores").unwrap_or(0) + before(" bytes spill loads").unwrap_or(0);
            if let Some(registers) = before(" registers") {
                resources.registers = registers;
                resources.barriers = before(" barriers").unwrap_or(0);
                resources.shared_bytes = before(" bytes smem").unwrap_or(0);
            }
        }
    }
    assembly
}

/// Whether a line is an error, a warning, or an information with a number C75xx, which reports serialised instructions.
fn is_complaint(line: &str) -> bool {
    let numbered = line.split("(C75").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let kind = |word: &str| line.contains(&format!("{word} ")) && (line.starts_with("ptxas") || line.contains("; "));
    numbered || kind("error  ") || kind("error") || kind("fatal") || kind("warning")
}

/// The number that stands before these words.
fn number_before(line: &str, words: &str) -> Option<u32> {
    line.split(words).next().filter(|before| before.len() < line.len())?.rsplit([' ', ',']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of ptxas 13.0.88, shortened to two kernels.
    const GOOD: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'select' for 'sm_80'
ptxas info    : Function properties for select
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 4096 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 8.759 ms
ptxas info    : Compiling entry function 'row_norms_f32' for 'sm_80'
ptxas info    : Function properties for row_norms_f32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 376 bytes cmem[0]
ptxas info    : Compile time = 1.311 ms
";

    #[test]
    fn registers_and_shared_memory_of_each_kernel() {
        let assembly = parse(GOOD);
        let select = Resources { registers: 40, barriers: 1, shared_bytes: 4096, ..Resources::default() };
        let norms = Resources { registers: 10, ..Resources::default() };
        assert_eq!(assembly.kernels, BTreeMap::from([("select".into(), select), ("row_norms_f32".into(), norms)]));
        assert_eq!(findings("f", &BTreeMap::from([(80, assembly)])), []);
    }

    #[test]
    fn a_spill_names_its_kernel() {
        let text = GOOD.replacen(
            "0 bytes stack frame, 0 bytes spill stores, 0",
            "32 bytes stack frame, 24 bytes spill stores, 40",
            1,
        );
        let assemblies = BTreeMap::from([(80, parse(&text)), (86, parse(&text)), (90, parse(GOOD))]);
        let text: Vec<String> = findings("f", &assemblies).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["f: select spills 64 bytes on sm_80, sm_86"]);
    }

    #[test]
    fn a_stack_frame_without_spills_is_an_array_in_local_memory() {
        let text = GOOD.replacen("0 bytes stack", "16 bytes stack", 1);
        let text: Vec<String> =
            findings("f", &BTreeMap::from([(80, parse(&text))])).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["f: select has a stack frame of 16 bytes on sm_80"]);
    }

    #[test]
    fn complaints_are_kept_whole() {
        for line in [
            "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to \
             insufficient register resources for the wgmma pipeline in function 'gather_gemm_bf16'",
            "ptxas fatal   : Unresolved extern function '_ZN4core9panicking5panic17h0123456789abcdefE'",
            "ptxas warning : Stack size for entry function 'select' cannot be statically determined",
            "ptxas k.ptx, line 27; error   : Feature 'redux.sync' requires .target sm_80 or higher",
            "ptxas error   : Entry function 'select' uses too much shared data (0xd000 bytes, 0xc000 max)",
        ] {
            assert_eq!(parse(line).messages, [line]);
        }
        assert_eq!(parse(GOOD).messages, Vec::<String>::new());
    }
}
