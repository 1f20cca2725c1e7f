//! The verification kit must reject wrong estimators: an unscaled tail, an eps in the denominator, a dropped tail.
//! Were it to pass one of these, its passing a right one would mean nothing.

use ndarray::Array2;
use rand::RngExt;
use rand::SeedableRng;
use rand_pcg::Pcg64;
use wtacrs_core::Randomness;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Keep, Selection, Weights};
use wtacrs_core::sampling::{Chance, RngChance};
use wtacrs_core::verify::{Law, UnbiasednessTest};

/// A right design, made wrong.
struct Wrong {
    of: BuiltIn,
    how: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    UnscaledTail,
    /// p_i = w_i / (Σw + eps), with eps a tenth of Σw.
    EpsInDenominator,
    DroppedTail,
}

const FAULTS: [Fault; 3] = [Fault::UnscaledTail, Fault::EpsInDenominator, Fault::DroppedTail];
const WINNER_TAKE_ALL: [BuiltIn; 3] = [BuiltIn::WtaIid, BuiltIn::WtaStratified, BuiltIn::WtaPivotal];

impl Design for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn draws(&self, budget: Budget) -> u64 {
        self.of.draws(budget)
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let right = self.of.select(weights, budget, chance);
        let threshold = weights.threshold(budget);
        let (mut indices, mut scales) = (vec![], vec![]);
        for (pair, scale) in right.iter() {
            let wins = threshold.is_winner(weights.fixed()[pair]);
            let wrong = match self.how {
                _ if wins => Some(scale),
                Fault::UnscaledTail => Some(1.0),
                Fault::EpsInDenominator => Some(scale * 1.1),
                Fault::DroppedTail => None,
            };
            if let Some(scale) = wrong {
                indices.push(pair as u32);
                scales.push(scale);
            }
        }
        Selection::new(right.pairs(), right.winners(), indices, scales).expect("valid")
    }
}

/// Weights like a layer's: a few large, many small.
fn heavy_tailed(pairs: usize) -> (Weights, Budget) {
    let mut rng = Pcg64::seed_from_u64(4);
    let weights: Vec<f64> = (0..pairs).map(|_| rng.random::<f64>().powi(-1).min(50.0)).collect();
    let weights = Weights::new(&weights).expect("valid");
    let budget = weights.budget(Keep::Fraction(0.3)).expect("fits");
    (weights, budget)
}

#[test]
fn enumeration_rejects_every_fault() {
    let weights = Weights::new(&[9.0, 1.0, 2.0, 1.5, 0.5, 1.0]).expect("valid");
    let budget = weights.budget(Keep::Rows(3)).expect("fits");
    let worst = |law: &Law| law.mean(Array2::eye(6).view()).iter().map(|m| (m - 1.0).abs()).fold(0.0, f64::max);
    for of in WINNER_TAKE_ALL {
        assert!(worst(&Law::enumerate(&of, &weights, budget).expect("small")) < 1e-12);
        for how in FAULTS {
            let law = Law::enumerate(&Wrong { of, how }, &weights, budget).expect("small");
            assert!(worst(&law) > 5e-3, "{of} with {how:?} passes");
        }
    }
}

#[test]
fn monte_carlo_rejects_every_fault_and_no_right_design() {
    let (weights, budget) = heavy_tailed(200);
    let test = UnbiasednessTest { trials: 20_000, ..Default::default() };
    for of in BuiltIn::ALL.into_iter().filter(|design| design.is_unbiased()) {
        let verdict = test.run(&weights, |trial| of.select_seeded(&weights, budget, Randomness::new(8, 512 * trial)));
        assert!(!verdict.rejects(), "{of}: {verdict:?}");
    }
    for of in WINNER_TAKE_ALL {
        for how in FAULTS {
            let wrong = Wrong { of, how };
            let verdict =
                test.run(&weights, |trial| wrong.select_seeded(&weights, budget, Randomness::new(8, 512 * trial)));
            assert!(verdict.rejects(), "{of} with {how:?} passes: {verdict:?}");
        }
    }
    let top_k = test.run(&weights, |trial| BuiltIn::TopK.select_seeded(&weights, budget, Randomness::new(8, trial)));
    assert!(top_k.rejects());
}

#[test]
fn any_rand_generator_serves() {
    let (weights, budget) = heavy_tailed(60);
    let mut rng = Pcg64::seed_from_u64(1);
    let test = UnbiasednessTest::default();
    for design in BuiltIn::ALL.into_iter().filter(|design| design.is_unbiased()) {
        let verdict = test.run(&weights, |_| design.select(&weights, budget, &mut RngChance(&mut rng)));
        assert!(!verdict.rejects(), "{design}: {verdict:?}");
    }
}
