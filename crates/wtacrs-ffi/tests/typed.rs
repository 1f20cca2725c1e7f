//! The header's enumerations as compilers see them: 32 bits wide, and none passes for another.

mod common;

use common::{crate_path, scratch};
use std::path::Path;
use std::process::{Command, Output};

const LANGUAGES: [(&str, &str, &str); 2] = [("gcc", "-std=c11", "c"), ("g++", "-std=c++17", "cpp")];

/// Calls with a place for an enumerator, the one that belongs there, and one of another enumeration.
const CALLS: [(&str, &str, &str); 20] = [
    ("wtacrs_context_create(@, 0, 0, 0)", "WTACRS_DEVICE_CPU", "WTACRS_DTYPE_F32"),
    ("wtacrs_layer_set_dtypes(0, @, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32)", "WTACRS_DTYPE_F16", "WTACRS_SIDE_RIGHT"),
    ("wtacrs_layer_set_budget(0, @, 0.3)", "WTACRS_BUDGET_FRACTION", "WTACRS_SOURCE_NORMS"),
    ("wtacrs_layer_set_design(0, @)", "WTACRS_DESIGN_CRS", "WTACRS_SOURCE_INPUT"),
    ("wtacrs_layer_set_source(0, @, 0.01)", "WTACRS_SOURCE_INPUT", "WTACRS_DESIGN_UNIFORM"),
    ("wtacrs_layer_set_precision(0, @)", "WTACRS_PRECISION_TF32", "WTACRS_DTYPE_F16"),
    ("wtacrs_layer_set_engine(0, @)", "WTACRS_ENGINE_OWN", "WTACRS_PRECISION_TF32"),
    ("wtacrs_layer_set_packing(0, @)", "WTACRS_PACKING_BITS4", "WTACRS_PRECISION_TF32"),
    ("wtacrs_tensor_mul_set_dtypes(0, WTACRS_DTYPE_F32, @)", "WTACRS_DTYPE_F32", "WTACRS_PRECISION_F32"),
    ("wtacrs_tensor_mul_set_budget(0, @, WTACRS_BUDGET_EXACT, 0)", "WTACRS_SIDE_LEFT", "WTACRS_BUDGET_ROWS"),
    ("wtacrs_tensor_mul_set_budget(0, WTACRS_SIDE_LEFT, @, 0)", "WTACRS_BUDGET_EXACT", "WTACRS_SIDE_RIGHT"),
    ("wtacrs_tensor_mul_set_design(0, @)", "WTACRS_DESIGN_TOP_K", "WTACRS_BUDGET_EXACT"),
    ("wtacrs_tensor_mul_set_precision(0, @)", "WTACRS_PRECISION_F32", "WTACRS_AXIS_ROWS"),
    ("wtacrs_tensor_mul_set_engine(0, @)", "WTACRS_ENGINE_CUBLASLT", "WTACRS_DEVICE_CUDA"),
    ("wtacrs_tensor_mul_set_packing(0, @)", "WTACRS_PACKING_NATIVE", "WTACRS_PRECISION_F32"),
    ("wtacrs_context_norms(0, @, WTACRS_DTYPE_F32, 0, 0, 0, 0, 0, 0)", "WTACRS_AXIS_ROWS", "WTACRS_SIDE_LEFT"),
    ("wtacrs_operator_set_operation(0, @, 0)", "WTACRS_OPERATION_GELU", "WTACRS_DTYPE_F16"),
    ("wtacrs_operator_set_dtype(0, @)", "WTACRS_DTYPE_BF16", "WTACRS_OPERATION_RELU"),
    ("wtacrs_planner_solve(0, @, 0.1)", "WTACRS_TARGET_NOISE", "WTACRS_SIDE_RIGHT"),
    ("wtacrs_operator_set_packing(0, @)", "WTACRS_PACKING_BITS8", "WTACRS_OPERATION_RELU"),
];

/// Has a compiler read the header and what follows it.
fn compile(code: &str, (compiler, standard, extension): (&str, &str, &str), folder: &Path) -> Output {
    let source = folder.join("typed").with_extension(extension);
    std::fs::write(&source, format!("#include <wtacrs.h>\n{code}\n")).expect("temporary files can be written");
    let mut command = Command::new(compiler);
    command.args([standard, "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"]).arg(crate_path("include"));
    command.arg(source).output().expect("a compiler")
}

#[test]
fn enumerations_are_32_bits_wide() {
    let header = std::fs::read_to_string(crate_path("include/wtacrs.h")).expect("the header");
    let names = header.lines().filter_map(|line| line.strip_prefix("typedef enum ")?.strip_suffix(" {"));
    let names: Vec<&str> = names.collect();
    let is_called =
        |name: &&str| CALLS.iter().any(|(_, right, _)| right.starts_with(&format!("{}_", name.to_uppercase())));
    // The library passes it to its caller.
    let is_passed_back = |name: &&str| *name == "wtacrs_log_level";
    let is_tested = |name: &&str| is_called(name) || is_passed_back(name);
    assert!(!names.is_empty() && names.iter().all(is_tested), "not every one of {names:?} is an argument of some call");
    let folder = scratch("enumerations");
    for language in LANGUAGES {
        let assert = if language.2 == "cpp" { "static_assert" } else { "_Static_assert" };
        let code: String = names.iter().map(|name| format!("{assert}(sizeof({name}) == 4, \"{name}\");\n")).collect();
        let output = compile(&code, language, &folder);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn no_enumeration_passes_for_another() {
    let folder = scratch("typed");
    for language in LANGUAGES {
        for (call, right, wrong) in CALLS {
            let with = |enumerator: &str| {
                let code = format!("int main(void) {{ return {} == 0; }}", call.replace('@', enumerator));
                compile(&code, language, &folder)
            };
            let accepted = with(right);
            assert!(accepted.status.success(), "{call}: {}", String::from_utf8_lossy(&accepted.stderr));
            let refused = with(wrong);
            let words = String::from_utf8_lossy(&refused.stderr).into_owned();
            let said = words.contains("enum-conversion") || words.contains("cannot convert");
            assert!(!refused.status.success() && said, "{language:?}, {call} with {wrong}: {words}");
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}
