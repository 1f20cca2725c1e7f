//! What the files of a crate define and what they mention, as syn reads them.
//!
//! Items that only tests compile are left out: `#[cfg(test)]`, `#[cfg(all(test, …))]` and `#[test]`. A macro's input is
//! not parsed: every path among its tokens is a mention, and every identifier at a module's level may be what it defines.

use crate::error::Error;
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Meta, Stmt, TraitItem, UseTree, Visibility};

/// A crate: its modules from the root on.
pub(super) struct Crate {
    /// Paths below the root's folder.
    pub(super) files: Vec<PathBuf>,
    /// The first is the root.
    pub(super) modules: Vec<Module>,
    /// Modules that only tests have, each as its file's path without `.rs` or `/mod.rs`.
    pub(super) tests: Vec<PathBuf>,
}

/// A module, in a file of its own or inline.
pub(super) struct Module {
    /// Which of [`Crate::files`].
    pub(super) file: usize,
    /// Which of [`Crate::modules`]; the root is its own parent.
    pub(super) parent: usize,
    name: String,
    pub(super) names: BTreeMap<String, Vec<Meaning>>,
    /// Names that its macros may make: all that stand in them.
    pub(super) expanded: BTreeSet<String>,
    /// What stands before `::*` in its imports.
    pub(super) globs: Vec<Vec<String>>,
    pub(super) mentions: Vec<Mention>,
}

/// What a name stands for.
pub(super) enum Meaning {
    Module(usize),
    Item(Kind),
    /// What a path leads to, seen from the module that has the name.
    Alias(Vec<String>),
}

/// The kind of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// More of a path may follow: a variant, a constant, a function of an `impl`.
    Type,
    /// As a type; code may use its methods without naming it.
    Trait,
    Value,
    Macro,
    /// Perhaps made by a macro, whose definition or input has the name.
    Expanded,
}

/// A path, where it stands.
pub(super) struct Mention {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) role: Role,
    /// Whether `::*` follows.
    pub(super) glob: bool,
}

/// How a path is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// By `use`.
    Import,
    /// By `pub use`, `pub(crate) use` and the like.
    ReExport,
    /// As a macro that is called.
    Macro,
    /// Anywhere else in code.
    Code,
}

impl Crate {
    /// Reads the crate whose root is `root`: a lib.rs or a main.rs.
    ///
    /// # Errors
    ///
    /// If a file is not there or is not Rust.
    pub(super) fn read(root: &Path) -> Result<Self, Error> {
        let folder = root.parent().unwrap_or(Path::new("."));
        let mut found = Self { files: Vec::new(), modules: Vec::new(), tests: Vec::new() };
        found.add_file(folder, root, folder, 0, "crate")?;
        Ok(found)
    }

    /// Adds a module with a file of its own, and all below it. Its children's files are in `children`.
    fn add_file(
        &mut self,
        base: &Path,
        path: &Path,
        children: &Path,
        parent: usize,
        name: &str,
    ) -> Result<usize, Error> {
        let text = fs::read_to_string(path).map_err(Error::file(path))?;
        let syntax = syn::parse_file(&text)
            .map_err(|source| Error::Syntax { path: path.to_owned(), message: message(&source) })?;
        self.files.push(path.strip_prefix(base).unwrap_or(path).to_owned());
        let file = self.files.len() - 1;
        self.add_module(base, children, file, parent, name, &syntax.items)
    }

    fn add_module(
        &mut self,
        base: &Path,
        children: &Path,
        file: usize,
        parent: usize,
        name: &str,
        items: &[Item],
    ) -> Result<usize, Error> {
        let id = self.modules.len();
        self.modules.push(Module {
            file,
            parent,
            name: name.to_owned(),
            names: BTreeMap::new(),
            expanded: BTreeSet::new(),
            globs: Vec::new(),
            mentions: Vec::new(),
        });
        for item in items {
            let Item::Mod(module) = item else {
                Reader { module: &mut self.modules[id] }.visit_item(item);
                self.export_macro(id, item);
                continue;
            };
            let name = module.ident.to_string();
            let path = children.join(&name);
            if only_tests(&module.attrs) {
                self.tests.push(path.strip_prefix(base).unwrap_or(&path).to_owned());
                continue;
            }
            let child = match &module.content {
                Some((_, items)) => self.add_module(base, &path, file, id, &name, items)?,
                None => {
                    let (at, below) = place(children, &name, &module.attrs);
                    self.add_file(base, &at, &below, id, &name)?
                }
            };
            self.modules[id].names.entry(name).or_default().push(Meaning::Module(child));
        }
        Ok(id)
    }

