//! The built `wtacrs memory`, from its arguments to its exit code.

use super::stdout;
use serde_json::Value;

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&["memory", "--format", "json"], arguments].concat())).expect("JSON")
}

fn assert_refused(arguments: &[&str], parts: &[&str]) {
    super::assert_refused(&[&["memory"], arguments].concat(), parts);
}

#[test]
fn one_layer_by_hand() {
    let report = json(&["--tokens", "1000", "--in-features", "64", "--dtype", "f32", "--budget", "0.3,100"]);
    assert_eq!(report["exact_bytes"], 1000 * 64 * 4);
    // A header of 64 bytes, indices, scales and rows, each rounded up to 64.
    let (many, few) = (64 + 1216 + 2432 + 300 * 64 * 4, 64 + 448 + 832 + 100 * 64 * 4);
    assert_eq!(report["saved_bytes"], serde_json::json!([many, few]));
    let saved = &report["inputs"][0]["saved"];
    assert_eq!(saved[0], serde_json::json!({"fraction": 0.3, "budget": 300, "budget_share": 0.3, "bytes": many}));
    assert_eq!(saved[1], serde_json::json!({"fraction": null, "budget": 100, "budget_share": 0.1, "bytes": few}));
}

/// `plan_info_reports_the_bytes_that_the_command_counts` in the C library's tests expects the same number of a plan.
#[test]
fn the_bytes_of_a_plan() {
    let report = json(&["--tokens", "200", "--in-features", "40", "--dtype", "bf16", "--budget", "0.3"]);
    assert_eq!(report["saved_bytes"], serde_json::json!([5632]));
}

#[test]
fn packed_rows() {
    let few = ["--tokens", "1000", "--in-features", "300", "--budget", "0.3,1.0"];
    let report = json(&[&few[..], &["--bits", "4"]].concat());
    assert_eq!((&report["bits"], &report["exact_bytes"]), (&4.into(), &600_000.into()));
    // Groups of 128, 128 and 64 elements: 40 words and 3 grids a row. All rows need no index and no scale.
    let some = 64 + 1216 + 2432 + 3648 + 300 * 40 * 4;
    let all = 64 + 12_032 + 1000 * 40 * 4;
    assert_eq!(report["saved_bytes"], serde_json::json!([some, all]));
    assert_eq!(json(&few)["bits"], 16);
    let share = |bits| {
        let report = json(&["bert-base", "--budget", "1.0", "--bits", bits]);
        report["saved_bytes"][0].as_f64().expect("bytes") / report["exact_bytes"].as_f64().expect("bytes")
    };
    assert!((0.26..0.27).contains(&share("4")) && (0.14..0.15).contains(&share("2")));
    let text = stdout(&["memory", "t5-3b", "--bits", "2"]);
    assert!(text.starts_with("t5-3b, elements of 2 bytes, kept rows packed in 2 bits an element\n"), "{text}");
    let csv = stdout(&[&["memory", "--format", "csv", "--bits", "8"], &few[..]].concat());
    assert!(csv.lines().next().is_some_and(|line| line.ends_with(",bits")), "{csv}");
    assert!(csv.lines().skip(1).all(|line| line.ends_with(",8")), "{csv}");
    assert_refused(&["bert-base", "--bits", "16"], &["8, 4 or 2 bits"]);
}

#[test]
fn a_whole_transformer() {
    let report = json(&["bert-base", "--batch", "8", "--length", "64"]);
    // Each block saves three inputs of 768 columns and one of 3072.
    assert_eq!(report["exact_bytes"], 12 * 8 * 64 * (3 * 768 + 3072) * 2);
    let inputs = report["inputs"].as_array().expect("an array");
    assert_eq!(inputs.len(), 4);
    let share = report["saved_bytes"][0].as_f64().expect("bytes") / report["exact_bytes"].as_f64().expect("bytes");
    assert!((0.3..0.31).contains(&share), "{share}");

    let report = json(&["t5-small", "--batch", "2", "--length", "30", "--target-length", "10"]);
    let (source, target) = (2 * 30 * 2, 2 * 10 * 2);
    assert_eq!(report["exact_bytes"], source * (6 * (3 * 512 + 2048) + 512) + target * 6 * (5 * 512 + 2048));
}

#[test]
fn tables_and_lines() {
    let text = stdout(&["memory", "t5-3b"]);
    assert!(text.starts_with("t5-3b, elements of 2 bytes\n"), "{text}");
    assert!(text.contains("keep 0.3") && text.contains("keep 0.1") && text.contains("\n all "), "{text}");
    let text = stdout(&["memory", "t5-3b", "--format", "csv"]);
    assert_eq!(text.lines().count(), 1 + 11 * 2);
    assert!(text.starts_with("name,input,layers,count,tokens,in_features,element_bytes,fraction,budget,budget_share,"));
    let unquoted = text.lines().filter(|line| !line.contains('"'));
    assert!(unquoted.into_iter().all(|line| line.split(',').count() == 14), "{text}");
}

#[test]
fn arguments_that_are_refused() {
    assert_refused(&["gpt-5"], &["gpt-5", "bert-base"]);
    assert_refused(&[], &["SHAPE"]);
    assert_refused(&["--tokens", "10"], &["--in-features"]);
    assert_refused(&["bert-base", "--tokens", "10", "--in-features", "3"], &["cannot be used with"]);
    assert_refused(&["bert-base", "--budget", "1.5"], &["1.5"]);
    assert_refused(&["bert-base", "--batch", "1", "--length", "10", "--budget", "11"], &["11", "10"]);
    assert_refused(&["bert-base", "--batch", "18446744073709551615"], &["bytes"]);
}
