//! A sampling design of one's own, validated: its exact mean by enumeration, a Monte-Carlo test at a real size, and a
//! design that looks right and is refuted.
//!
//!     cargo run --release -p wtacrs-core --features verify --example own_design

use ndarray::Array2;
use wtacrs_core::sampling::{Budget, Chance, Design, Keep, Randomness, Selection, Weights};
use wtacrs_core::verify::{Law, UnbiasednessTest};

/// Poisson sampling: every pair is kept on its own, with the probability π_i of the winner-take-all designs. The number of
/// kept rows varies from draw to draw, up to all of them.
struct Poisson {
    /// Counts every kept pair as 1 instead of 1/π: the mistake that this example refutes.
    forgets_scales: bool,
}

impl Design for Poisson {
    fn name(&self) -> &'static str {
        "poisson"
    }

    /// One draw for each pair.
    fn draws(&self, budget: Budget) -> u64 {
        budget.pairs() as u64
    }

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        let threshold = weights.threshold(budget);
        let (mut indices, mut scales) = (vec![], vec![]);
        for (pair, &weight) in weights.fixed().iter().enumerate().filter(|&(_, &weight)| weight > 0) {
            let is_kept =
                threshold.is_winner(weight) || chance.happens(pair as u64, threshold.mass(weight), threshold.tail_mass);
            if is_kept {
                indices.push(pair as u32);
                scales.push(if self.forgets_scales { 1.0 } else { threshold.scale(weight) });
            }
        }
        let winners = threshold.winners;
        Selection::new(weights.len(), winners, indices, scales).expect("ascending, with finite scales")
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Small: every outcome with its probability. One functional, whose exact value is the sum of the contributions.
    let weights = Weights::new(&[8.0, 3.0, 1.0, 0.5, 2.0])?;
    let budget = weights.budget(Keep::Rows(3))?;
    let contributions = Array2::from_shape_fn((5, 1), |(i, _)| 1.0 + i as f64);
    // Large: a Monte-Carlo test that raises a false alarm once in a million times.
    let many = Weights::new(&(1..=500).map(|i| 1.0 / f64::from(i)).collect::<Vec<_>>())?;
    let some = many.budget(Keep::Fraction(0.2))?;
    let test = UnbiasednessTest::default();

    for design in [Poisson { forgets_scales: false }, Poisson { forgets_scales: true }] {
        let law = Law::enumerate(&design, &weights, budget)?;
        let mean = law.mean(contributions.view())[0];
        let draws = design.draws(some);
        let verdict = test.run(&many, |trial| design.select_seeded(&many, some, Randomness::new(3, trial * draws)));
        println!(
            "{} {}: exact mean {mean:.6} of {}, {} outcomes; |t| = {:.1}, critical {:.1}: {}",
            design.name(),
            if design.forgets_scales { "without scales" } else { "with 1/π" },
            contributions.sum(),
            law.outcomes().len(),
            verdict.statistic,
            verdict.critical,
            if verdict.rejects() { "biased" } else { "unbiased, as far as this test sees" },
        );
    }
    Ok(())
}
