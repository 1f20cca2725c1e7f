//! `cargo xtask circles`: fails where files of a crate import each other.
//!
//! ```text
//! tracked src/lib.rs, src/main.rs ── source ── names and mentions ── resolve ── graph ── circles
//! ```
//!
//! A file takes an item from another if it names it: in `use`, in a path, in a macro's input. Re-exports are looked
//! through, so what counts is the file that defines the item. A door may re-export what is below it; that is not an
//! import, but what the door's own items use of it is. What only tests have does not count.
//!
//! Methods and fields are not seen, since their use names no file. `--verbose` lists paths that lead nowhere, which are
//! names that macros make, and tracked files that no `mod` leads to.

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

/// The end of a note on a file that is not part of its crate.
const NO_MOD: &str = ": no mod leads to it";

/// What was found in one crate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// The circles, one text for each.
    circles: Vec<String>,
    /// What could not be looked into.
    unseen: Vec<String>,
    files: usize,
    edges: usize,
}

/// Looks for circles in every crate of the repository.
///
/// # Errors
///
/// If there is one, or a file cannot be read.
pub(crate) fn run(verbose: bool) -> Result<(), Error> {
    let mut count = 0;
    for (name, found) in repository()? {
        if verbose {
            report::step("Read", format_args!("{name}: {} files, {} edges", found.files, found.edges));
            found.unseen.iter().for_each(|unseen| report::note(format_args!("{name}: {unseen}")));
        }
        found.circles.iter().for_each(|circle| report::finding(format_args!("{name}: {circle}")));
        count += found.circles.len();
    }
    if count > 0 { Err(Error::Findings { count }) } else { Ok(()) }
}

/// The reports of all roots of crates among the tracked files, by their paths.
fn repository() -> Result<Vec<(String, Report)>, Error> {
    let root = workspace::root();
    let files = workspace::tracked("rs")?;
    let is_root = |path: &&PathBuf| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let mut reports = Vec::new();
    let mut seen = BTreeSet::new();
    for path in files.iter().filter(is_root) {
        let tree = Crate::read(&root.join(path))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        seen.extend(tree.files.iter().map(|file| folder.join(file)));
        let tests = tree.tests.iter().map(|module| folder.join(module));
        seen.extend(tests.flat_map(|module| {
            let below: Vec<_> = files.iter().filter(|file| file.starts_with(&module)).cloned().collect();
            below.into_iter().chain([module.with_extension("rs")])
        }));
        reports.push((path.display().to_string(), report_on(&tree)));
    }
    // A file beside a root that no `mod` leads to.
    for (name, report) in &mut reports {
        let folder = Path::new(name).parent().unwrap_or(Path::new("")).to_owned();
        let lost = files.iter().filter(|file| file.starts_with(&folder));
        report
            .unseen
            .extend(lost.filter(|file| !seen.contains(*file)).map(|file| format!("{}{NO_MOD}", file.display())));
    }
    Ok(reports)
}

fn report_on(tree: &Crate) -> Report {
    let names = Names::of(tree);
    let mut graph = Graph::default();
    let mut unseen = Vec::new();
    for (id, module) in tree.modules.iter().enumerate() {
        let file = tree.files[module.file].display();
        for mention in &module.mentions {
            let (line, path) = (mention.line, mention.path.join("::"));
            match names.resolve(id, mention) {
                Some(items) => items.into_iter().for_each(|(to, name)| graph.add(module.file, to, name, line)),
                None => unseen.push(format!("{file}:{line}: {path} leads nowhere")),
            }
        }
    }
    let edges = graph.len();
    let circles = graph.circles().iter().map(|circle| describe(tree, circle)).collect();
    Report { circles, unseen, files: tree.files.len(), edges }
}

/// The files in order, and a line for what each takes from the next.
fn describe(tree: &Crate, circle: &[Link]) -> String {
    let file = |link: &Link| tree.files[link.file].display().to_string();
    let way: Vec<String> = circle.iter().chain(circle.first()).map(file).collect();
    let mut text = way.join(" → ");
    for link in circle {
        let names: Vec<String> = link.takes.iter().map(|(name, line)| format!("{name} (line {line})")).collect();
        text += &format!("\n{:>15}{} takes {}", "", file(link), names.join(", "));
    }
    text
}
