//! manifest.json beside the PTX: what was built, with what, and what each kernel needs of a GPU.

use super::build;
use super::finding::Finding;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Manifest {
    /// rustc's version and LLVM's. Only the same compiler makes the same text.
    pub(super) compiler: String,
    /// ptxas's version. Only the same one gives the same numbers.
    pub(super) assembler: String,
    /// SHA-256 of the sources that the compiler read for the GPU.
    pub(super) sources: String,
    pub(super) files: BTreeMap<String, File>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct File {
    pub(super) sha256: String,
    pub(super) kernels: BTreeMap<String, Kernel>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Kernel {
    /// Barrier instructions in the text; one that an optimisation copied would show here.
    pub(super) barriers_in_text: u32,
    pub(super) architectures: BTreeMap<String, Resources>,
}

/// What a kernel needs on one architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Resources {
    pub(super) registers: u32,
    /// Static shared memory.
    pub(super) shared_bytes: u32,
    /// Hardware barriers.
    pub(super) barriers: u32,
    pub(super) stack_bytes: u32,
    /// Stores and loads together.
    pub(super) spill_bytes: u32,
}

impl Manifest {
    /// The manifest in a file; none if there is no file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(path).map_err(Error::file(path))?;
        serde_json::from_str(&text).map(Some).map_err(|source| Error::Json { path: path.into(), source })
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let value = serde_json::to_value(self).map_err(|source| Error::Json { path: path.into(), source })?;
        let mut text = String::new();
        lay_out(&value, 0, &mut text);
        text.push('\n');
        fs::write(path, text).map_err(Error::file(path))
    }

    /// Files of the folder that are not those that the manifest was made with.
    pub(super) fn edited(&self, folder: &Path) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for (name, file) in &self.files {
            if build::sha256(committed_text(folder, name)?.as_bytes()) != file.sha256 {
                findings.push(Finding::Edited { file: name.clone() });
            }
        }
        Ok(findings)
    }

    /// What differs between this manifest and a new build, or the files that lie beside the manifest; and what could not be
    /// compared.
    pub(super) fn compare(&self, lying: &BTreeMap<String, File>, built: &Self) -> (Vec<Finding>, Vec<String>) {
        let mut findings = Vec::new();
        let mut notes = Vec::new();
        if self.sources != built.sources {
            findings.push(Finding::Sources);
        }
        if self.compiler != built.compiler {
            let (was, is) = (&self.compiler, &built.compiler);
            notes.push(format!(
                "the committed PTX was made by {was}, this is {is}: its texts are not compared with new ones"
            ));
        }
        let same_assembler = self.assembler == built.assembler;
        if !same_assembler {
            let (was, is) = (&self.assembler, &built.assembler);
            notes
                .push(format!("the manifest has the numbers of ptxas {was}, this is {is}: registers are not compared"));
        }
        for (_, was, is) in pairs(&self.files, &built.files, &mut findings) {
            pairs(&was.kernels, &is.kernels, &mut findings);
        }
        // What only one of them has would mostly be told twice.
        let mut told = Vec::new();
        for (name, was, is) in pairs(&self.files, lying, &mut told) {
            for (kernel, was, is) in pairs(&was.kernels, &is.kernels, &mut told) {
                if was.barriers_in_text != is.barriers_in_text {
                    findings.push(Finding::Changed {
                        kernel: kernel.into(),
                        architecture: name.into(),
                        what: "barriers in the text",
                        was: was.barriers_in_text,
                        is: is.barriers_in_text,
                    });
                }
                if same_assembler {
                    for (architecture, was, is) in pairs(&was.architectures, &is.architectures, &mut told) {
                        findings.extend(was.differences(is, kernel, architecture));
                    }
                }
            }
        }
        findings.extend(told.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
        (findings, notes)
    }
}

impl Resources {
    fn differences(&self, built: &Self, kernel: &str, architecture: &str) -> Vec<Finding> {
        let numbers = [
            ("registers", self.registers, built.registers),
            ("bytes of static shared memory", self.shared_bytes, built.shared_bytes),
            ("barriers", self.barriers, built.barriers),
            ("bytes of stack", self.stack_bytes, built.stack_bytes),
            ("bytes spilled", self.spill_bytes, built.spill_bytes),
        ];
        let differing = numbers.into_iter().filter(|(_, was, is)| was != is);
        let finding = |(what, was, is)| {
            let (kernel, architecture) = (kernel.to_owned(), architecture.to_owned());
            Finding::Changed { kernel, architecture, what, was, is }
        };
        differing.map(finding).collect()
    }
}

