//! The built `wtacrs replay`, from its arguments to its exit code.

use super::{refused_after_results, scratch, stdout, text, with_input};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const SOURCES: [&str; 3] = ["exact", "predictor", "input"];

fn report(arguments: &[&str]) -> Value {
    let text = stdout(&[&["replay", "--format", "json"], arguments].concat());
    serde_json::from_str(&text).expect("JSON")
}

fn assert_refused(arguments: &[&str], parts: &[&str]) {
    super::assert_refused(&[&["replay"], arguments].concat(), parts);
}

/// The results of the first file.
fn results(reports: &Value) -> &Vec<Value> {
    reports[0]["results"].as_array().expect("an array")
}

/// A recording of f32 tensors.
fn write(name: &str, tensors: &[(&str, &[usize], Vec<f32>)]) -> PathBuf {
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), data)| {
        (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).expect("a valid tensor"))
    });
    let path = scratch(name);
    fs::write(&path, safetensors::serialize(views, None).expect("valid tensors")).expect("a writable directory");
    path
}

/// Three steps of 40 tokens with 5 features, with changes.
fn small(name: &str, change: impl FnOnce(&mut Vec<f32>, &mut Vec<f32>, &mut Vec<f32>)) -> PathBuf {
    let mut h: Vec<f32> = (0..600).map(|at| (at * 7 % 13) as f32 - 5.5).collect();
    let mut dz_norm: Vec<f32> = (0..120).map(|at| 1.0 / (1 + at * 5 % 11) as f32).collect();
    let mut g_norm = vec![3.0; 3];
    change(&mut h, &mut dz_norm, &mut g_norm);
    write(name, &[("h", &[3, 40, 5], h), ("dz_norm", &[3, 40], dz_norm), ("g_norm", &[3], g_norm)])
}

#[test]
fn the_bundled_recording_as_a_table() {
    let text = stdout(&["replay"]);
    let heading =
        "minilm_steps_l2_value_small_bf16 (bundled): 24 steps of 60 tokens, 384 features; the predictor has 256\n";
    assert!(text.starts_with(heading), "{text}");
    for source in SOURCES {
        let is_result = |line: &&str| {
            line.ends_with(|c: char| c.is_ascii_digit()) && line.split_whitespace().any(|word| word == source)
        };
        assert_eq!(text.lines().skip(1).filter(is_result).count(), 2, "{text}");
    }
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(120), "{widest:?} columns");
    assert!(!text.contains('\u{1b}'), "no colour without a terminal");
}

/// What the bundled recording shows.
#[test]
fn a_guess_lies_between_what_is_known_and_nothing() {
    let reports = report(&[]);
    let mean = |source: &str, fraction: f64| {
        let is_wanted = |result: &&Value| result["weights"] == source && result["fraction"] == fraction;
        let result = results(&reports).iter().find(is_wanted).expect("a result");
        result["mean_error_second_half"].as_f64().expect("a number")
    };
    for fraction in [0.3, 0.1] {
        let [exact, predictor, input] = SOURCES.map(|source| mean(source, fraction));
        assert!(exact <= predictor && predictor <= input, "{fraction}: {exact} {predictor} {input}");
    }
    // Before it has learned anything, the predictor knows no more than the input.
    let first = |at: usize| results(&reports)[at]["errors"][0].as_f64().expect("a number");
    assert!((first(1) / first(2) - 1.0).abs() < 1e-6, "{} {}", first(1), first(2));
}

#[test]
fn json_has_the_documented_keys() {
    let reports = report(&["--budget", "0.3,6", "--features", "32"]);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(reports.as_array().map(Vec::len), Some(1));
    assert_eq!(keys(&reports[0]), ["bits", "file", "in_features", "results", "steps", "tokens"]);
    assert_eq!(reports[0]["bits"], 16);
    let counts = ["steps", "tokens", "in_features"].map(|key| reports[0][key].as_u64().expect("a count"));
    assert_eq!(counts, [24, 60, 384]);
    assert_eq!(results(&reports).len(), 2 * SOURCES.len());
    for (at, result) in results(&reports).iter().enumerate() {
        assert_eq!(
            keys(result),
            ["budget", "budget_share", "errors", "features", "fraction", "mean_error_second_half", "weights"]
        );
        assert_eq!(result["weights"], SOURCES[at % 3]);
        assert_eq!(result["fraction"].as_f64(), [Some(0.3), None][at / 3]);
        assert_eq!(
            (&result["budget"], &result["budget_share"]),
            [(&json!(18), &json!(0.3)), (&json!(6), &json!(0.1))][at / 3]
        );
        assert_eq!(result["features"].as_u64(), (result["weights"] == "predictor").then_some(32));
        let errors: Vec<f64> =
            result["errors"].as_array().expect("an array").iter().filter_map(Value::as_f64).collect();
        assert_eq!(errors.len(), 24);
        let mean = errors[12..].iter().sum::<f64>() / 12.0;
        assert!((result["mean_error_second_half"].as_f64().expect("a number") - mean).abs() < 1e-12);
    }
}

