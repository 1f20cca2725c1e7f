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
  return t.ndim == 2 && wtacrs_plan_destroy(plan) == WTACRS_OK && sizeof(t) == 48 && offsetof(wtacrs_dltensor, byte_offset) == 40 ? 0 : 1;
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
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
        .split(';')
        .map(one_line)
        .filter(|prototype| !prototype.is_empty())
        .collect()
}

fn without_comments(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, behind)) = rest.split_once("/*") {
        code.push_str(before);
        rest = behind.split_once("*/").expect("comments end").1;
    }
    code + rest
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

/// What a program that was built earlier relies on: every line of the baseline must still be true. New lines are no
/// harm; WTACRS_BLESS=1 adds them, once, with a release.
#[test]
fn the_binary_interface_is_what_it_was() {
    let header = header();
    let mut now: Vec<String> = without_comments(&header)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("#define WTACRS_").map(|rest| format!("constant WTACRS_{rest}")))
        .filter(|line| line.split_whitespace().count() == 3)
        .collect();
    now.extend(prototypes(&header).iter().map(|prototype| format!("function {prototype}")));
    use std::mem::offset_of;
    use wtacrs::dlpack::wtacrs_dltensor as Tensor;
    let offsets = [
        ("data", offset_of!(Tensor, data)),
        ("device.device_type", offset_of!(Tensor, device.device_type)),
        ("device.device_id", offset_of!(Tensor, device.device_id)),
        ("ndim", offset_of!(Tensor, ndim)),
        ("dtype.code", offset_of!(Tensor, dtype.code)),
        ("dtype.bits", offset_of!(Tensor, dtype.bits)),
        ("dtype.lanes", offset_of!(Tensor, dtype.lanes)),
        ("shape", offset_of!(Tensor, shape)),
        ("strides", offset_of!(Tensor, strides)),
        ("byte_offset", offset_of!(Tensor, byte_offset)),
    ];
    now.extend(offsets.map(|(field, offset)| format!("offset wtacrs_dltensor.{field} {offset}")));
    now.push(format!("size wtacrs_dltensor {}", size_of::<Tensor>()));
    now.sort();
    let file = crate_path("abi/baseline.txt");
    let baseline = std::fs::read_to_string(&file).expect("the baseline");
    let lost: Vec<&str> = baseline.lines().filter(|line| !now.iter().any(|now| now == line)).collect();
    // Before anything is written: what was promised cannot be blessed away.
    assert!(lost.is_empty(), "no longer so: {lost:#?}");
    if blesses() {
        std::fs::write(&file, now.join("\n") + "\n").expect("the crate can be written");
    }
}

/// Whatever else a call takes stands before its stream, which is named so.
#[test]
fn the_stream_is_the_last_parameter() {
    let prototypes = prototypes(&header());
    let with_stream: Vec<&String> = prototypes.iter().filter(|prototype| prototype.contains("stream")).collect();
    assert!(with_stream.len() >= 28, "{with_stream:#?}");
    for prototype in with_stream {
        assert!(prototype.ends_with(", void *stream)") && prototype.matches("stream").count() == 1, "{prototype}");
    }
    for name in names(&header()).iter().filter(|name| name.ends_with("_on") && !is_made_by(name)) {
        let takes_stream =
            |prototype: &String| prototype.contains(&format!(" {name}(")) && prototype.contains("stream");
        assert!(prototypes.iter().any(takes_stream), "{name} has no stream");
    }
}

/// Whether a function of this name makes an object, which no stream is for.
fn is_made_by(name: &str) -> bool {
    ["_create_on", "_create_with_on", "_load_on"].iter().any(|end| name.ends_with(end))
}

#[test]
fn every_handle_says_what_threads_may_do() {
    let header = header();
    let handles: Vec<&str> = header.lines().filter(|line| line.starts_with("typedef struct wtacrs_")).collect();
    let opaque: Vec<&str> = handles.into_iter().filter(|line| line.ends_with(';')).collect();
    assert_eq!(opaque.len(), 7, "{opaque:?}");
    for handle in opaque {
        let before = header.split_once(handle).expect("it is there").0;
        let comment = before.rsplit_once("/*").expect("a comment").1;
        assert!(comment.contains("*/") && comment.contains("thread"), "{handle} {comment}");
    }
}
