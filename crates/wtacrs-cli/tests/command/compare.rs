//! The built `wtacrs compare`, from its arguments to its exit code.

use super::{refused_after_results, scratch, stdout, text, with_input};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DESIGNS: [&str; 6] = ["uniform", "crs", "top-k", "wta-iid", "wta-stratified", "wta-pivotal"];

fn layer() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/minilm_l3_value_imdb_1024.safetensors").to_owned()
}

fn json(arguments: &[&str]) -> Value {
    let text = stdout(&[&["compare", "--format", "json"], arguments].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// A layer of f32, with its rows' sizes.
fn write(name: &str, (h, in_features): (&[f32], usize), (dz, out_features): (&[f32], usize)) -> PathBuf {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let data = [(bytes(h), h.len(), in_features), (bytes(dz), dz.len(), out_features)];
    let [h, dz] = data.each_ref().map(|(bytes, len, columns)| {
        TensorView::new(Dtype::F32, vec![len / columns, *columns], bytes).expect("a valid tensor")
    });
    let path = scratch(name);
    let file = safetensors::serialize([("h", h), ("dz", dz)], None).expect("valid tensors");
    fs::write(&path, file).expect("a writable directory");
    path
}

/// Numbers around a scale, of either sign.
fn numbers(len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|at| ((at * 37 + at / 7) % 19) as f32 / 9.0 - 1.0).map(|value| value * scale).collect()
}

/// Results without times, which change from run to run.
fn statistics(mut reports: Value) -> Vec<Value> {
    let results = reports[0]["results"].as_array_mut().expect("an array");
    for result in results.iter_mut() {
        result.as_object_mut().expect("an object").remove("time_ms");
    }
    results.clone()
}

fn assert_refused(arguments: &[&str], parts: &[&str]) {
    super::assert_refused(&[&["compare"], arguments].concat(), parts);
}

#[test]
fn the_bundled_layer_as_tables() {
    let text = stdout(&["compare", "--trials", "3"]);
    assert!(text.starts_with("minilm_l3_value_imdb_1024 (bundled): 1024 tokens, 384 → 384 features\n"));
    assert!(text.contains("exact weights") && text.contains("stale weights"));
    for design in DESIGNS {
        let is_result = |line: &&str| line.contains('%') && line.split_whitespace().any(|word| word == design);
        // Two sources of weights, two budgets, native rows and 4 bits.
        assert_eq!(text.lines().filter(is_result).count(), 8);
    }
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(120), "{widest:?} columns");
    assert!(!text.contains('\u{1b}'), "no colour without a terminal");
}

#[test]
fn json_has_the_documented_keys() {
    check_documented(&json(&["--trials", "32", "--bits", "native"]), 2 * 2 * DESIGNS.len());
    check_documented(&json(&["--trials", "8", "--weights", "exact"]), 2 * 2 * DESIGNS.len());
}

