//! Estimates a matrix product from a few of its column-row pairs, with each design, and compares the error with theory.
//!
//!     cargo run --release -p wtacrs-core --example estimate_product

use ndarray::{Array2, ArrayView2};
use wtacrs_core::product::{gather, row_norms, weight_gradient};
use wtacrs_core::rand_core::Rng;
use wtacrs_core::sampling::{BuiltIn, Design, Keep, Philox4x32_10, Randomness, Weights};
use wtacrs_core::theory::{OuterProducts, crs_variance, wta_iid_variance};

const TOKENS: usize = 1000;
const DRAWS: u64 = 200;

/// rows × columns between −1 and 1, with row sizes that differ as those of activations and gradients do.
fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    let mut rng = Philox4x32_10::new(seed, 0);
    let mut number = || f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    let sizes: Vec<f64> = (0..rows).map(|_| (2.0 * number()).exp()).collect();
    Array2::from_shape_fn((rows, columns), |(row, _)| sizes[row] * number())
}

fn squared_norm(x: ArrayView2<'_, f64>) -> f64 {
    x.iter().map(|v| v * v).sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // X is 64 × 1000 and Y is 1000 × 32; pair i is column i of X with row i of Y. Both are stored token by token.
    let (x, y) = (matrix(TOKENS, 64, 1), matrix(TOKENS, 32, 2));
    let exact = x.t().dot(&y);
    let weights = Weights::from_norms(&row_norms(x.view()), &row_norms(y.view()))?;
    let budget = weights.budget(Keep::Fraction(0.1))?;

    println!("relative error of XᵀY from {} of {TOKENS} pairs, over {DRAWS} draws", budget.get());
    for design in BuiltIn::ALL {
        let mut squared_error = 0.0;
        for draw in 0..DRAWS {
            let randomness = Randomness::new(42, 0).next(draw * design.draws(budget));
            let selection = design.select_seeded(&weights, budget, randomness);
            let estimate = weight_gradient(gather(x.view(), &selection)?.view(), y.view(), &selection)?;
            squared_error += squared_norm((&estimate - &exact).view()) / DRAWS as f64;
        }
        println!("  {design:<15} {:.3}", (squared_error / squared_norm(exact.view())).sqrt());
    }

    let contributions = OuterProducts { x: x.view(), y: y.view() };
    let relative = |variance: f64| (variance / squared_norm(exact.view())).sqrt();
    println!("closed forms: crs {:.3}", relative(crs_variance(&weights, budget, &contributions)));
    println!("          wta-iid {:.3}", relative(wta_iid_variance(&weights, budget, &contributions)));
    Ok(())
}
