//! Each design's exact law for small n and every k: unbiased, its inclusion probabilities, its variance against the
//! closed forms and against the other designs.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use proptest::prelude::*;
use wtacrs_core::sampling::Chance;
use wtacrs_core::sampling::design::{BuiltIn, Crs, Design, TopK, Uniform, WtaIid, WtaPivotal, WtaStratified};
use wtacrs_core::sampling::{Budget, Keep, Selection, Weights};
use wtacrs_core::theory;
use wtacrs_core::verify::{Law, loewner_margin, strategies};

const UNBIASED: [BuiltIn; 5] =
    [BuiltIn::Uniform, BuiltIn::Crs, BuiltIn::WtaIid, BuiltIn::WtaStratified, BuiltIn::WtaPivotal];

fn law<D: Design>(design: &D, weights: &Weights, budget: Budget) -> Law {
    Law::enumerate(design, weights, budget).expect("small enough")
}

fn every_budget(weights: &Weights) -> impl Iterator<Item = Budget> + '_ {
    (1..=weights.len()).map(|k| weights.budget(Keep::Rows(k)).expect("fits"))
}

/// Pair i's contribution in coordinates of its own, of the size of its inclusion probability, so that tails count beside
/// any giant. A design's covariance of these determines its variance for every linear functional of any contributions.
fn inclusions(weights: &Weights, budget: Budget) -> Array2<f64> {
    let threshold = weights.threshold(budget);
    Array2::from_diag(&weights.fixed().iter().map(|&w| threshold.inclusion(w)).collect::<Array1<f64>>())
}

/// Closed forms subtract a squared mean from a second moment, so that rounding is relative to the latter.
fn assert_variance(found: f64, expected: f64, contributions: ArrayView2<'_, f64>, what: &str) {
    let mean = contributions.sum_axis(Axis(0));
    assert_close(found, expected, 1e-12 * (expected + mean.dot(&mean)), what);
}

fn assert_close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