fn check_documented(reports: &Value, expected: usize) {
    let report = &reports[0];
    assert_eq!(reports.as_array().map(Vec::len), Some(1));
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let sorted = |names: &str| {
        let mut names: Vec<String> = names.split(' ').map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(keys(report), sorted("file tokens in_features out_features results"));
    assert_eq!((report["tokens"].as_u64(), report["in_features"].as_u64()), (Some(1024), Some(384)));
    let results = report["results"].as_array().expect("an array");
    assert_eq!(results.len(), expected);
    for result in results {
        assert_eq!(
            keys(result),
            sorted(
                "weights design fraction budget budget_share memory bits winners kept saved_bytes saved_share trials \
                 rel_error rel_error_sd bias_ratio variance_vs_crs time_ms"
            )
        );
        let times = &result["time_ms"];
        assert_eq!(keys(times), sorted("norms select gather pack unpack product exact"));
        let is_packed = result["bits"] == 4;
        assert!(is_packed || result["bits"] == 32, "{result}");
        assert!(times["gather"].is_null() == is_packed && times["pack"].is_null() != is_packed, "{result}");
        assert!(times["unpack"].is_null() != is_packed && result["memory"].is_null(), "{result}");
        let number = |key: &str| result[key].as_f64().expect("a number");
        assert!(number("kept") <= number("budget") && number("winners") <= number("kept"), "{result}");
        assert_eq!(number("budget_share"), number("budget") / 1024.0);
        // Four bits are 48 words and 3 grids for 384 columns.
        let row = if is_packed { 51.0 * 4.0 } else { 384.0 * 4.0 } + 12.0;
        assert!((number("saved_bytes") - number("kept") * row).abs() < 1e-6, "{result}");
        assert!((number("saved_share") - number("saved_bytes") / (1024.0 * 384.0 * 4.0)).abs() < 1e-12, "{result}");
        if result["design"] == "top-k" && is_packed {
            // Dithers differ, but the dropped rows are always the same.
            assert!((0.9..1.0).contains(&(number("bias_ratio") / number("trials"))), "{result}");
        } else if result["design"] == "top-k" {
            // It draws nothing, so that all of its estimates are equal.
            assert!((number("bias_ratio") - number("trials")).abs() < 1e-6, "{result}");
            assert!(number("rel_error_sd") < 1e-12, "{result}");
        } else {
            assert!(number("bias_ratio") < 4.0, "{result}");
        }
        if result["design"] == "crs" && number("trials") == 32.0 {
            assert!((0.7..1.4).contains(&number("variance_vs_crs")), "{result}");
        }
    }
}

#[test]
fn trials_are_those_that_ran() {
    let trials = |asked: &str, design: &str| {
        let reports = json(&["--trials", asked, "--budget", "0.1", "--weights", "exact", "--design", design]);
        reports[0]["results"][0]["trials"].as_u64().expect("a count")
    };
    assert_eq!((trials("20", "wta-iid"), trials("20", "top-k"), trials("3", "top-k")), (20, 9, 3));
    let table =
        |designs, bits| stdout(&["compare", "--trials", "20", "--budget", "0.1", "--bits", bits, "--design", designs]);
    assert!(table("crs,top-k", "native").contains("; 20 trials for each line, 9 for top-k\n"));
    assert!(table("top-k", "native").contains("; 9 trials for each line\n"));
    assert!(table("crs,top-k", "native,4").contains("; 20 trials for each line, 9 for native top-k\n"));
    assert!(table("top-k", "4").contains("; 20 trials for each line\n"));
}

/// `wtacrs replay` has the same fields with the same meaning.
#[test]
fn a_budget_as_it_was_asked_for_and_as_it_is() {
    let arguments =
        ["--trials", "2", "--budget", "0.3,64", "--design", "crs", "--weights", "exact", "--bits", "native"];
    let reports = json(&arguments);
    let budgets = ["fraction", "budget", "budget_share"].map(|key| [0, 1].map(|at| &reports[0]["results"][at][key]));
    assert_eq!(budgets[0], [&serde_json::json!(0.3), &Value::Null]);
    assert_eq!(budgets[1], [307, 64]);
    assert_eq!(budgets[2], [307.0 / 1024.0, 64.0 / 1024.0]);
    let csv = stdout(&[&["compare", "--format", "csv"], arguments.as_slice()].concat());
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0][6..9], ["fraction", "budget", "budget_share"]);
    assert_eq!((&lines[1][6..9], &lines[2][6..9]), (&["0.3", "307", "0.2998046875"][..], &["", "64", "0.0625"][..]));
}

