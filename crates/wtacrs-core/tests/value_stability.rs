//! Selections and codes must never change unnoticed. testdata/vectors/selections.json holds, for every design, weights and a
//! (seed, offset) with the indices and scales that follow; packing.json holds rows with their codes, grids and what they are
//! read back as; operators.json what operators save of an array, and y and dX in the bits of f32. Clients in other languages run
//! the same files.
//!
//! A change of drawn values is a release category of its own. To make it, run
//! `WTACRS_BLESS=1 cargo test -p wtacrs-core --test value_stability are_what_they_were`, and say so in the
//! changelog.

mod support;

use serde::{Deserialize, Serialize};
use wtacrs_core::Randomness;
use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator};
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::PhiloxChance;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Selection, Weights};
use wtacrs_exact::packing::{Bits, Groups, PackingBits, pack_row, unpack_row};

#[derive(Serialize, Deserialize)]
struct Vectors {
    format: u32,
    note: String,
    problems: Vec<Problem>,
}

/// Weights are f32 values, written exactly.
#[derive(Serialize, Deserialize)]
struct Problem {
    name: String,
    weights: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Serialize, Deserialize)]
struct Case {
    design: String,
    budget: usize,
    seed: u64,
    offset: u64,
    stream: u32,
    winners: usize,
    indices: Vec<u32>,
    scales: Vec<f64>,
}

const FILE: &str = "vectors/selections.json";

fn select(weights: &Weights, case: &Case) -> Selection {
    let design: BuiltIn = case.design.parse().expect("a design");
    let budget = weights.budget(Keep::Rows(case.budget)).expect("fits");
    design.select(weights, budget, &mut PhiloxChance::with_stream(Randomness::new(case.seed, case.offset), case.stream))
}

fn problems() -> Vec<(&'static str, Vec<f32>)> {
    let layer = support::layer("minilm_l3_value_imdb_1024");
    let norms = |x: &ndarray::Array2<f32>| wtacrs_core::product::row_norms(x.view());
    let real: Vec<f32> = norms(&layer.h).iter().zip(norms(&layer.dz)).map(|(h, dz)| h * dz).take(301).collect();
    vec![
        ("one pair", vec![2.5]),
        ("two pairs", vec![1.0, 3.0]),
        ("ties", vec![1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0]),
        ("zeros", vec![0.0, 1.0, 0.0, 2.0, 0.0, 0.5, 0.0, 1.5]),
        ("all equal", vec![0.1; 16]),
        ("all zero", vec![0.0; 7]),
        ("one giant", vec![1.0, 2.0, 1e30, 0.5, 1.0, 3.0, 2.0, 1.0, 1.0, 0.25]),
        ("huge range", (0..33).map(|i| 10_f32.powi((i * 7) % 60 - 30)).collect()),
        ("f32 extremes", vec![f32::MAX, f32::MIN_POSITIVE, 1e-45, 1.0, f32::MAX, f32::MAX / 2.0]),
        ("real tokens", real),
    ]
}

fn make() -> Vectors {
    let problems = problems()
        .into_iter()
        .map(|(name, values)| {
            let weights = Weights::new(&values).expect("valid");
            let n = values.len();
            let mut budgets = vec![1, n.div_ceil(10), (3 * n).div_ceil(10), n / 2 + 1, n];
            budgets.retain(|&k| k <= n);
            budgets.dedup();
            let mut cases = vec![];
            for design in BuiltIn::ALL {
                for (at, &budget) in budgets.iter().enumerate() {
                    let (seed, offset) = (0x0001_2345_6789_abcd + at as u64, [0, 1000, (1 << 52) + 1][at % 3]);
                    let mut case = Case {
                        design: design.name().to_owned(),
                        budget,
                        seed,
                        offset,
                        stream: (at % 2) as u32 * 7,
                        winners: 0,
                        indices: vec![],
                        scales: vec![],
                    };
                    let selection = select(&weights, &case);
                    case.winners = selection.winners();
                    case.indices = selection.indices().to_vec();
                    case.scales = selection.scales().to_vec();
                    cases.push(case);
                }
            }
            Problem { name: name.to_owned(), weights: values, cases }
        })
        .collect();
    let note = "weights are f32; scales are f64, written with the fewest digits that read back to the same value";
    Vectors { format: 1, note: note.to_owned(), problems }
}

