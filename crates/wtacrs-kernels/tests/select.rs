//! The selection kernel equals the designs of wtacrs-core, bit by bit, for every launch geometry.

use crate::common::{BY_PTX_TOO, Machine, for_each_machine, only_gpu, testdata};
use crate::selections::{Batch, DESIGNS, Geometry, check, cost, run, traffic, weights_on};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde::Deserialize;
use wtacrs_core::Weights;
use wtacrs_exact::threshold::{Saturation, Split};
use wtacrs_kernels::kernel::select::{Design, SourceKind, shape, shape_with};
use wtacrs_kernels::kernel::select_kernel;

#[derive(Deserialize)]
struct Vectors {
    problems: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    name: String,
    weights: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    design: String,
    budget: usize,
    seed: u64,
    offset: u64,
    stream: u32,
    indices: Vec<u32>,
    scales: Vec<f64>,
}

#[test]
fn shared_vectors() {
    let text = std::fs::read_to_string(testdata("vectors/selections.json")).expect("the vectors");
    let vectors: Vectors = serde_json::from_str(&text).expect("JSON");
    let mut cases = 0;
    for problem in &vectors.problems {
        for (at, case) in problem.cases.iter().enumerate() {
            let design = DESIGNS.into_iter().find(|d| d.1.to_string() == case.design).expect("a design").0;
            let batch = Batch {
                seed: case.seed,
                offset: case.offset,
                first_stream: case.stream,
                ..Batch::of(&problem.weights, case.budget)
            };
            let geometries = [Geometry(1, 32, 0), Geometry(1, 64, 1), Geometry(3, 32, 2), Geometry(2, 64, 3)];
            for geometry in [geometries[at % 4], geometries[(at + 2) % 4]] {
                let found = run(&batch, design, geometry).remove(0);
                let name = format!("{}, {}, k = {}, {geometry:?}", problem.name, case.design, case.budget);
                assert_eq!((found.status, found.indices), (0, case.indices.clone()), "{name}");
                assert_eq!(found.scales, case.scales, "{name}");
            }
            cases += 1;
        }
    }
    assert!(cases >= 200, "{cases}");
}

/// Weights of all kinds: of few values, of many magnitudes, with zeros.
fn any_weights(pairs: impl Strategy<Value = usize>) -> impl Strategy<Value = Vec<f32>> {
    let ties = prop_oneof![Just(0.0_f32), Just(1.0), Just(2.0), Just(0.5)];
    let usual = 0.1_f32..3.0;
    let extreme = prop_oneof![
        (-40.0_f32..38.0).prop_map(|e| 10_f32.powf(e)),
        Just(f32::MAX),
        Just(1e-45_f32),
        Just(-0.0_f32),
        Just(0.0)
    ];
    (pairs, 0..4).prop_flat_map(move |(n, kind)| {
        let one = match kind {
            0 => ties.clone().boxed(),
            1 => usual.clone().boxed(),
            2 => extreme.clone().boxed(),
            _ => prop_oneof![9 => usual.clone(), 1 => extreme.clone(), 1 => ties.clone()].boxed(),
        };
        prop::collection::vec(one, n)
    })
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    let blocks = prop_oneof![2 => Just(1_u32), 1 => 2_u32..6];
    (blocks, prop::sample::select(vec![32_u32, 64, 96, 256]), any::<u64>()).prop_map(|(b, t, s)| Geometry(b, t, s))
}