#[test]
fn csv_has_a_line_for_each_result() {
    let text = stdout(&["compare", "--format", "csv", "--trials", "2", "--budget", "0.3,64", "--design", "crs,top-k"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 2 * 2 * 2 * 2);
    assert!(lines[0].starts_with("file,tokens,"));
    assert!(lines[0].ends_with(",exact_ms,bits,memory,saved_bytes,saved_share,pack_ms,unpack_ms"));
    assert!(lines.iter().all(|line| line.split(',').count() == 27), "{text}");
}

#[test]
fn keeping_everything_has_no_error() {
    let reports = json(&[
        "--trials",
        "2",
        "--budget",
        "1.0",
        "--design",
        "wta-pivotal,top-k",
        "--weights",
        "exact",
        "--bits",
        "native",
    ]);
    for result in reports[0]["results"].as_array().expect("an array") {
        assert_eq!(result["rel_error"].as_f64(), Some(0.0));
        assert!(result["bias_ratio"].is_null());
    }
}

/// Without norms, a choice, indices and scales, whatever the design is.
#[test]
fn all_rows_are_packed_without_a_choice() {
    let few = ["--trials", "12", "--weights", "exact", "--design", "wta-pivotal,top-k,crs"];
    let reports = json(&[&few[..], &["--budget", "1.0", "--bits", "8,4,2"]].concat());
    let results = reports[0]["results"].as_array().expect("an array");
    assert_eq!(results.len(), 9);
    for (at, result) in results.iter().enumerate() {
        let number = |key: &str| result[key].as_f64().expect("a number");
        assert_eq!([number("kept"), number("winners"), number("budget_share")], [1024.0, 1024.0, 1.0]);
        let (bits, expected) = [(8.0, 0.0022), (4.0, 0.036), (2.0, 0.18)][at / 3];
        assert_eq!(number("bits"), bits);
        assert_eq!(number("saved_bytes"), 1024.0 * (384.0 * bits / 8.0 + 3.0 * 4.0));
        assert!((0.9..1.1).contains(&(number("rel_error") / expected)), "{result}");
        assert!(number("bias_ratio") < 2.0, "{result}");
        assert_eq!(result["rel_error"], results[at / 3 * 3]["rel_error"]);
        assert_eq!((&result["time_ms"]["norms"], &result["time_ms"]["select"]), (&0.0.into(), &0.0.into()));
    }
    // A share of memory that is more than all rows need is the same.
    let shares = json(&[&few[..], &["--memory", "0.14", "--bits", "4"]].concat());
    for (by_share, by_rows) in shares[0]["results"].as_array().expect("an array").iter().zip(&results[3..6]) {
        assert_eq!((&by_share["memory"], &by_share["budget"]), (&0.14.into(), &1024.into()));
        assert_eq!(by_share["rel_error"], by_rows["rel_error"]);
    }
    let table = stdout(&["compare", "--trials", "2", "--budget", "1.0", "--bits", "4", "--design", "top-k"]);
    let line = table.lines().find(|line| line.contains("top-k ")).expect("a result");
    assert_eq!(line.matches('(').count(), 1, "only that of the budget, and none that marks a bias: {table}");
}

/// At equal bytes, in the type that the layer is rounded to.
#[test]
fn memory_in_the_place_of_a_budget() {
    let few = ["--trials", "6", "--dtype", "bf16", "--memory", "0.3,0.1", "--design", "wta-pivotal"];
    let reports = json(&[&few[..], &["--bits", "native,8,4,2"]].concat());
    let results = reports[0]["results"].as_array().expect("an array");
    let column = |key: &str| results.iter().map(|result| result[key].as_f64()).collect::<Vec<_>>();
    let by_hand = |share: f64, row: f64| (share * 1024.0 * 768.0 / row).floor();
    let budgets = [0.3, 0.1].map(|share| [780.0, 408.0, 216.0, 120.0].map(|row| by_hand(share, row).min(1024.0)));
    let of_source = [budgets[0], budgets[1]].concat().into_iter().map(Some).collect::<Vec<_>>();
    assert_eq!(column("budget"), of_source.repeat(2));
    assert_eq!(column("bits"), [16.0, 8.0, 4.0, 2.0].map(Some).repeat(4));
    assert_eq!(column("memory"), [[Some(0.3); 4], [Some(0.1); 4]].concat().repeat(2));
    assert!(column("fraction").iter().all(Option::is_none));
    for result in results {
        let (share, most) = (result["saved_share"].as_f64(), result["memory"].as_f64());
        assert!(share <= most, "{result}");
    }
    let error = |at: usize| results[at]["rel_error"].as_f64().expect("a number");
    // Stale weights, a tenth: 4 bits are best by far.
    assert!(error(6) < 0.4 * error(4) && error(6) < error(5) && error(6) < error(7), "{results:?}");
    let csv = stdout(&[&["compare", "--format", "csv"], &few[..]].concat());
    assert!(csv.lines().nth(1).is_some_and(|line| line.contains(",16,0.3,")), "{csv}");

    assert_refused(&["--memory", "0.1", "--budget", "0.1"], &["--memory", "--budget"]);
    assert_refused(&["--memory", "1.5"], &["'1.5' is not a share of memory"]);
    assert_refused(
        &["--memory", "0.0001", "--dtype", "bf16"],
        &["78 bytes, too few for one native row, which needs 780"],
    );
    assert_refused(&["--bits", "native,3"], &["native or in 8, 4 or 2 bits, not \"3\""]);
    let large = write("beyond_f16.safetensors", (&numbers(8, 1e6), 2), (&numbers(8, 1.0), 2));
    assert_refused(&["--dtype", "f16", text(&large)], &["beyond_f16.safetensors: a value is beyond the range of f16"]);
}

#[test]
fn statistics_depend_on_the_seed_alone() {
    let run = |more: &[&str]| statistics(json(&[&["--trials", "3", "--budget", "0.1"], more].concat()));
    let once = run(&["--threads", "1"]);
    assert_eq!(once, run(&["--threads", "2"]));
    assert_eq!(once, run(&["--seed", "0"]));
    assert_ne!(once, run(&["--seed", "1"]));
}

#[test]
fn npy_and_safetensors_files_give_equal_results() {
    let bytes = fs::read(layer()).expect("the bundled layer");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a valid file");
    let paths = ["h", "dz", "dz_norm_prev"].map(|key| {
        let tensor = file.tensor(key).expect("a tensor");
        let shape: String = tensor.shape().iter().map(|size| format!("{size}, ")).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let length = (header.len() as u16).to_le_bytes();
        let path = scratch(&format!("{key}.npy"));
        let npy = [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), tensor.data()].concat();
        fs::write(&path, npy).expect("a writable directory");
        path
    });
    let [h, dz, norms] = paths.each_ref().map(|path| text(path));
    let few = ["--trials", "2", "--seed", "5"];
    let from_npy = json(&[&[h, dz, "--dz-norm-npy", norms], few.as_slice()].concat());
    assert_eq!(from_npy[0]["file"], format!("{h} + {dz}"));
    assert_eq!(statistics(from_npy), statistics(json(&[&[layer().as_str()], few.as_slice()].concat())));
    assert_refused(&[h, dz, "--weights", "stale"], &["h.npy", "stale weights need --dz-norm-npy"]);
    assert_refused(&[h], &["h.npy is a .npy file"]);
    assert_refused(&[&layer(), "--dz-norm-npy", norms], &["goes with two .npy files"]);
}

