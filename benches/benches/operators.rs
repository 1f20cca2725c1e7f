//! What stands between the products: forward and backward pass of each operator, beside plain exact code that keeps its operands
//! as frameworks do, and beside a copy of what both passes read and write.
//!
//! The plain code is what one writes first: loops over chunks on all cores, with the functions of the standard library and of
//! libm. Its dropout takes one number of a small generator for each element, and keeps a mask in f32.

use criterion::{BenchmarkId, Criterion, criterion_group};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg32;
use rayon::prelude::*;
use std::hint::black_box;
use wtacrs_benches::{Case, median_times, ms, test_mode};
use wtacrs_core::Randomness;
use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator};
use wtacrs_core::product::Packing;

/// The feed-forward part of a BERT layer: 16 sentences of 128 tokens.
const SHAPE: [usize; 2] = [2048, 3072];
const SIZE: usize = SHAPE[0] * SHAPE[1];
const DROPOUT: f64 = 0.1;

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    operation: Operation,
    gated: bool,
    dropout: bool,
}

const KINDS: [Kind; 8] = [
    Kind { name: "ReLU", operation: Operation::Relu, gated: false, dropout: false },
    Kind { name: "GELU", operation: Operation::Gelu, gated: false, dropout: false },
    Kind { name: "SiLU", operation: Operation::Silu, gated: false, dropout: false },
    Kind { name: "SwiGLU", operation: Operation::Silu, gated: true, dropout: false },
    Kind { name: "dropout", operation: Operation::Identity, gated: false, dropout: true },
    Kind { name: "softmax", operation: Operation::Softmax, gated: false, dropout: false },
    Kind { name: "LayerNorm", operation: Operation::LayerNorm, gated: false, dropout: false },
    Kind { name: "RMSNorm", operation: Operation::RmsNorm, gated: false, dropout: false },
];

/// Arrays of one operator's passes.
struct Arrays {
    x: Vec<f32>,
    gate: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dgate: Vec<f32>,
    /// A mask, or what else plain code keeps beside its operands.
    kept: Vec<f32>,
    weight: Vec<f32>,
    dweight: Vec<f32>,
    dbias: Vec<f32>,
}

impl Arrays {
    fn new() -> Self {
        let numbers = |seed: usize| (0..SIZE).map(|i| ((i * 37 + seed) % 1001) as f32 / 200.0 - 2.5).collect();
        let [x, gate, dy] = [1, 2, 3].map(numbers);
        let zeros = || vec![0.0; SIZE];
        let columns = || vec![1.0; SHAPE[1]];
        let (y, dx, dgate, kept) = (zeros(), zeros(), zeros(), zeros());
        Self { x, gate, dy, y, dx, dgate, kept, weight: columns(), dweight: columns(), dbias: columns() }
    }
}

fn operator(kind: Kind, packing: Packing) -> Operator {
    // Dropout alone keeps nothing, however it is packed.
    let packing = if kind.dropout { Packing::Native } else { packing };
    let operator = Operator::new(kind.operation).with_packing(packing);
    let operator = if kind.gated { operator.gated().expect("an activation function") } else { operator };
    operator.with_dropout(if kind.dropout { DROPOUT } else { 0.0 }).expect("a probability")
}

fn passes(kind: Kind, operator: &Operator, a: &mut Arrays, saved: &mut [u32]) {
    let randomness = Randomness::new(1, 2);
    let (is_norm, has_bias) = (kind.operation.is_norm(), kind.operation == Operation::LayerNorm);
    let weight = is_norm.then_some(&a.weight[..]);
    let forward = Forward {
        x: InOut::Apart { from: &a.x, to: &mut a.y },
        gate: kind.gated.then_some(&a.gate),
        weight,
        bias: has_bias.then_some(&a.weight),
    };
    operator.forward(SHAPE, forward, randomness, saved).expect("it fits");
    let keeps = operator.keeps();
    let backward = Backward {
        dy: InOut::Apart { from: &a.dy, to: &mut a.dx },
        x: keeps.input.then_some(&a.x),
        gate: keeps.gate.then_some(&a.gate),
        y: keeps.output.then_some(&a.y),
        weight,
        dgate: kind.gated.then_some(&mut a.dgate),
        dweight: is_norm.then_some(&mut a.dweight),
        dbias: has_bias.then_some(&mut a.dbias),
    };
    operator.backward(SHAPE, backward, randomness, saved).expect("it fits");
}

