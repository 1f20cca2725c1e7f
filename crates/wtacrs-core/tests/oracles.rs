//! Each design beside a naive version of itself: a sort instead of the threshold, recursion instead of levels, searches
//! in 128-bit prefix sums instead of sweeps, draws one by one. Selections must be equal to the bit.

use proptest::prelude::*;
use wtacrs_core::Randomness;
use wtacrs_core::sampling::AliasTable;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Keep, Selection, Weights};
use wtacrs_core::verify::strategies;

/// The 128 bits of an index at (seed, offset), from their documented counter.
fn bits(seed: u64, offset: u64, index: u64) -> u128 {
    wtacrs_exact::philox::bits(0x7774_6163_0000_0000 << 64 | u128::from(offset + index), seed)
}

/// ⌊bits · bound / 2^128⌋ by long multiplication.
fn point(bits: u128, bound: u128) -> u128 {
    let (high, low) = (bits >> 64, bits & u128::from(u64::MAX));
    (high * bound + ((low * bound) >> 64)) >> 64
}

struct Tail {
    winner: Vec<bool>,
    /// Σ of the tail's weights: probability one.
    unit: u128,
    places: u128,
}

/// The least number of heaviest pairs such that no other pair saturates.
fn split(fixed: &[u64], budget: usize) -> Tail {
    let mut order: Vec<usize> = (0..fixed.len()).filter(|&i| fixed[i] > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(fixed[i]));
    let sum = |c: usize| order[c..].iter().map(|&i| u128::from(fixed[i])).sum::<u128>();
    let winners = (0..order.len().min(budget))
        .find(|&c| (budget - c) as u128 * u128::from(fixed[order[c]]) < sum(c))
        .unwrap_or(order.len().min(budget));
    let mut winner = vec![false; fixed.len()];
    order[..winners].iter().for_each(|&i| winner[i] = true);
    Tail { winner, unit: sum(winners), places: (budget - winners) as u128 }
}

/// Scales as f64 quotients of integers.
fn selection(fixed: &[u64], tail: &Tail, counts: &[u32]) -> Selection {
    let kept: Vec<u32> = (0..fixed.len() as u32).filter(|&i| counts[i as usize] > 0).collect();
    let scale = |&i: &u32| match tail.winner[i as usize] {
        true => 1.0,
        false => {
            let mass = u128::from(fixed[i as usize]) * tail.places;
            f64::from(counts[i as usize]) * (tail.unit as f64 / mass as f64)
        }
    };
    let scales = kept.iter().map(scale).collect();
    let winners = tail.winner.iter().filter(|&&w| w).count();
    Selection::new(fixed.len(), winners, kept, scales).expect("ascending")
}

fn pivotal(fixed: &[u64], budget: usize, seed: u64, offset: u64) -> Selection {
    let tail = split(fixed, budget);
    let mut counts: Vec<u32> = tail.winner.iter().map(|&w| u32::from(w)).collect();
    if tail.unit > 0 {
        let leaves = fixed.len().next_power_of_two();
        duel(1, leaves, fixed, &tail, seed, offset, &mut counts);
    }
    selection(fixed, &tail, &counts)
}

/// The pair still in below heap node `node`, with its mass.
fn duel(
    node: usize,
    leaves: usize,
    fixed: &[u64],
    tail: &Tail,
    seed: u64,
    offset: u64,
    counts: &mut [u32],
) -> (usize, u128) {
    if node >= leaves {
        let pair = node - leaves;
        let in_tail = pair < fixed.len() && !tail.winner[pair];
        return (pair, if in_tail { u128::from(fixed[pair]) * tail.places } else { 0 });
    }
    let (i, a) = duel(2 * node, leaves, fixed, tail, seed, offset, counts);
    let (j, b) = duel(2 * node + 1, leaves, fixed, tail, seed, offset, counts);
    let bits = bits(seed, offset, node as u64);
    if a == 0 {
        return (j, b);
    }
    if b == 0 {
        return (i, a);
    }
    if a + b < tail.unit {
        return (if point(bits, a + b) < a { i } else { j }, a + b);
    }
    let (selected, other) = if point(bits, 2 * tail.unit - a - b) < tail.unit - b { (i, j) } else { (j, i) };
    counts[selected] += 1;
    (other, a + b - tail.unit)
}

