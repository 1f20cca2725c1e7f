//! Times what the norm predictor adds: a guess to the pass over H, and an update to each step. The targets are 10 % of
//! the pass and 2 % of the exact product.

use super::{Layer, SHAPES, TOKENS};
use criterion::Criterion;
use ndarray::Array2;
use std::cell::RefCell;
use std::hint::black_box;
use wtacrs_benches::{Case, ms, test_mode, time_quantiles};
use wtacrs_core::Randomness;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_core::product;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Selection};

/// Low, because all cases but the exact product take less than a millisecond.
const QUANTILE: f64 = 0.1;

/// KeptRows rows of H, with their norms of dZ and their scales.
struct KeptRows {
    rows: Array2<f32>,
    dz_norms: Vec<f32>,
    selection: Selection,
}

impl KeptRows {
    fn new(layer: &Layer, rows: usize) -> Self {
        let weights = layer.weights();
        let budget = weights.budget(Keep::Rows(rows)).expect("fits");
        let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(1, 0));
        let dz_norms = selection.indices().iter().map(|&i| layer.dz_norms[i as usize]).collect();
        Self { rows: product::gather(layer.h.view(), &selection).expect("fits"), dz_norms, selection }
    }

    fn teach(&self, predictor: &mut NormPredictor) {
        predictor.update(self.rows.view(), &self.dz_norms, self.selection.scales(), None).expect("valid");
    }
}

fn trained_predictor(layer: &Layer, kept: &KeptRows) -> NormPredictor {
    let mut predictor = NormPredictor::new(layer.h.ncols(), PredictorSettings::default()).expect("valid");
    kept.teach(&mut predictor);
    predictor
}

pub(crate) fn criterion_groups(criterion: &mut Criterion) {
    for shape in SHAPES {
        let layer = Layer::new(shape, |v| v);
        let (few, many) = (KeptRows::new(&layer, 512), KeptRows::new(&layer, 1229));
        let predictor = trained_predictor(&layer, &few);
        let mut updated = predictor.clone();
        let mut dw = layer.dw();
        let mut group = criterion.benchmark_group(format!("norm predictor/{TOKENS}x{}->{}", shape.0, shape.1));
        group.sample_size(20);
        group.bench_function("norms", |bencher| bencher.iter(|| product::row_norms(layer.h.view())));
        group.bench_function("norms and guess", |bencher| bencher.iter(|| predictor.guess(layer.h.view(), None)));
        group.bench_function("update, 512 kept rows", |bencher| bencher.iter(|| few.teach(&mut updated)));
        group.bench_function("update, 1229 kept rows", |bencher| bencher.iter(|| many.teach(&mut updated)));
        group.bench_function("exact", |bencher| bencher.iter(|| layer.exact(&mut dw)));
        group.finish();
    }
}

pub(crate) fn print_ratios() {
    let PredictorSettings { features, rows_per_update, .. } = PredictorSettings::default();
    println!("\nThe norm predictor, {features} features, updated from at most {rows_per_update} kept rows a step\n");
    println!(
        "| layer | norms ms | guess and norms / norms | the same, H from memory | target | update / exact | target | update of 1229 kept rows / of 512 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for shape in SHAPES {
        let layer = Layer::new(shape, |v| v);
        let (few, many) = (KeptRows::new(&layer, 512), KeptRows::new(&layer, 1229));
        let predictor = trained_predictor(&layer, &few);
        let [norms, guess] = pass_times_in_cache(&layer, &predictor);
        let [norms_from_memory, guess_from_memory] = pass_times_from_memory(&layer, &predictor);
        let mut updated = [predictor.clone(), predictor];
        let [of_few, of_many] = &mut updated;
        let mut dw = layer.dw();
        let mut cases = [
            Case::new("exact", || layer.exact(&mut dw)),
            Case::new("update", || few.teach(of_few)),
            Case::new("update, more rows", || many.teach(of_many)),
        ];
        let t = time_quantiles(&mut cases, rounds(41), QUANTILE).into_iter().map(ms).collect::<Vec<f64>>();
        println!(
            "| {}→{} | {norms:.3} | **{:.3}** | **{:.3}** | 1.10 | **{:.3}** | 0.02 | {:.2} |",
            shape.0,
            shape.1,
            guess / norms,
            guess_from_memory / norms_from_memory,
            t[1] / t[0],
            t[2] / t[1],
        );
    }
}

/// The milliseconds that norms alone, and norms and guess, take for an H that was just written, as by the previous layer:
/// the cache contains as much of it as fits.
fn pass_times_in_cache(layer: &Layer, predictor: &NormPredictor) -> [f64; 2] {
    let h = RefCell::new(layer.h.clone());
    let write = || h.borrow_mut().assign(&layer.h);
    let mut cases = [
        Case::new("write H", write),
        Case::new("norms", || {
            black_box(product::row_norms(h.borrow().view()));
        }),
        Case::new("write H", write),
        Case::new("norms and guess", || {
            black_box(predictor.guess(h.borrow().view(), None).expect("fits"));
        }),
    ];
    let times = time_quantiles(&mut cases, rounds(401), QUANTILE);
    [ms(times[1]), ms(times[3])]
}

/// The same for matrices that are read in turn, so many that each has left the cache before it is read again.
fn pass_times_from_memory(layer: &Layer, predictor: &NormPredictor) -> [f64; 2] {
    let count = (1_usize << 28).div_ceil(size_of::<f32>() * layer.h.len());
    let matrices = vec![layer.h.clone(); if test_mode() { 2 } else { count }];
    let mut in_turn = matrices.iter().cycle();
    let turns = RefCell::new(&mut in_turn);
    let next = || turns.borrow_mut().next().expect("a cycle has no end").view();
    let mut cases = [
        Case::new("norms", || {
            black_box(product::row_norms(next()));
        }),
        Case::new("norms and guess", || {
            black_box(predictor.guess(next(), None).expect("fits"));
        }),
    ];
    let times = time_quantiles(&mut cases, rounds(401), QUANTILE);
    [ms(times[0]), ms(times[1])]
}

fn rounds(many: usize) -> usize {
    if test_mode() { 1 } else { many }
}
