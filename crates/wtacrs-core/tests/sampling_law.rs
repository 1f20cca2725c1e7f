//! Chance against independent oracles: statrs' laws, rand_distr's alias table, extreme weights, boundary bits.

use rand::SeedableRng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use rand_pcg::Pcg64;
use statrs::distribution::{Binomial, ChiSquared, ContinuousCDF, DiscreteCDF};
use wtacrs_core::Randomness;
use wtacrs_core::sampling::AliasTable;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{BitSource, Chance, PhiloxChance, RngChance};
use wtacrs_core::sampling::{Keep, Weights};

/// Each test raises a false alarm once in a million seeds; the seeds are fixed.
const FALSE_ALARM: f64 = 1e-6;

/// The p-value of observed counts under given probabilities; cells of little mass are pooled.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    let (mut statistic, mut cells) = (0.0, 0);
    let (mut pooled_count, mut pooled_mean) = (0.0, 0.0);
    for (&count, &probability) in counts.iter().zip(probabilities) {
        pooled_count += count as f64;
        pooled_mean += probability * total;
        if pooled_mean >= 10.0 {
            statistic += (pooled_count - pooled_mean).powi(2) / pooled_mean;
            cells += 1;
            (pooled_count, pooled_mean) = (0.0, 0.0);
        }
    }
    assert!(cells > 1, "a test needs two cells");
    ChiSquared::new(f64::from(cells - 1)).expect("positive").sf(statistic)
}

/// The p-value, asymptotically, of the largest distance between the empirical law and the uniform one.
fn kolmogorov_smirnov(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let distance = values
        .iter()
        .enumerate()
        .map(|(i, v)| (v - i as f64 / n).abs().max(((i + 1) as f64 / n - v).abs()))
        .fold(0.0, f64::max);
    let scaled = n.sqrt() * distance;
    (1..=100).map(|j| 2.0 * (-1_f64).powi(j - 1) * (-2.0 * f64::from(j * j) * scaled * scaled).exp()).sum()
}

fn random_masses(pairs: u64) -> Vec<u64> {
    (0..pairs).map(|i| 1 + (i * 2_654_435_761 % 1009) * u64::from(i % 7 != 0)).collect()
}

#[test]
fn alias_draws_follow_the_masses_and_agree_with_rand_distr() {
    let masses = random_masses(300);
    let draws = 300_000;
    let total = masses.iter().sum::<u64>() as f64;
    let probabilities: Vec<f64> = masses.iter().map(|&m| m as f64 / total).collect();
    let table = AliasTable::new(&masses).expect("positive");
    let widened = |counts: Vec<u32>| counts.into_iter().map(u64::from).collect::<Vec<_>>();
    let ours = widened(PhiloxChance::new(Randomness::new(2, 0)).counts(0, draws, &table));
    let with_rng = widened(RngChance(&mut Pcg64::seed_from_u64(2)).counts(0, draws, &table));
    let oracle = WeightedAliasIndex::new(masses.clone()).expect("valid");
    let mut rng = Pcg64::seed_from_u64(3);
    let mut theirs = vec![0_u64; masses.len()];
    (0..draws).for_each(|_| theirs[oracle.sample(&mut rng)] += 1);
    for counts in [&ours, &with_rng, &theirs] {
        assert_eq!(counts.iter().sum::<u64>(), u64::from(draws));
        assert!(chi_square(counts, &probabilities) > FALSE_ALARM);
    }
    // Two samples of one size: (a − b)²/(a + b) over the cells.
    let statistic: f64 = ours
        .iter()
        .zip(&theirs)
        .filter(|&(a, b)| a + b > 0)
        .map(|(&a, &b)| (a as f64 - b as f64).powi(2) / (a + b) as f64)
        .sum();
    assert!(ChiSquared::new(masses.len() as f64 - 1.0).expect("positive").sf(statistic) > FALSE_ALARM);
}

#[test]
fn the_tests_themselves_can_fail() {
    let masses = random_masses(300);
    let wrong: Vec<f64> = vec![1.0 / 300.0; 300];
    let counts =
        PhiloxChance::new(Randomness::new(2, 0)).counts(0, 300_000, &AliasTable::new(&masses).expect("positive"));
    assert!(chi_square(&counts.into_iter().map(u64::from).collect::<Vec<_>>(), &wrong) < FALSE_ALARM);
    assert!(kolmogorov_smirnov((0..10_000).map(|i| (f64::from(i) / 10_000.0).powf(1.1)).collect()) < FALSE_ALARM);
}

