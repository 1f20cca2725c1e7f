//! How kept rows are saved.

use core::fmt;
use core::str::FromStr;
use wtacrs_exact::packing::{Bits, Groups};

/// How kept rows are saved: as they are, or packed in few bits an element without bias, as
/// [`wtacrs_exact::packing`] defines it.
///
/// A packed row costs a little noise, on top of the sampling's: of its square about 3·10⁻⁵ at 8 bits, 0.01 at 4 and 0.25 at
/// 2 on activations of transformers. See [`theory::packing_noise`](crate::theory::packing_noise).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Packing {
    /// Exact copies, in the input's type.
    #[default]
    Native,
    /// 8 bits an element.
    Bits8,
    /// 4 bits an element.
    Bits4,
    /// 2 bits an element.
    Bits2,
}

impl Packing {
    /// All of them, from the most bytes to the fewest.
    pub const ALL: [Self; 4] = [Self::Native, Self::Bits8, Self::Bits4, Self::Bits2];

    /// Bits of an element's code; none of native rows.
    #[inline]
    pub const fn bits(self) -> Option<Bits> {
        match self {
            Self::Native => None,
            Self::Bits8 => Some(Bits::Bits8),
            Self::Bits4 => Some(Bits::Bits4),
            Self::Bits2 => Some(Bits::Bits2),
        }
    }

    /// Whether rows are packed.
    #[inline]
    pub const fn is_packed(self) -> bool {
        self.bits().is_some()
    }

    /// Bytes of one saved row of `columns` elements of `element_bytes`: for packed rows the codes, and 4 for each group of
    /// 128 elements.
    ///
    /// ```
    /// use wtacrs_core::product::Packing;
    /// assert_eq!(Packing::Native.row_bytes(768, 2), 1536);
    /// assert_eq!(Packing::Bits4.row_bytes(768, 2), 384 + 6 * 4);
    /// ```
    pub const fn row_bytes(self, columns: usize, element_bytes: usize) -> u64 {
        match self.bits() {
            None => columns as u64 * element_bytes as u64,
            Some(bits) => {
                let groups = Groups::new(columns);
                4 * (groups.words(bits) as u64 + groups.count() as u64)
            }
        }
    }

    /// Whether every one of `pairs` rows is packed if `kept` are: then no norms, indices or scales are needed.
    #[inline]
    pub const fn keeps_all(self, kept: usize, pairs: usize) -> bool {
        self.is_packed() && kept == pairs
    }
}

impl From<Bits> for Packing {
    fn from(bits: Bits) -> Self {
        match bits {
            Bits::Bits8 => Self::Bits8,
            Bits::Bits4 => Self::Bits4,
            Bits::Bits2 => Self::Bits2,
        }
    }
}

/// `native`, `8`, `4` or `2`.
impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Bits8 => "8",
            Self::Bits4 => "4",
            Self::Bits2 => "2",
        })
    }
}

/// The name is no packing's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rows are saved native or in 8, 4 or 2 bits, not {given:?}")]
pub struct UnknownPacking {
    /// What was given.
    pub given: String,
}

impl FromStr for Packing {
    type Err = UnknownPacking;

    fn from_str(given: &str) -> Result<Self, UnknownPacking> {
        let named = |packing: &Self| packing.to_string() == given;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownPacking { given: given.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for packing in Packing::ALL {
            assert_eq!(packing.to_string().parse(), Ok(packing));
            assert_eq!(packing.bits().map_or(Packing::Native, Packing::from), packing);
        }
        let error = "3".parse::<Packing>().expect_err("refused");
        assert_eq!(error.to_string(), "rows are saved native or in 8, 4 or 2 bits, not \"3\"");
    }

    #[test]
    fn bytes_of_a_row() {
        assert_eq!(Packing::ALL.map(|packing| packing.row_bytes(1536, 4)), [6144, 1584, 816, 432]);
        assert_eq!(Packing::Bits2.row_bytes(1, 4), 4 + 4);
        assert_eq!(Packing::Bits8.row_bytes(0, 4), 0);
    }
}