/// What both maps have; what only one has becomes a finding.
fn pairs<'a, T>(
    was: &'a BTreeMap<String, T>,
    is: &'a BTreeMap<String, T>,
    findings: &mut Vec<Finding>,
) -> Vec<(&'a str, &'a T, &'a T)> {
    let missing = |what: &String, built| Finding::Missing { what: what.clone(), built };
    findings.extend(was.keys().filter(|name| !is.contains_key(*name)).map(|name| missing(name, false)));
    findings.extend(is.keys().filter(|name| !was.contains_key(*name)).map(|name| missing(name, true)));
    was.iter().filter_map(|(name, was)| Some((name.as_str(), was, is.get(name)?))).collect()
}

/// How deep an object may lie and still have a line for each member.
const DEEPEST_LINES: usize = 6;

/// JSON with an architecture's numbers in one line, so that a changed number is a changed line.
fn lay_out(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(members) = value else {
        text.push_str(&value.to_string());
        return;
    };
    let lines = depth < DEEPEST_LINES;
    let indent = |depth: usize| if lines { format!("\n{:1$}", "", 2 * depth) } else { " ".into() };
    text.push('{');
    for (i, (name, member)) in members.iter().enumerate() {
        text.push_str(if i > 0 { "," } else { "" });
        text.push_str(&indent(depth + 1));
        text.push_str(&format!("{}: ", Value::from(name.as_str())));
        lay_out(member, depth + 1, text);
    }
    text.push_str(&indent(depth));
    text.push('}');
}

