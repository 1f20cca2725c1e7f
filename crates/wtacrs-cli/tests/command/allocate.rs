//! The built `wtacrs allocate`, from its arguments to its exit code.

use super::{scratch, stdout, text, with_input};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const WAYS: [&str; 3] = ["fraction_native", "fraction_4_bits", "shared_out"];

fn recorded() -> [String; 2] {
    ["minilm_l3_value_imdb_1024", "minilm_l3_value_padded_1024"]
        .map(|name| format!("{}/../../testdata/{name}.safetensors", env!("CARGO_MANIFEST_DIR")))
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&["allocate", "--format", "json"], arguments].concat())).expect("JSON")
}

/// Of the two recorded layers, which a step in bf16 would save.
fn of_recorded(arguments: &[&str]) -> Value {
    let [usual, padded] = recorded();
    json(&[&["--dtype", "bf16", &usual, &padded], arguments].concat())
}

fn assert_refused(arguments: &[&str], parts: &[&str]) {
    super::assert_refused(&[&["allocate"], arguments].concat(), parts);
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// The results of one way, of all layers.
fn of_way<'a>(report: &'a Value, way: &str) -> Vec<&'a Value> {
    let layers = report["layers"].as_array().expect("an array").iter();
    let results = layers.flat_map(|layer| layer["results"].as_array().expect("an array"));
    results.filter(|result| result["way"] == way).collect()
}

fn total<'a>(report: &'a Value, way: &str) -> &'a Value {
    let all = report["all"].as_array().expect("an array");
    all.iter().find(|total| total["way"] == way).expect("every way")
}

/// A layer of f32 whose tokens have these norms, in columns that differ.
fn write(name: &str, norms: &[f32], columns: usize) -> PathBuf {
    let rows = norms.iter().enumerate();
    let values = |from: usize| {
        let element = move |(token, norm): (usize, &f32), column: usize| {
            norm * (((token * 7 + column * 3 + from) % 11) as f32 - 4.5)
        };
        rows.clone().flat_map(move |row| (0..columns).map(move |column| element(row, column))).collect::<Vec<_>>()
    };
    let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let (h, dz) = (bytes(values(0)), bytes(values(5)));
    let view = |data| TensorView::new(Dtype::F32, vec![norms.len(), columns], data).expect("a valid tensor");
    let path = scratch(name);
    let file = safetensors::serialize([("h", view(&h)), ("dz", view(&dz))], None).expect("valid tensors");
    fs::write(&path, file).expect("a writable directory");
    path
}

#[test]
fn recorded_layers_err_less_when_memory_is_shared_out() {
    let report = of_recorded(&[]);
    assert_eq!((&report["memory"], &report["weights"]), (&0.1.into(), &"exact".into()));
    assert_eq!((&report["trials"], &report["h_bytes"]), (&Value::Null, &(2 * 1024 * 384 * 2).into()));
    let errors = WAYS.map(|way| number(&total(&report, way)["expected_error"]));
    assert!(errors[1] < 0.5 * errors[0] && errors[2] < errors[1], "{errors:?}");
    for way in WAYS {
        let results = of_way(&report, way);
        let bytes: f64 = results.iter().map(|result| number(&result["saved_bytes"])).sum();
        assert_eq!(number(&total(&report, way)["saved_bytes"]), bytes);
        assert!(bytes <= 0.1 * number(&report["h_bytes"]), "{report}");
        let squares: f64 = results.iter().map(|result| number(&result["expected_error"]).powi(2)).sum();
        let error = number(&total(&report, way)["expected_error"]);
        assert!((error - (squares / 2.0).sqrt()).abs() < 1e-12, "{report}");
    }
    // 78643 bytes of each layer: rows of 768 bytes or 204, and 12 of index and scale.
    let budgets = |way| of_way(&report, way).into_iter().map(|result| number(&result["budget"])).collect::<Vec<_>>();
    assert_eq!((budgets("fraction_native"), budgets("fraction_4_bits")), (vec![100.0; 2], vec![364.0; 2]));
}

