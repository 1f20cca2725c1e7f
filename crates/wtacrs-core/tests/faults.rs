//! What the published implementation gets wrong, each fault with a test that would fail on it.

use ndarray::{Array2, Axis};
use wtacrs_core::Randomness;
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::layers::Linear;
use wtacrs_core::product::{self, Update};
use wtacrs_core::sampling::design::{BuiltIn, Crs, Design, WtaIid};
use wtacrs_core::sampling::{Budget, Keep, Selection, Weights};
use wtacrs_core::verify::Law;

const WINNER_TAKE_ALL: [BuiltIn; 3] = [BuiltIn::WtaIid, BuiltIn::WtaStratified, BuiltIn::WtaPivotal];

fn problem(weights: &[f64], k: usize) -> (Weights, Budget) {
    let weights = Weights::new(weights).expect("valid");
    let budget = weights.budget(Keep::Rows(k)).expect("fits");
    (weights, budget)
}

/// E[scale_i], which must be 1 for every pair of positive weight.
fn mean_scales(design: BuiltIn, weights: &Weights, budget: Budget) -> Vec<f64> {
    Law::enumerate(&design, weights, budget).expect("small").mean(Array2::eye(weights.len()).view()).to_vec()
}

fn assert_ones(scales: &[f64], what: &str) {
    assert!(scales.iter().all(|s| (s - 1.0).abs() < 1e-12), "{what}: {scales:?}");
}

/// Fault: with |C| = k the tail's factor divides by k − |C| = 0.
#[test]
fn as_many_winners_as_places() {
    for (weights, k) in [(&[5.0, 0.0, 7.0, 0.0][..], 2), (&[1.0, 2.0, 3.0], 3), (&[1e300, 1e-300], 2)] {
        let (weights, budget) = problem(weights, k);
        for design in WINNER_TAKE_ALL {
            let selection = design.select_seeded(&weights, budget, Randomness::new(1, 0));
            assert_eq!((selection.winners(), selection.len()), (k, k), "{design}");
            assert!(selection.scales().iter().all(|&s| s == 1.0), "{design}");
        }
    }
}

/// Fault: an eps in the denominators, so that the p_i do not add up to one and small weights are swamped by it.
#[test]
fn the_unit_of_the_weights_does_not_matter() {
    let plain = [3.0, 1.0, 0.25, 2.0, 1.5, 0.125, 1.0];
    let (weights, budget) = problem(&plain, 3);
    for unit in [1e-30, 2.0_f64.powi(-300), 1e30] {
        let (scaled, _) = problem(&plain.map(|w| w * unit), 3);
        for design in BuiltIn::ALL {
            for seed in 0..20 {
                let expected = design.select_seeded(&weights, budget, Randomness::new(seed, 0));
                let found = design.select_seeded(&scaled, budget, Randomness::new(seed, 0));
                assert_eq!(found.indices(), expected.indices(), "{design} {unit}");
                for (found, expected) in found.scales().iter().zip(expected.scales()) {
                    assert!((found - expected).abs() < 1e-12 * expected, "{design} {unit}");
                }
            }
        }
    }
}

/// Fault: scales from 1 − P_C, which cancels where the winners hold almost all, instead of the tail's own sum.
/// Fault: the tail is dropped when P_C > 0.999.
#[test]
fn a_tail_far_below_the_winners_still_counts() {
    let (weights, budget) = problem(&[1e13, 1.0, 2.0, 3.0, 1e13, 1.0], 4);
    let probabilities = weights.probabilities();
    assert!(probabilities[0] + probabilities[4] > 0.999_999_999);
    for design in WINNER_TAKE_ALL {
        let selection = design.select_seeded(&weights, budget, Randomness::new(3, 0));
        assert!(selection.len() > selection.winners(), "{design} keeps some of the tail");
        assert_ones(&mean_scales(design, &weights, budget), design.name());
    }
    // The tail's inclusion probabilities are its own: 2 places among weights 1, 2, 3, 1.
    let pivotal = Law::enumerate(&BuiltIn::WtaPivotal, &weights, budget).expect("small").inclusion();
    for (found, expected) in pivotal.iter().zip([1.0, 2.0 / 7.0, 4.0 / 7.0, 6.0 / 7.0, 1.0, 2.0 / 7.0]) {
        assert!((found - expected).abs() < 1e-2, "{found} {expected}");
    }
}

/// Fault: with an all-zero cache the tail's rows are never divided by p · (k − |C|).
#[test]
fn an_all_zero_cache_is_a_cold_one() {
    let input = [1.0, 2.0, 3.0, 4.0, 0.5_f32];
    let zero = Weights::from_cache(&input, &[Some(0.0); 5], 0.01).expect("valid");
    assert_eq!(zero, Weights::from_input(&input).expect("valid"));
    assert_eq!(zero, Weights::from_cache(&input, &[None; 5], 0.01).expect("valid"));
    let budget = zero.budget(Keep::Rows(3)).expect("fits");
    for design in WINNER_TAKE_ALL {
        assert_ones(&mean_scales(design, &zero, budget), design.name());
    }
    // And weights that are all zero make every pair equally likely.
    let (zero, budget) = problem(&[0.0; 5], 2);
    for design in BuiltIn::ALL.into_iter().filter(|d| d.is_unbiased()) {
        assert_ones(&mean_scales(design, &zero, budget), design.name());
    }
}

