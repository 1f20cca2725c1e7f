//! Unbiased, low-variance estimates of a matrix product from a few of its column-row pairs.
//!
//! The weight gradient of a linear layer, dW = Hᵀ dZ, sums one outer product for each token. This crate decides which
//! tokens to keep ([`Weights`], [`design`], [`Selection`]), multiplies what was kept ([`product`]), and ties both to
//! training ([`linear`], [`tensor_mul`], [`norm_cache`]). [`theory`] says what error to expect, `verify` (a feature)
//! proves or refutes a design.
//!
//! ```
//! use ndarray::Array2;
//! use wtacrs_core::design::{BuiltIn, Design};
//! use wtacrs_core::{Keep, Weights, product};
//!
//! // 512 tokens, 64 input and 32 output features.
//! let h = Array2::from_shape_fn((512, 64), |(i, j)| ((i * 7 + j * 3) % 11) as f32 - 5.0);
//! let dz = Array2::from_shape_fn((512, 32), |(i, j)| ((i * 5 + j) % 13) as f32 / (1 + i % 17) as f32);
//! let weights = Weights::from_norms(&product::row_norms(h.view()), &product::row_norms(dz.view()))?;
//! let budget = weights.budget(Keep::Fraction(0.3))?;
//! let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, 42, 0);
//! let kept = product::gather(h.view(), &selection)?; // what a layer saves: 154 rows instead of 512
//! let dw = product::weight_gradient(kept.view(), dz.view(), &selection)?;
//! assert_eq!((kept.nrows(), dw.dim()), (154, (64, 32)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without the default feature `std`, only the arithmetic remains that a GPU kernel shares with the CPU: [`weighing`],
//! [`fixed_point`], [`threshold`], [`philox`], [`chance`], [`duel`], [`alias_slot`], [`scales`],
//! [`predictor_rules`].
#![cfg_attr(not(feature = "std"), no_std)]
// Not `forbid`: the expansion of ndarray's `s!` allows it for itself.
#![deny(unsafe_code)]

pub mod alias_slot;
pub mod chance;
pub mod duel;
pub mod fixed_point;
pub mod philox;
pub mod predictor_rules;
pub mod scales;
pub mod threshold;
pub mod weighing;

#[cfg(feature = "std")]
pub use crate::{
    budget::{Budget, BudgetError, Keep},
    selection::{Selection, SelectionError},
    weights::{Weights, WeightsError},
};

/// Items of the CPU path, behind one gate.
macro_rules! with_std {
    ($($item:item)*) => { $(#[cfg(feature = "std")] $item)* };
}

with_std! {
    pub mod alias;
    mod budget;
    pub mod design;
    pub mod draws;
    pub mod element;
    mod envelope;
    mod lanes;
    pub mod linear;
    pub mod norm_cache;
    pub mod norm_predictor;
    pub mod product;
    mod selection;
    pub mod tensor_mul;
    pub mod theory;
    pub mod weights;
}

#[cfg(feature = "verify")]
pub mod verify;

/// The documents whose code is tested.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../docs/designs.md")]
    struct Designs;
    #[doc = include_str!("../../../README.md")]
    struct Readme;
}
