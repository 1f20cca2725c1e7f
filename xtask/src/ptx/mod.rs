//! `cargo xtask ptx`: builds crates/wtacrs-kernels/ptx/ from the kernels' sources, or checks that it is up to date.
//!
//! ```text
//! sources ── rustc ── raw text ── text::clean ── ptx/*.ptx ── ptxas, each architecture ── manifest.json
//! ```

mod assemble;
mod build;
pub(crate) mod cubins;
// What the driver layer makes of the text for some GPUs.
#[path = "../../../crates/wtacrs-kernels/src/launch/driver/early_start.rs"]
mod early_start;
mod finding;
mod manifest;
mod product;
mod text;

use self::assemble::Assembly;
use self::finding::Finding;
use self::manifest::{File, Manifest, committed_text};
use self::product::{ARCHITECTURES, PRODUCTS, TARGETS};
use crate::error::Error;
use crate::toolchain::{Assembler, Compiler};
use crate::{report, workspace};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Builds the PTX, and writes it, or compares it with the committed files.
pub(crate) fn run(check: bool) -> Result<(), Error> {
    let folder = workspace::root().join(workspace::PTX);
    let committed = Manifest::read(&folder.join("manifest.json"))?;
    let compiler = Compiler::find(committed.as_ref().map(|manifest| manifest.compiler.as_str()))?;
    let assembler = Assembler::find()?;
    report::step("Using", format_args!("{}; ptxas {}", compiler.version, assembler.version));

    let mut findings = Vec::new();
    let mut texts = BTreeMap::new();
    let mut hasher = build::SourceHasher::default();
    for product in PRODUCTS {
        for target in TARGETS {
            let name = format!("{}_sm{}.ptx", product.stem, target.capability);
            let raw = build::build(&compiler, product, target, &mut hasher)?;
            texts.insert(name, (text::clean(&raw), target.capability));
        }
    }

    let scratch = workspace::target()?.join("ptx/assembled");
    fs::create_dir_all(&scratch).map_err(Error::file(&scratch))?;
    let mut examine = |name: &str, module: &text::Module, capability: u32| {
        let path = scratch.join(name);
        fs::write(&path, &module.text).map_err(Error::file(&path))?;
        let architectures = ARCHITECTURES.iter().copied().filter(|&architecture| architecture >= capability);
        let assemblies = assemble::assemble(&assembler, &path, architectures)?;
        findings.extend(module.problems.iter().map(|problem| Finding::text(name, problem)));
        findings.extend(assemble::findings(name, &assemblies));
        Ok(manifest_entry(module, &assemblies))
    };
    let mut files = BTreeMap::new();
    let mut committed_files = BTreeMap::new();
    for (name, (module, capability)) in &texts {
        let built = examine(name, module, *capability)?;
        if check {
            // Drivers load the committed text, which another compiler may have made.
            let text = committed_text(&folder, name)?;
            let is_same = text == module.text;
            let file = if is_same { built.clone() } else { examine(name, &text::clean(&text), *capability)? };
            committed_files.insert(name.clone(), file);
        }
        files.insert(name.clone(), built);
    }
    let built = Manifest { compiler: compiler.version, assembler: assembler.version, sources: hasher.finish(), files };

    if check {
        let committed = committed.unwrap_or_default();
        let (differences, notes) = committed.compare(&committed_files, &built);
        notes.iter().for_each(report::note);
        findings.extend(differences);
        findings.extend(committed.edited(&folder)?);
        if committed.compiler == built.compiler {
            findings.extend(stale_files(&folder, texts.iter().map(|(name, (module, _))| (name, module)))?);
        }
    } else if findings.is_empty() {
        write(&folder, &built, texts.iter().map(|(name, (module, _))| (name, module)))?;
    }
    findings.iter().for_each(report::finding);
    if !findings.is_empty() {
        return Err(Error::Findings { count: findings.len() });
    }
    let kernels: usize = built.files.values().map(|file| file.kernels.len()).sum();
    let verb = if check { "Checked" } else { "Wrote" };
    report::step(verb, format_args!("{} files, {kernels} kernels, {} architectures", texts.len(), ARCHITECTURES.len()));
    Ok(())
}

/// The manifest's entry for a file.
fn manifest_entry(module: &text::Module, assemblies: &BTreeMap<u32, Assembly>) -> File {
    let kernels = module.entries.iter().map(|entry| {
        let resources = assemblies.iter().filter_map(|(architecture, assembly)| {
            Some((format!("sm_{architecture}"), *assembly.kernels.get(&entry.name)?))
        });
        let kernel = manifest::Kernel { barriers_in_text: entry.barriers, architectures: resources.collect() };
        (entry.name.clone(), kernel)
    });
    File { sha256: build::sha256(module.text.as_bytes()), kernels: kernels.collect() }
}

/// The committed files that differ from the new build.
fn stale_files<'a>(
    folder: &Path,
    texts: impl Iterator<Item = (&'a String, &'a text::Module)>,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for (name, module) in texts {
        let committed = committed_text(folder, name)?;
        if committed != module.text {
            findings
                .push(Finding::Stale { file: name.clone(), kernel: text::first_difference(&committed, &module.text) });
        }
    }
    Ok(findings)
}

fn write<'a>(
    folder: &Path,
    manifest: &Manifest,
    texts: impl Iterator<Item = (&'a String, &'a text::Module)>,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    for (name, module) in texts {
        let path = folder.join(name);
        fs::write(&path, &module.text).map_err(Error::file(&path))?;
    }
    manifest.write(&folder.join("manifest.json"))
}