fn stratified(fixed: &[u64], budget: usize, seed: u64, offset: u64) -> Selection {
    let tail = split(fixed, budget);
    let mut counts: Vec<u32> = tail.winner.iter().map(|&w| u32::from(w)).collect();
    let mut ends = vec![];
    let mut sum = 0;
    for (pair, &weight) in fixed.iter().enumerate() {
        sum += if tail.winner[pair] { 0 } else { u128::from(weight) * tail.places };
        ends.push(sum);
    }
    if tail.unit > 0 {
        for stratum in 0..tail.places {
            let at = stratum * tail.unit + point(bits(seed, offset, stratum as u64), tail.unit);
            counts[ends.partition_point(|&end| end <= at)] += 1;
        }
    }
    selection(fixed, &tail, &counts)
}

/// Pairs drawn one by one from an alias table of `masses`, whose law its own tests prove.
fn independent(masses: &[u64], draws: u128, seed: u64, offset: u64) -> Vec<u32> {
    let mut counts = vec![0; masses.len()];
    for draw in 0..draws {
        counts[AliasTable::new(masses).expect("positive").pick(bits(seed, offset, draw as u64))] += 1;
    }
    counts
}

fn iid(fixed: &[u64], budget: usize, seed: u64, offset: u64) -> Selection {
    let tail = split(fixed, budget);
    let masses: Vec<u64> = fixed.iter().zip(&tail.winner).map(|(&q, &wins)| if wins { 0 } else { q }).collect();
    let draws = if tail.unit > 0 { tail.places } else { 0 };
    let mut counts = independent(&masses, draws, seed, offset);
    counts.iter_mut().zip(&tail.winner).for_each(|(count, &wins)| *count += u32::from(wins));
    selection(fixed, &tail, &counts)
}

fn crs(fixed: &[u64], budget: usize, seed: u64, offset: u64) -> Selection {
    let total: u64 = fixed.iter().sum();
    let counts = independent(fixed, budget as u128, seed, offset);
    let kept: Vec<u32> = (0..fixed.len() as u32).filter(|&i| counts[i as usize] > 0).collect();
    let scale = |&i: &u32| f64::from(counts[i as usize]) * total as f64 / (budget as f64 * fixed[i as usize] as f64);
    let scales = kept.iter().map(scale).collect();
    Selection::new(fixed.len(), 0, kept, scales).expect("ascending")
}

/// Every pair in turn, with probability places left / pairs left.
fn uniform(pairs: usize, budget: usize, seed: u64, offset: u64) -> Selection {
    let mut kept = vec![];
    for pair in 0..pairs {
        let left = (budget - kept.len()) as u128;
        if point(bits(seed, offset, pair as u64), (pairs - pair) as u128) < left {
            kept.push(pair as u32);
        }
    }
    let scales = vec![pairs as f64 / budget as f64; kept.len()];
    Selection::new(pairs, if budget == pairs { pairs } else { 0 }, kept, scales).expect("ascending")
}

/// The k first in an order by weight, then index.
fn top_k(fixed: &[u64], budget: usize) -> Selection {
    let mut order: Vec<u32> = (0..fixed.len() as u32).filter(|&i| fixed[i as usize] > 0).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(fixed[i as usize]));
    order.truncate(budget);
    order.sort_unstable();
    let scales = vec![1.0; order.len()];
    Selection::new(fixed.len(), order.len(), order, scales).expect("ascending")
}

fn select(design: BuiltIn, weights: &Weights, budget: Budget, seed: u64, offset: u64) -> Selection {
    design.select_seeded(weights, budget, Randomness::new(seed, offset))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_design_equals_its_naive_version(
        weights in strategies::weights(1..=70),
        share in 0.0..1.0_f64,
        seed in any::<u64>(),
        offset in 0..1_u64 << 60,
    ) {
        let weights = Weights::new(&weights).expect("valid");
        let fixed = weights.fixed();
        let k = 1 + (share * fixed.len() as f64) as usize;
        let budget = weights.budget(Keep::Rows(k.min(fixed.len()))).expect("fits");
        let k = budget.get();
        prop_assert_eq!(select(BuiltIn::WtaPivotal, &weights, budget, seed, offset), pivotal(fixed, k, seed, offset));
        prop_assert_eq!(
            select(BuiltIn::WtaStratified, &weights, budget, seed, offset),
            stratified(fixed, k, seed, offset)
        );
        prop_assert_eq!(select(BuiltIn::WtaIid, &weights, budget, seed, offset), iid(fixed, k, seed, offset));
        prop_assert_eq!(select(BuiltIn::Crs, &weights, budget, seed, offset), crs(fixed, k, seed, offset));
        let naive = uniform(fixed.len(), k, seed, offset);
        prop_assert_eq!(select(BuiltIn::Uniform, &weights, budget, seed, offset), naive);
        prop_assert_eq!(select(BuiltIn::TopK, &weights, budget, seed, offset), top_k(fixed, k));
    }
}
