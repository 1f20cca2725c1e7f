//! How matrices lie in device memory: their element type, where those of a batch begin, and how their rows are aligned.

use core::fmt;
use core::num::NonZeroU32;

/// Bytes of a vector, the widest access there is. Kernels read rows in vectors where they are aligned to them.
pub const VECTOR_BYTES: u32 = 16;

/// Whether rows that begin at `base`, a multiple of `stride` bytes apart, are all aligned to a vector.
#[inline(always)]
pub(super) fn is_aligned(base: *const u8, stride: u64) -> bool {
    (base.addr() as u64 | stride) & u64::from(VECTOR_BYTES - 1) == 0
}

/// Where the matrices of a batch begin. Distances are in elements: matrix i is head i mod `heads` of sample ⌊i / `heads`⌋.
///
/// Attention's heads lie one behind the other, or side by side within the rows of a (batch, seq, heads, dim) buffer, and
/// its samples lie elsewhere. Two distances describe both.
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

    /// From the first matrix to matrix `matrix`. Costs a division if samples have several heads, and a product otherwise.
    #[inline(always)]
    pub fn of(self, matrix: u32) -> u64 {
        if self.heads == NonZeroU32::MIN {
            return u64::from(matrix) * self.sample;
        }
        let sample = matrix / self.heads;
        u64::from(sample) * self.sample + u64::from(matrix - sample * self.heads.get()) * self.head
    }

    /// A number that a power of two divides if, and only if, it divides both distances.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.sample | self.head
    }
}

/// How the rows of two factors lie, which decides how a product copies them. Each has kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RowLayout {
    /// Aligned to a vector, and of whole vectors.
    Whole,
    /// Aligned to a vector, but the last vector of a row is partial. Each copy then takes three more instructions, because
    /// the hardware reads from the address how much of a vector there is.
    Ragged,
    /// Anywhere: elements are copied one by one.
    Any,
}

/// The element type of a matrix in device memory. Kernels that write several types receive it as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum DataType {
    /// IEEE single precision.
    F32 = 0,
    /// IEEE half precision.
    F16 = 1,
    /// bfloat16.
    Bf16 = 2,
}

impl DataType {
    /// Bytes of an element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_of_rows() {
        let base = core::ptr::without_provenance::<u8>(4096);
        assert!(is_aligned(base, 32) && !is_aligned(base, 24) && !is_aligned(base.wrapping_add(8), 32));
    }

    #[test]
    fn heads_are_counted_within_samples() {
        let begins = |spacing: Spacing| (0..6).map(|i| spacing.of(i)).collect::<Vec<_>>();
        assert_eq!(begins(Spacing::even(7)), [0, 7, 14, 21, 28, 35]);
        let heads = NonZeroU32::new(3).expect("not 0");
        assert_eq!(begins(Spacing { sample: 100, head: 8, heads }), [0, 8, 16, 100, 108, 116]);
        assert_eq!(Spacing { sample: 96, head: 8, heads }.bits() % 16, 8);
    }
}
