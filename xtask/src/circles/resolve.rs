//! Which file defines what a path names.
//!
//! Imports and re-exports are looked through, so that a path leads to the file that has the item and not to the doors on
//! the way. Where `cfg` gives a name two meanings, both count.

use super::source::{Crate, Kind, Meaning, Mention, Role};
use std::collections::{BTreeMap, BTreeSet};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target<'a> {
    Module(usize),
    Item { module: usize, name: &'a str, kind: Kind },
}

/// What the names of every module lead to.
pub(super) struct Names<'a> {
    of: &'a Crate,
    /// One table for each module. A name without targets is of another crate.
    tables: Vec<BTreeMap<&'a str, BTreeSet<Target<'a>>>>,
}

/// What a path leads to, seen from a module.
enum Found<'a> {
    /// At least one.
    Targets(Vec<Target<'a>>),
    /// Something of another crate, of the language, or local to a function.
    Outside,
    /// A module of the crate should have it, and has not.
    Nothing,
}

impl<'a> Names<'a> {
    /// Follows all imports until nothing new is found.
    pub(super) fn of(of: &'a Crate) -> Self {
        let mut names = Self { of, tables: of.modules.iter().map(|_| BTreeMap::new()).collect() };
        for (id, module) in of.modules.iter().enumerate() {
            for (name, meanings) in &module.names {
                let known = meanings.iter().filter_map(|meaning| match meaning {
                    Meaning::Module(child) => Some(Target::Module(*child)),
                    Meaning::Item(kind) => Some(Target::Item { module: id, name, kind: *kind }),
                    Meaning::Alias(_) => None,
                });
                names.tables[id].insert(name, known.collect());
            }
        }
        names.follow_imports();
        // What a macro may have made counts where nothing else has the name.
        for (id, module) in of.modules.iter().enumerate() {
            for name in &module.expanded {
                let made = Target::Item { module: id, name, kind: Kind::Expanded };
                names.tables[id].entry(name).or_insert_with(|| BTreeSet::from([made]));
            }
        }
        names.follow_imports();
        names
    }

    fn follow_imports(&mut self) {
        let of = self.of;
        let mut changed = true;
        while changed {
            changed = false;
            for (id, module) in of.modules.iter().enumerate() {
                for (name, meanings) in &module.names {
                    for meaning in meanings {
                        let Meaning::Alias(path) = meaning else { continue };
                        let Found::Targets(targets) = self.follow(id, path) else { continue };
                        changed |= self.add(id, name, targets);
                    }
                }
                for path in &module.globs {
                    let Found::Targets(targets) = self.follow(id, path) else { continue };
                    for target in targets {
                        let Target::Module(from) = target else { continue };
                        for (name, targets) in self.tables[from].clone() {
                            // What a module itself names goes before what a glob brings.
                            if from != id && !module.names.contains_key(name) {
                                changed |= self.add(id, name, targets);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Adds to what a name leads to; whether anything is new.
    fn add(&mut self, module: usize, name: &'a str, targets: impl IntoIterator<Item = Target<'a>>) -> bool {
        let known = self.tables[module].entry(name).or_default();
        let before = known.len();
        known.extend(targets);
        known.len() > before
    }

    /// What a module takes from other files by what it mentions: files and names of items. `None` if a module of the
    /// crate should have what is mentioned, and has not.
    pub(super) fn resolve(&self, module: usize, mention: &'a Mention) -> Option<Vec<(usize, &'a str)>> {
        let mut targets = match self.follow(module, &mention.path) {
            Found::Targets(targets) => targets,
            Found::Nothing if mention.role != Role::Macro => return None,
            Found::Outside | Found::Nothing => Vec::new(),
        };
        if mention.glob {
            targets = targets.into_iter().flat_map(|target| self.traits(target)).collect();
        } else if mention.role == Role::Macro {
            targets.retain(|target| matches!(target, Target::Item { kind: Kind::Macro, .. }));
            if let ([name], []) = (&mention.path[..], &targets[..]) {
                targets.extend(self.macro_above(module, name));
            }
        }
        let file = |module: usize| self.of.modules[module].file;
        let mut items = Vec::new();
        for target in targets {
            let Target::Item { module: home, name, .. } = target else { continue };
            let of_own_door = mention.role == Role::ReExport && self.is_within(home, module);
            if !of_own_door && file(home) != file(module) {
                items.push((file(home), name));
            }
        }
        Some(items)
    }

    fn follow(&self, module: usize, path: &[String]) -> Found<'a> {
        let Some((first, rest)) = path.split_first() else { return Found::Nothing };
        let mut targets = match first.as_str() {
            "crate" => vec![Target::Module(0)],
            "self" => vec![Target::Module(module)],
            "super" => vec![Target::Module(self.of.modules[module].parent)],
            name => {
                // A function may have the name of a crate: only what has names within goes on.
                let goes_on = |target: &Target<'_>| match target {
                    Target::Item { kind, .. } => rest.is_empty() || !matches!(kind, Kind::Value | Kind::Macro),
                    Target::Module(_) => true,
                };
                let found = self.tables[module].get(name).into_iter().flatten().copied();
                found.filter(goes_on).collect()
            }
        };
        if targets.is_empty() {
            return Found::Outside;
        }
        let mut outside = false;
        for name in rest {
            let mut next = Vec::new();
            for target in targets {
                match target {
                    Target::Module(module) if name == "super" => {
                        next.push(Target::Module(self.of.modules[module].parent));
                    }
                    Target::Module(module) if name == "self" => next.push(Target::Module(module)),
                    Target::Module(module) => match self.tables[module].get(name.as_str()) {
                        Some(found) => {
                            outside |= found.is_empty();
                            next.extend(found);
                        }
                        None => outside |= self.has_foreign_glob(module),
                    },
                    Target::Item { kind: Kind::Value | Kind::Macro, .. } => {}
                    Target::Item { .. } => next.push(target),
                }
            }
            targets = next;
        }
        match (targets.is_empty(), outside) {
            (false, _) => Found::Targets(targets),
            (true, true) => Found::Outside,
            (true, false) => Found::Nothing,
        }
    }

    /// Whether a module may have names of another crate that nothing here shows.
    fn has_foreign_glob(&self, module: usize) -> bool {
        self.of.modules[module].globs.iter().any(|path| matches!(self.follow(module, path), Found::Outside))
    }

    /// What `::*` takes although no name shows it: a module's traits, or the enum itself.
    fn traits(&self, target: Target<'a>) -> Vec<Target<'a>> {
        let Target::Module(module) = target else { return vec![target] };
        let all = self.tables[module].values().flatten().copied();
        all.filter(|target| matches!(target, Target::Item { kind: Kind::Trait, .. })).collect()
    }

    /// A macro that the text above `mod` has put into scope.
    fn macro_above(&self, mut module: usize, name: &'a str) -> Option<Target<'a>> {
        while module != 0 {
            module = self.of.modules[module].parent;
            let found = Target::Item { module, name, kind: Kind::Macro };
            if self.tables[module].get(name).is_some_and(|targets| targets.contains(&found)) {
                return Some(found);
            }
        }
        None
    }

    /// Whether a module is another or below it.
    fn is_within(&self, mut module: usize, other: usize) -> bool {
        while module != other && module != 0 {
            module = self.of.modules[module].parent;
        }
        module == other
    }
}