#[test]
fn csv_has_a_line_for_each_step() {
    let text = stdout(&["replay", "--format", "csv", "--weights", "input,predictor", "--budget", "0.3"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 1 + 2 * 24);
    let names = "file,tokens,in_features,weights,fraction,budget,budget_share,features,step,error,bits";
    assert_eq!(lines[0], names.split(',').collect::<Vec<_>>());
    assert_eq!(lines[1][3..9], ["predictor", "0.3", "18", "0.3", "256", "0"]);
    assert_eq!(lines[24][8], "23");
    assert_eq!(lines[25][3..9], ["input", "0.3", "18", "0.3", "", "0"]);
    assert!(lines.iter().all(|line| line.len() == 11));
    let counted = stdout(&["replay", "--format", "csv", "--weights", "exact", "--budget", "6"]);
    assert!(counted.lines().skip(1).all(|line| line.contains(",exact,,6,0.1,,")), "{counted}");
}

#[test]
fn a_predictor_learns_from_packed_rows() {
    let native = report(&["--budget", "0.3"]);
    let packed = report(&["--budget", "0.3", "--bits", "4"]);
    assert_eq!(packed[0]["bits"], 4);
    let mean = |reports: &Value, at: usize| results(reports)[at]["mean_error_second_half"].as_f64().expect("a number");
    assert_eq!([mean(&native, 0), mean(&native, 2)], [mean(&packed, 0), mean(&packed, 2)]);
    let ratio = mean(&packed, 1) / mean(&native, 1);
    assert!(ratio != 1.0 && (0.8..1.25).contains(&ratio), "{ratio}");
    let table = stdout(&["replay", "--budget", "0.3", "--bits", "4"]);
    assert!(table.contains("; the predictor has 256, and learns from rows in 4 bits\n"), "{table}");
    assert_refused(&["--bits", "native,4"], &["8, 4 or 2 bits"]);
}

#[test]
fn results_depend_on_the_seed_and_the_settings_alone() {
    let once = report(&["--threads", "1"]);
    assert_eq!(once, report(&["--threads", "2"]));
    assert_eq!(once, report(&["--threads", "5", "--seed", "0"]));
    for change in
        [["--seed", "1"], ["--features", "16"], ["--forgetting", "0.5"], ["--ridge", "0.5"], ["--clamp", "0.5"]]
    {
        let other = report(&change);
        for (once, other) in results(&once).iter().zip(results(&other)) {
            assert_eq!(once["weights"] != "predictor", once["errors"] == other["errors"], "{change:?}");
        }
    }
    assert_ne!(once, report(&["--rows-per-update", "2"]));
}

#[test]
fn files_of_ones_own() {
    let path = small("own.safetensors", |_, _, _| ());
    let reports = report(&[text(&path), text(&path), "--budget", "0.5"]);
    assert_eq!(reports.as_array().map(Vec::len), Some(2));
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0]["file"], text(&path));
    let renamed = write(
        "renamed.safetensors",
        &[("x", &[1, 2, 1], vec![1.0; 2]), ("y", &[1, 2], vec![1.0; 2]), ("z", &[1], vec![1.0])],
    );
    let table = stdout(&[
        "replay",
        "--h-key",
        "x",
        "--dz-norm-key",
        "y",
        "--g-norm-key",
        "z",
        "--budget",
        "1",
        "--weights",
        "input",
        text(&renamed),
    ]);
    assert!(table.contains("1 step of 2 tokens, 1 feature\n"), "{table}");
    assert_refused(&[text(&renamed)], &["renamed.safetensors: there is no tensor 'h', only 'x', 'y', 'z'"]);
}

#[test]
fn results_before_a_bad_file_are_printed() {
    let good = small("good.safetensors", |_, _, _| ());
    let late = small("late.safetensors", |_, dz_norm, _| dz_norm[119] = -1.0);
    let (good, late) = (text(&good), text(&late));
    let refused = |more: &[&str], part: &str| {
        refused_after_results(&[&["replay", "--budget", "0.5", "--weights", "input"], more].concat(), &[part])
    };
    let table = refused(&[good, late, good], "late.safetensors: step 2: tensor 'dz_norm' is -1");
    assert_eq!(table.matches("3 steps of 40 tokens").count(), 1, "{table}");
    let reports: Value =
        serde_json::from_str(&refused(&["--format", "json", good, "nowhere"], "nowhere: ")).expect("JSON");
    assert_eq!(reports.as_array().map(Vec::len), Some(1));
    assert_eq!(refused(&["--format", "csv", good, "nowhere", late], "nowhere: ").lines().count(), 1 + 3);
}

