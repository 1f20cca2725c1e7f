//! The whole estimate of dW on a GPU beside cuBLAS's exact product, in bf16: the times of each step by events on the
//! device, and a table of ratios from one run.
//!
//! `cargo bench -p wtacrs-benches --bench gpu` prints criterion's times and then the table. Without a GPU, or without
//! cuBLAS, it says so in one line.

mod blas;
mod device;
mod layer;

use blas::Blas;
use criterion::{BenchmarkId, Criterion};
use device::Gpu;
use layer::{Layer, Step};
use std::time::Duration;
use wtacrs_benches::{ms, test_mode};
use wtacrs_kernels::launch::driver::Driver;

const TOKENS: [usize; 3] = [4096, 16384, 65536];
const SHAPES: [(usize, usize); 4] = [(1024, 1024), (1024, 4096), (4096, 4096), (4096, 16384)];
const FRACTIONS: [f64; 2] = [0.1, 0.3];
/// Runs between two events, which take time themselves.
const REPEATED: u32 = 8;

/// All cases, or the smallest if they are only to be run once.
fn cases() -> Vec<([usize; 3], f64)> {
    let all = TOKENS.into_iter().flat_map(|tokens| {
        SHAPES.into_iter().flat_map(move |(inputs, outputs)| FRACTIONS.map(|k| ([tokens, inputs, outputs], k)))
    });
    all.take(if test_mode() { 1 } else { usize::MAX }).collect()
}

fn criterion_groups(criterion: &mut Criterion, gpu: &Gpu, blas: &Blas) {
    for (sizes @ [tokens, inputs, outputs], fraction) in cases() {
        let mut group = criterion.benchmark_group(format!("gpu/{tokens}x{inputs}->{outputs}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let mut layer = Layer::new(gpu, blas, sizes, fraction);
        // Once, for the kept rows that others multiply.
        gpu.time(|| layer.estimate());
        type Run<'a> = fn(&mut Layer<'a>);
        let runs: [(&str, Run<'_>); 3] = [
            ("exact, cuBLAS", Layer::exact),
            ("gather and cuBLAS", Layer::gather_and_blas),
            ("estimate", Layer::estimate),
        ];
        for (name, run) in runs {
            group.bench_function(BenchmarkId::new(name, fraction), |bencher| {
                bencher.iter_custom(|count| gpu.time(|| (0..count).for_each(|_| run(&mut layer))));
            });
        }
        group.finish();
    }
}

/// One thing to time.
enum Timed {
    Exact,
    GatherAndBlas,
    BlasOfKeptRows,
    Estimate,
    Step(Step),
    /// A copy of as many bytes as the step moves.
    CopyFor(Step),
}

/// Median times, each thing in turn, round after round.
fn interleaved(gpu: &Gpu, layer: &mut Layer<'_>, timed: &[Timed]) -> Vec<f64> {
    let rounds = if test_mode() { 1 } else { 21 };
    let mut times = vec![Vec::with_capacity(rounds); timed.len()];
    for round in 0..=rounds {
        for (timed, times) in timed.iter().zip(&mut times) {
            let enqueue = |layer: &mut Layer<'_>| match timed {
                Timed::Exact => layer.exact(),
                Timed::GatherAndBlas => layer.gather_and_blas(),
                Timed::BlasOfKeptRows => layer.blas_of_kept_rows(),
                Timed::Estimate => layer.estimate(),
                Timed::Step(step) => layer.step(*step),
                Timed::CopyFor(step) => layer.copy(layer.traffic(*step)),
            };
            let time = gpu.time(|| (0..REPEATED).for_each(|_| enqueue(layer)));
            if round > 0 {
                times.push(time / REPEATED);
            }
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_unstable();
            ms(times[times.len() / 2])
        })
        .collect()
}

fn ratios(gpu: &Gpu, blas: &Blas) {
    let device = gpu.driver.device();
    println!("\n{}, {} multiprocessors, bf16\n", device.name, device.multiprocessors);
    println!(
        "| tokens | layer | k/n | exact ms | gather and cuBLAS / exact | exact / estimate | target | cuBLAS on k rows / product | target | copy / norms H | copy / gather | copy / norms dZ | target | select µs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (sizes @ [tokens, inputs, outputs], fraction) in cases() {
        let mut layer = Layer::new(gpu, blas, sizes, fraction);
        gpu.time(|| layer.estimate());
        let timed = [
            Timed::Exact,
            Timed::GatherAndBlas,
            Timed::Estimate,
            Timed::BlasOfKeptRows,
            Timed::Step(Step::Product),
            Timed::CopyFor(Step::NormsOfH),
            Timed::Step(Step::NormsOfH),
            Timed::CopyFor(Step::Gather),
            Timed::Step(Step::Gather),
            Timed::CopyFor(Step::NormsOfDz),
            Timed::Step(Step::NormsOfDz),
            Timed::Step(Step::Select),
        ];
        let t = interleaved(gpu, &mut layer, &timed);
        let target = if fraction < 0.2 { 3.5 } else { 1.7 };
        println!(
            "| {tokens} | {inputs}→{outputs} | {fraction} | {:.3} | {:.3} | **{:.2}** | {target} | **{:.2}** | 0.55 | {:.2} | {:.2} | {:.2} | 0.85 | {:.1} |",
            t[0],
            t[1] / t[0],
            t[0] / t[2],
            t[3] / t[4],
            t[5] / t[6],
            t[7] / t[8],
            t[9] / t[10],
            t[11] * 1e3,
        );
    }
}

fn main() {
    let driver = match Driver::open(0) {
        Ok(driver) => driver,
        Err(error) => return println!("no GPU benches: {error}"),
    };
    let gpu = Gpu::new(driver);
    let Some(blas) = Blas::on(gpu.stream()) else {
        return println!("no GPU benches: there is no cuBLAS to measure against (libcublas.so; see LD_LIBRARY_PATH)");
    };
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&mut criterion, &gpu, &blas);
    criterion.final_summary();
    ratios(&gpu, &blas);
}
