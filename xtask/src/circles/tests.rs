//! Crates made up in temporary folders, and the repository itself.

use super::*;
use std::fs;

/// The report on a crate of these files, the first of which is its root.
fn report(files: &[(&str, &str)]) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("is made");
        fs::write(path, text).expect("is written");
    }
    report_on(&Crate::read(&folder.path().join(files[0].0)).expect("is Rust"))
}

/// The first line of each circle's text: its files.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let report = report(files);
    assert_eq!(report.unseen, [""; 0], "everything can be looked into");
    report.circles.iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn two_files_that_import_each_other_are_a_circle_named_with_what_ties_them() {
    let found = report(&[
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "use crate::b::B;\n\npub struct A(B);"),
        ("b.rs", "\npub struct B;\nimpl B {\n    fn a(self) -> crate::a::A { todo!() }\n}"),
    ]);
    let expected = "a.rs → b.rs → a.rs\n               a.rs takes B (line 1)\n               b.rs takes A (line 4)";
    assert_eq!(found.circles, [expected]);
    assert_eq!((found.files, found.edges), (3, 2));
}

#[test]
fn three_files_in_a_ring_are_a_circle() {
    let found = circles(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;"),
        ("a.rs", "use super::b::b;\npub fn a() { b() }"),
        ("b.rs", "use super::c;\npub fn b() { c::c() }"),
        ("c.rs", "pub fn c() { super::a::a() }"),
    ]);
    assert_eq!(found, ["a.rs → b.rs → c.rs → a.rs"]);
}

#[test]
fn a_chain_is_not_a_circle() {
    let found = circles(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\npub fn all() { a::a(); b::b(); c::c() }"),
        ("a.rs", "pub fn a() { crate::b::b(); crate::c::c() }"),
        ("b.rs", "pub fn b() { crate::c::c() }"),
        ("c.rs", "pub fn c() {}"),
    ]);
    assert_eq!(found, NONE);
}

#[test]
fn what_a_door_itself_takes_from_a_child_that_takes_from_the_door_is_a_circle() {
    let files = [
        ("lib.rs", "pub mod door;"),
        ("door/mod.rs", "mod child;\npub use self::child::run;\npub struct Launch;\npub fn twice() { run(Launch) }"),
        ("door/child.rs", "use super::Launch;\npub fn run(_: Launch) {}"),
    ];
    assert_eq!(circles(&files), ["door/mod.rs → door/child.rs → door/mod.rs"]);
}

#[test]
fn a_door_may_re_export_its_children() {
    let found = circles(&[
        ("lib.rs", "pub mod door;\npub use door::*;"),
        ("door/mod.rs", "mod child;\nmod other;\npub use self::child::{Child as Kid, *};\npub struct Door;"),
        ("door/child.rs", "use super::Door;\nuse super::other::Other;\npub struct Child(Door, Other);"),
        ("door/other.rs", "pub struct Other;"),
    ]);
    assert_eq!(found, NONE);
}

#[test]
fn a_re_export_of_another_door_s_child_is_an_import() {
    let found = circles(&[
        ("lib.rs", "pub mod a;\npub mod b;"),
        ("a.rs", "pub use crate::b::B;\npub struct A;"),
        ("b.rs", "pub use crate::a::A;\npub struct B;"),
    ]);
    assert_eq!(found, ["a.rs → b.rs → a.rs"]);
}

#[test]
fn re_exports_are_looked_through_to_the_file_that_has_the_item() {
    let found = circles(&[
        ("lib.rs", "mod a;\nmod b;\npub use crate::a::inner::Deep as Public;"),
        ("a/mod.rs", "pub mod inner;\npub(crate) use self::inner::*;\npub fn a() { crate::b::b() }"),
        ("a/inner.rs", "pub struct Deep;\npub trait Seen { fn seen(&self) {} }"),
        (
            "b.rs",
            "use crate::Public;\nuse crate::a::Seen;\npub fn b() -> Option<Public> { None }\nimpl Seen for i32 {}",
        ),
    ]);
    assert_eq!(found, NONE, "b needs a/inner.rs, which needs nothing");
    let found = circles(&[
        ("lib.rs", "mod a;\nmod b;\npub use crate::a::inner::Deep as Public;"),
        ("a/mod.rs", "pub mod inner;"),
        ("a/inner.rs", "pub struct Deep;\npub fn deep() { crate::b::b(); }"),
        ("b.rs", "pub fn b() -> Option<crate::Public> { None }"),
    ]);
    assert_eq!(found, ["a/inner.rs → b.rs → a/inner.rs"]);
}