#[test]
fn keys_are_those_that_are_documented() {
    let report = of_recorded(&["--trials", "2"]);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&report), "all h_bytes layers memory trials weights");
    assert_eq!(keys(&report["layers"][0]), "file h_bytes in_features out_features results tokens");
    let of_result = "bits budget budget_share expected_error measured_error saved_bytes saved_share way";
    assert_eq!(keys(&report["layers"][1]["results"][2]), of_result);
    assert_eq!(keys(&report["all"][0]), "expected_error measured_error saved_bytes saved_share way");
}

/// The design errs a little less than Poisson sampling, whose error is the expected one.
#[test]
fn estimates_err_as_expected() {
    for weights in ["exact", "stale"] {
        let report = of_recorded(&["--trials", "24", "--weights", weights]);
        for way in WAYS {
            for result in of_way(&report, way).into_iter().chain([total(&report, way)]) {
                let ratio = number(&result["measured_error"]) / number(&result["expected_error"]);
                assert!((0.6..1.15).contains(&ratio), "{result}");
            }
        }
    }
    let once = of_recorded(&["--trials", "3", "--threads", "1"]);
    assert_eq!(once, of_recorded(&["--trials", "3", "--threads", "2"]));
    assert_ne!(once, of_recorded(&["--trials", "3", "--seed", "1"]));
}

#[test]
fn more_memory_errs_less_until_all_is_exact() {
    let errors = ["0.02", "0.1", "0.3", "0.6", "1"].map(|memory| {
        let report = of_recorded(&["--memory", memory]);
        number(&total(&report, "shared_out")["expected_error"])
    });
    assert!(errors.is_sorted_by(|a, b| a > b) && errors[4] == 0.0, "{errors:?}");
    let report = of_recorded(&["--memory", "1", "--trials", "2"]);
    assert!(of_way(&report, "shared_out").iter().all(|kept| kept["bits"] == 16 && kept["measured_error"] == 0.0));
    // All rows, and no more memory than they take.
    assert!(of_way(&report, "fraction_4_bits").iter().all(|kept| kept["saved_bytes"] == 1024 * 204));
}

#[test]
fn a_layer_that_one_token_makes_needs_few_bytes() {
    let mut one = vec![0.01; 64];
    one[5] = 3.0;
    let paths = [write("one_token.safetensors", &one, 48), write("many_tokens.safetensors", &[1.0; 64], 48)];
    let [one, many] = paths.each_ref().map(|path| text(path));
    let report = json(&["--memory", "0.2", one, many]);
    let kept = of_way(&report, "shared_out");
    assert!(number(&kept[0]["saved_bytes"]) < 0.5 * number(&kept[1]["saved_bytes"]), "{report}");
    // 184 bytes of a layer's 12288: a native row takes 204, with its index and scale.
    let report = json(&["--memory", "0.015", one, many]);
    assert!(
        of_way(&report, "fraction_native").is_empty() && total(&report, "fraction_native")["saved_bytes"].is_null()
    );
    assert_eq!(of_way(&report, "shared_out").len(), 2);
    let table = stdout(&["allocate", "--memory", "0.015", one, many]);
    assert!(
        table.lines().any(|line| line.contains("one fraction, native") && line.matches('–').count() == 3),
        "{table}"
    );
}