/// Both passes in plain code.
fn plain(kind: Kind, a: &mut Arrays) {
    let columns = SHAPE[1];
    match kind.operation {
        Operation::Identity => {
            a.kept.par_chunks_mut(columns).enumerate().for_each(|(row, mask)| {
                let mut rng = Pcg32::seed_from_u64(row as u64);
                let scale = (1.0 / (1.0 - DROPOUT)) as f32;
                mask.iter_mut().for_each(|m| *m = if rng.random::<f32>() < DROPOUT as f32 { 0.0 } else { scale });
            });
            each(&mut a.y, [&a.x, &a.kept, &a.x], |[x, mask, _]| x * mask);
            each(&mut a.dx, [&a.dy, &a.kept, &a.x], |[dy, mask, _]| dy * mask);
        }
        Operation::Softmax => {
            a.y.par_chunks_mut(columns).zip(a.x.par_chunks(columns)).for_each(|(y, x)| {
                let largest = x.iter().copied().fold(f32::MIN, f32::max);
                y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - largest).exp());
                let inverse = 1.0 / y.iter().sum::<f32>();
                y.iter_mut().for_each(|y| *y *= inverse);
            });
            let rows = a.y.par_chunks(columns).zip(a.dy.par_chunks(columns));
            a.dx.par_chunks_mut(columns).zip(rows).for_each(|(dx, (y, dy))| {
                let mean: f32 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
                dx.iter_mut().zip(y.iter().zip(dy)).for_each(|(dx, (y, dy))| *dx = y * (dy - mean));
            });
        }
        Operation::LayerNorm | Operation::RmsNorm => plain_norm(kind.operation == Operation::LayerNorm, a),
        operation => {
            let value = |x: f32| match operation {
                Operation::Relu => x.max(0.0),
                Operation::Gelu => x * 0.5 * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2)),
                _ => x / (1.0 + (-x).exp()),
            };
            let slope = |x: f32| match operation {
                Operation::Relu => f32::from(u8::from(x > 0.0)),
                Operation::Gelu => {
                    let below = 0.5 * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2));
                    below + x * 0.398_942_3 * (-0.5 * x * x).exp()
                }
                _ => {
                    let s = 1.0 / (1.0 + (-x).exp());
                    s * (1.0 + x * (1.0 - s))
                }
            };
            if kind.gated {
                each(&mut a.kept, [&a.x, &a.x, &a.x], |[x, ..]| value(x));
                each(&mut a.y, [&a.kept, &a.gate, &a.x], |[value, gate, _]| value * gate);
                each(&mut a.dgate, [&a.dy, &a.kept, &a.x], |[dy, value, _]| dy * value);
                each(&mut a.dx, [&a.dy, &a.gate, &a.x], |[dy, gate, x]| dy * gate * slope(x));
            } else {
                each(&mut a.y, [&a.x, &a.x, &a.x], |[x, ..]| value(x));
                each(&mut a.dx, [&a.dy, &a.x, &a.x], |[dy, x, _]| dy * slope(x));
            }
        }
    }
}

fn plain_norm(has_mean: bool, a: &mut Arrays) {
    let (columns, count) = (SHAPE[1], SHAPE[1] as f32);
    let statistics = |x: &[f32]| {
        let mean = if has_mean { x.iter().sum::<f32>() / count } else { 0.0 };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count;
        (mean, 1.0 / (variance + 1e-5).sqrt())
    };
    a.y.par_chunks_mut(columns).zip(a.x.par_chunks(columns)).for_each(|(y, x)| {
        let (mean, inverse) = statistics(x);
        for ((y, x), weight) in y.iter_mut().zip(x).zip(&a.weight) {
            *y = (x - mean) * inverse * weight;
        }
    });
    let weight = &a.weight;
    let rows = a.x.par_chunks(columns).zip(a.dy.par_chunks(columns));
    let sums = a.dx.par_chunks_mut(columns).zip(rows).fold(
        || [vec![0.0; columns], vec![0.0; columns]],
        |mut sums, (dx, (x, dy))| {
            let (mean, inverse) = statistics(x);
            let mut along = 0.0;
            let mut of_mean = 0.0;
            for j in 0..columns {
                let normal = (x[j] - mean) * inverse;
                sums[0][j] += dy[j] * normal;
                sums[1][j] += dy[j];
                along += dy[j] * weight[j] * normal;
                of_mean += dy[j] * weight[j];
            }
            let of_mean = if has_mean { of_mean / count } else { 0.0 };
            for j in 0..columns {
                let normal = (x[j] - mean) * inverse;
                dx[j] = inverse * (dy[j] * weight[j] - of_mean - normal * along / count);
            }
            sums
        },
    );
    let add = |mut a: [Vec<f32>; 2], b: [Vec<f32>; 2]| {
        for (a, b) in a.iter_mut().zip(&b) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
        a
    };
    let [dweight, dbias] = sums.reduce(|| [vec![0.0; columns], vec![0.0; columns]], add);
    (a.dweight, a.dbias) = (dweight, dbias);
}