#[test]
fn figures() {
    let (svg, png) = (scratch("figure.svg"), scratch("figure.png"));
    let few = [
        "compare",
        "--trials",
        "2",
        "--budget",
        "0.3,0.1,1.0",
        "--weights",
        "exact,stale,input",
        "--bits",
        "native",
        "--plot",
    ];
    let by_bytes = ["compare", "--trials", "2", "--memory", "0.1,0.05", "--design", "wta-iid,wta-pivotal", "--plot"];
    stdout(&[&by_bytes[..], &[text(&svg)]].concat());
    let drawn = fs::read_to_string(&svg).expect("a figure");
    for part in ["saved bytes / bytes of H", "wta-iid, native", "wta-iid, 4 bits", "wta-pivotal, 4 bits"] {
        assert!(drawn.contains(part), "'{part}' is not in the figure");
    }
    stdout(&[few.as_slice(), &[text(&svg)]].concat());
    let drawn = fs::read_to_string(&svg).expect("a figure");
    for part in DESIGNS.iter().chain(&["exact weights", "stale weights", "input weights", "budget k/n"]) {
        assert!(drawn.contains(part), "'{part}' is not in the figure");
    }
    stdout(&[&few[..3], &["--budget", "0.3", "--bits", "4", "--plot", text(&png), &layer(), &layer()]].concat());
    let drawn = fs::read(&png).expect("a figure");
    assert!(drawn.starts_with(b"\x89PNG\r\n\x1a\n"));
    let size = |at: usize| u32::from_be_bytes(drawn[at..at + 4].try_into().expect("four bytes"));
    assert!(size(16) > 1000 && size(20) > 1000);
}

#[test]
fn arguments_that_are_refused() {
    let names = ["--design", "crs,best"];
    assert_refused(&names, &["'best'", "wta-pivotal"]);
    assert_refused(&["--weights", "exact,guess"], &["'guess'", "stale, exact, input"]);
    assert_refused(&["--weights", "predictor"], &["'predictor'", "stale, exact, input"]);
    assert_refused(&["--format", "xml"], &["'xml'", "json"]);
    for budget in ["0", "1.5", "-0.1", "nan", "many", "", "0.3,"] {
        assert_refused(&[&format!("--budget={budget}")], &["budget"]);
    }
    assert_refused(&["--budget", "5000"], &["minilm_l3_value_imdb_1024", "5000", "1024"]);
    assert_refused(&["--trials", "1"], &["'1'", "--trials"]);
    assert_refused(&["--colour"], &["--colour"]);
    assert_refused(&["--plot", "figure.pdf"], &["figure.pdf", ".svg or .png"]);
    assert_refused(&["--plot", "no/such/place/figure.svg"], &["no/such/place"]);
    assert_refused(&["--norm-key", "norms", &layer()], &["stale", "tensor 'norms'"]);
}