/// Fault: with |C| = 0 it draws without replacement and without weights. There wta-iid is plain column-row sampling.
#[test]
fn without_winners_the_weights_still_count() {
    let (weights, budget) = problem(&[3.0, 2.0, 3.0, 2.0, 3.0, 2.5], 2);
    assert_eq!(weights.threshold(budget).winners, 0);
    let wta = Law::enumerate(&WtaIid, &weights, budget).expect("small");
    let crs = Law::enumerate(&Crs, &weights, budget).expect("small");
    assert_eq!(wta.outcomes().len(), crs.outcomes().len());
    for ((a, p), (b, q)) in wta.outcomes().iter().zip(crs.outcomes()) {
        assert!(a.indices() == b.indices() && (p - q).abs() < 1e-15);
        assert!(a.scales().iter().zip(b.scales()).all(|(a, b)| (a - b).abs() < 1e-12 * b));
    }
}

/// Fault: a row drawn twice is stored twice, winners and tail in two parts.
#[test]
fn rows_are_kept_once_in_one_part() {
    let (weights, budget) = problem(&[50.0, 9.0, 1.0, 1.0, 60.0, 9.0], 5);
    let mut repeated = 0;
    for design in BuiltIn::ALL {
        for seed in 0..200 {
            let selection = design.select_seeded(&weights, budget, Randomness::new(seed, 0));
            assert!(selection.indices().windows(2).all(|w| w[0] < w[1]), "{design}");
            repeated += usize::from(selection.len() < budget.get());
        }
    }
    assert!(repeated > 0, "some draws repeat a pair");
    // What is saved is one matrix of distinct rows.
    let h = Array2::from_shape_fn((6, 2), |(i, j)| (i * 2 + j) as f32);
    let selection = Selection::new(6, 1, vec![0, 4], vec![1.0, 2.0]).expect("valid");
    assert_eq!(product::gather(h.view(), &selection).expect("fits"), h.select(Axis(0), &[0, 4]));
}

/// Fault: three subsamples of the one H that Q, K and V share.
#[test]
fn a_shared_input_is_sampled_once_for_all_its_layers() {
    let tokens = 40;
    let value = |i: usize, j: usize, layer: usize| ((i * 13 + j * 7 + layer * 5) % 17) as f32 / 8.0 - 1.0;
    let h = Array2::from_shape_fn((tokens, 6), |(i, j)| value(i, j, 0));
    let gradients: Vec<Array2<f32>> = (1..=3)
        .map(|layer| Array2::from_shape_fn((tokens, 5), |(i, j)| value(i, j, layer) / (1 + i % 9) as f32))
        .collect();
    let norms: Vec<Vec<f32>> = gradients.iter().map(|dz| product::row_norms(dz.view())).collect();
    let slices: Vec<&[f32]> = norms.iter().map(Vec::as_slice).collect();
    let joint = product::joint_norms(&slices).expect("one length");

    let layer = Linear::new(Keep::Rows(12));
    let saved = layer.forward(h.view(), NormGuess::Norms(&joint), Randomness::new(1, 0)).expect("fits");
    assert_eq!(saved.rows().nrows(), 12, "one subsample");
    let weights = Weights::from_shared_input(&product::row_norms(h.view()), &slices).expect("valid");
    let budget = weights.budget(Keep::Rows(12)).expect("fits");
    assert_eq!(
        &BuiltIn::default().select_seeded(&weights, budget, Randomness::new(1, 0)).indices(),
        &saved.selection().expect("chosen").indices()
    );

    // Each layer's own gradient is unbiased: averaged over draws it nears the exact one as 1/√draws.
    let draws = 4000;
    for dz in &gradients {
        let exact = h.t().dot(dz);
        let mut mean = Array2::<f32>::zeros(exact.dim());
        let mut spread = 0.0;
        for draw in 0..draws {
            let offset = draw * layer.draws(tokens).expect("fits");
            let saved = layer.forward(h.view(), NormGuess::Norms(&joint), Randomness::new(1, offset)).expect("fits");
            let mut dw = Array2::zeros(exact.dim());
            saved.backward(dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
            spread += (&dw - &exact).mapv(|v| v * v).sum();
            mean += &dw;
        }
        mean /= draws as f32;
        let bias = (&mean - &exact).mapv(|v| v * v).sum();
        let ratio = bias / (spread / draws as f32 / draws as f32);
        assert!((0.3..2.5).contains(&ratio), "{ratio}");
    }
}
