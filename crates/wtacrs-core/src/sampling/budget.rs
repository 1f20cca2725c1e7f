//! How many pairs to keep: as a wish ([`Keep`]), and as a number that fits ([`Budget`]).

use core::fmt;
use core::str::FromStr;

/// A wish for a budget, before the number of pairs is known.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Keep {
    /// So many pairs.
    Rows(usize),
    /// This share of the pairs, in (0, 1], rounded to the nearest count and at least one.
    Fraction(f64),
}

/// A budget k that fits its n pairs: 1 ≤ k ≤ n, or k = n = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    places: usize,
    pairs: usize,
}

/// Why a budget is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// Keeping nothing cannot give an unbiased estimate.
    #[error("the budget is 0: at least one pair must be kept")]
    Zero,
    /// More pairs than there are.
    #[error("the budget of {budget} is more than the {pairs} pairs there are")]
    TooLarge {
        /// Pairs asked for.
        budget: usize,
        /// Pairs there are.
        pairs: usize,
    },
    /// A share outside (0, 1].
    #[error("the budget is a fraction of {fraction}: it must be more than 0 and at most 1")]
    InvalidFraction {
        /// The offending share.
        fraction: f64,
    },
    /// Text that is not a budget.
    #[error("'{text}' is not a budget: give a fraction such as 0.3, or a count such as 128")]
    Unreadable {
        /// The offending text.
        text: String,
    },
}

impl Keep {
    /// The budget for `pairs` pairs. A fraction of 0 pairs is 0 pairs.
    ///
    /// # Errors
    ///
    /// [`BudgetError::Zero`], [`BudgetError::TooLarge`], [`BudgetError::InvalidFraction`].
    pub fn budget(self, pairs: usize) -> Result<Budget, BudgetError> {
        match self {
            Self::Rows(0) => Err(BudgetError::Zero),
            Self::Rows(budget) if budget > pairs => Err(BudgetError::TooLarge { budget, pairs }),
            Self::Rows(places) => Ok(Budget { places, pairs }),
            Self::Fraction(fraction) if !(fraction > 0.0 && fraction <= 1.0) => {
                Err(BudgetError::InvalidFraction { fraction })
            }
            Self::Fraction(fraction) => {
                let nearest = (fraction * pairs as f64).round() as usize;
                Ok(Budget { places: nearest.clamp(1.min(pairs), pairs), pairs })
            }
        }
    }
}

impl Budget {
    /// The number of pairs to keep, k.
    pub fn get(self) -> usize {
        self.places
    }

    /// The number of pairs to keep them from, n.
    pub fn pairs(self) -> usize {
        self.pairs
    }
}

/// Digits alone are a count, anything else a fraction.
impl FromStr for Keep {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let unreadable = || BudgetError::Unreadable { text: text.to_owned() };
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse().map_err(|_| unreadable())? {
                0 => Err(BudgetError::Zero),
                rows => Ok(Self::Rows(rows)),
            };
        }
        let fraction: f64 = text.parse().map_err(|_| unreadable())?;
        if fraction > 0.0 && fraction <= 1.0 {
            Ok(Self::Fraction(fraction))
        } else {
            Err(BudgetError::InvalidFraction { fraction })
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => rows.fmt(f),
            // Debug keeps the point of 1.0, which as "1" would read as a count.
            Self::Fraction(fraction) => fmt::Debug::fmt(fraction, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_what_does_not() {
        assert_eq!(Keep::Rows(3).budget(3).map(Budget::get), Ok(3));
        assert_eq!(Keep::Rows(0).budget(3), Err(BudgetError::Zero));
        assert_eq!(Keep::Rows(4).budget(3), Err(BudgetError::TooLarge { budget: 4, pairs: 3 }));
        assert_eq!(Keep::Fraction(0.3).budget(1024).map(Budget::get), Ok(307));
        assert_eq!(Keep::Fraction(1e-9).budget(5).map(Budget::get), Ok(1));
        assert_eq!(Keep::Fraction(1.0).budget(5).map(Budget::get), Ok(5));
        assert_eq!(Keep::Fraction(0.5).budget(0).map(Budget::get), Ok(0));
        for fraction in [0.0, -0.1, 1.1, f64::INFINITY] {
            assert_eq!(Keep::Fraction(fraction).budget(5), Err(BudgetError::InvalidFraction { fraction }));
        }
        assert!(Keep::Fraction(f64::NAN).budget(5).is_err());
    }

    #[test]
    fn text() {
        assert_eq!("0.3".parse(), Ok(Keep::Fraction(0.3)));
        assert_eq!("1.0".parse(), Ok(Keep::Fraction(1.0)));
        assert_eq!("128".parse(), Ok(Keep::Rows(128)));
        assert_eq!("0".parse::<Keep>(), Err(BudgetError::Zero));
        assert!("".parse::<Keep>().is_err() && "a third".parse::<Keep>().is_err() && "-1".parse::<Keep>().is_err());
        assert!("99999999999999999999999".parse::<Keep>().is_err() && "NaN".parse::<Keep>().is_err());
        for keep in [Keep::Fraction(0.3), Keep::Fraction(1.0), Keep::Rows(1)] {
            assert_eq!(keep.to_string().parse(), Ok(keep));
        }
    }
}
