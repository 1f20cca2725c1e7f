//! Unbiased, low-variance estimates of a matrix product from a few of its column-row pairs.
//!
//! The weight gradient of a linear layer, dW = Hᵀ dZ, sums one outer product for each token. This crate chooses which
//! tokens to keep, multiplies what was kept, and ties both to training.
//!
//! | module | holds |
//! |---|---|
//! | [`sampling`] | which pairs to keep: weights, budgets, designs, selections |
//! | [`product`] | norms, kept rows, the product of what was kept |
//! | [`guesses`] | what stands for ‖dZ‖ in the forward pass: the norm predictor and the norm cache |
//! | [`allocation`] | rows and bits shared out among the layers of a model |
//! | [`layers`] | pairs of forward and backward calls: linear layers, and attention's batched products |
//! | [`operators`] | what stands between the products: activation functions, gated units, dropout, softmax, norms |
//! | [`parallel`] | which threads all of it runs on |
//! | [`theory`] | the error to expect, in closed form |
//! | `verify` | exact laws and Monte-Carlo tests of designs, with the feature `verify` |
//!
//! # Example
//!
//! ```
//! use ndarray::Array2;
//! use wtacrs_core::product::{Saved, Update, row_norms};
//! use wtacrs_core::sampling::design::{BuiltIn, Design};
//! use wtacrs_core::sampling::{Keep, Randomness, Weights};
//!
//! // 512 tokens, 64 input and 32 output features.
//! let h = Array2::from_shape_fn((512, 64), |(i, j)| ((i * 7 + j * 3) % 11) as f32 - 5.0);
//! let dz = Array2::from_shape_fn((512, 32), |(i, j)| ((i * 5 + j) % 13) as f32 / (1 + i % 17) as f32);
//! let weights = Weights::from_norms(&row_norms(h.view()), &row_norms(dz.view()))?;
//! let budget = weights.budget(Keep::Fraction(0.3))?;
//! let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(42, 0));
//! let saved = Saved::gather(h.view(), selection)?; // what a layer saves: 154 rows instead of 512
//! let mut dw = Array2::zeros((64, 32));
//! saved.backward(dz.view(), dw.view_mut(), Update::Overwrite)?;
//! assert_eq!((saved.rows().nrows(), dw.dim()), (154, (64, 32)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `serde`: settings and selections as data.
//! - `verify`: the module of that name.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Not `forbid`: the expansion of ndarray's `s!` allows it for itself.
#![deny(unsafe_code)]

pub mod allocation;
pub mod element;
mod envelope;
mod groups;
pub mod guesses;
mod lanes;
pub mod layers;
pub mod operators;
pub mod parallel;
pub mod product;
mod rows;
pub mod sampling;
pub mod theory;
#[cfg(feature = "verify")]
pub mod verify;

#[doc(no_inline)]
pub use crate::sampling::{Keep, Randomness, Selection, Weights};
pub use {half, ndarray, rand_core};
