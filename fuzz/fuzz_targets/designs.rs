//! Any weights, through every way of making them and every design: refused with the right index, or selected from
//! with all promises kept.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wtacrs_core::Randomness;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Keep, Weights, WeightsError};

#[derive(Arbitrary, Debug)]
struct Input {
    weights: Vec<f64>,
    norms: Vec<(f32, f32, Option<f32>)>,
    mix: f64,
    budget: usize,
    seed: u64,
    offset: u64,
}

fn check(weights: &Weights, input: &Input) {
    assert!(u128::from(weights.total()) <= 1 << 62);
    let Ok(budget) = weights.budget(Keep::Rows(input.budget % (weights.len() + 2))) else { return };
    let positive = weights.fixed().iter().filter(|&&w| w > 0).count();
    let threshold = weights.threshold(budget);
    let sum: f64 = weights.fixed().iter().map(|&w| threshold.inclusion(w)).sum();
    let places = budget.get().min(positive) as f64;
    assert!((sum - places).abs() <= 1e-9 * places);
    for design in BuiltIn::ALL {
        let selection = design.select_seeded(weights, budget, Randomness::new(input.seed, input.offset));
        assert_eq!(selection, design.select_seeded(weights, budget, Randomness::new(input.seed, input.offset)));
        assert!(selection.indices().windows(2).all(|pair| pair[0] < pair[1]));
        assert!(selection.indices().iter().all(|&i| (i as usize) < weights.len()));
        assert!(selection.len() <= budget.get() && selection.winners() <= selection.len());
        let crs = design == BuiltIn::Crs;
        assert!(selection.scales().iter().all(|&s| s.is_finite() && s > 0.0 && (crs || s >= 1.0 - 1e-12)));
        if design == BuiltIn::WtaPivotal {
            assert_eq!(selection.len(), budget.get().min(positive));
        }
    }
}

fuzz_target!(|input: Input| {
    let invalid = |w: &f64| !(w.is_finite() && *w >= 0.0);
    match Weights::new(&input.weights) {
        Ok(weights) => {
            assert!(!input.weights.iter().any(invalid));
            check(&weights, &input);
        }
        Err(WeightsError::Invalid { index, .. }) => {
            assert_eq!(Some(index), input.weights.iter().position(invalid));
        }
        Err(other) => panic!("{other}"),
    }
    let x: Vec<f32> = input.norms.iter().map(|&(x, _, _)| x).collect();
    let y: Vec<f32> = input.norms.iter().map(|&(_, y, _)| y).collect();
    let cached: Vec<Option<f32>> = input.norms.iter().map(|&(_, _, cached)| cached).collect();
    for weights in [
        Weights::from_norms(&x, &y),
        Weights::from_input(&x),
        Weights::from_shared_input(&x, &[&y, &x]),
        Weights::from_cache(&x, &cached, input.mix),
    ]
    .into_iter()
    .flatten()
    {
        check(&weights, &input);
    }
});
