//! The whole estimate of dW on a GPU beside cuBLAS's and cuBLASLt's exact products, bf16 in and f32 out: times by events on
//! the device, a table of ratios and one of each step's milliseconds, both from one run.
//!
//! `cargo bench -p wtacrs-benches --bench gpu` prints criterion's times and then the tables. Matrices, kept rows and the
//! targets of copies change from run to run, for the peers as for this library, so that they are in the L2 cache only where
//! training would find them there. Without cuBLAS only this library's times are printed; without a GPU, one line says so.

mod blas;
mod device;
mod guesses;
mod layer;

use blas::Peer;
use criterion::{BenchmarkId, Criterion};
use device::Gpu;
use layer::{Layer, REPEATED, Step};
use std::time::Duration;
use wtacrs_benches::{ms, test_mode};
use wtacrs_kernels::launch::driver::Driver;

const TOKENS: [usize; 3] = [4096, 16384, 65536];
const SHAPES: [(usize, usize); 4] = [(1024, 1024), (1024, 4096), (4096, 4096), (4096, 16384)];
const FRACTIONS: [f64; 2] = [0.1, 0.3];

/// All cases, or only the smallest in test mode.
fn cases() -> Vec<([usize; 3], f64)> {
    let all = TOKENS.into_iter().flat_map(|tokens| {
        SHAPES.into_iter().flat_map(move |(inputs, outputs)| FRACTIONS.map(|k| ([tokens, inputs, outputs], k)))
    });
    all.take(if test_mode() { 1 } else { usize::MAX }).collect()
}

