//! Times the selection from given weights, on one thread: weights a second for each design, alias tables against
//! rand_distr's, and the growth of the cost with n.
//!
//! `cargo bench -p wtacrs-benches --bench select` prints criterion's times and then the tables.

use criterion::{BenchmarkId, Criterion, Throughput};
use rand::SeedableRng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use rand_pcg::Pcg64;
use std::hint::black_box;
use wtacrs_benches::{Case, median_times, ms, test_mode};
use wtacrs_core::Randomness;
use wtacrs_core::rand_core::Rng as _;
use wtacrs_core::sampling::AliasTable;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Keep, Philox4x32_10, Weights};
use wtacrs_core::sampling::{Chance, RngChance};

const SIZES: [usize; 2] = [1 << 16, 1 << 20];
const FRACTION: f64 = 0.3;

/// Weights like a layer's: log-normal, spread over three orders of magnitude.
fn values(n: usize) -> Vec<f32> {
    let uniform = |i: usize, seed| (Philox4x32_10::new(seed, i as u64).next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    (0..n)
        .map(|i| {
            let normal = (-2.0 * (1.0 - uniform(i, 1)).ln()).sqrt() * (std::f64::consts::TAU * uniform(i, 2)).cos();
            (1.5 * normal).exp() as f32
        })
        .collect()
}

fn select(values: &[f32], design: BuiltIn) {
    let weights = Weights::new(values).expect("finite");
    let budget = weights.budget(Keep::Fraction(FRACTION)).expect("fits");
    black_box(design.select_seeded(&weights, budget, Randomness::new(7, 0)));
}

fn draw(weights: &Weights, budget: Budget, design: BuiltIn) {
    black_box(design.select_seeded(weights, budget, Randomness::new(7, 0)));
}

fn criterion_groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("select");
    group.sample_size(20);
    for n in SIZES {
        let values = values(n);
        group.throughput(Throughput::Elements(n as u64));
        for design in BuiltIn::ALL {
            group.bench_with_input(BenchmarkId::new(design.name(), n), &values, |bencher, values| {
                bencher.iter(|| select(values, design));
            });
        }
    }
    group.finish();
}

/// Millions of weights a second.
fn million_weights_per_second(n: usize, milliseconds: f64) -> f64 {
    n as f64 / milliseconds / 1e3
}

fn print_throughput() {
    println!("\nSelection from given f32 weights (fixed point, threshold, draws), k = {FRACTION} n, one thread\n");
    println!("| n | design | million weights/s | threshold and draws alone |");
    println!("|---|---|---|---|");
    for n in SIZES {
        let values = values(n);
        let weights = Weights::new(&values).expect("finite");
        let budget = weights.budget(Keep::Fraction(FRACTION)).expect("fits");
        for design in BuiltIn::ALL {
            let mut cases =
                [Case::new("whole", || select(&values, design)), Case::new("draws", || draw(&weights, budget, design))];
            let times = median_times(&mut cases, if test_mode() { 1 } else { 21 });
            println!(
                "| {n} | {design} | {:.1} | {:.1} |",
                million_weights_per_second(n, ms(times[0])),
                million_weights_per_second(n, ms(times[1]))
            );
        }
    }
}

fn print_alias_tables() {
    println!("\nAlias tables beside rand_distr's WeightedAliasIndex (u64 weights, Pcg64), one thread\n");
    println!("| n | build ms | theirs | ours / theirs | k draws ms | theirs | ours / theirs |");
    println!("|---|---|---|---|---|---|---|");
    for n in SIZES {
        let weights = Weights::new(&values(n)).expect("finite");
        let masses = weights.fixed();
        let ours = AliasTable::new(masses).expect("positive masses");
        let theirs = WeightedAliasIndex::new(masses.to_vec()).expect("valid");
        let draws = (FRACTION * n as f64) as u32;
        let mut rngs = [Pcg64::seed_from_u64(1), Pcg64::seed_from_u64(1)];
        let [our_rng, their_rng] = &mut rngs;
        let mut cases = [
            Case::new("build", || {
                black_box(AliasTable::new(masses)).expect("positive masses");
            }),
            Case::new("their build", || {
                black_box(WeightedAliasIndex::new(masses.to_vec()).expect("valid"));
            }),
            Case::new("draw", || {
                black_box(RngChance(our_rng).counts(0, draws, &ours));
            }),
            Case::new("their draw", || {
                let mut counts = vec![0_u32; n];
                (0..draws).for_each(|_| counts[theirs.sample(their_rng)] += 1);
                black_box(counts);
            }),
        ];
        let t: Vec<f64> = median_times(&mut cases, if test_mode() { 1 } else { 21 }).into_iter().map(ms).collect();
        println!(
            "| {n} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            t[0],
            t[1],
            t[0] / t[1],
            t[2],
            t[3],
            t[2] / t[3]
        );
    }
}

fn print_growth() {
    println!("\nNanoseconds for each weight as n grows, k = {FRACTION} n, one thread\n");
    let designs = [BuiltIn::WtaIid, BuiltIn::WtaStratified, BuiltIn::WtaPivotal];
    println!("| n | wta-iid | wta-stratified | wta-pivotal |\n|---|---|---|---|");
    for log_n in (12..=if test_mode() { 14 } else { 22 }).step_by(2) {
        let n = 1 << log_n;
        let values = values(n);
        let mut cases = designs.map(|design| {
            let values = &values;
            Case::new(design.name(), move || select(values, design))
        });
        let rounds = if test_mode() { 1 } else { 11 };
        let times = median_times(&mut cases, rounds);
        let cells: Vec<String> = times.iter().map(|&t| format!("{:.1}", ms(t) * 1e6 / n as f64)).collect();
        println!("| 2^{log_n} | {} |", cells.join(" | "));
    }
}

fn main() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    one_thread.install(|| {
        let mut criterion = Criterion::default().configure_from_args();
        criterion_groups(&mut criterion);
        criterion.final_summary();
        print_throughput();
        print_alias_tables();
        print_growth();
    });
}