#[test]
fn what_has_no_places_is_refused_by_its_name() {
    let bytes = fs::read(small("piped.safetensors", |_, _, _| ())).expect("a file");
    let message = |path: &str| {
        let output = with_input(&["replay", path], &bytes);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let advice = "steps are read at their places in a file, so save it as a file first\n";
    assert_eq!(message("-"), format!("error: - stands for standard input: {advice}"));
    #[cfg(unix)]
    assert_eq!(message("/dev/stdin"), format!("error: /dev/stdin is a pipe: {advice}"));
    #[cfg(unix)]
    {
        // Nobody writes into it: opening it would wait for ever.
        let pipe = scratch("a_pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        assert_refused(&[text(&pipe)], &["a_pipe is a pipe: "]);
    }
}

#[test]
fn a_npy_file_is_told_from_a_broken_one() {
    let path = scratch("steps.npy");
    fs::write(&path, b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 40, 5), }")
        .expect("a writable directory");
    assert_refused(&[text(&path)], &["steps.npy: not a safetensors file, but a .npy file"]);
}

#[test]
fn figures() {
    let (svg, png) = (scratch("replay.svg"), scratch("replay.png"));
    stdout(&["replay", "--plot", text(&svg)]);
    let drawn = fs::read_to_string(&svg).expect("a figure");
    for part in ["exact norms", "predictor", "input alone", "budget 0.3", "budget 0.1", "training step"] {
        assert!(drawn.contains(part), "'{part}' is not in the figure");
    }
    let one_step = write(
        "one_step.safetensors",
        &[("h", &[1, 2, 1], vec![1.0; 2]), ("dz_norm", &[1, 2], vec![1.0; 2]), ("g_norm", &[1], vec![1.0])],
    );
    stdout(&["replay", "--budget", "1.0,1", "--plot", text(&png), text(&one_step)]);
    assert!(fs::read(&png).expect("a figure").starts_with(b"\x89PNG\r\n\x1a\n"));
}

#[test]
fn arguments_that_are_refused() {
    assert_refused(&["--weights", "exact,stale"], &["'stale'", "exact, predictor, input"]);
    assert_refused(&["--budget", "0"], &["budget"]);
    assert_refused(&["--budget", "61"], &["(bundled)", "61", "60"]);
    assert_refused(&["--features", "0"], &["features"]);
    assert_refused(&["--features=-1"], &["features"]);
    for (flag, values) in [
        ("forgetting", ["0", "1.5", "-1", "NaN"]),
        ("ridge", ["-1", "inf", "NaN", "x"]),
        ("clamp", ["0", "-1", "inf", "NaN"]),
    ] {
        for value in values {
            assert_refused(&[&format!("--{flag}={value}")], &[flag]);
        }
    }
    assert_refused(&["--rows-per-update", "0"], &["rows"]);
    assert_refused(&["--format", "xml"], &["'xml'"]);
    assert_refused(&["--threads", "5000"], &["5000"]);
    assert_refused(&["--plot", "figure.pdf"], &["figure.pdf"]);
}

#[test]
fn files_that_are_refused() {
    assert_refused(&["nowhere.safetensors"], &["nowhere.safetensors"]);
    assert_refused(&["."], &[".: "]);
    let path = small("changed.safetensors", |_, _, _| ());
    let whole = fs::read(&path).expect("a file");
    for (length, message) in [(0, "not a readable"), (100, "not a readable"), (whole.len() - 3, "the file is ")] {
        fs::write(&path, &whole[..length]).expect("a writable file");
        assert_refused(&[text(&path)], &["changed.safetensors: ", message]);
    }
    let nan = small("nan.safetensors", |h, _, _| h[401] = f32::NAN);
    assert_refused(&[text(&nan)], &["nan.safetensors: step 2: tensor 'h' is NaN at row 0, column 1"]);
    let negative = small("negative.safetensors", |_, dz_norm, _| dz_norm[41] = -1.0);
    assert_refused(&[text(&negative)], &["step 1: tensor 'dz_norm' is -1 for token 1"]);
    for value in [0.0, -2.0, f32::INFINITY] {
        let bad = small("gradient.safetensors", |_, _, g_norm| g_norm[2] = value);
        assert_refused(&[text(&bad)], &["gradient.safetensors: step 2: tensor 'g_norm' is "]);
    }
    let large = small("large.safetensors", |h, _, _| h.fill(f32::MAX));
    assert_refused(&[text(&large), "--weights", "exact"], &["large.safetensors: step 0: input norm 0 is inf"]);
    assert_refused(&[text(&large), "--weights", "predictor"], &["large.safetensors: step 0: "]);
    let empty = write(
        "empty.safetensors",
        &[("h", &[0, 2, 1], vec![]), ("dz_norm", &[0, 2], vec![]), ("g_norm", &[0], vec![])],
    );
    assert_refused(&[text(&empty)], &["tensor 'h' has shape [0, 2, 1]: it is empty"]);
}
