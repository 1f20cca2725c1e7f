//! `cargo xtask circles`: fails if files of a crate import each other, directly or in a ring.
//!
//! ```text
//! tracked src/lib.rs, src/main.rs ── source ── names and mentions ── resolve ── graph ── circles
//! ```
//!
//! A file uses another file if it names an item that the other defines: in `use`, in a path, or in a macro's input.
//! Re-exports are followed to the file that defines the item. A `mod.rs` or `lib.rs` may re-export what is below it without
//! using it; its own items use what they name. Code that only tests compile does not count.
//!
//! Methods and fields are not found, since their use names no file. `--verbose` lists paths that lead nowhere (macros make
//! such names), and tracked files that no `mod` declares.

mod graph;
mod resolve;
mod source;
#[cfg(test)]
mod tests;

use self::graph::{Graph, Link};
use self::resolve::Names;
use self::source::Crate;
use crate::error::Error;
use crate::{report, workspace};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The end of a note about a file that is not part of a crate.
const NO_MOD: &str = ": no mod declares it";

/// The findings in one crate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// A text for each circle.
    circles: Vec<String>,
    /// A text for each path or file that could not be resolved.
    unresolved: Vec<String>,
    files: usize,
    edges: usize,
}

/// Looks for circles in every crate of the repository.
///
/// # Errors
///
/// If there is a circle, or a file cannot be read.
pub(crate) fn run(verbose: bool) -> Result<(), Error> {
    let mut count = 0;
    for (name, found) in reports()? {
        if verbose {
            report::step("Read", format_args!("{name}: {} files, {} edges", found.files, found.edges));
            found.unresolved.iter().for_each(|note| report::note(format_args!("{name}: {note}")));
        }
        found.circles.iter().for_each(|circle| report::finding(format_args!("{name}: {circle}")));
        count += found.circles.len();
    }
    if count > 0 { Err(Error::Findings { count }) } else { Ok(()) }
}

/// The reports on all crates of the repository, with the paths of their roots.
fn reports() -> Result<Vec<(String, Report)>, Error> {
    let root = workspace::root();
    let files = workspace::tracked("rs")?;
    let is_root = |path: &&PathBuf| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let mut reports = Vec::new();
    let mut declared = BTreeSet::new();
    for path in files.iter().filter(is_root) {
        let tree = Crate::read(&root.join(path))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        declared.extend(tree.files.iter().map(|file| folder.join(file)));
        let tests = tree.tests.iter().map(|module| folder.join(module));
        declared.extend(tests.flat_map(|module| {
            let below: Vec<_> = files.iter().filter(|file| file.starts_with(&module)).cloned().collect();
            below.into_iter().chain([module.with_extension("rs")])
        }));
        reports.push((path.display().to_string(), report_on(&tree)));
    }
    // Files beside a root that no `mod` declares.
    for (name, report) in &mut reports {
        let folder = Path::new(name).parent().unwrap_or(Path::new("")).to_owned();
        let beside = files.iter().filter(|file| file.starts_with(&folder));
        report
            .unresolved
            .extend(beside.filter(|file| !declared.contains(*file)).map(|file| format!("{}{NO_MOD}", file.display())));
    }
    Ok(reports)
}

fn report_on(tree: &Crate) -> Report {
    let names = Names::of(tree);
    let mut graph = Graph::default();
    let mut unresolved = Vec::new();
    for (id, module) in tree.modules.iter().enumerate() {
        let file = tree.files[module.file].display();
        for mention in &module.mentions {
            let (line, path) = (mention.line, mention.path.join("::"));
            match names.resolve(id, mention) {
                Some(items) => items.into_iter().for_each(|(to, name)| graph.add(module.file, to, name, line)),
                None => unresolved.push(format!("{file}:{line}: {path} leads nowhere")),
            }
        }
    }
    let edges = graph.len();
    let circles = graph.circles().iter().map(|circle| describe(tree, circle)).collect();
    Report { circles, unresolved, files: tree.files.len(), edges }
}

/// The files of a circle in order, and a line for what each uses of the next.
fn describe(tree: &Crate, circle: &[Link]) -> String {
    let file = |link: &Link| tree.files[link.file].display().to_string();
    let paths: Vec<String> = circle.iter().chain(circle.first()).map(file).collect();
    let mut text = paths.join(" → ");
    for link in circle {
        let names: Vec<String> = link.names.iter().map(|(name, line)| format!("{name} (line {line})")).collect();
        text += &format!("\n{:>15}{} uses {}", "", file(link), names.join(", "));
    }
    text
}
