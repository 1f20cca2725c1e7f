//! Sampling designs: the rules that turn weights and a budget into a selection.
//!
//! | design | keeps | unbiased | variance |
//! |---|---|---|---|
//! | [`Uniform`] | k distinct pairs, all equally likely | yes | ignores the weights |
//! | [`Crs`] | k draws with replacement | yes | the classical baseline |
//! | [`TopK`] | the k heaviest | **no** | none |
//! | [`WtaIid`] | winners, and independent draws from the tail | yes | the paper's, eq. 5 |
//! | [`WtaStratified`] | winners, and one draw from each stratum of the tail | yes | ≤ `WtaIid` |
//! | [`WtaPivotal`] | winners, and distinct pairs by a tree of duels | yes | ≤ `WtaIid`; the default |
//!
//! A design of your own implements [`Design`]; docs/designs.md adds one and proves it with `wtacrs_core::verify`.

mod crs;
mod top_k;
mod uniform;
mod wta_iid;
mod wta_pivotal;
mod wta_stratified;
pub(crate) use self::wta_stratified::Strata;

pub use self::{
    crs::Crs, top_k::TopK, uniform::Uniform, wta_iid::WtaIid, wta_pivotal::WtaPivotal, wta_stratified::WtaStratified,
};

use crate::alias::AliasTable;
use crate::draws::{Draws, PhiloxDraws};
use crate::{Budget, Selection, Weights};
use core::fmt;
use core::str::FromStr;

/// A rule that turns weights and a budget into a selection.
///
/// The same weights, budget and answers of [`Draws`] must give the same selection.
pub trait Design {
    /// The name by which tables, flags and test vectors call it.
    fn name(&self) -> &'static str;

    /// How many indices of randomness it uses at most. A plan that starts at offset o leaves o + `draws` to the next.
    fn draws(&self, budget: Budget) -> u64;

    /// Chooses at most `budget` distinct pairs.
    ///
    /// # Panics
    ///
    /// If the budget was made for another number of pairs.
    fn select<D: Draws>(&self, weights: &Weights, budget: Budget, draws: &mut D) -> Selection;

    /// [`Self::select`] with the bits of Philox4x32-10 at (seed, offset): reproducible bit for bit on any machine.
    ///
    /// # Panics
    ///
    /// If the budget was made for another number of pairs.
    fn select_seeded(&self, weights: &Weights, budget: Budget, seed: u64, offset: u64) -> Selection {
        self.select(weights, budget, &mut PhiloxDraws::new(seed, offset))
    }
}

/// The designs of this crate, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BuiltIn {
    /// [`Uniform`].
    Uniform,
    /// [`Crs`].
    Crs,
    /// [`TopK`].
    TopK,
    /// [`WtaIid`].
    WtaIid,
    /// [`WtaStratified`].
    WtaStratified,
    /// [`WtaPivotal`].
    #[default]
    WtaPivotal,
}

impl BuiltIn {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::Uniform, Self::Crs, Self::TopK, Self::WtaIid, Self::WtaStratified, Self::WtaPivotal];

    /// Whether the mean of its estimates is the exact product.
    pub fn is_unbiased(self) -> bool {
        self != Self::TopK
    }
}

/// Calls the same method of whichever design `$self` is.
macro_rules! delegate {
    ($self:ident, $design:ident => $call:expr) => {
        match $self {
            BuiltIn::Uniform => { let $design = &Uniform; $call }
            BuiltIn::Crs => { let $design = &Crs; $call }
            BuiltIn::TopK => { let $design = &TopK; $call }
            BuiltIn::WtaIid => { let $design = &WtaIid; $call }
            BuiltIn::WtaStratified => { let $design = &WtaStratified; $call }
            BuiltIn::WtaPivotal => { let $design = &WtaPivotal; $call }
        }
    };
}

impl Design for BuiltIn {
    fn name(&self) -> &'static str {
        delegate!(self, design => design.name())
    }

    fn draws(&self, budget: Budget) -> u64 {
        delegate!(self, design => design.draws(budget))
    }

    fn select<D: Draws>(&self, weights: &Weights, budget: Budget, draws: &mut D) -> Selection {
        delegate!(self, design => design.select(weights, budget, draws))
    }
}

/// A name that no design has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no design '{name}': choose from uniform, crs, top-k, wta-iid, wta-stratified, wta-pivotal")]
pub struct UnknownDesign {
    /// The offending name.
    pub name: String,
}

impl FromStr for BuiltIn {
    type Err = UnknownDesign;

    fn from_str(name: &str) -> Result<Self, UnknownDesign> {
        Self::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| UnknownDesign { name: name.to_owned() })
    }
}

impl fmt::Display for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often each pair is hit by `draws` independent draws with probability proportional to its mass.
fn independent_counts<D: Draws>(masses: &[u64], count: usize, draws: &mut D) -> Vec<u32> {
    if count == 0 {
        return vec![0; masses.len()];
    }
    draws.counts(0, count as u32, &AliasTable::new(masses))
}