#[test]
fn tables_and_lines() {
    let [usual, padded] = recorded();
    let table = stdout(&["allocate", "--dtype", "bf16", &usual, &padded]);
    assert!(table.starts_with("2 layers, exact weights: 0.1 of the 1536 KiB of H\n"), "{table}");
    for part in [" minilm_l3_value_imdb_1024 ", " minilm_l3_value_padded_1024 ", "384 → 384", " shared out "] {
        assert!(table.contains(part), "'{part}' is not in: {table}");
    }
    assert!(!table.contains("measured"), "{table}");
    let widest = |table: &str| table.lines().map(|line| line.chars().count()).max();
    assert!(widest(&table) <= Some(125), "{table}");
    let table = stdout(&["allocate", "--trials", "2", &usual, &usual]);
    assert!(table.contains("; 2 trials for each measured error\n") && table.contains("measured"), "{table}");
    // Two files of one name are told apart by their paths.
    assert_eq!(table.matches(&usual).count(), 2, "{table}");
    let csv = stdout(&["allocate", "--format", "csv", &usual, &padded]);
    assert_eq!(csv.lines().count(), 1 + 2 * WAYS.len());
    assert!(csv.starts_with("file,tokens,in_features,out_features,weights,memory,way,budget,"), "{csv}");
    assert!(csv.lines().all(|line| line.split(',').count() == 15), "{csv}");
    assert!(csv.lines().skip(1).all(|line| line.ends_with(",,")), "{csv}");
}

#[test]
fn figures() {
    let (svg, png) = (scratch("shared.svg"), scratch("shared.png"));
    let [usual, padded] = recorded();
    stdout(&["allocate", &usual, &padded, "--plot", text(&svg)]);
    let drawn = fs::read_to_string(&svg).expect("a figure");
    for part in ["one fraction, native", "one fraction, 4 bits", "shared out", "2 layers, exact weights", "bytes of H"]
    {
        assert!(drawn.contains(part), "'{part}' is not in the figure");
    }
    stdout(&["allocate", &usual, "--plot", text(&png)]);
    assert!(fs::read(&png).expect("a figure").starts_with(b"\x89PNG\r\n\x1a\n"));
}

#[test]
fn what_is_refused() {
    let [usual, padded] = recorded();
    assert_refused(&[], &["give at least one file"]);
    assert_refused(&["-", &usual, "-"], &["- stands for standard input, which can be read only once"]);
    assert_refused(&["nowhere.safetensors"], &["nowhere.safetensors"]);
    assert_refused(&[&usual, "--h-key", "x"], &["minilm_l3", "'x'", "'dz'"]);
    assert_refused(&[&usual, "--memory", "0"], &["'0' is not a share of memory"]);
    assert_refused(&[&usual, "--memory", "0.00001"], &["a share of 0.00001 of all layers' H is too small", "at least"]);
    assert_refused(&[&usual, "--weights", "all"], &["'all'", "stale, exact, input"]);
    assert_refused(&[&usual, "--weights", "predictor"], &["'predictor'", "stale, exact, input"]);
    assert_refused(&[&usual, "--trials", "0"], &["'0'", "--trials"]);
    assert_refused(&[&usual, "--plot", "figure.pdf"], &["figure.pdf", ".svg or .png"]);
    assert_refused(&[&usual, &padded, "--weights", "stale", "--norm-key", "norms"], &["stale", "tensor 'norms'"]);
    // No layer before it is printed: each one's budget depends on all.
    let zero = write("zero_allocated.safetensors", &[0.0; 8], 4);
    assert_refused(&[&usual, text(&zero)], &["zero_allocated.safetensors: the exact dW is zero"]);
    let nan = write("nan_allocated.safetensors", &[1.0, f32::NAN], 2);
    assert_refused(&[text(&nan)], &["nan_allocated.safetensors: tensor 'h' is NaN at row 1, column 0"]);
    let large = write("beyond_f16_allocated.safetensors", &[1e6; 4], 2);
    assert_refused(&["--dtype", "f16", text(&large)], &["a value is beyond the range of f16"]);
}

#[test]
fn a_layer_from_standard_input() {
    let [usual, _] = recorded();
    let bytes = fs::read(&usual).expect("a recorded layer");
    let output = with_input(&["allocate", "--format", "csv", "-"], &bytes);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nstandard input,1024,384,384,exact,0.1,"));
}