#[test]
fn files_that_are_refused() {
    assert_refused(&["nowhere.safetensors"], &["nowhere.safetensors"]);
    assert_refused(&[&layer(), "--h-key", "x"], &["minilm_l3", "'x'", "'dz'"]);
    let garbage = scratch("garbage.safetensors");
    fs::write(&garbage, [0xff; 64]).expect("a writable directory");
    assert_refused(&[text(&garbage)], &["garbage.safetensors: not a readable safetensors file"]);

    let write = |name: &str, dz: &[f32]| {
        let data: Vec<u8> = dz.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = |data| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 2], data);
        let h: Vec<u8> = 3e38_f32.to_le_bytes().repeat(4);
        let tensors = [("h", view(&h).expect("four numbers")), ("dz", view(&data).expect("four numbers"))];
        let path = scratch(name);
        fs::write(&path, safetensors::serialize(tensors, None).expect("valid tensors")).expect("a writable directory");
        path
    };
    let nan = write("nan.safetensors", &[1.0, 2.0, 3.0, f32::NAN]);
    assert_refused(&[text(&nan)], &["nan.safetensors: tensor 'dz' is NaN at row 1, column 1"]);
    let zero = write("zero.safetensors", &[0.0; 4]);
    assert_refused(&[text(&zero)], &["zero.safetensors: the exact dW is zero"]);
    let large = write("large.safetensors", &[2.0; 4]);
    assert_refused(&[text(&large)], &["large.safetensors: "]);
    let usual = write("usual.safetensors", &[1e-3; 4]);
    assert_refused(&[text(&usual), "--weights", "stale"], &["stale weights need tensor 'dz_norm_prev'"]);
}

