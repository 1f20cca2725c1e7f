//! What all subcommands call by the same names: sources of weights, budgets, shares of memory, and types of elements.

use crate::text::significant;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::{Budget, Keep};

/// What stands for ‖dZ_i‖ when weights are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightSource {
    /// The norms themselves: w_i = ‖H_i‖·‖dZ_i‖.
    Exact,
    /// A norm predictor's guess, learned from the rows kept at earlier steps.
    Predictor,
    /// The norms at the sample's previous visit, from a warm cache with the default mix.
    Stale,
    /// Nothing: w_i = ‖H_i‖.
    Input,
}

/// Sources of weights, in the order of tables, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSources(Vec<WeightSource>);

/// A name that does not belong to a source of weights, or to one that the subcommand does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a source of weights here: choose from {}", names(.offered))]
pub struct UnknownWeightSource {
    /// The offending name.
    pub name: String,
    /// The sources to choose from.
    pub offered: &'static [WeightSource],
}

/// A budget, as it was asked for and as it fits the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BudgetReport {
    /// The share of the tokens that was asked for; null where a count was.
    pub fraction: Option<f64>,
    /// The number of tokens to keep, k.
    #[serde(rename = "budget")]
    pub count: usize,
    /// k/n. Differs from `fraction` by the rounding of k.
    #[serde(rename = "budget_share")]
    pub share: f64,
}

/// A share of the bytes of H in its own type, in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryShare(f64);

/// Text that is not a share of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a share of memory: give a number above 0 and at most 1, such as 0.1")]
pub struct BadMemoryShare {
    /// The offending text.
    pub text: String,
}

/// Types of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// Four bytes.
    F32,
    /// Two bytes.
    F16,
    /// Two bytes.
    Bf16,
}

impl WeightSource {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 4] = [Self::Exact, Self::Predictor, Self::Stale, Self::Input];

    /// The source of this name.
    ///
    /// # Errors
    ///
    /// A name that is not one of `offered`, the sources that the subcommand has.
    pub fn of(name: &str, offered: &'static [Self]) -> Result<Self, UnknownWeightSource> {
        let unknown = || UnknownWeightSource { name: name.to_owned(), offered };
        offered.iter().copied().find(|source| source.name() == name).ok_or_else(unknown)
    }

    /// The name in flags, reports and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Predictor => "predictor",
            Self::Stale => "stale",
            Self::Input => "input",
        }
    }
}

impl FromStr for WeightSource {
    type Err = UnknownWeightSource;

    fn from_str(name: &str) -> Result<Self, UnknownWeightSource> {
        Self::of(name, &Self::ALL)
    }
}

impl fmt::Display for WeightSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl WeightSources {
    /// The sources that a list names: names separated by commas, or "all".
    ///
    /// # Errors
    ///
    /// The first name that is not one of `offered`, the sources that the subcommand has.
    pub fn parse(names: &str, offered: &'static [WeightSource]) -> Result<Self, UnknownWeightSource> {
        if names == "all" {
            return Ok(Self(offered.to_vec()));
        }
        let named = names.split(',').map(|name| WeightSource::of(name, offered)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(offered.iter().copied().filter(|source| named.contains(source)).collect()))
    }

    /// The sources.
    pub fn as_slice(&self) -> &[WeightSource] {
        &self.0
    }
}

impl BudgetReport {
    /// Of a wish, and the budget that it comes to.
    pub fn new(keep: Keep, budget: Budget) -> Self {
        let fraction = if let Keep::Fraction(fraction) = keep { Some(fraction) } else { None };
        Self { fraction, count: budget.get(), share: budget.get() as f64 / budget.pairs().max(1) as f64 }
    }

    /// The share for people: the one asked for, or that of the count asked for.
    pub fn shown(&self) -> f64 {
        self.fraction.unwrap_or(self.share)
    }
}

/// The share with k, such as "0.3 (307)".
impl fmt::Display for BudgetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", significant(self.shown(), 2), self.count)
    }
}

impl MemoryShare {
    /// None if the number is not in (0, 1].
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share <= 1.0).then_some(Self(share))
    }

    /// The share as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for MemoryShare {
    type Err = BadMemoryShare;

    fn from_str(text: &str) -> Result<Self, BadMemoryShare> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| BadMemoryShare { text: text.to_owned() })
    }
}

impl fmt::Display for MemoryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Bits of an element of a kept row: those of H's type for exact copies, fewer for packed rows.
pub fn bits_of(packing: Packing, element_bytes: usize) -> u32 {
    packing.bits().map_or(8 * element_bytes as u32, |bits| bits.count())
}

fn names(sources: &[WeightSource]) -> String {
    sources.iter().map(|source| source.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: [WeightSource; 3] = [WeightSource::Exact, WeightSource::Stale, WeightSource::Input];

    #[test]
    fn sources_by_name() {
        for source in WeightSource::ALL {
            assert_eq!(source.to_string().parse(), Ok(source));
            assert_eq!(serde_json::to_string(&source).expect("JSON"), format!("\"{source}\""));
        }
        assert!("Exact".parse::<WeightSource>().is_err());
        let parse = |names: &str| WeightSources::parse(names, &OFFERED).map(|sources| sources.0);
        assert_eq!(parse("all"), Ok(OFFERED.to_vec()));
        assert_eq!(parse("input,exact,input"), Ok(vec![WeightSource::Exact, WeightSource::Input]));
        for name in ["best", "predictor", ""] {
            let unknown = UnknownWeightSource { name: name.to_owned(), offered: &OFFERED };
            assert_eq!(parse(&format!("exact,{name}")), Err(unknown));
        }
        let message = parse("best").expect_err("unknown").to_string();
        assert_eq!(message, "'best' is not a source of weights here: choose from exact, stale, input");
    }

    #[test]
    fn shares_as_text() {
        assert_eq!("0.1".parse(), Ok(MemoryShare(0.1)));
        assert_eq!("1".parse(), Ok(MemoryShare(1.0)));
        for text in ["0", "-0.1", "1.5", "nan", "", "a tenth"] {
            assert_eq!(text.parse::<MemoryShare>(), Err(BadMemoryShare { text: text.to_owned() }));
        }
    }

    #[test]
    fn a_budget_says_what_was_asked_for_and_what_it_came_to() {
        let report = |keep: Keep, tokens| BudgetReport::new(keep, keep.budget(tokens).expect("fits"));
        let asked = report(Keep::Fraction(0.3), 11);
        assert_eq!(asked, BudgetReport { fraction: Some(0.3), count: 3, share: 3.0 / 11.0 });
        assert_eq!(asked.to_string(), "0.3 (3)");
        let counted = report(Keep::Rows(3), 11);
        assert_eq!(counted, BudgetReport { fraction: None, count: 3, share: 3.0 / 11.0 });
        assert_eq!(counted.to_string(), "0.27 (3)");
        assert_eq!(report(Keep::Fraction(0.3), 0).share, 0.0);
        let json = serde_json::to_value(report(Keep::Rows(1), 4)).expect("JSON");
        assert_eq!(json, serde_json::json!({"fraction": null, "budget": 1, "budget_share": 0.25}));
    }
}
