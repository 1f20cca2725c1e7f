//! Sharing memory out among the layers of a model: rows and bits to each, so that the model's gradients err least.
//!
//! | item | is |
//! |---|---|
//! | [`Curve`] | a layer's error by the number of rows that it keeps |
//! | [`within_bytes`], [`within_error`] | a budget for each [`Layer`], within so much memory or so much error |
//! | [`Planner`] | curves that are learned from training steps, and budgets from them |
//!
//! Errors count relative to the length of each layer's weight gradient: optimizers such as AdamW take a step of the same length
//! whatever the gradient's.
//!
//! ```
//! use wtacrs_core::allocation::{Curve, Layer, within_bytes};
//! use wtacrs_core::sampling::Weights;
//!
//! // Two layers of 8 tokens: ‖h_i‖ ‖dz_i‖ of the tokens, and ‖dW‖².
//! let norms = [[9.0, 0.1, 0.2, 4.0, 0.1, 0.3, 0.1, 0.2], [1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0, 1.1]];
//! let layers = norms.map(|norms| {
//!     let squares = norms.map(|norm| norm * norm / 20.0);
//!     let weights = Weights::new(&norms).expect("finite");
//!     let curve = Curve::of(&weights, &squares, &[1, 2, 3, 4, 5, 6, 7]).expect("finite");
//!     Layer { columns: 256, element_bytes: 4, noise: 0.01, curve }
//! });
//! let budgets = within_bytes(&layers, 2048)?;
//! // The first layer's gradient is two of its rows; the second one's rows all count.
//! assert!(budgets[0].rows < budgets[1].rows);
//! assert!(layers[0].bytes(budgets[0]) + layers[1].bytes(budgets[1]) <= 2048);
//! # Ok::<(), wtacrs_core::allocation::AllocationError>(())
//! ```

mod curve;
mod planner;
mod share_out;
mod state;

pub use self::curve::{Curve, CurveError, Point};
pub use self::planner::{Observation, Planned, Planner, PlannerError, Target};
pub use self::share_out::{AllocationError, Layer, LayerBudget, row_noise, within_bytes, within_error};
