//! The header is what cbindgen makes of the code, compiles as C and C++, and names what the library exports.

mod common;

use common::{blesses, check_file, crate_path, library, run, scratch};
use std::collections::BTreeSet;
use std::process::Command;

fn header() -> String {
    let config = cbindgen::Config::from_file(crate_path("cbindgen.toml")).expect("the configuration");
    let bindings = cbindgen::generate_with_config(crate_path(""), config).expect("cbindgen reads the crate");
    let mut text = vec![];
    bindings.write(&mut text);
    String::from_utf8(text).expect("UTF-8").trim_start().to_owned()
}

#[test]
fn the_header_is_made_of_the_code() {
    check_file("include/wtacrs.h", &header());
}

const FAKE_DLPACK: &str = "
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
#include <stdint.h>
typedef enum { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct { DLDeviceType device_type; int32_t device_id; } DLDevice;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct { void *data; DLDevice device; int32_t ndim; DLDataType dtype; int64_t *shape; int64_t *strides; uint64_t byte_offset; } DLTensor;
#endif
";

const USE: &str = "
#include <stddef.h>
int main(void) {
  wtacrs_dltensor t;
  wtacrs_plan *plan = NULL;
  t.ndim = 2;
  return t.ndim == 2 && wtacrs_plan_destroy(plan) == WTACRS_STATUS_OK && sizeof(t) == 48 && offsetof(wtacrs_dltensor, byte_offset) == 40 ? 0 : 1;
}
";

#[test]
fn it_compiles_as_c_and_cpp_twice_and_beside_dlpack() {
    let folder = scratch("header");
    std::fs::write(folder.join("dlpack.h"), FAKE_DLPACK).expect("temporary files can be written");
    let twice = "#include <wtacrs.h>\n#include <wtacrs.h>\n";
    let with_dlpack = "#include \"dlpack.h\"\n#include <wtacrs.h>\n_Static_assert(sizeof(DLTensor) == sizeof(wtacrs_dltensor), \"\");\n";
    let before_dlpack = "#include <wtacrs.h>\n#include \"dlpack.h\"\n";
    for (name, includes) in [("twice", twice), ("with_dlpack", with_dlpack), ("before_dlpack", before_dlpack)] {
        for (compiler, standard, extension) in [
            ("gcc", "-std=c11", "c"),
            ("gcc", "-std=c17", "c"),
            ("g++", "-std=c++17", "cpp"),
            ("g++", "-std=c++20", "cpp"),
        ] {
            let text = if extension == "cpp" {
                includes.replace("_Static_assert", "static_assert")
            } else {
                includes.to_owned()
            };
            let source = folder.join(format!("{name}.{extension}"));
            std::fs::write(&source, text + USE).expect("temporary files can be written");
            let program = folder.join(name);
            let mut command = Command::new(compiler);
            command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg("-I").arg(crate_path("include"));
            run(command.arg(&source).arg(library()).arg("-o").arg(&program));
            run(Command::new(&program).env("LD_LIBRARY_PATH", common::library_folder()));
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// Functions of the header, each on one line.
fn prototypes(header: &str) -> BTreeSet<String> {
    let code = without_comments(header);
    let start = code.find("extern \"C\" {").expect("functions") + "extern \"C\" {".len();
    let end = code.rfind("#ifdef __cplusplus").expect("the end of the functions");
    let code = code[start..end].replace("#endif", "");
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    code.split(';').map(one_line).filter(|prototype| !prototype.is_empty()).collect()
}

/// The header without its comments: those of lines, and the blocks of its preamble.
fn without_comments(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, behind)) = rest.split_once("/*") {
        code.push_str(before);
        rest = behind.split_once("*/").expect("comments end").1;
    }
    let code = code + rest;
    let lines = code.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.collect::<Vec<_>>().join("\n")
}

fn names(header: &str) -> BTreeSet<String> {
    let name = |prototype: &String| {
        let head = prototype.split('(').next().expect("a name");
        head.rsplit([' ', '*']).next().expect("a name").to_owned()
    };
    prototypes(header).iter().map(name).collect()
}

#[test]
fn the_library_exports_what_the_header_names_and_nothing_else() {
    let nm = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let exported: BTreeSet<String> = String::from_utf8(nm.stdout)
        .expect("ASCII")
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    let list: String = exported.iter().map(|name| name.clone() + "\n").collect();
    check_file("exports.txt", &list);
    assert_eq!(exported, names(&header()));
    assert!(exported.iter().all(|name| name.starts_with("wtacrs_")));
}

/// Members of the header's enumerations, with their numbers.
fn enumerators(header: &str) -> Vec<String> {
    let code = without_comments(header);
    let bodies = code.split("typedef enum ").skip(1).filter_map(|rest| rest.split_once('{')?.1.split_once('}'));
    let members = bodies.flat_map(|(body, _)| body.split(','));
    members
        .filter_map(|member| member.split_once('='))
        .map(|(name, number)| format!("constant {} {}", name.trim(), number.trim()))
        .collect()
}

/// Names of the header's structs, and of their fields.
fn structs(header: &str) -> Vec<(String, Vec<String>)> {
    let code = without_comments(header);
    let definitions = code.split("typedef struct ").skip(1).filter_map(|definition| definition.split_once('{'));
    let whole = definitions.map(|(name, rest)| {
        let name = name.trim();
        let (body, _) = rest.split_once(&format!("\n}} {name};")).expect("the end");
        (name.to_owned(), fields(body))
    });
    whole.collect()
}

/// Offsets and sizes of the header's structs, as gcc lays them out.
fn layouts(header: &str) -> Vec<String> {
    let mut program = "#include <stdio.h>\n#include <wtacrs.h>\nint main(void) {\n".to_owned();
    for (name, fields) in structs(header) {
        program += &format!("printf(\"size {name} %zu\\n\", sizeof({name}));\n");
        for field in fields {
            program += &format!("printf(\"offset {name}.{field} %zu\\n\", offsetof({name}, {field}));\n");
        }
    }
    let folder = scratch("layouts");
    let (source, binary) = (folder.join("layouts.c"), folder.join("layouts"));
    std::fs::write(&source, program + "return 0; }\n").expect("temporary files can be written");
    run(Command::new("gcc").arg("-I").arg(crate_path("include")).arg(&source).arg("-o").arg(&binary));
    let output = run(&mut Command::new(&binary));
    let _ = std::fs::remove_dir_all(folder);
    String::from_utf8(output.stdout).expect("ASCII").lines().map(str::to_owned).collect()
}

/// Names of a struct's fields, with those of the structs within it.
fn fields(body: &str) -> Vec<String> {
    let mut names = vec![];
    let mut inner = vec![];
    for statement in body.split_inclusive([';', '{']) {
        let text = statement.trim_end_matches(['{', ';']).trim();
        if statement.ends_with('{') {
            inner.push(names.len());
        } else if let Some(name) = text.strip_prefix('}') {
            let from = inner.pop().expect("a struct that begins");
            names[from..].iter_mut().for_each(|field| *field = format!("{}.{field}", name.trim()));
        } else if let Some(name) = text.rsplit([' ', '*']).next().filter(|name| !name.is_empty()) {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn fields_are_read_from_structs_and_structs_within() {
    let body = " void *data; struct { int32_t kind; int32_t id; } device; int64_t *shape; ";
    assert_eq!(fields(body), ["data", "device.kind", "device.id", "shape"]);
}

/// So that later versions can append fields; DLPack's tensor is not ours to change.
#[test]
fn every_struct_begins_with_its_size() {
    let structs = structs(&header());
    let ours = structs.iter().filter(|(name, _)| name != "wtacrs_dltensor");
    let without: Vec<&String> = ours.filter(|(_, fields)| fields[0] != "size").map(|(name, _)| name).collect();
    assert!(structs.len() > 1 && without.is_empty(), "{without:?}");
}

/// Whether two lines are the sizes of one struct, before and after fields were appended.
fn has_grown(before: &str, now: &str) -> bool {
    let read = |line: &str| -> Option<(String, usize)> {
        let (name, bytes) = line.strip_prefix("size ")?.split_once(' ')?;
        Some((name.to_owned(), bytes.parse().ok()?))
    };
    read(before).zip(read(now)).is_some_and(|((old, from), (new, to))| old == new && to > from)
}

#[test]
fn structs_grow_and_do_not_shrink() {
    assert!(has_grown("size wtacrs_a 24", "size wtacrs_a 32"));
    for now in ["size wtacrs_a 16", "size wtacrs_b 32", "offset wtacrs_a.x 32"] {
        assert!(!has_grown("size wtacrs_a 24", now), "{now}");
    }
}

/// What a program that was built earlier relies on: every line of the baseline must still be true, but that structs may
/// have grown. New lines are no harm; WTACRS_BLESS=1 adds them, once, with a release.
#[test]
fn the_binary_interface_is_what_it_was() {
    let header = header();
    let mut now: Vec<String> = without_comments(&header)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("#define WTACRS_").map(|rest| format!("constant WTACRS_{rest}")))
        .filter(|line| line.split_whitespace().count() == 3)
        .collect();
    now.extend(enumerators(&header));
    now.extend(prototypes(&header).iter().map(|prototype| format!("function {prototype}")));
    now.extend(layouts(&header));
    now.sort();
    let file = crate_path("abi/baseline.txt");
    let baseline = std::fs::read_to_string(&file).expect("the baseline");
    let holds = |line: &str| now.iter().any(|now| now == line || has_grown(line, now));
    let lost: Vec<&str> = baseline.lines().filter(|line| !holds(line)).collect();
    // Before anything is written: what was promised cannot be blessed away.
    assert!(lost.is_empty(), "no longer so: {lost:#?}");
    if blesses() {
        std::fs::write(&file, now.join("\n") + "\n").expect("the crate can be written");
    }
}

/// Whatever else a call takes stands before its stream, which is named so. Every call that takes memory of a device and
/// does not return what the host must wait for has one. A planner's memory is the host's.
#[test]
fn the_stream_is_the_last_parameter() {
    let prototypes = prototypes(&header());
    let with_stream: Vec<&String> = prototypes.iter().filter(|prototype| prototype.contains("stream")).collect();
    for prototype in &with_stream {
        assert!(prototype.ends_with(", void *stream)") && prototype.matches("stream").count() == 1, "{prototype}");
    }
    let launches =
        ["_forward", "_backward", "_estimate", "_norms", "_weights", "_select", "_gather", "_gradient", "_restore"];
    let learns = ["_update", "_statistics", "_apply", "_fetch", "_store", "_forget"];
    for name in names(&header()) {
        let verb = name.strip_suffix("_dl").unwrap_or(&name);
        let takes_memory = launches.iter().chain(&learns).any(|end| verb.ends_with(end));
        let must = takes_memory && !name.starts_with("wtacrs_planner_");
        let has = with_stream.iter().any(|prototype| prototype.contains(&format!(" {name}(")));
        assert_eq!(has, must, "{name}");
    }
}

#[test]
fn every_handle_says_what_threads_may_do() {
    let header = header();
    let opaque: Vec<&str> =
        header.lines().filter(|line| line.starts_with("typedef struct wtacrs_") && line.ends_with(';')).collect();
    let destroyed = names(&header).iter().filter(|name| name.ends_with("_destroy")).count();
    assert_eq!(opaque.len(), destroyed, "{opaque:?}");
    for handle in opaque {
        let before = header.split_once(handle).expect("it is there").0;
        let comment: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with("//")).collect();
        assert!(comment.iter().any(|line| line.contains("thread")), "{handle} {comment:?}");
    }
}
