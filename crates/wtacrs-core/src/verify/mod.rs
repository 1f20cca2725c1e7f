//! What it takes to prove, or to refute, a sampling design.
//!
//! - [`Law::enumerate`]: every outcome of a design with its probability, for small n and k; from it the exact mean,
//!   covariance and inclusion probabilities of any estimate.
//! - [`loewner_margin`]: whether one covariance lies below another for every linear functional at once.
//! - [`UnbiasednessTest`]: a Monte-Carlo test with a stated false-alarm rate, for sizes that enumeration cannot reach.
//! - [`DitherMoments`]: mean and variance of a packed element, over every dither.
//! - [`strategies`]: proptest's weights and matrices where designs break: ties, zeros, huge ranges, a giant, all equal.
//!
//! A design that meets chance only through [`Chance`](crate::sampling::Chance) can be enumerated as it is. docs/designs.md
//! walks through a new design, from its code to its proof.

mod dithers;
mod law;
pub mod strategies;
mod unbiasedness;

pub use self::dithers::{DITHERS, DitherMoments};
pub use self::law::{Law, LawError, loewner_margin};
pub use self::unbiasedness::{UnbiasednessTest, Verdict};
