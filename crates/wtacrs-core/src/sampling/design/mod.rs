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

mod built_in;
mod crs;
mod strata;
mod top_k;
mod uniform;
mod wta_iid;
mod wta_pivotal;
mod wta_stratified;

pub use self::built_in::{BuiltIn, UnknownDesign};
pub use self::crs::Crs;
pub(crate) use self::strata::Strata;
pub use self::top_k::TopK;
pub use self::uniform::Uniform;
pub use self::wta_iid::WtaIid;
pub use self::wta_pivotal::WtaPivotal;
pub use self::wta_stratified::WtaStratified;

use super::alias::AliasTable;
use super::budget::Budget;
use super::chance::{Chance, PhiloxChance};
use super::selection::Selection;
use super::weights::Weights;
use wtacrs_exact::random::Randomness;

/// A rule that turns weights and a budget into a selection.
///
/// The same weights, budget and answers of [`Chance`] must give the same selection.
pub trait Design {
    /// The name by which tables, flags and test vectors call it.
    fn name(&self) -> &'static str;

    /// How many indices of randomness it uses at most: by so much a plan advances the offset of its [`Randomness`].
    fn draws(&self, budget: Budget) -> u64;

    /// Chooses at most `budget` distinct pairs.
    ///
    /// # Panics
    ///
    /// If the budget was made for another number of pairs.
    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection;

    /// [`Self::select`] with the bits of Philox4x32-10 from `randomness` on: reproducible bit for bit on any machine.
    ///
    /// # Panics
    ///
    /// If the budget was made for another number of pairs.
    fn select_seeded(&self, weights: &Weights, budget: Budget, randomness: Randomness) -> Selection {
        self.select(weights, budget, &mut PhiloxChance::new(randomness))
    }
}

/// How often each pair is hit by `draws` independent draws with probability proportional to its mass.
fn independent_counts<C: Chance>(masses: &[u64], draws: usize, chance: &mut C) -> Vec<u32> {
    if draws == 0 {
        return vec![0; masses.len()];
    }
    let table = AliasTable::new(masses).expect("weights have a positive sum of at most 2^62");
    chance.counts(0, draws as u32, &table)
}
