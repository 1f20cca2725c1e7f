//! Times the whole estimate of dW on a GPU against the exact products of cuBLAS and cuBLASLt, bf16 in and f32 out, by
//! events on the device.
//!
//! `cargo bench -p wtacrs-benches --bench gpu` prints criterion's times, then a table of ratios and one of each step's
//! milliseconds, both from one run. Matrices, kept rows and the targets of copies change from run to run, for the peers as
//! for this library, so they are in the L2 cache only where training would find them there. Without cuBLAS, only this
//! library's times are printed. Without a GPU, one line says so.

mod blas;
mod device;
mod guesses;
mod layer;

use blas::Peer;
use criterion::{BenchmarkId, Criterion};
use device::Gpu;
use layer::{Layer, RUNS_PER_TIMING, Step};
use std::env;
use std::process::ExitCode;
use std::time::Duration;
use wtacrs_benches::{ms, test_mode};
use wtacrs_kernels::launch::driver::Driver;

const TOKENS: [usize; 3] = [4096, 16384, 65536];
const SHAPES: [(usize, usize); 4] = [(1024, 1024), (1024, 4096), (4096, 4096), (4096, 16384)];
const FRACTIONS: [f64; 2] = [0.1, 0.3];

/// Whether a minute is all there is.
fn headline() -> bool {
    env::var_os("WTACRS_HEADLINE").is_some()
}

/// All cases, or the headline's, or only the smallest in test mode.
fn cases() -> Vec<([usize; 3], f64)> {
    if headline() {
        return FRACTIONS.map(|fraction| ([16384, 4096, 4096], fraction)).to_vec();
    }
    let all = TOKENS.into_iter().flat_map(|tokens| {
        SHAPES.into_iter().flat_map(move |(inputs, outputs)| FRACTIONS.map(|k| ([tokens, inputs, outputs], k)))
    });
    all.take(if test_mode() { 1 } else { usize::MAX }).collect()
}

