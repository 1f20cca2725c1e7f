//! A guess of ‖dZ_i‖ from h_i, learned online and without a cache.
//!
//! ```text
//! log‖dZ_i‖ ≈ c · P(h_i/‖h_i‖) + b = θ · h_i/‖h_i‖ + b,   P (r × in_features), c (r), θ = Pᵀc (in_features)
//! ```
//!
//! The logarithm of a token's gradient norm is largely linear in its activation. Each step's kept rows, of which the
//! backward pass knows the exact norm, teach a ridge regression with forgetting on r random projections of h, and the
//! next forward pass guesses every token by one dot product, in the pass over H that its norms need anyway. A guess
//! sets inclusion probabilities only: a bad one costs variance, and brings no bias as long as no weight is zero, which
//! the clamp ensures.
//!
//! One step, with ω_i the square root of the scale 1/π_i of kept row i, x_i = P(h_i/‖h_i‖) and y_i = log‖dZ_i‖:
//!
//! ```text
//! C ← φC + Σ ω_i (x_i − x̄)(x_i − x̄)ᵀ        (r × r; φ is the forgetting, x̄ and ȳ the step's own means)
//! m ← φm + Σ ω_i (x_i − x̄)(y_i − ȳ)         (r)
//! c ← a few conjugate-gradient iterations from c towards (C + λI)⁻¹ m,   θ ← Pᵀc,   b ← ȳ − c·x̄
//! ```
//!
//! Centring each step by its own means makes a change of scale, from a loss scaler or from the loss itself, invisible
//! to C and m. docs/norm-predictor.md has the reasons and the measurements.

mod bounds;
mod norm_predictor;
mod projection;
mod settings;
mod solve;
mod square;
mod state;
mod statistics;

pub use self::norm_predictor::{Guess, NormPredictor, Placement, StepOutcome};
pub use self::settings::{PredictorError, PredictorSettings};
pub use self::statistics::StepStatistics;