#[test]
fn selections_are_what_they_were() {
    let path = support::testdata(FILE);
    if std::env::var_os("WTACRS_BLESS").is_some_and(|v| v == "1") {
        let vectors = make();
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("testdata can be written");
        let text = serde_json::to_string(&vectors).expect("serialises").replace("{\"design\"", "\n{\"design\"");
        std::fs::write(&path, text + "\n").expect("testdata can be written");
    }
    let vectors: Vectors = serde_json::from_str(&std::fs::read_to_string(&path).expect("the vectors")).expect("JSON");
    assert_eq!(vectors.format, 1);
    let mut designs = std::collections::BTreeSet::new();
    for problem in &vectors.problems {
        let weights = Weights::new(&problem.weights).expect("valid");
        for case in &problem.cases {
            let found = select(&weights, case);
            let name = format!("{}, {}, k = {}", problem.name, case.design, case.budget);
            assert_eq!(found.indices(), case.indices, "{name}");
            assert_eq!(found.scales(), case.scales, "{name}");
            assert_eq!(found.winners(), case.winners, "{name}");
            designs.insert(&case.design);
        }
    }
    assert_eq!(designs.len(), BuiltIn::ALL.len(), "every design has vectors");
}

/// The file covers today's problems and cases, so that it cannot have lost some.
#[test]
fn the_file_is_complete() {
    let text = std::fs::read_to_string(support::testdata(FILE)).expect("the vectors");
    let found: Vectors = serde_json::from_str(&text).expect("JSON");
    let expected = make();
    assert_eq!(expected.problems.len(), found.problems.len());
    for (expected, found) in expected.problems.iter().zip(&found.problems) {
        assert_eq!((&expected.name, &expected.weights), (&found.name, &found.weights));
        let of = |case: &Case| (case.design.clone(), case.budget, case.seed, case.offset, case.stream);
        let cases = |problem: &Problem| problem.cases.iter().map(of).collect::<Vec<_>>();
        assert_eq!(cases(expected), cases(found), "{}", found.name);
    }
}

#[derive(Serialize, Deserialize)]
struct PackedVectors {
    format: u32,
    note: String,
    rows: Vec<PackedRow>,
}

/// One row, packed. Words and the bits of f32 numbers are written as integers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct PackedRow {
    name: String,
    bits: u32,
    seed: u64,
    offset: u64,
    stream: u32,
    index: u64,
    row: Vec<f32>,
    codes: Vec<u32>,
    grids: Vec<u32>,
    rotated: Vec<u32>,
}

const PACKED_FILE: &str = "vectors/packing.json";

fn pack_all() -> PackedVectors {
    let layer = support::layer("minilm_l3_value_imdb_1024");
    let plain = |j: usize| ((j * 37) % 101) as f32 / 50.0 - 1.0;
    let rows: Vec<(&str, Vec<f32>)> = vec![
        ("one element", vec![-2.5]),
        ("narrow", (0..19).map(plain).collect()),
        ("zeros", vec![0.0; 16]),
        ("negative zeros", (0..20).map(|j| if j % 2 == 0 { -0.0 } else { 0.0 }).collect()),
        ("constant", vec![0.3; 40]),
        ("outlier", (0..130).map(|j| if j == 77 { 1e6 } else { plain(j) }).collect()),
        ("extremes", (0..64).map(|j| [f32::MAX, f32::MIN, 1e-45, -f32::MIN_POSITIVE][j % 4]).collect()),
        ("tiny", (0..33).map(|j| plain(j) * 1e-33).collect()),
        ("real token", layer.h.row(17).to_vec()),
    ];
    let mut packed = vec![];
    for (at, (name, row)) in rows.into_iter().enumerate() {
        for bits in [Bits::Bits8, Bits::Bits4, Bits::Bits2] {
            let (seed, offset) = (0x0001_2345_6789_abcd + at as u64, [0, 1000, u64::MAX - 3][at % 3]);
            let (stream, index) = ((at % 2) as u32 * 7, at as u64 * 5);
            let random = PackingBits::new(Randomness::new(seed, offset), stream);
            let groups = Groups::new(row.len());
            let (mut codes, mut grids) = (vec![0; groups.words(bits)], vec![0; groups.count()]);
            pack_row(&row, bits, &random, index, &mut codes, &mut grids).expect("finite");
            let mut rotated = vec![0.0; groups.padded()];
            unpack_row(row.len(), bits, &random, index, &codes, &grids, &mut rotated);
            let rotated = rotated.into_iter().map(f32::to_bits).collect();
            let (name, bits, row) = (name.to_owned(), bits.count(), row.clone());
            packed.push(PackedRow { name, bits, seed, offset, stream, index, row, codes, grids, rotated });
        }
    }
    let note = "rotated: the bits of the f32 values that codes are read back as, before the rotation is turned back";
    PackedVectors { format: 1, note: note.to_owned(), rows: packed }
}