/// Work to time.
#[derive(Clone, Copy)]
enum TimedWork<'a> {
    Exact(&'a dyn Peer),
    GatherAndMultiply(&'a dyn Peer),
    KeptRowsBy(&'a dyn Peer),
    Estimate,
    /// With a product by cuBLASLt.
    EstimateByLibrary,
    Step(Step),
    /// A copy of as many bytes as the step moves.
    CopyFor(Step),
}

impl TimedWork<'_> {
    fn enqueue(self, layer: &mut Layer<'_>) {
        match self {
            Self::Exact(peer) => layer.exact(peer),
            Self::GatherAndMultiply(peer) => layer.gather_and_multiply(peer),
            Self::KeptRowsBy(peer) => layer.multiply_kept_rows(peer),
            Self::Estimate => layer.estimate(),
            Self::EstimateByLibrary => layer.estimate_by_library(),
            Self::Step(step) => layer.step(step),
            Self::CopyFor(step) => layer.copy_for(step),
        }
    }
}

fn criterion_groups(criterion: &mut Criterion, gpu: &Gpu, peers: &[Box<dyn Peer>]) {
    for (sizes @ [tokens, inputs, outputs], fraction) in cases() {
        let mut group = criterion.benchmark_group(format!("gpu/{tokens}x{inputs}->{outputs}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let mut layer = Layer::new(gpu, sizes, fraction);
        let exact = peers.iter().map(|peer| (format!("exact, {}", peer.name()), TimedWork::Exact(&**peer)));
        let gathered =
            peers.iter().map(|peer| (format!("gather and {}", peer.name()), TimedWork::GatherAndMultiply(&**peer)));
        for (name, timed) in exact.chain(gathered).chain([("estimate".into(), TimedWork::Estimate)]) {
            group.bench_function(BenchmarkId::new(name, fraction), |bencher| {
                bencher.iter_custom(|count| gpu.time(|| (0..count).for_each(|_| timed.enqueue(&mut layer))));
            });
        }
        group.finish();
    }
}

/// The median times in milliseconds. Each round times everything once.
fn median_times(gpu: &Gpu, layer: &mut Layer<'_>, timed: &[TimedWork<'_>]) -> Vec<f64> {
    let rounds = if test_mode() { 1 } else { 21 };
    let mut times = vec![Vec::with_capacity(rounds); timed.len()];
    for round in 0..=rounds {
        for (timed, times) in timed.iter().zip(&mut times) {
            if let TimedWork::Step(step) = timed {
                layer.prepare(*step);
            }
            let time = gpu.time(|| (0..RUNS_PER_TIMING).for_each(|_| timed.enqueue(layer)));
            if round > 0 {
                times.push(time / RUNS_PER_TIMING as u32);
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

/// The columns of the second table, and their steps.
const STEPS: [(&str, Step); 16] = [
    ("norms H", Step::NormsOfH),
    ("norms H, θ", Step::NormsAndGuess),
    ("select", Step::Select),
    ("gather", Step::Gather),
    ("pack, 4 bits", Step::Pack),
    ("norms dZ", Step::NormsOfDz),
    ("norms dZ, bias sums", Step::NormsAndSums),
    ("product", Step::Multiply),
    ("product, added", Step::MultiplyAndAdd),
    ("reduce", Step::Reduce),
    ("reduce, added", Step::ReduceAndAdd),
    ("unpack, 4 bits", Step::Unpack),
    ("turn back", Step::TurnBack),
    ("predictor update", Step::Update),
    ("cache fetch", Step::Fetch),
    ("cache store", Step::Store),
];
/// Steps that are compared with a copy of as many bytes.
const STEPS_WITH_COPIES: [Step; 5] = [Step::NormsOfH, Step::Gather, Step::NormsOfDz, Step::Pack, Step::Unpack];

fn print_tables(gpu: &Gpu, peers: &[Box<dyn Peer>]) {
    let device = gpu.driver.device();
    println!("\n{}, {} multiprocessors, bf16, dW in f32\n", device.name, device.multiprocessors);
    println!(
        "| tokens | layer | k/n | exact ms | by | gather and cuBLAS / exact | exact / estimate | target | exact / estimate by cuBLASLt | predicted for an H100 | cuBLAS on k rows / product | target | copy / norms H | copy / gather | copy / norms dZ | copy / pack | copy / unpack | target |"
    );
    println!("|{}", "---|".repeat(18));
    let mut step_table = String::new();
    for (sizes @ [tokens, inputs, outputs], fraction) in cases() {
        let mut layer = Layer::new(gpu, sizes, fraction);
        let for_each_peer = |work: fn(&dyn Peer) -> TimedWork<'_>| peers.iter().map(move |peer| work(&**peer));
        let timed: Vec<TimedWork<'_>> = for_each_peer(|peer| TimedWork::Exact(peer))
            .chain(for_each_peer(|peer| TimedWork::GatherAndMultiply(peer)))
            .chain(for_each_peer(|peer| TimedWork::KeptRowsBy(peer)))
            .chain(STEPS_WITH_COPIES.map(TimedWork::CopyFor))
            .chain([TimedWork::Estimate, TimedWork::EstimateByLibrary, TimedWork::Step(Step::Product)])
            .chain(STEPS.map(|(_, step)| TimedWork::Step(step)))
            .collect();
        let times = median_times(gpu, &mut layer, &timed);
        let (peer_times, rest) = times.split_at(3 * peers.len());
        let (copy_times, rest) = rest.split_at(STEPS_WITH_COPIES.len());
        let (&[estimate, by_library, product], step_times) = rest.split_first_chunk().expect("as many as were timed");
        // The faster peer for each product.
        let best = |at: usize| peer_times[at * peers.len()..][..peers.len()].iter().copied().min_by(f64::total_cmp);
        let (exact, gather_and_multiply, kept_rows) = (best(0), best(1), best(2));
        let by =
            peers.iter().zip(peer_times).find(|&(_, &time)| Some(time) == exact).map_or("–", |(peer, _)| peer.name());
        let ratio =
            |a: Option<f64>, b: Option<f64>| a.zip(b).map_or("–".to_owned(), |(a, b)| format!("{:.2}", a / b));
        let step_ms =
            |wanted| STEPS.iter().zip(step_times).find(|((_, step), _)| *step == wanted).map(|(_, &time)| time);
        let [norms_h, gather, norms_dz, pack, unpack] =
            [0, 1, 2, 3, 4].map(|at| ratio(Some(copy_times[at]), step_ms(STEPS_WITH_COPIES[at])));
        println!(
            "| {tokens} | {inputs}→{outputs} | {fraction} | {} | {by} | {} | **{}** | {} | **{}** | {} | **{}** | 0.55 | {norms_h} | {gather} | {norms_dz} | {pack} | {unpack} | 0.85 |",
            exact.map_or("–".to_owned(), |time| format!("{time:.3}")),
            ratio(gather_and_multiply, exact),
            ratio(exact, Some(estimate)),
            if fraction < 0.2 { 3.5 } else { 1.7 },
            ratio(exact, layer.has_library().then_some(by_library)),
            predicted(sizes, fraction),
            ratio(kept_rows, Some(product)),
        );
        step_table += &format!("| {tokens} | {inputs}→{outputs} | {fraction} | {estimate:.4} |");
        for ((_, step), time) in STEPS.iter().zip(step_times) {
            // A product that is cut adds nothing to dW: its reduction does.
            let is_launched = match step {
                Step::Reduce | Step::ReduceAndAdd => layer.has_partial_products(),
                Step::MultiplyAndAdd => !layer.has_partial_products(),
                _ => true,
            };
            step_table += &if is_launched { format!(" {time:.4} |") } else { " – |".to_owned() };
        }
        step_table.push('\n');
    }
    let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    println!("\nMilliseconds:\n\n| tokens | layer | k/n | estimate | {} |", names.join(" | "));
    println!("|{}\n{step_table}", "---|".repeat(4 + names.len()));
}

/// docs/kernels.md has the arithmetic, for one layer.
fn predicted(sizes: [usize; 3], fraction: f64) -> &'static str {
    match sizes {
        [16384, 4096, 4096] if fraction < 0.2 => "3.9",
        [16384, 4096, 4096] => "2.0",
        _ => "–",
    }
}

fn main() -> ExitCode {
    let driver = match Driver::open(0) {
        Ok(driver) => driver,
        Err(error) => {
            println!("no GPU benches: {error}");
            let is_required = env::var_os("WTACRS_REQUIRE_GPU").is_some_and(|value| value == "1");
            return if is_required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let gpu = Gpu::new(driver);
    let peers = blas::peers(&gpu);
    if peers.is_empty() {
        println!(
            "found no cuBLAS to compare with (libcublas.so, libcublasLt.so; see LD_LIBRARY_PATH): only this library is timed"
        );
    }
    if !headline() {
        let mut criterion = Criterion::default().configure_from_args();
        criterion_groups(&mut criterion, &gpu, &peers);
        criterion.final_summary();
    }
    print_tables(&gpu, &peers);
    ExitCode::SUCCESS
}