/// One thing to time.
#[derive(Clone, Copy)]
enum Timed<'a> {
    Exact(&'a dyn Peer),
    GatherAndMultiply(&'a dyn Peer),
    KeptRowsBy(&'a dyn Peer),
    Estimate,
    Step(Step),
    /// A copy of as many bytes as the step moves.
    CopyFor(Step),
}

impl Timed<'_> {
    fn enqueue(self, layer: &mut Layer<'_>) {
        match self {
            Self::Exact(peer) => layer.exact(peer),
            Self::GatherAndMultiply(peer) => layer.gather_and_multiply(peer),
            Self::KeptRowsBy(peer) => layer.kept_rows_by(peer),
            Self::Estimate => layer.estimate(),
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
        let exact = peers.iter().map(|peer| (format!("exact, {}", peer.name()), Timed::Exact(&**peer)));
        let gathered =
            peers.iter().map(|peer| (format!("gather and {}", peer.name()), Timed::GatherAndMultiply(&**peer)));
        for (name, timed) in exact.chain(gathered).chain([("estimate".into(), Timed::Estimate)]) {
            group.bench_function(BenchmarkId::new(name, fraction), |bencher| {
                bencher.iter_custom(|count| gpu.time(|| (0..count).for_each(|_| timed.enqueue(&mut layer))));
            });
        }
        group.finish();
    }
}

/// Median times in milliseconds. In each round every thing is timed once.
fn interleaved(gpu: &Gpu, layer: &mut Layer<'_>, timed: &[Timed<'_>]) -> Vec<f64> {
    let rounds = if test_mode() { 1 } else { 21 };
    let mut times = vec![Vec::with_capacity(rounds); timed.len()];
    for round in 0..=rounds {
        for (timed, times) in timed.iter().zip(&mut times) {
            if let Timed::Step(step) = timed {
                layer.prepare(*step);
            }
            let time = gpu.time(|| (0..REPEATED).for_each(|_| timed.enqueue(layer)));
            if round > 0 {
                times.push(time / REPEATED as u32);
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

/// The steps of the second table, by its columns.
const STEPS: [(&str, Step); 11] = [
    ("norms H", Step::NormsOfH),
    ("norms H, θ", Step::NormsAndGuess),
    ("select", Step::Select),
    ("gather", Step::Gather),
    ("norms dZ", Step::NormsOfDz),
    ("norms dZ, bias sums", Step::NormsAndSums),
    ("product", Step::Multiply),
    ("reduce", Step::Reduce),
    ("predictor update", Step::Update),
    ("cache fetch", Step::Fetch),
    ("cache store", Step::Store),
];
/// Steps beside which a copy is measured.
const COPIED: [Step; 3] = [Step::NormsOfH, Step::Gather, Step::NormsOfDz];

fn tables(gpu: &Gpu, peers: &[Box<dyn Peer>]) {
    let device = gpu.driver.device();
    println!("\n{}, {} multiprocessors, bf16, dW in f32\n", device.name, device.multiprocessors);
    println!(
        "| tokens | layer | k/n | exact ms | by | gather and cuBLAS / exact | exact / estimate | target | cuBLAS on k rows / product | target | copy / norms H | copy / gather | copy / norms dZ | target |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut steps = String::new();
    for (sizes @ [tokens, inputs, outputs], fraction) in cases() {
        let mut layer = Layer::new(gpu, sizes, fraction);
        let peers_do = |what: fn(&dyn Peer) -> Timed<'_>| peers.iter().map(move |peer| what(&**peer));
        let timed: Vec<Timed<'_>> = peers_do(|peer| Timed::Exact(peer))
            .chain(peers_do(|peer| Timed::GatherAndMultiply(peer)))
            .chain(peers_do(|peer| Timed::KeptRowsBy(peer)))
            .chain(COPIED.map(Timed::CopyFor))
            .chain([Timed::Estimate, Timed::Step(Step::Product)])
            .chain(STEPS.map(|(_, step)| Timed::Step(step)))
            .collect();
        let times = interleaved(gpu, &mut layer, &timed);
        let (by_peers, rest) = times.split_at(3 * peers.len());
        let (copies, rest) = rest.split_at(COPIED.len());
        let (&[estimate, product], of_steps) = rest.split_first_chunk().expect("as many as were timed");
        // The better peer at each.
        let best = |at: usize| by_peers[at * peers.len()..][..peers.len()].iter().copied().min_by(f64::total_cmp);
        let (exact, gathered, kept_rows) = (best(0), best(1), best(2));
        let by =
            peers.iter().zip(by_peers).find(|&(_, &time)| Some(time) == exact).map_or("–", |(peer, _)| peer.name());
        let ratio =
            |a: Option<f64>, b: Option<f64>| a.zip(b).map_or("–".to_owned(), |(a, b)| format!("{:.2}", a / b));
        let step_ms = |wanted| STEPS.iter().zip(of_steps).find(|((_, step), _)| *step == wanted).map(|(_, &time)| time);
        let [norms_h, gather, norms_dz] = [0, 1, 2].map(|at| ratio(Some(copies[at]), step_ms(COPIED[at])));
        println!(
            "| {tokens} | {inputs}→{outputs} | {fraction} | {} | {by} | {} | **{}** | {} | **{}** | 0.55 | {norms_h} | {gather} | {norms_dz} | 0.85 |",
            exact.map_or("–".to_owned(), |time| format!("{time:.3}")),
            ratio(gathered, exact),
            ratio(exact, Some(estimate)),
            if fraction < 0.2 { 3.5 } else { 1.7 },
            ratio(kept_rows, Some(product)),
        );
        steps += &format!("| {tokens} | {inputs}→{outputs} | {fraction} | {estimate:.4} |");
        for ((_, step), time) in STEPS.iter().zip(of_steps) {
            let is_done = *step != Step::Reduce || layer.is_cut();
            steps += &if is_done { format!(" {time:.4} |") } else { " – |".to_owned() };
        }
        steps.push('\n');
    }
    let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    println!("\nMilliseconds:\n\n| tokens | layer | k/n | estimate | {} |", names.join(" | "));
    println!("|{}\n{steps}", "---|".repeat(4 + names.len()));
}

fn main() {
    let driver = match Driver::open(0) {
        Ok(driver) => driver,
        Err(error) => return println!("no GPU benches: {error}"),
    };
    let gpu = Gpu::new(driver);
    let peers = blas::peers(&gpu);
    if peers.is_empty() {
        println!(
            "no cuBLAS to measure against (libcublas.so, libcublasLt.so; see LD_LIBRARY_PATH): only this library's times"
        );
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&mut criterion, &gpu, &peers);
    criterion.final_summary();
    tables(&gpu, &peers);
}