    /// `#[macro_export]` puts a macro's name into the root.
    fn export_macro(&mut self, module: usize, item: &Item) {
        if let Item::Macro(item) = item
            && let Some(name) = &item.ident
            && module != 0
            && item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"))
        {
            let mut path = vec![name.to_string()];
            let mut at = module;
            while at != 0 {
                path.push(self.modules[at].name.clone());
                at = self.modules[at].parent;
            }
            path.push("crate".into());
            path.reverse();
            self.modules[0].names.entry(name.to_string()).or_default().push(Meaning::Alias(path));
        }
    }
}

/// The file of a module declared as `mod name;`, and the folder of its children's.
fn place(folder: &Path, name: &str, attributes: &[Attribute]) -> (PathBuf, PathBuf) {
    let named = attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    if let Some(named) = named {
        let path = folder.join(named);
        let below = path.parent().unwrap_or(folder).to_owned();
        return (path, below);
    }
    let below = folder.join(name);
    let door = below.join("mod.rs");
    if door.is_file() { (door, below) } else { (folder.join(format!("{name}.rs")), below) }
}

/// What syn says, with the line.
fn message(error: &syn::Error) -> String {
    format!("line {}: {error}", error.span().start().line)
}

/// Whether only tests compile what has these attributes.
fn only_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => {
                type List = syn::punctuated::Punctuated<Meta, syn::Token![,]>;
                list.parse_args_with(List::parse_terminated).is_ok_and(|all| all.iter().any(needs_test))
            }
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.parse_args::<Meta>().is_ok_and(|meta| needs_test(&meta))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Puts names and mentions of one item into its module.
struct Reader<'a> {
    module: &'a mut Module,
}