fn any_budget(pairs: usize, choice: u64) -> usize {
    match choice % 5 {
        0 => 1,
        1 => pairs,
        _ => 1 + (choice / 5) as usize % pairs,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_weights_in_any_geometry(
        weights in any_weights(1_usize..600),
        choice in any::<u64>(),
        geometry in any_geometry(),
        seed in any::<u64>(),
        offset in any::<u64>(),
    ) {
        let budget = any_budget(weights.len(), choice);
        let valid = Weights::new(&weights).expect("valid");
        let batch = Batch { seed, offset, ..Batch::of(&weights, budget) };
        for design in DESIGNS {
            check(&batch, std::slice::from_ref(&valid), design, geometry);
        }
    }

    #[test]
    fn norms_of_both_sides_and_of_caches(
        input in any_weights(1_usize..200),
        other in any_weights(Just(200)),
        cold in prop::collection::vec(any::<bool>(), 200),
        all_cold in any::<bool>(),
        mix in prop_oneof![Just(0.0), Just(0.01), Just(1.0), 0.0..1.0_f64],
        choice in any::<u64>(),
        geometry in any_geometry(),
    ) {
        let n = input.len();
        let other = &other[..n];
        let batch = Batch { other, source: SourceKind::Norms, ..Batch::of(&input, any_budget(n, choice)) };
        check(&batch, &[Weights::from_norms(&input, other).expect("valid")], DESIGNS[5], geometry);

        let cached: Vec<Option<f32>> =
            other.iter().zip(&cold).map(|(&norm, cold)| (!cold && !all_cold).then_some(norm)).collect();
        let coded: Vec<f32> = cached.iter().map(|norm| norm.unwrap_or(-1.0)).collect();
        let batch = Batch { other: &coded, source: SourceKind::Cached, mix, ..batch };
        check(&batch, &[Weights::from_cache(&input, &cached, mix).expect("valid")], DESIGNS[5], geometry);
    }
}

/// Pseudo-random weights with many magnitudes, without a generator's crate.
fn weights(pairs: usize, salt: u64) -> Vec<f32> {
    (0..pairs as u64)
        .map(|i| {
            let bits =
                (i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (bits >> 40) as f32 / (1 << 20) as f32 * if bits.is_multiple_of(64) { 40.0 } else { 1.0 }
        })
        .collect()
}

#[test]
fn thousands_of_pairs() {
    for (pairs, geometry) in [
        (5000, Geometry(1, 512, 1)),
        (5000, Geometry(4, 256, 2)),
        (4096, Geometry(1, 256, 3)),
        (9000, Geometry(3, 512, 4)),
    ] {
        let norms = weights(pairs, 5);
        let valid = Weights::new(&norms).expect("valid");
        for design in DESIGNS {
            check(&Batch::of(&norms, 3 * pairs / 10), std::slice::from_ref(&valid), design, geometry);
        }
    }
}

#[test]
fn more_than_one_block_takes_by_default() {
    let pairs = 70_000;
    let norms = weights(pairs, 9);
    let valid = Weights::new(&norms).expect("valid");
    let default = shape(pairs as u32, 1, Design::WtaPivotal, 132);
    assert_eq!((default.grid, default.block, default.cooperative), ([69, 1, 1], 256, true));
    for geometry in [Geometry(69, 256, 7), Geometry(2, 512, 0), Geometry(1, 512, 0)] {
        check(&Batch::of(&norms, pairs / 10), std::slice::from_ref(&valid), DESIGNS[5], geometry);
    }
}

/// On a GPU of 48 multiprocessors: with 132 it would be 128 blocks of 256 threads, more than the emulator keeps resident.
#[test]
fn the_default_of_131072_pairs() {
    let pairs = 1 << 17;
    let norms = weights(pairs, 17);
    let valid = Weights::new(&norms).expect("valid");
    let default = shape(pairs as u32, 1, Design::WtaPivotal, 48);
    assert_eq!((default.grid, default.block, default.cooperative), ([32, 1, 1], 512, true));
    check(&Batch::of(&norms, pairs / 10), &[valid], DESIGNS[5], Geometry(32, 512, 0));
}

#[test]
fn the_default_of_a_long_sequence() {
    let pairs = 16_384;
    let (input, other) = (weights(pairs, 13), weights(pairs, 14));
    let valid = Weights::from_norms(&input, &other).expect("valid");
    for (seed, design) in (1..).zip(DESIGNS) {
        let batch = Batch { other: &other, source: SourceKind::Norms, ..Batch::of(&input, 3 * pairs / 10) };
        check(&batch, std::slice::from_ref(&valid), design, Geometry(32, 256, seed));
    }
}

#[test]
fn blocks_by_default() {
    let of = |pairs, batch, resident| {
        let shape = shape(pairs, batch, Design::WtaPivotal, resident);
        assert_eq!((shape.grid[2], shape.cooperative), (batch, shape.grid[0] > 1), "{shape:?}");
        (shape.grid[0], shape.block)
    };
    assert_eq!([of(1, 1, 132), of(100, 1, 132), of(4095, 1, 132)], [(1, 32), (1, 32), (1, 512)]);
    assert_eq!([of(4096, 1, 132), of(16_384, 1, 132), of(65_536, 1, 132)], [(8, 256), (32, 256), (64, 256)]);
    // No block is without pairs, and no more wait for one another than the device holds.
    assert_eq!([of(1_000_000, 1, 132), of(16_384, 1, 4), of(16_384, 1, 1)], [(123, 512), (4, 512), (1, 512)]);
    assert_eq!([of(16_384, 8, 132), of(16_384, 12, 132), of(16_384, 67, 132)], [(16, 256), (8, 512), (1, 512)]);
}

#[test]
fn any_number_of_blocks_and_threads() {
    // With the most blocks of each that differ: one has 32 pairs or more, and where 4097 pairs are in more blocks, each has
    // no more than those of 1025. Below four blocks their trees have levels in scratch.
    let sizes = [(33, 2), (500, 16), (1025, 16), (4097, 4)];
    let threads = [32, 64, 96, 128, 256, 384, 512];
    let (input, other) = (weights(4097, 11), weights(4097, 12));
    let cached: Vec<_> = (0..).zip(&other).map(|(i, &norm)| (i % 7 > 0).then_some(norm)).collect();
    let coded: Vec<f32> = cached.iter().map(|norm| norm.unwrap_or(-1.0)).collect();
    for blocks in 1..=16 {
        for (at, (pairs, _)) in sizes.into_iter().enumerate().filter(|(_, (_, most))| blocks <= *most) {
            let turn = blocks as usize * 3 + at;
            let geometry = Geometry(blocks, threads[turn % threads.len()], turn as u64);
            let (input, other, cached, coded) = (&input[..pairs], &other[..pairs], &cached[..pairs], &coded[..pairs]);
            let budget = if turn.is_multiple_of(5) { pairs } else { 1 + pairs * (turn % 4) / 5 };
            let plain = Batch::of(input, budget);
            let norms = Batch { other, source: SourceKind::Norms, ..plain.clone() };
            for design in [DESIGNS[5], DESIGNS[turn % 5]] {
                check(&norms, &[Weights::from_norms(input, other).expect("valid")], design, geometry);
            }
            match turn % 3 {
                0 => check(&plain, &[Weights::new(input).expect("valid")], DESIGNS[5], geometry),
                1 => {
                    let batch = Batch { other: coded, source: SourceKind::Cached, ..plain };
                    check(&batch, &[Weights::from_cache(input, cached, 0.01).expect("valid")], DESIGNS[5], geometry);
                }
                _ => {
                    let batch = Batch { other, source: SourceKind::Predicted, ..plain };
                    let by_one = run(&batch, Design::WtaPivotal, Geometry(1, 64, 0));
                    assert_eq!(run(&batch, Design::WtaPivotal, geometry), by_one, "{geometry:?} {pairs}");
                }
            }
        }
    }
}

#[test]
fn zeros_and_invalid_weights_in_many_blocks() {
    for (blocks, threads) in [(2, 96), (5, 32), (16, 64)] {
        let geometry = Geometry(blocks, threads, u64::from(blocks));
        for design in DESIGNS {
            // All zero: all equal. Fewer positive than places: no tail.
            for weights in
                [vec![0.0; 1100], (0..1100).map(|i| if i % 11 == 3 { 1.0 + i as f32 } else { 0.0 }).collect()]
            {
                let valid = Weights::new(&weights).expect("valid");
                check(&Batch::of(&weights, 150), &[valid], design, geometry);
            }
            let mut bad = weights(1100, 3);
            (bad[1050], bad[700]) = (f32::NAN, -1.0);
            let found = run(&Batch::of(&bad, 10), design.0, geometry).remove(0);
            assert_eq!((found.status, found.indices.len()), (701, 0), "{}", design.1);
        }
    }
}

/// How many passes over the weights the kernel's search takes, the sum that comes with the weights not counted.
fn passes(weights: &Weights, budget: usize) -> u64 {
    let split = |cut| {
        let (winners, tail) = weights.fixed().iter().partition::<Vec<u64>, _>(|&&weight| weight >= cut);
        Split { winners: winners.len(), tail_mass: tail.iter().sum() }
    };
    let mut search = Saturation::new(budget);
    let mut found = search.learn(0, weights.fixed().iter().sum());
    let mut passes = 0;
    while found.is_none() {
        found = search.learn_both(split(search.cut()), split(search.guess()));
        passes += 1;
    }
    passes
}

/// `cargo test -p wtacrs-kernels --test kernels select::costs -- --nocapture` prints the numbers of docs/kernels.md.
#[test]
fn costs() {
    for pairs in [1024, 4096, 16_384, 65_536] {
        let norms = weights(pairs, 2);
        let (budget, weights) = (3 * pairs / 10, Weights::new(&norms).expect("valid"));
        let (batch, passes) = (Batch::of(&norms, budget), passes(&weights, budget));
        let of = |multiprocessors| {
            let shape = shape(pairs as u32, 1, Design::WtaPivotal, multiprocessors);
            (shape.grid[0], cost(&batch, Design::WtaPivotal, shape))
        };
        let ((_, alone), (blocks, together)) = (of(1), of(132));
        println!("{pairs} pairs, {passes} passes: one block {alone:?}, {blocks} blocks {together:?}");
        // The weights, each pass, and the roots.
        assert_eq!([alone.rounds, together.rounds], [0, if blocks > 1 { 2 + passes } else { 0 }]);
        // Collectives, levels of more than 32 duels, and the tree's end.
        let levels = |pairs: usize| u64::from(pairs.next_power_of_two().ilog2()).saturating_sub(6);
        assert_eq!(alone.barriers, 2 + passes + levels(pairs) + 1 + 1);
        if blocks > 1 {
            // Each round has another barrier; the upper tree ends with one, and the sums of its counts follow.
            let below = levels(pairs / blocks as usize) + 1 + 1;
            let above = levels(blocks as usize) + 1 + 1;
            assert_eq!(together.barriers, 3 + 2 * passes + below + above);
        }
    }
}

/// The most that the kernels may take: instructions of their text, those that a launch comes to, and loads of a warp.
const MOST: [(Design, u64, u64, u64); 6] = [
    (Design::Uniform, 3291, 2181, 44),
    (Design::Crs, 3846, 2963, 47),
    (Design::TopK, 3192, 2287, 144),
    (Design::WtaIid, 4020, 3164, 48),
    (Design::WtaStratified, 3486, 2664, 26),
    (Design::WtaPivotal, 3044, 2020, 18),
];

/// A launch runs its code once or a few times, from a cold instruction cache, and waits for most of its loads. Both are
/// counted in the PTX of a launch like the default of 16,384 pairs, with a quarter of its blocks, and two rows of pairs for
/// each warp. `cargo test -p wtacrs-kernels --test kernels select::instructions_and_loads -- --nocapture` prints the numbers of
/// docs/kernels.md.
#[test]
fn instructions_and_loads() {
    if !BY_PTX_TOO || only_gpu() {
        return;
    }
    let pairs = 4096;
    let (input, other) = (weights(pairs, 13), weights(pairs, 14));
    let mut beyond = vec![];
    for (design, most_in_text, most_visited, most_loads) in MOST {
        let batch = Batch { other: &other, source: SourceKind::Norms, ..Batch::of(&input, 3 * pairs / 10) };
        let shape = shape_with(pairs as u32, 1, design, 8, 256);
        let traffic = traffic(&batch, design, shape);
        let text = Machine::instructions(select_kernel(design).name()) as u64;
        let loads = traffic.loads.div_ceil(8 * 8);
        println!("{design:?}: {text} instructions, of which {} run; {loads} loads in a warp", traffic.instructions);
        if text > most_in_text || traffic.instructions > most_visited || loads > most_loads {
            beyond.push((design, traffic));
        }
    }
    assert!(beyond.is_empty(), "{beyond:?}");
}

/// Blocks whose largest weights lie octaves apart sum by scales of their own, and again only if they lie too far apart.
#[test]
fn blocks_of_other_scales() {
    let drops = [(0, false), (1, false), (2, false), (3, true), (9, true), (70, true), (120, true), (1000, false)];
    // A lane of the warp that reads what blocks publish has one of them, or two.
    for blocks in [5, 40] {
        let (pairs, budget) = (32 * blocks, 5 * blocks);
        let cases = drops.into_iter().flat_map(|drop| [0, 1, 2].map(|order| (drop, order)));
        for (turn, ((drop, is_far), order)) in cases.enumerate() {
            let of_block = |block: usize| match order {
                0 => block,
                1 => blocks - 1 - block,
                // All but one.
                _ if block == 2 => 0,
                _ => blocks - 1,
            };
            let weights: Vec<f32> = (0..pairs)
                .map(|pair| {
                    // The last drop leaves zeros, which no scale is far from.
                    let steps = if (9..1000).contains(&drop) { blocks - 1 } else { 1 };
                    let exponent = -((of_block(pair / 32).min(steps) * drop / steps) as i32);
                    (1.0 + (pair % 7) as f32 / 8.0) * 2.0_f32.powi(exponent)
                })
                .collect();
            let valid = Weights::new(&weights).expect("valid");
            for design in [DESIGNS[5], DESIGNS[turn % 5]] {
                let geometry = Geometry(blocks as u32, 32, order as u64);
                check(&Batch::of(&weights, budget), std::slice::from_ref(&valid), design, geometry);
            }
            let shape = shape_with(pairs as u32, 1, Design::WtaPivotal, blocks as u32, 32);
            let rounds = cost(&Batch::of(&weights, budget), Design::WtaPivotal, shape).rounds;
            assert_eq!(rounds, 2 + passes(&valid, budget) + u64::from(is_far), "{drop} octaves");
        }
    }
}

#[test]
fn many_blocks_of_few_pairs() {
    let norms = weights(2000, 1);
    let valid = Weights::new(&norms).expect("valid");
    for design in DESIGNS {
        check(&Batch::of(&norms, 300), std::slice::from_ref(&valid), design, Geometry(63, 32, 5));
    }
}

#[test]
fn a_batch_has_a_stream_for_each_problem() {
    let (problems, pairs) = (5, 130);
    let norms = weights(problems * pairs, 3);
    let valid: Vec<Weights> = norms.chunks(pairs).map(|norms| Weights::new(norms).expect("valid")).collect();
    for design in DESIGNS {
        for geometry in [Geometry(1, 64, 8), Geometry(2, 32, 9)] {
            let batch = Batch { problems, further_offset: Some(1 << 40), stream_step: 2, ..Batch::of(&norms, 40) };
            check(&batch, &valid, design, geometry);
        }
    }
}

#[test]
fn the_order_of_threads_does_not_matter() {
    let norms = weights(300, 7);
    let valid = Weights::new(&norms).expect("valid");
    for seed in 0..12 {
        for design in DESIGNS {
            check(
                &Batch::of(&norms, 100),
                std::slice::from_ref(&valid),
                design,
                Geometry(1 + seed as u32 % 2, 64, seed),
            );
        }
    }
}

fn layer(name: &str) -> [Vec<f32>; 3] {
    let bytes = std::fs::read(testdata(name)).expect("the layer");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |key: &str| -> (Vec<usize>, Vec<f32>) {
        let tensor = tensors.tensor(key).expect(key);
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
        (tensor.shape().to_vec(), values.collect())
    };
    let norms = |key| {
        let (shape, values) = values(key);
        let rows = ndarray::Array2::from_shape_vec((shape[0], shape[1]), values).expect("the shape of the data");
        wtacrs_core::product::row_norms(rows.view())
    };
    [norms("h"), norms("dz"), values("dz_norm_prev").1]
}

#[test]
fn recorded_layers_exact_and_stale() {
    for name in ["minilm_l3_value_imdb_1024.safetensors", "minilm_l3_value_padded_1024.safetensors"] {
        let [h, dz, stale] = layer(name);
        let cached: Vec<_> = stale.iter().copied().map(Some).collect();
        let exact = Weights::from_norms(&h, &dz).expect("finite");
        let by_cache = Weights::from_cache(&h, &cached, 0.01).expect("finite");
        for design in DESIGNS {
            for (budget, geometry) in [(307, Geometry(1, 512, 0)), (102, Geometry(2, 128, 1))] {
                let batch = Batch { other: &dz, source: SourceKind::Norms, ..Batch::of(&h, budget) };
                check(&batch, std::slice::from_ref(&exact), design, geometry);
                let batch = Batch { other: &stale, source: SourceKind::Cached, ..batch };
                check(&batch, std::slice::from_ref(&by_cache), design, geometry);
            }
        }
    }
}

#[test]
fn invalid_weights_are_named_by_the_first_index() {
    let good = weights(100, 2);
    for value in [f32::NAN, f32::INFINITY, -1.0, f32::NEG_INFINITY, -f32::NAN] {
        for source in [SourceKind::Input, SourceKind::Norms, SourceKind::Cached, SourceKind::Predicted] {
            for geometry in [Geometry(1, 32, 0), Geometry(2, 32, 1)] {
                let mut bad = good.clone();
                bad[41] = value;
                bad[97] = f32::NAN;
                let batch = Batch { source, other: &good, ..Batch::of(&bad, 10) };
                let found = run(&batch, Design::WtaPivotal, geometry).remove(0);
                assert_eq!((found.status, found.indices.len()), (42, 0), "{value} {source:?}");
                let batch = Batch { source, other: &bad, ..Batch::of(&good, 10) };
                let found = run(&batch, Design::WtaPivotal, geometry).remove(0);
                let expected = match source {
                    SourceKind::Input => 0,
                    SourceKind::Cached if value < 0.0 => 98,
                    SourceKind::Predicted if value == -1.0 => 98,
                    _ => 42,
                };
                assert_eq!(found.status, expected, "{value} {source:?}");
            }
        }
    }
}

#[test]
fn winners_are_counted() {
    let weights = weights(300, 40);
    for (design, name) in DESIGNS {
        for geometry in [Geometry(1, 64, 0), Geometry(3, 32, 1)] {
            for budget in [1, 77, 300] {
                let found = run(&Batch::of(&weights, budget), design, geometry).remove(0);
                let core = Weights::new(&weights).expect("valid");
                let expected = crate::selections::by_core(&core, budget, name, 0x0123_4567_89ab_cdef, 77, 3);
                assert_eq!(found, expected, "{name}, {budget} of 300");
            }
            let bad: Vec<f32> = weights.iter().map(|_| f32::NAN).collect();
            assert_eq!(run(&Batch::of(&bad, 9), design, geometry)[0].winners, 0);
        }
    }
}

#[test]
fn weights_are_written_for_every_source() {
    for_each_machine(|machine| {
        for pairs in [1, 31, 700, 5000] {
            let input = weights(2 * pairs, 9);
            let other: Vec<f32> = weights(2 * pairs, 23).iter().map(|w| 0.1 * w).collect();
            let cached: Vec<f32> = other.iter().enumerate().map(|(i, &w)| if i % 3 == 0 { -1.0 } else { w }).collect();
            let cold = vec![-1.0; 2 * pairs];
            let zeros = vec![0.0; 2 * pairs];
            let of = |input: &[f32], other: &[f32], source| {
                let known: Vec<_> = other.iter().map(|&norm| (norm >= 0.0).then_some(norm)).collect();
                match source {
                    SourceKind::Norms => Weights::from_norms(input, other).expect("valid"),
                    SourceKind::Cached => Weights::from_cache(input, &known, 0.01).expect("valid"),
                    _ => Weights::from_input(input).expect("valid"),
                }
            };
            let sources = [
                (&input, &[][..], SourceKind::Input),
                (&zeros, &[], SourceKind::Input),
                (&input, &other, SourceKind::Norms),
                (&input, &cached, SourceKind::Cached),
                (&input, &cold, SourceKind::Cached),
            ];
            for (input, other, source) in sources {
                let batch = Batch { other, source, problems: 2, ..Batch::of(input, 1) };
                let found = weights_on(machine, &batch);
                for problem in 0..2 {
                    let range = problem * pairs..(problem + 1) * pairs;
                    let expected = of(&input[range.clone()], other.get(range.clone()).unwrap_or(&[]), source);
                    let expected: Vec<_> = (0..pairs).map(|i| expected.value(i).to_bits()).collect();
                    let found: Vec<_> = found[range].iter().map(|weight| weight.to_bits()).collect();
                    assert_eq!(found, expected, "{machine:?}, {pairs} pairs, {source:?}");
                }
            }
            let mut bad = input.clone();
            bad[pairs - 1] = f32::NEG_INFINITY;
            let found = weights_on(machine, &Batch { problems: 2, ..Batch::of(&bad, 1) });
            assert!(found[..pairs].iter().all(|weight| weight.is_nan()));
            assert!(found[pairs..].iter().all(|weight| weight.is_finite()), "the other problem is its own");
        }
        let input: Vec<f32> = weights(200, 7).iter().map(|w| w + 0.5).collect();
        let logs: Vec<f32> = weights(200, 8).iter().map(|w| 0.2 * w - 1.0).collect();
        let batch = Batch { other: &logs, source: SourceKind::Predicted, ..Batch::of(&input, 1) };
        let found = weights_on(machine, &batch);
        for ((found, norm), &input) in found.iter().zip(norms_of(&logs, 6.0)).zip(&input) {
            assert!((found / (norm * f64::from(input)) - 1.0).abs() < 1e-6, "{found} {norm} {input}");
        }
    });
}

/// A padded sequence, or a gradient that vanishes: every pair has the weight 1, as in wtacrs-core.
#[test]
fn all_zero_weights_are_one_each() {
    for pairs in [1, 77, 5000] {
        let (zeros, norms) = (&vec![0.0; pairs][..], &weights(pairs, 6)[..]);
        let known: Vec<_> = norms.iter().copied().map(Some).collect();
        let cases = [
            (zeros, &[][..], SourceKind::Input, Weights::from_input(zeros)),
            (zeros, norms, SourceKind::Norms, Weights::from_norms(zeros, norms)),
            (norms, zeros, SourceKind::Norms, Weights::from_norms(norms, zeros)),
            (zeros, norms, SourceKind::Cached, Weights::from_cache(zeros, &known, 0.0)),
            (zeros, norms, SourceKind::Predicted, Weights::from_input(zeros)),
        ];
        for (input, other, source, core) in cases {
            let core = core.expect("valid");
            assert!((0..pairs).all(|pair| core.value(pair) == 1.0), "{source:?}");
            let batch = Batch { other, source, mix: 0.0, ..Batch::of(input, pairs.div_ceil(3)) };
            for_each_machine(|machine| {
                assert!(weights_on(machine, &batch).iter().all(|&weight| weight == 1.0), "{machine:?}, {source:?}");
            });
            for design in DESIGNS {
                for geometry in [Geometry(1, 64, 0), Geometry(3, 32, 1)] {
                    check(&batch, std::slice::from_ref(&core), design, geometry);
                }
            }
        }
    }
}

/// The norms that a predictor of wtacrs-core makes of log-norms against its level, in f64.
fn norms_of(logs: &[f32], clamp: f64) -> Vec<f64> {
    logs.iter().map(|&log| f64::from(log).clamp(-clamp, clamp).exp()).collect()
}

#[test]
fn guesses_become_norms_within_bounds() {
    let pairs = 256;
    let input: Vec<f32> = weights(pairs, 4).iter().map(|w| w + 0.5).collect();
    let logs = |spread: f32| -> Vec<f32> { weights(pairs, 8).iter().map(|w| spread * (w - 8.0) + 3.0).collect() };
    // 2^−21 for e^x and the products in f32, and as much for the sum.
    let bound = 1e-6;
    for (spread, clamp) in [(0.005, 6.0), (0.3, 6.0), (40.0, 6.0), (1.0, 0.5), (0.0, 6.0)] {
        let logs = logs(spread);
        let expected: Vec<f64> =
            norms_of(&logs, clamp).iter().zip(&input).map(|(guess, &h)| guess * f64::from(h)).collect();
        let sum: f64 = expected.iter().sum();
        // A draw from all pairs has the scale count · Σw / (k · w).
        for (geometry, offset) in [(Geometry(1, 64, 0), 0), (Geometry(3, 32, 1), 1000)] {
            let batch =
                Batch { other: &logs, source: SourceKind::Predicted, clamp, offset, ..Batch::of(&input, pairs) };
            let found = run(&batch, Design::Crs, geometry).remove(0);
            assert!(found.indices.len() > 20, "{spread}");
            for (&pair, &scale) in found.indices.iter().zip(&found.scales) {
                let per_draw = sum / (pairs as f64 * expected[pair as usize]);
                let count = (scale / per_draw).round();
                assert!(count >= 1.0 && (scale / (count * per_draw) - 1.0).abs() < bound, "{spread}: {pair} {scale}");
            }
        }
        let batch = Batch { other: &logs, source: SourceKind::Predicted, clamp, ..Batch::of(&input, 80) };
        let one = run(&batch, Design::WtaPivotal, Geometry(1, 64, 2));
        assert_eq!(one, run(&batch, Design::WtaPivotal, Geometry(4, 32, 3)), "the geometry does not matter");
        assert_eq!(one[0].indices.len(), 80);
    }
}
