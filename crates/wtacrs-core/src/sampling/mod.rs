//! Choosing which column-row pairs to keep: weights and a budget in, a selection out.
//!
//! [`Weights`] say how much each pair is likely to matter, [`Keep`] how many to keep, a [`Design`] turns both into a
//! [`Selection`], and [`Chance`] answers its questions from a seed and an offset ([`Randomness`]).
//!
//! ```
//! use wtacrs_core::sampling::design::{Design, WtaPivotal};
//! use wtacrs_core::sampling::{Keep, Randomness, Weights};
//!
//! let weights = Weights::new(&[5.0, 1.0, 0.5, 0.5, 1.0])?;
//! let budget = weights.budget(Keep::Rows(3))?;
//! let selection = WtaPivotal.select_seeded(&weights, budget, Randomness::new(42, 0));
//! assert_eq!(selection.len(), 3);
//! assert_eq!(selection.iter().next(), Some((0, 1.0))); // the heaviest pair wins, and is kept for certain
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod alias;
mod budget;
mod chance;
pub mod design;
mod selection;
mod weights;

pub use self::alias::{AliasError, AliasTable};
pub use self::budget::{Budget, BudgetError, Keep};
pub use self::chance::{BitSource, Chance, PhiloxChance, RngChance};
pub use self::design::{BuiltIn, Design};
pub use self::selection::{Iter, Selection, SelectionError};
pub use self::weights::{DEFAULT_MIX, Weights, WeightsError};
#[doc(no_inline)]
pub use wtacrs_exact::philox::Philox4x32_10;
#[doc(no_inline)]
pub use wtacrs_exact::random::Randomness;
#[doc(no_inline)]
pub use wtacrs_exact::threshold::Threshold;