impl Reader<'_> {
    fn define(&mut self, name: &Ident, meaning: Meaning) {
        self.module.names.entry(name.to_string()).or_default().push(meaning);
    }

    fn mention(&mut self, path: Vec<String>, line: usize, role: Role) {
        self.module.mentions.push(Mention { path, line, role, glob: false });
    }

    /// An item's own name. Those of items within functions count as the module's too.
    fn define_item(&mut self, item: &Item) {
        match item {
            Item::Enum(item) => self.define(&item.ident, Meaning::Item(Kind::Type)),
            Item::Struct(item) => self.define(&item.ident, Meaning::Item(Kind::Type)),
            Item::Trait(item) => self.define(&item.ident, Meaning::Item(Kind::Trait)),
            Item::TraitAlias(item) => self.define(&item.ident, Meaning::Item(Kind::Trait)),
            Item::Type(item) => self.define(&item.ident, Meaning::Item(Kind::Type)),
            Item::Union(item) => self.define(&item.ident, Meaning::Item(Kind::Type)),
            Item::Const(item) => self.define(&item.ident, Meaning::Item(Kind::Value)),
            Item::Fn(item) => self.define(&item.sig.ident, Meaning::Item(Kind::Value)),
            Item::Static(item) => self.define(&item.ident, Meaning::Item(Kind::Value)),
            Item::ForeignMod(block) => {
                for item in &block.items {
                    if let syn::ForeignItem::Fn(item) = item {
                        self.define(&item.sig.ident, Meaning::Item(Kind::Value));
                    }
                }
            }
            Item::Macro(item) => {
                item.ident.iter().for_each(|name| self.define(name, Meaning::Item(Kind::Macro)));
                each_ident(&item.mac.tokens, &mut |name| {
                    self.module.expanded.insert(name.to_string());
                });
            }
            _ => {}
        }
    }

    fn import(&mut self, tree: &UseTree, before: &[String], role: Role) {
        match tree {
            UseTree::Path(path) => {
                let path_so_far = [before, &[path.ident.to_string()]].concat();
                self.import(&path.tree, &path_so_far, role);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before, role)),
            UseTree::Name(name) => self.import_one(&name.ident, Some(&name.ident), before, role),
            UseTree::Rename(rename) => {
                let as_name = (rename.rename != "_").then_some(&rename.rename);
                self.import_one(&rename.ident, as_name, before, role);
            }
            UseTree::Glob(glob) => {
                let (path, line) = (before.to_vec(), glob.star_token.spans[0].start().line);
                self.module.globs.push(path.clone());
                self.module.mentions.push(Mention { path, line, role, glob: true });
            }
        }
    }

    fn import_one(&mut self, what: &Ident, as_name: Option<&Ident>, before: &[String], role: Role) {
        let line = what.span().start().line;
        let mut path = before.to_vec();
        if what == "self" {
            // `a::{self}` is a.
            let Some(last) = before.last() else { return };
            let name = as_name.filter(|&name| name != "self").map_or(last.clone(), Ident::to_string);
            self.module.names.entry(name).or_default().push(Meaning::Alias(path.clone()));
        } else {
            path.push(what.to_string());
            if let Some(name) = as_name {
                self.define(name, Meaning::Alias(path.clone()));
            }
        }
        self.mention(path, line, role);
    }

    /// The paths among a macro's tokens, each after `before`.
    fn scan(&mut self, tokens: &TokenStream, before: &[String]) {
        let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let punctuation =
            |at: usize, wanted: char| matches!(trees.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == wanted);
        let colons = |at: usize| punctuation(at, ':') && punctuation(at + 1, ':');
        let mut at = 0;
        while at < trees.len() {
            let first = at;
            at += 1;
            let ident = match &trees[first] {
                TokenTree::Group(group) => {
                    self.scan(&group.stream(), before);
                    continue;
                }
                TokenTree::Ident(ident) => ident,
                _ => continue,
            };
            let mut path = [before, &[ident.to_string()]].concat();
            while colons(at)
                && let Some(TokenTree::Ident(next)) = trees.get(at + 2)
            {
                path.push(next.to_string());
                at += 3;
            }
            let after = |mark| first > 0 && punctuation(first - 1, mark);
            let outside = first > 1 && colons(first - 2);
            let variable = after('$') && ident != "crate";
            let member = after('.') && !(first > 1 && punctuation(first - 2, '.'));
            let field = path.len() == 1 && punctuation(at, ':') && !colons(at);
            if outside || variable || member || field || after('\'') {
                continue;
            }
            match trees.get(at + 2) {
                Some(TokenTree::Group(group)) if colons(at) && group.delimiter() == Delimiter::Brace => {
                    self.scan(&group.stream(), &path);
                    at += 3;
                }
                _ => {
                    let called = punctuation(at, '!') && !punctuation(at + 1, '=');
                    self.mention(path, ident.span().start().line, if called { Role::Macro } else { Role::Code });
                }
            }
        }
    }
}

fn each_ident(tokens: &TokenStream, found: &mut impl FnMut(&Ident)) {
    for tree in tokens.clone() {
        match tree {
            TokenTree::Ident(ident) => found(&ident),
            TokenTree::Group(group) => each_ident(&group.stream(), found),
            _ => {}
        }
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

fn line(path: &syn::Path) -> usize {
    path.segments.first().map_or(0, |segment| segment.ident.span().start().line)
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if only_tests(attributes(item)) {
            return;
        }
        self.define_item(item);
        if let Item::Use(item) = item {
            // `::a::b` is another crate's.
            if item.leading_colon.is_none() {
                let role = if matches!(item.vis, Visibility::Inherited) { Role::Import } else { Role::ReExport };
                self.import(&item.tree, &[], role);
            }
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs[..],
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !only_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes = match item {
            TraitItem::Const(item) => &item.attrs[..],
            TraitItem::Fn(item) => &item.attrs,
            TraitItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !only_tests(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        match statement {
            Stmt::Local(local) if only_tests(&local.attrs) => {}
            _ => visit::visit_stmt(self, statement),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.mention(segments(path), line(path), Role::Code);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if called.path.leading_colon.is_none() && !called.path.is_ident("macro_rules") {
            self.mention(segments(&called.path), line(&called.path), Role::Macro);
        }
        self.scan(&called.tokens, &[]);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}