fn trace(covariance: &Array2<f64>) -> f64 {
    covariance.diag().sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_unbiased_design_has_the_exact_product_as_its_mean(
        weights in strategies::weights(1..=7),
        x in strategies::matrix(7, 2),
        y in strategies::matrix(7, 2),
    ) {
        let weights = Weights::new(&weights).expect("valid");
        let n = weights.len();
        // Row i: the outer product of x[i] and y[i], which is zero where the weight is: only then can no design that
        // leaves such pairs out be biased.
        let contributions = Array2::from_shape_fn((n, 4), |(i, j)| {
            if weights.fixed()[i] == 0 { 0.0 } else { x[[i, j / 2]] * y[[i, j % 2]] }
        });
        let product = contributions.sum_axis(Axis(0));
        let size = contributions.mapv(f64::abs).sum();
        for budget in every_budget(&weights) {
            for design in UNBIASED {
                let law = law(&design, &weights, budget);
                prop_assert!((law.outcomes().iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
                let mean = law.mean(contributions.view());
                for (found, expected) in mean.iter().zip(&product) {
                    prop_assert!((found - expected).abs() <= 1e-12 * size, "{design} {budget:?}: {found} {expected}");
                }
                // The same for each pair on its own, relative to itself.
                let scales = law.mean(Array2::eye(n).view());
                for (scale, &weight) in scales.iter().zip(weights.fixed()).filter(|&(_, &weight)| weight > 0) {
                    prop_assert!((scale - 1.0).abs() <= 1e-12, "{design} {budget:?}: {scale} for {weight}");
                }
                prop_assert!(law.outcomes().iter().all(|(s, _)| s.len() <= budget.get()));
            }
        }
    }

    #[test]
    fn inclusion_probabilities_add_up_to_the_budget(weights in strategies::weights(1..=7)) {
        let weights = Weights::new(&weights).expect("valid");
        let positive = weights.fixed().iter().filter(|&&w| w > 0).count();
        for budget in every_budget(&weights) {
            let threshold = weights.threshold(budget);
            let expected: Vec<f64> = weights.fixed().iter().map(|&w| threshold.inclusion(w)).collect();
            let places = budget.get().min(positive);
            prop_assert!((expected.iter().sum::<f64>() - places as f64).abs() < 1e-12);
            let law = law(&WtaPivotal, &weights, budget);
            for (found, expected) in law.inclusion().iter().zip(&expected) {
                prop_assert!((found - expected).abs() <= 1e-12 * expected);
            }
            // Exactly so many distinct pairs, every time.
            prop_assert!(law.outcomes().iter().all(|(s, _)| s.len() == places));
            let uniform = self::law(&Uniform, &weights, budget).inclusion();
            let share = budget.get() as f64 / budget.pairs() as f64;
            prop_assert!(uniform.iter().all(|p| (p - share).abs() < 1e-12));
        }
    }

    #[test]
    fn stratified_and_pivotal_never_vary_more_than_iid(weights in strategies::weights(2..=7)) {
        let weights = Weights::new(&weights).expect("valid");
        for budget in every_budget(&weights) {
            let inclusions = inclusions(&weights, budget);
            let iid = law(&WtaIid, &weights, budget).covariance(inclusions.view());
            for design in [BuiltIn::WtaStratified, BuiltIn::WtaPivotal] {
                let own = law(&design, &weights, budget).covariance(inclusions.view());
                let margin = loewner_margin(own.view(), iid.view());
                prop_assert!(margin >= -1e-10, "{design} {budget:?}: {margin}");
            }
        }
    }

    #[test]
    fn closed_forms_equal_enumeration(
        weights in strategies::weights(2..=7),
        contributions in strategies::matrix(7, 3),
    ) {
        let weights = Weights::new(&weights).expect("valid");
        // Stale weights: contributions of any size, but for pairs that cannot be drawn.
        let contributions = Array2::from_shape_fn((weights.len(), 3), |(i, j)| {
            contributions[[i, j]] * weights.probabilities()[i].sqrt()
        });
        let view = contributions.view();
        for budget in every_budget(&weights) {
            let variance = |law: &Law| trace(&law.covariance(view));
            let uniform = law(&Uniform, &weights, budget);
            assert_variance(theory::uniform_variance(budget, &view), variance(&uniform), view, "uniform");
            let crs = law(&Crs, &weights, budget);
            assert_variance(theory::crs_variance(&weights, budget, &view), variance(&crs), view, "crs");
            assert_close(theory::crs_expected_distinct(&weights, budget), crs.expected_distinct(), 1e-11, "crs rows");
            let iid = law(&WtaIid, &weights, budget);
            assert_variance(theory::wta_iid_variance(&weights, budget, &view), variance(&iid), view, "wta-iid");
            let distinct = theory::wta_iid_expected_distinct(&weights, budget);
            assert_close(distinct, iid.expected_distinct(), 1e-11, "wta-iid rows");
            let stratified = law(&WtaStratified, &weights, budget);
            let closed = theory::wta_stratified_variance(&weights, budget, &view);
            assert_variance(closed, variance(&stratified), view, "wta-stratified");
            let distinct = theory::wta_stratified_expected_distinct(&weights, budget);
            assert_close(distinct, stratified.expected_distinct(), 1e-11, "wta-stratified rows");
            let poisson = law(&Poisson, &weights, budget);
            let squares = |i: usize| view.row(i).dot(&view.row(i));
            assert_variance(theory::poisson_variance(&weights, budget, squares), variance(&poisson), view, "Poisson");
        }
    }

    /// For exact weights, ‖C_i‖ = w_i.
    #[test]
    fn winners_pay_under_theorem_2(
        weights in strategies::weights(3..=7),
        directions in strategies::matrix(7, 3),
    ) {
        let weights = Weights::new(&weights).expect("valid");
        let contributions = exact_contributions(&weights, &directions);
        let view = contributions.view();
        for budget in every_budget(&weights) {
            let crs = theory::crs_variance(&weights, budget, &view);
            let best = theory::wta_iid_variance(&weights, budget, &view);
            // Rounding is relative to the second moments, which winners no longer enter on the left.
            prop_assert!(best <= crs * (1.0 + 1e-9) + 1e-15, "the threshold's own winners: {best} > {crs}");
            for winners in 0..budget.get() {
                let wta = theory::wta_iid_variance_with_winners(&weights, budget, winners, &view);
                if theory::theorem_2_holds(&weights, budget, winners) {
                    prop_assert!(wta <= crs * (1.0 + 1e-9) + 1e-15, "{winners} winners: {wta} > {crs}");
                }
            }
            let forced = ForcedWinners(budget.get() / 2);
            let closed = theory::wta_iid_variance_with_winners(&weights, budget, forced.0, &view);
            let enumerated = trace(&law(&forced, &weights, budget).covariance(view));
            assert_variance(closed, enumerated, view, "forced winners");
        }
    }

    #[test]
    fn the_threshold_finds_the_best_number_of_winners(weights in strategies::weights(1..=30)) {
        let weights = Weights::new(&weights).expect("valid");
        let positive = weights.fixed().iter().filter(|&&w| w > 0).count();
        for budget in every_budget(&weights) {
            if positive > budget.get() {
                prop_assert_eq!(weights.threshold(budget).winners, theory::best_winner_count(&weights, budget));
            } else {
                prop_assert_eq!(weights.threshold(budget).winners, positive);
            }
        }
    }
}

fn exact_contributions(weights: &Weights, directions: &Array2<f64>) -> Array2<f64> {
    let shares = weights.probabilities();
    Array2::from_shape_fn((weights.len(), directions.ncols()), |(i, j)| {
        let direction = directions.row(i);
        let length = direction.dot(&direction).sqrt();
        // A zero direction becomes the first axis.
        let unit = if length > 0.0 { direction[j] / length } else { f64::from(u8::from(j == 0)) };
        shares[i] * unit
    })
}

/// Outside theorem 2's condition winners cost: two of ten equal pairs hold a fifth of the weight, but two of three
/// places.
#[test]
fn a_counterexample_outside_theorem_2() {
    let weights = Weights::new(&[1.0; 10]).expect("valid");
    let budget = weights.budget(Keep::Rows(3)).expect("fits");
    let contributions = Array2::<f64>::eye(10);
    assert!(!theory::theorem_2_holds(&weights, budget, 2));
    let crs = trace(&law(&Crs, &weights, budget).covariance(contributions.view()));
    let forced = trace(&law(&ForcedWinners(2), &weights, budget).covariance(contributions.view()));
    assert_close(crs, 30.0, 1e-12, "crs");
    assert_close(forced, 56.0, 1e-12, "two winners");
    let own = trace(&law(&WtaIid, &weights, budget).covariance(contributions.view()));
    assert_close(own, crs, 1e-12, "wta-iid, which chooses no winner here");
}

#[test]
fn top_k_is_biased_by_what_it_drops() {
    let weights = Weights::new(&[3.0, 1.0, 3.0, 2.0]).expect("valid");
    let budget = weights.budget(Keep::Rows(3)).expect("fits");
    let law = law(&TopK, &weights, budget);
    assert_eq!(law.outcomes().len(), 1);
    assert_eq!(law.outcomes()[0].0, Selection::new(4, 3, vec![0, 2, 3], vec![1.0; 3]).expect("valid"));
    assert_eq!(law.mean(Array2::eye(4).view()).to_vec(), [1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn the_outer_products_of_a_layer_are_contributions_never_written_out() {
    let x = Array2::from_shape_fn((6, 3), |(i, j)| ((i * 5 + j * 3) % 7) as f64 - 3.0);
    let y = Array2::from_shape_fn((6, 2), |(i, j)| ((i * 3 + j) % 5) as f64 - 1.5);
    let flat = Array2::from_shape_fn((6, 6), |(i, j)| x[[i, j / 2]] * y[[i, j % 2]]);
    let weights = Weights::new(&[5.0, 1.0, 1.0, 2.0, 1.0, 1.0]).expect("valid");
    let outer = theory::OuterProducts { x: x.view(), y: y.view() };
    for budget in every_budget(&weights) {
        let flat = flat.view();
        let crs = theory::crs_variance(&weights, budget, &flat);
        assert_close(theory::crs_variance(&weights, budget, &outer), crs, 1e-10, "crs");
        let iid = theory::wta_iid_variance(&weights, budget, &flat);
        assert_close(theory::wta_iid_variance(&weights, budget, &outer), iid, 1e-10, "wta-iid");
        let stratified = theory::wta_stratified_variance(&weights, budget, &flat);
        assert_close(theory::wta_stratified_variance(&weights, budget, &outer), stratified, 1e-10, "stratified");
        let uniform = theory::uniform_variance(budget, &flat);
        assert_close(theory::uniform_variance(budget, &outer), uniform, 1e-10, "uniform");
    }
}

/// Every pair on its own with its inclusion probability: the yardstick of `theory::poisson_variance`.
struct Poisson;

impl Design for Poisson {
    fn name(&self) -> &'static str {
        "poisson"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.pairs() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let threshold = weights.threshold(budget);
        let (mut indices, mut scales) = (vec![], vec![]);
        for (pair, &weight) in weights.fixed().iter().enumerate().filter(|&(_, &weight)| weight > 0) {
            let certain = threshold.is_winner(weight);
            if certain || chance.happens(pair as u64, threshold.mass(weight), threshold.tail_mass) {
                indices.push(pair as u32);
                scales.push(threshold.scale(weight));
            }
        }
        Selection::new(weights.len(), threshold.winners, indices, scales).expect("ascending")
    }
}

/// Eq. 5 with any number of winners, whatever the threshold would choose.
struct ForcedWinners(usize);

impl Design for ForcedWinners {
    fn name(&self) -> &'static str {
        "forced-winners"
    }

    fn draws(&self, budget: Budget) -> u64 {
        budget.get() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let fixed = weights.fixed();
        let mut order: Vec<usize> = (0..fixed.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(fixed[i]));
        let mut tail = fixed.to_vec();
        order[..self.0].iter().for_each(|&i| tail[i] = 0);
        let places = budget.get() - self.0;
        let mass: u64 = tail.iter().sum();
        let mut scale = vec![0.0; fixed.len()];
        order[..self.0].iter().for_each(|&i| scale[i] = 1.0);
        if mass > 0 {
            for draw in 0..places {
                let pair = chance.category(draw as u64, &tail);
                scale[pair] += mass as f64 / (places as f64 * tail[pair] as f64);
            }
        }
        let kept: Vec<u32> = (0..fixed.len() as u32).filter(|&i| scale[i as usize] > 0.0).collect();
        let scales = kept.iter().map(|&i| scale[i as usize]).collect();
        Selection::new(fixed.len(), self.0, kept, scales).expect("ascending")
    }
}
