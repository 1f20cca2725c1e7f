//! How much of H an estimate may keep: so many tokens, or so many bytes.
//!
//! Bytes make designs and bits comparable: at equal bytes, packed rows are more rows.

use crate::estimates::MeasureError;
use crate::labels::MemoryShare;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::{Budget, Keep, Selection};

/// How much an estimate may keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many tokens, however they are saved.
    Tokens(Keep),
    /// As many tokens as fit this share of H's bytes.
    Memory(MemoryShare),
}

/// The shape of H, and the bytes of one of its elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    pub(super) tokens: usize,
    pub(super) in_features: usize,
    pub(super) element_bytes: usize,
}

impl Limit {
    /// The number of tokens to keep.
    ///
    /// Bytes are those that live from the forward to the backward pass: a row, its index and its scale, or rows alone if
    /// all are packed. A share that is more than all rows need keeps all of them.
    ///
    /// # Errors
    ///
    /// If the budget does not fit the tokens, or the bytes are too few for one row.
    pub(super) fn budget(self, packing: Packing, input: Input) -> Result<Budget, MeasureError> {
        let share = match self {
            Self::Tokens(keep) => return Ok(keep.budget(input.tokens)?),
            Self::Memory(share) => share.get(),
        };
        let Input { tokens, in_features, element_bytes } = input;
        let row = packing.row_bytes(in_features, element_bytes) as f64;
        let chosen_row = row + Selection::BYTES_PER_PAIR as f64;
        let bytes = share * tokens as f64 * in_features as f64 * element_bytes as f64;
        let all = if packing.is_packed() { row } else { chosen_row };
        let rows = if tokens as f64 * all <= bytes {
            tokens
        } else {
            ((bytes / chosen_row) as usize).min(tokens.saturating_sub(1))
        };
        if rows == 0 && tokens > 0 {
            let (bytes, row_bytes) = (bytes as u64, chosen_row as u64);
            return Err(MeasureError::TooFewBytes { share, bytes, packing, row_bytes });
        }
        // As a share of the tokens, no tokens are a budget too.
        Ok(if rows == tokens { Keep::Fraction(1.0) } else { Keep::Rows(rows) }.budget(tokens)?)
    }

    /// The budget as it was asked for; as a count, if bytes were.
    pub(super) fn keep(self, budget: Budget) -> Keep {
        match self {
            Self::Tokens(keep) => keep,
            Self::Memory(_) => Keep::Rows(budget.get()),
        }
    }

    /// The share of H's bytes, if that is the limit.
    pub(super) fn memory(self) -> Option<f64> {
        match self {
            Self::Tokens(_) => None,
            Self::Memory(share) => Some(share.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 rows of 384 bf16: 768 bytes each, 216 with 4 bits, and 12 of index and scale.
    const INPUT: Input = Input { tokens: 1000, in_features: 384, element_bytes: 2 };

    fn memory(share: f64) -> Limit {
        Limit::Memory(MemoryShare::new(share).expect("a share"))
    }

    fn rows(share: f64, packing: Packing) -> usize {
        memory(share).budget(packing, INPUT).expect("fits").get()
    }

    #[test]
    fn the_most_rows_that_fit() {
        assert_eq!(rows(0.1, Packing::Native), 76_800 / 780);
        assert_eq!(rows(0.1, Packing::Bits8), 76_800 / (396 + 12));
        assert_eq!(rows(0.1, Packing::Bits4), 76_800 / (204 + 12));
        assert_eq!(rows(0.1, Packing::Bits2), 76_800 / (108 + 12));
        // All rows have no index and no scale, and so need fewer bytes than almost all.
        let all = 204.0 / 768.0;
        assert_eq!(rows(all, Packing::Bits4), 1000);
        assert_eq!(rows(all - 1e-6, Packing::Bits4), 203_999 / 216);
        assert_eq!(rows(1.0, Packing::Bits4), 1000);
        // Native rows have them always.
        assert_eq!(rows(1.0, Packing::Native), 768_000 / 780);
    }

    #[test]
    fn too_few_bytes_for_a_row() {
        let error = memory(0.0005).budget(Packing::Native, INPUT).expect_err("refused");
        let message = "a share of 0.0005 of H is 384 bytes, too few for one native row, which needs 780 with its index and \
                       its scale";
        assert_eq!(error.to_string(), message);
        assert_eq!(rows(0.0005, Packing::Bits4), 1);
        let error = memory(0.0001).budget(Packing::Bits2, INPUT).expect_err("refused");
        assert!(error.to_string().contains("one row in 2 bits, which needs 120"), "{error}");
    }
}
