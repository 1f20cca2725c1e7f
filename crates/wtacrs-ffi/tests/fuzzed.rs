//! No entry point is left out of fuzzing: each is called by name in a fuzz target, or in what the targets share.

mod common;

use common::crate_path;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;

/// Names that stand before an argument list, but not where a function of that name is declared. Comments and strings are
/// not calls; what macros receive is.
fn calls(code: TokenStream, found: &mut BTreeSet<String>) {
    let mut before: [Option<String>; 2] = [None, None];
    for token in code {
        if let TokenTree::Group(group) = &token {
            if let ([keyword, Some(name)], Delimiter::Parenthesis) = (&before, group.delimiter())
                && keyword.as_deref() != Some("fn")
            {
                found.insert(name.clone());
            }
            calls(group.stream(), found);
        }
        let word = if let TokenTree::Ident(word) = &token { Some(word.to_string()) } else { None };
        let [_, last] = before;
        before = [last, word];
    }
}

fn calls_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    calls(text.parse().expect("Rust"), &mut found);
    found
}

#[test]
fn every_entry_point_is_called_by_a_fuzz_target() {
    let mut called = BTreeSet::new();
    for folder in ["../../fuzz/fuzz_targets", "../../fuzz/src"] {
        for file in std::fs::read_dir(crate_path(folder)).expect("the fuzz targets") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("UTF-8");
            called.append(&mut calls_of(&text));
        }
    }
    let exports = std::fs::read_to_string(crate_path("exports.txt")).expect("the export list");
    let left_out: Vec<&str> = exports.lines().filter(|&name| !called.contains(name)).collect();
    assert!(left_out.is_empty(), "no fuzz target calls {left_out:#?}");
}

#[test]
fn only_calls_in_code_count() {
    let text = r#"
        //! in_module_comment(1)
        /// in_comment(1)
        fn declared(x: i32) {
            // in_line(1)
            /* in_block(1) */
            let text = "in_string(1)";
            let pointer = by_name;
            called(x);
            target! { |input| { in_macro(input) } };
            module::by_path(nested(x));
        }
    "#;
    let called: Vec<String> = calls_of(text).into_iter().collect();
    assert_eq!(called, ["by_path", "called", "in_macro", "nested"]);
}