#[test]
fn codes_are_what_they_were() {
    let path = support::testdata(PACKED_FILE);
    let expected = pack_all();
    if std::env::var_os("WTACRS_BLESS").is_some_and(|v| v == "1") {
        let text = serde_json::to_string(&expected).expect("serialises").replace("{\"name\"", "\n{\"name\"");
        std::fs::write(&path, text + "\n").expect("testdata can be written");
    }
    let found: PackedVectors =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("the vectors")).expect("JSON");
    assert_eq!(found.format, 1);
    assert_eq!(found.rows, expected.rows);
}

#[derive(Debug, Serialize, Deserialize)]
struct OperatorVectors {
    format: u32,
    note: String,
    cases: Vec<OperatorCase>,
}

/// Both passes of one operator. dY is x.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OperatorCase {
    operation: String,
    gated: bool,
    packing: String,
    dropout: f64,
    seed: u64,
    offset: u64,
    columns: usize,
    x: Vec<f32>,
    saved: Vec<u32>,
    y: Vec<u32>,
    dx: Vec<u32>,
}

const OPERATOR_FILE: &str = "vectors/operators.json";

fn run_operators() -> OperatorVectors {
    let (columns, mut cases) = (37, vec![]);
    let shape = [2, columns];
    let x: Vec<f32> = (0..2 * columns).map(|j| ((j * 37) % 101) as f32 / 16.0 - 3.0).collect();
    for (at, operation) in Operation::ALL.into_iter().enumerate() {
        for (gated, packing) in [false, true].into_iter().flat_map(|gated| Packing::ALL.map(|packing| (gated, packing)))
        {
            let dropout = if at % 2 == 1 { 0.25 } else { 0.0 };
            let operator = Operator::new(operation).with_packing(packing).with_dropout(dropout).expect("a probability");
            let operator = if gated { operator.gated() } else { Ok(operator) };
            let Some(operator) = operator.ok().filter(|operator| operator.check().is_ok()) else { continue };
            let (seed, offset) = (0x0001_2345_6789_abcd + at as u64, [0, 1000, u64::MAX - 3][at % 3]);
            let randomness = Randomness::new(seed, offset);
            let (mut saved, mut y, mut dx) = (vec![0; operator.saved_words(shape)], x.clone(), x.clone());
            let gate = gated.then_some(&x[..]);
            let forward = Forward { gate, ..Forward::new(InOut::Apart { from: &x, to: &mut y }) };
            operator.forward(shape, forward, randomness, &mut saved).expect("it fits");
            let (keeps, mut dgate) = (operator.keeps(), x.clone());
            let backward = Backward {
                x: keeps.input.then_some(&x[..]),
                gate: keeps.gate.then_some(&x[..]),
                y: keeps.output.then_some(&y[..]),
                dgate: gated.then_some(&mut dgate[..]),
                ..Backward::new(InOut::InPlace(&mut dx))
            };
            operator.backward(shape, backward, randomness, &saved).expect("it fits");
            let [y, dx] = [y, dx].map(|array| array.into_iter().map(f32::to_bits).collect());
            let (operation, packing, x) = (format!("{operation:?}"), packing.to_string(), x.clone());
            cases.push(OperatorCase { operation, gated, packing, dropout, seed, offset, columns, x, saved, y, dx });
        }
    }
    let note = "y, dx: the bits of f32 values; the gate and dY are x; saved: codes, codes of the second array, grids of both, \
                numbers of the rows";
    OperatorVectors { format: 1, note: note.to_owned(), cases }
}

#[test]
fn saved_operators_are_what_they_were() {
    let path = support::testdata(OPERATOR_FILE);
    let expected = run_operators();
    if std::env::var_os("WTACRS_BLESS").is_some_and(|v| v == "1") {
        let text = serde_json::to_string(&expected).expect("serialises").replace("{\"operation\"", "\n{\"operation\"");
        std::fs::write(&path, text + "\n").expect("testdata can be written");
    }
    let found: OperatorVectors =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("the vectors")).expect("JSON");
    assert_eq!(found.format, 1);
    assert_eq!(found.cases, expected.cases);
}
