//! The designs of this crate by name: what a flag, a setting or a test vector holds.

use super::{Crs, Design, TopK, Uniform, WtaIid, WtaPivotal, WtaStratified};
use crate::sampling::budget::Budget;
use crate::sampling::chance::Chance;
use crate::sampling::selection::Selection;
use crate::sampling::weights::Weights;
use core::fmt;
use core::str::FromStr;

/// The designs of this crate, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
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
            BuiltIn::Uniform => {
                let $design = &Uniform;
                $call
            }
            BuiltIn::Crs => {
                let $design = &Crs;
                $call
            }
            BuiltIn::TopK => {
                let $design = &TopK;
                $call
            }
            BuiltIn::WtaIid => {
                let $design = &WtaIid;
                $call
            }
            BuiltIn::WtaStratified => {
                let $design = &WtaStratified;
                $call
            }
            BuiltIn::WtaPivotal => {
                let $design = &WtaPivotal;
                $call
            }
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

    fn select<C: Chance>(&self, weights: &Weights, budget: Budget, chance: &mut C) -> Selection {
        delegate!(self, design => design.select(weights, budget, chance))
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