#[test]
fn bits_are_uniform() {
    let mut chance = PhiloxChance::with_stream(Randomness::new(1, 77), 3);
    let high = (0..100_000).map(|i| (chance.bits(i) >> 75) as f64 / (1_u64 << 53) as f64).collect();
    assert!(kolmogorov_smirnov(high) > FALSE_ALARM);
    let low = (0..100_000).map(|i| (chance.bits(i) << 64 >> 75) as f64 / (1_u64 << 53) as f64).collect();
    assert!(kolmogorov_smirnov(low) > FALSE_ALARM);
}

#[test]
fn chances_and_categories_follow_their_probabilities() {
    let mut chance = PhiloxChance::new(Randomness::new(6, 0));
    let masses = [1, 0, 5, 1 << 20, 3 << 19, 77, 0];
    let total = masses.iter().sum::<u64>() as f64;
    let mut counts = vec![0; masses.len()];
    (0..200_000).for_each(|i| counts[chance.category(i, &masses)] += 1);
    assert!(chi_square(&counts, &masses.map(|m| m as f64 / total)) > FALSE_ALARM);
    assert_eq!((counts[1], counts[6]), (0, 0));

    let (part, whole) = ((1 << 61) / 3, 1 << 61);
    let hits = (0..200_000).filter(|&i| chance.happens(300_000 + i, part, whole)).count() as u64;
    assert!(chi_square(&[hits, 200_000 - hits], &[1.0 / 3.0, 2.0 / 3.0]) > FALSE_ALARM);
}

/// How often each pair is kept, against its inclusion probability: every cell two-sided binomial.
#[test]
fn pairs_are_kept_as_often_as_they_should_be_under_extreme_weights() {
    let mut weights: Vec<f64> = (0..50).map(|i| f64::from(1 + i % 5)).collect();
    weights[7] = 1e12;
    weights[8] = 1e-3;
    weights[9] = 0.0;
    let weights = Weights::new(&weights).expect("valid");
    let budget = weights.budget(Keep::Rows(12)).expect("fits");
    let threshold = weights.threshold(budget);
    let selections = 40_000;
    for design in [BuiltIn::WtaPivotal, BuiltIn::Uniform] {
        let mut kept = vec![0_u64; weights.len()];
        for trial in 0..selections {
            let selection = design.select_seeded(&weights, budget, Randomness::new(21, 64 * trial));
            selection.indices().iter().for_each(|&i| kept[i as usize] += 1);
        }
        for (pair, &count) in kept.iter().enumerate() {
            let inclusion = match design {
                BuiltIn::Uniform => 12.0 / 50.0,
                _ => threshold.inclusion(weights.fixed()[pair]),
            };
            let law = Binomial::new(inclusion, selections).expect("a probability");
            let tail = law.cdf(count).min(if count == 0 { 1.0 } else { law.sf(count - 1) });
            assert!(tail > FALSE_ALARM / 100.0, "{design}, pair {pair}: {count} of {selections} at {inclusion}");
        }
        assert!(design == BuiltIn::Uniform || (kept[7], kept[9]) == (selections, 0));
    }
}

/// The first and the last of all bit patterns must give valid selections, whatever the weights.
#[test]
fn boundary_bits() {
    struct Constant(u128);
    impl BitSource for Constant {
        fn bits(&mut self, _index: u64) -> u128 {
            self.0
        }
    }
    let cases: [&[f64]; 6] =
        [&[1.0], &[0.0, 0.0, 1.0], &[1e-300, 1e300, 1.0], &[1.0; 9], &[0.0; 5], &[4.0, 0.0, 1.0, 1.0, 0.0, 2.0, 8.0]];
    for weights in cases {
        let weights = Weights::new(weights).expect("valid");
        let positive = weights.fixed().iter().filter(|&&w| w > 0).count();
        for k in 1..=weights.len() {
            let budget = weights.budget(Keep::Rows(k)).expect("fits");
            for bits in [0, 1, u128::MAX >> 64, 1 << 64, u128::MAX - 1, u128::MAX] {
                for design in BuiltIn::ALL {
                    let selection = design.select(&weights, budget, &mut Constant(bits));
                    assert!(selection.indices().windows(2).all(|w| w[0] < w[1]));
                    assert!(!selection.is_empty() && selection.len() <= k);
                    assert!(selection.scales().iter().all(|s| s.is_finite() && *s >= 0.99));
                    if design != BuiltIn::Uniform {
                        let fixed = weights.fixed();
                        assert!(selection.indices().iter().all(|&i| fixed[i as usize] > 0), "{design}");
                    }
                    if matches!(design, BuiltIn::WtaPivotal | BuiltIn::TopK) {
                        assert_eq!(selection.len(), k.min(positive), "{design}");
                    }
                }
            }
        }
    }
}