/// Two tensors of a few bytes, and forty gigabytes that nobody asks for.
#[test]
fn only_the_named_tensors_are_read() {
    let huge = 40_u64 << 30;
    let header = format!(
        r#"{{"other":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{huge}]}},"h":{{"dtype":"F32","shape":[4,1],"data_offsets":[{huge},{}]}},"dz":{{"dtype":"F32","shape":[4,1],"data_offsets":[{},{}]}}}}"#,
        huge / 4,
        huge + 16,
        huge + 16,
        huge + 32
    );
    let path = scratch("huge.safetensors");
    let mut file = File::create(&path).expect("a writable directory");
    let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    file.write_all(&start).expect("a writable file");
    file.seek(SeekFrom::Start(start.len() as u64 + huge)).expect("a file with a gap");
    file.write_all(&[1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat().repeat(2)).expect("a file with a gap");
    let reports = json(&["--trials", "2", "--budget", "2", text(&path)]);
    assert_eq!(reports[0]["tokens"], 4);
    let too_large = &["--h-key", "other", text(&path)];
    assert_refused(too_large, &["huge.safetensors: tensor 'other' has shape [10737418240]: it must be tokens"]);
    fs::remove_file(&path).expect("a file");
}

#[test]
fn weights_that_training_has_come_first() {
    let order = |arguments: &[&str]| {
        let few = ["--trials", "2", "--budget", "0.3", "--design", "crs", "--bits", "native"];
        let reports = json(&[&few[..], arguments].concat());
        let results = reports[0]["results"].as_array().expect("an array").clone();
        results.iter().map(|result| result["weights"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order(&[]), ["stale", "exact"]);
    assert_eq!(order(&["--weights", "exact,stale,input"]), ["stale", "exact", "input"]);
    let tables = stdout(&["compare", "--trials", "2", "--budget", "0.3", "--design", "crs"]);
    assert!(tables.find("stale weights") < tables.find("exact weights"), "{tables}");
}

#[test]
fn errors_that_f32_cannot_show_are_refused() {
    let (tokens, columns) = (64, 6);
    let tiny = numbers(tokens * columns, 1e-23);
    let path = write("tiny.safetensors", (&tiny, columns), (&tiny, columns));
    assert_refused(&[text(&path)], &["tiny.safetensors: dW underflows f32", "Multiply dZ"]);
    // The same after the advice.
    let path = write("scaled.safetensors", (&tiny, columns), (&numbers(tokens * columns, 1.0), columns));
    let reports = json(&["--trials", "2", "--budget", "0.3", text(&path)]);
    for result in reports[0]["results"].as_array().expect("an array") {
        assert!(result["rel_error"].as_f64().expect("a number") > 0.01, "{result}");
    }

    // Each row of dZ is there twice, with opposite signs.
    let h: Vec<f32> = numbers(tokens / 2 * columns, 1.0).repeat(2);
    let mut dz = numbers(tokens / 2 * columns, 1.0);
    dz.extend(dz.clone().iter().map(|value| -value));
    let path = write("zero_sum.safetensors", (&h, columns), (&dz, columns));
    assert_refused(&[text(&path)], &["zero_sum.safetensors: "]);
    dz[0] += 1e-7;
    let path = write("cancelled.safetensors", (&h, columns), (&dz, columns));
    assert_refused(&[text(&path)], &["cancelled.safetensors: dW cancels to rounding", "add up to"]);
}

/// Every selection has the same estimate, up to rounding.
#[test]
fn an_error_of_rounding_has_no_bias() {
    let (tokens, columns) = (500, 4);
    let (h, dz) = (vec![0.3; tokens * columns], vec![0.7; tokens * columns]);
    let path = write("constant.safetensors", (&h, columns), (&dz, columns));
    let few = ["--trials", "20", "--budget", "0.3,33", "--bits", "native", text(&path)];
    let reports = json(&few);
    let results = reports[0]["results"].as_array().expect("an array");
    let unbiased: Vec<&Value> = results.iter().filter(|result| result["design"] != "top-k").collect();
    assert_eq!(unbiased.len(), 2 * (DESIGNS.len() - 1));
    for result in unbiased {
        assert_eq!((&result["rel_error"], &result["bias_ratio"]), (&serde_json::json!(0.0), &Value::Null), "{result}");
    }
    let biased = results.iter().find(|result| result["design"] == "top-k").expect("a result");
    assert!(biased["bias_ratio"].as_f64() > Some(8.0), "{biased}");
    let table = stdout(&[&["compare"], few.as_slice()].concat());
    let lines = table.lines().filter(|line| line.contains(" crs ") && line.contains("0.0 %"));
    assert_eq!(lines.filter(|line| line.matches('–').count() == 2).count(), 2, "{table}");
    let csv = stdout(&[&["compare", "--format", "csv"], few.as_slice()].concat());
    assert!(csv.lines().any(|line| line.contains(",crs,") && line.contains(",0,0,,,")), "{csv}");
}

#[test]
fn results_before_a_bad_file_are_printed() {
    let (good, bad) = (write("good.safetensors", (&numbers(40, 1.0), 2), (&numbers(20, 1.0), 1)), scratch("bad"));
    fs::write(&bad, [0xff; 64]).expect("a writable directory");
    let few = ["compare", "--trials", "2", "--budget", "5", "--design", "crs", "--bits", "native"];
    let (good, bad) = (text(&good), text(&bad));
    let run = |more: &[&str]| refused_after_results(&[&few, more].concat(), &["bad: not a readable safetensors file"]);
    let table = run(&[good, bad, good]);
    assert_eq!(table.matches("20 tokens, 2 → 1 features").count(), 1, "{table}");
    let reports: Value = serde_json::from_str(&run(&["--format", "json", good, good, bad])).expect("JSON");
    assert_eq!(reports.as_array().map(Vec::len), Some(2));
    assert_eq!(run(&["--format", "csv", good, bad]).lines().count(), 2);
    let figure = scratch("partial.svg");
    run(&["--plot", text(&figure), good, bad]);
    assert!(figure.exists());
    // A layer that is read, but not measured.
    let zero = write("zero_gradient.safetensors", (&[0.0; 20], 1), (&[1.0; 20], 1));
    let table = refused_after_results(&[&few[..], &[good, text(&zero)]].concat(), &["the exact dW is zero"]);
    assert!(table.contains("20 tokens"), "{table}");
}

#[test]
fn a_layer_from_standard_input() {
    let bytes = fs::read(write("input.safetensors", (&numbers(40, 1.0), 2), (&numbers(20, 1.0), 1))).expect("a file");
    let few = ["compare", "--trials", "2", "--budget", "5", "--format", "csv"];
    let run = |more: &[&str]| with_input(&[&few, more].concat(), &bytes);
    let output = run(&["-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nstandard input,20,2,1,exact,"));
    // The same pipe by its name.
    #[cfg(unix)]
    assert!(run(&["/dev/stdin"]).status.success());
    let message = |more: &[&str]| String::from_utf8(run(more).stderr).expect("UTF-8");
    assert_eq!(message(&["-", "-"]), "error: - stands for standard input, which can be read only once\n");
    assert!(message(&["h.npy", "-"]).contains("h.npy is a .npy file: exactly two of them form a layer"));
}

#[test]
fn a_reader_that_leaves_is_not_a_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wtacrs"))
        .args(["compare", "--trials", "2", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