/// to = of(from), on all cores.
fn each(to: &mut [f32], from: [&[f32]; 3], of: impl Fn([f32; 3]) -> f32 + Sync) {
    let chunk = 1 << 16;
    to.par_chunks_mut(chunk).enumerate().for_each(|(at, to)| {
        let from = from.map(|from| &from[at * chunk..][..to.len()]);
        for (i, to) in to.iter_mut().enumerate() {
            *to = of([from[0][i], from[1][i], from[2][i]]);
        }
    });
}

/// Copies as many bytes as both passes read and write at least: x → y and dY → dX, with a gate two and three arrays.
fn copy(kind: Kind, a: &mut Arrays) {
    let chunk = 1 << 16;
    let copied = |to: &mut [f32], from: &[f32]| {
        to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
    };
    copied(&mut a.y, &a.x);
    copied(&mut a.dx, &a.dy);
    if kind.gated {
        copied(&mut a.dgate, &a.gate);
    }
}

fn operators(criterion: &mut Criterion) {
    for kind in KINDS {
        let mut group = criterion.benchmark_group(format!("operators/{}", kind.name));
        group.sample_size(10);
        let mut arrays = Arrays::new();
        group.bench_function("copy", |bencher| bencher.iter(|| copy(kind, &mut arrays)));
        group.bench_function("plain", |bencher| bencher.iter(|| plain(kind, &mut arrays)));
        for packing in [Packing::Native, Packing::Bits8, Packing::Bits4] {
            let operator = operator(kind, packing);
            let mut saved = vec![0; operator.saved_words(SHAPE)];
            group.bench_function(BenchmarkId::from_parameter(packing), |bencher| {
                bencher.iter(|| passes(kind, &operator, &mut arrays, black_box(&mut saved)));
            });
        }
        group.finish();
    }
}

fn print_ratios() {
    let rounds = if test_mode() { 1 } else { 31 };
    println!("\noperators, {} × {} in f32, {} threads\n", SHAPE[0], SHAPE[1], rayon::current_num_threads());
    println!(
        "| operator | copy ms | plain / copy | native / plain | 8 bits / plain | 4 bits / plain | 8 bits / copy | bytes kept, 8 bits |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for kind in KINDS {
        let operators = [Packing::Native, Packing::Bits8, Packing::Bits4].map(|packing| operator(kind, packing));
        let mut saved = operators.map(|operator| vec![0; operator.saved_words(SHAPE)]);
        let kept = 4.0 * saved[1].len() as f64 / (4 * SIZE) as f64;
        let [native, bits8, bits4] = &mut saved;
        let mut arrays: [Arrays; 5] = std::array::from_fn(|_| Arrays::new());
        let [a, b, c, d, e] = &mut arrays;
        let mut cases = [
            Case::new("copy", || copy(kind, a)),
            Case::new("plain", || plain(kind, b)),
            Case::new("native", || passes(kind, &operators[0], c, native)),
            Case::new("8 bits", || passes(kind, &operators[1], d, bits8)),
            Case::new("4 bits", || passes(kind, &operators[2], e, bits4)),
        ];
        let times: Vec<f64> = median_times(&mut cases, rounds).into_iter().map(ms).collect();
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | **{:.2}** | {:.2} | {:.2} | {kept:.3} |",
            kind.name,
            times[0],
            times[1] / times[0],
            times[2] / times[1],
            times[3] / times[1],
            times[4] / times[1],
            times[3] / times[0],
        );
    }
}

criterion_group!(benches, operators);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    print_ratios();
}
