//! Where the matrices of a batch begin.
//!
//! Attention's heads lie one behind the other, or side by side within the rows of a (batch, seq, heads, dim) buffer; its
//! samples lie elsewhere. Both are told by two distances. Cost: a division where there are heads, a product where not.

use core::num::NonZeroU32;

/// Distances in elements: matrix i is head i mod `heads` of sample ⌊i / `heads`⌋.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spacing {
    /// From the first head of a sample to that of the next.
    pub sample: u64,
    /// From one head of a sample to the next.
    pub head: u64,
    /// Heads of a sample.
    pub heads: NonZeroU32,
}

impl Spacing {
    /// All matrices equally far apart.
    #[inline(always)]
    pub const fn even(distance: u64) -> Self {
        Self { sample: distance, head: 0, heads: NonZeroU32::MIN }
    }

    /// From the first matrix to matrix `matrix`.
    #[inline(always)]
    pub fn of(self, matrix: u32) -> u64 {
        if self.heads == NonZeroU32::MIN {
            return u64::from(matrix) * self.sample;
        }
        let sample = matrix / self.heads;
        u64::from(sample) * self.sample + u64::from(matrix - sample * self.heads.get()) * self.head
    }

    /// What a power of two divides if, and only if, it divides both distances.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.sample | self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_within_samples() {
        let begins = |spacing: Spacing| (0..6).map(|i| spacing.of(i)).collect::<Vec<_>>();
        assert_eq!(begins(Spacing::even(7)), [0, 7, 14, 21, 28, 35]);
        let heads = NonZeroU32::new(3).expect("not 0");
        assert_eq!(begins(Spacing { sample: 100, head: 8, heads }), [0, 8, 16, 100, 108, 116]);
        assert_eq!(Spacing { sample: 96, head: 8, heads }.bits() % 16, 8);
    }
}