/// A file of the folder; nothing if it is not there.
pub(super) fn committed_text(folder: &Path, name: &str) -> Result<String, Error> {
    let path = folder.join(name);
    if path.exists() { fs::read_to_string(&path).map_err(Error::file(&path)) } else { Ok(String::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn manifest() -> Manifest {
        let resources = Resources { registers: 40, barriers: 1, ..Resources::default() };
        let architectures = BTreeMap::from([("sm_80".into(), resources), ("sm_90".into(), resources)]);
        let kernels = BTreeMap::from([("select".into(), Kernel { barriers_in_text: 9, architectures })]);
        let files = BTreeMap::from([("wtacrs_sm80.ptx".into(), File { sha256: "00".into(), kernels })]);
        let (compiler, assembler) = ("rustc 1.96.0, LLVM 22.1.8".into(), "V13.0.88".into());
        Manifest { compiler, assembler, sources: "11".into(), files }
    }

    /// `manifest()` with sm_90's resources changed.
    fn changed(change: impl FnOnce(&mut Resources)) -> Manifest {
        let mut built = manifest();
        let file = built.files.get_mut("wtacrs_sm80.ptx").expect("the file");
        let kernel = file.kernels.get_mut("select").expect("the kernel");
        change(kernel.architectures.get_mut("sm_90").expect("the architecture"));
        built
    }

    #[test]
    fn equal_builds_have_no_difference() {
        assert_eq!(manifest().compare(&manifest().files, &manifest()), (vec![], vec![]));
    }

    #[test]
    fn a_changed_number_names_kernel_and_architecture() {
        let compare = |lying: Manifest| manifest().compare(&lying.files, &manifest());
        let (findings, _) = compare(changed(|resources| resources.registers = 42));
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["select on sm_90: registers 42, the manifest says 40: run cargo xtask ptx"]);
        let (findings, _) = compare(changed(|resources| resources.spill_bytes = 8));
        assert!(
            matches!(findings[..], [Finding::Changed { what: "bytes spilled", was: 0, is: 8, .. }]),
            "{findings:?}"
        );
    }

    #[test]
    fn another_compiler_is_said_and_its_numbers_are_not_compared() {
        let mut built = changed(|resources| resources.registers = 42);
        built.compiler = "rustc 1.97.0-nightly, LLVM 22.1.4".into();
        let (findings, notes) = manifest().compare(&manifest().files, &built);
        assert_eq!(findings, []);
        assert!(notes[0].contains("rustc 1.96.0, LLVM 22.1.8") && notes[0].contains("1.97.0"), "{notes:?}");
        // What does not depend on the compiler is still compared: the sources, kernels' names, and the committed files.
        let lying = changed(|resources| resources.registers = 44);
        built.sources = "22".into();
        built.files.clear();
        let (findings, _) = manifest().compare(&lying.files, &built);
        let missing = Finding::Missing { what: "wtacrs_sm80.ptx".into(), built: false };
        let (kernel, architecture) = ("select".into(), "sm_90".into());
        let changed = Finding::Changed { kernel, architecture, what: "registers", was: 40, is: 44 };
        assert_eq!(findings, [Finding::Sources, missing, changed]);
    }

    #[test]
    fn a_file_that_was_edited_by_hand_is_refused() {
        let folder = workspace::root().join(workspace::PTX);
        let committed = Manifest::read(&folder.join("manifest.json")).expect("reads").expect("is there");
        assert_eq!(committed.edited(&folder).expect("reads"), []);

        let copy = std::env::temp_dir().join(format!("wtacrs-edited-{}", std::process::id()));
        fs::create_dir_all(&copy).expect("a folder");
        for name in committed.files.keys() {
            let text = committed_text(&folder, name).expect("reads");
            fs::write(copy.join(name), text.replacen("add.rn.f32", "sub.rn.f32", 1)).expect("writes");
        }
        let edited = committed.edited(&copy).expect("reads");
        fs::remove_dir_all(&copy).expect("removes");
        assert_eq!(edited, [Finding::Edited { file: "wtacrs_sm80.ptx".into() }]);
    }

    /// Whether a kernel is meant by a name of docs/kernels.md: exactly, for all types, or with a `*` for anything.
    fn is_meant(name: &str, kernel: &str) -> bool {
        match name.split_once('*') {
            Some((head, tail)) => {
                kernel.strip_prefix(head).is_some_and(|rest| rest.ends_with(tail) && rest.len() >= tail.len())
            }
            None => kernel.strip_prefix(name).is_some_and(|rest| ["", "_f32", "_f16", "_bf16"].contains(&rest)),
        }
    }

    #[test]
    fn registers_in_the_documents_are_the_manifests() {
        let read = |path: &str| fs::read_to_string(workspace::root().join(path)).expect("reads");
        let manifest: Manifest =
            serde_json::from_str(&read(&format!("{}/manifest.json", workspace::PTX))).expect("a manifest");
        let text = read("docs/kernels.md");
        let rows = text.lines().skip_while(|line| !line.starts_with("| kernel | registers")).skip(2);
        let mut checked = 0;
        for row in rows.take_while(|line| line.starts_with('|')) {
            let mut cells = row.trim_matches('|').split('|').map(str::trim);
            let (kernels, told) = (cells.next().expect("kernels"), cells.next().expect("registers"));
            // Names stand between backquotes.
            let names: Vec<&str> = kernels.split('`').skip(1).step_by(2).collect();
            let meant = manifest.files.values().flat_map(|file| &file.kernels);
            let meant = meant.filter(|(kernel, _)| names.iter().any(|name| is_meant(name, kernel)));
            let registers: Vec<u32> =
                meant.flat_map(|(_, kernel)| kernel.architectures.values().map(|of| of.registers)).collect();
            let least = *registers.iter().min().unwrap_or_else(|| panic!("there is no {kernels}"));
            let most = registers.into_iter().max().unwrap_or(least);
            let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
            assert_eq!(told, expected, "{kernels}");
            checked += 1;
        }
        assert!(checked > 8, "a table");
    }

    #[test]
    fn a_written_manifest_reads_back() {
        let path = std::env::temp_dir().join(format!("wtacrs-manifest-{}.json", std::process::id()));
        manifest().write(&path).expect("writes");
        assert_eq!(Manifest::read(&path).expect("reads"), Some(manifest()));
        let text = fs::read_to_string(&path).expect("reads");
        assert!(text.lines().any(|line| line.contains("\"registers\": 40") && line.contains("sm_80")), "{text}");
        fs::remove_file(&path).expect("removes");
    }
}