#[test]
fn names_from_a_glob_are_taken_from_the_file_that_has_them_and_traits_even_if_not_named() {
    let files =
        |b| [("lib.rs", "mod a;\nmod b;"), ("a.rs", "pub trait T {}\npub fn a() { crate::b::b() }"), ("b.rs", b)];
    let ring = ["a.rs → b.rs → a.rs"];
    assert_eq!(circles(&files("use crate::a::*;\npub fn b() { a() }")), ring);
    assert_eq!(circles(&files("use crate::a::*;\npub fn b() {}")), ring);
    let no_trait = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a.rs", "pub fn a() { crate::b::b() }"),
        ("b.rs", "use crate::a::*;\npub fn b() {}"),
    ];
    assert_eq!(circles(&no_trait), NONE);
}

#[test]
fn what_only_tests_have_does_not_count() {
    let found = circles(&[
        ("lib.rs", "mod a;\nmod b;"),
        (
            "a.rs",
            "pub fn a() {}\n#[cfg(test)]\nuse crate::b::b;\n#[cfg(test)]\nmod tests {\n    use crate::b::b;\n}\n#[cfg(all(test, unix))]\nmod more;\n\
             impl A { #[cfg(test)] fn f() { crate::b::b() } }\nstruct A;",
        ),
        ("b.rs", "pub fn b() { crate::a::a() }"),
    ]);
    assert_eq!(found, NONE);
}

#[test]
fn macros_count_by_their_file_and_their_input_is_looked_into() {
    let lib = ("lib.rs", "#[macro_use]\nmod a;\nmod b;");
    let makes = "macro_rules! make { ($e:expr) => { $e + $crate::b::N } }\npub(crate) use make;";
    let b = |text| ("b.rs", text);
    let ring = ["a.rs → b.rs → a.rs"];
    assert_eq!(circles(&[lib, ("a.rs", makes), b("pub const N: u32 = crate::a::make!(1);")]), ring, "called by a path");
    assert_eq!(
        circles(&[lib, ("a.rs", makes), b("use crate::a::make;\npub const N: u32 = make!(1);")]),
        ring,
        "imported"
    );
    assert_eq!(circles(&[lib, ("a.rs", makes), b("pub const N: u32 = 1;")]), NONE);
    let input = [
        lib,
        ("a.rs", "pub const A: u32 = 1;\npub fn a() { assert!(crate::b::{B, C}.is_empty()) }"),
        b("pub fn b() { println!(\"{}\", crate::a::A) }\npub const B: &str = \"\";\npub const C: u8 = 0;"),
    ];
    assert_eq!(circles(&input), ring);
}

#[test]
fn both_meanings_that_cfg_gives_a_name_count() {
    let found = circles(&[
        (
            "lib.rs",
            "mod host;\nmod device;\n#[cfg(unix)]\nuse host as body;\n#[cfg(not(unix))]\nuse device as body;\npub mod api;",
        ),
        ("api.rs", "use crate::body;\npub struct Word;\npub fn run() { body::run() }"),
        ("host.rs", "pub fn run() {}"),
        ("device.rs", "use crate::api::Word;\npub fn run() { let _ = Word; }"),
    ]);
    assert_eq!(found, ["device.rs → api.rs → device.rs"]);
}

#[test]
fn modules_within_a_file_and_names_of_two_kinds_are_that_file_s() {
    let found = circles(&[
        ("lib.rs", "mod a;\nmod gather;\npub use gather::gather;"),
        ("a.rs", "pub mod inside { pub fn f() { super::g(); crate::gather() } }\nfn g() {}\npub enum Kind { One }"),
        (
            "gather.rs",
            "pub fn gather() { let _ = core::mem::size_of::<T>(); }\nstruct T;\nmod core_like { use super::super::a::Kind::*; fn f() -> u8 { One as u8 } }",
        ),
    ]);
    assert_eq!(found, ["a.rs → gather.rs → a.rs"]);
}

#[test]
fn what_leads_nowhere_is_listed() {
    let found = report(&[("lib.rs", "mod a;\nuse crate::a::made;\nfn f() { made(); self::gone::g() }"), ("a.rs", "")]);
    assert_eq!(found.unseen, ["lib.rs:2: crate::a::made leads nowhere", "lib.rs:3: self::gone::g leads nowhere"]);
    let by_macro = report(&[("lib.rs", "mod a;\nuse crate::a::made;"), ("a.rs", "functions! { made }")]);
    assert_eq!((by_macro.unseen, by_macro.edges), (vec![], 1));
}

#[test]
fn no_file_of_the_repository_imports_one_that_imports_it() {
    let reports = repository().expect("the tracked files");
    let circles: Vec<String> = reports
        .iter()
        .flat_map(|(name, found)| found.circles.iter().map(move |circle| format!("{name}: {circle}")))
        .collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
    let lost: Vec<&String> =
        reports.iter().flat_map(|(_, found)| &found.unseen).filter(|unseen| unseen.ends_with(NO_MOD)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
