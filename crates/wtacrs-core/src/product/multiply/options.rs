//! How a product is taken: what becomes of the output, and in which numbers.

/// What becomes of the values that the output held before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Update {
    /// They are replaced, and never read.
    #[default]
    Overwrite,
    /// The product is added to them, as for gradients over several micro-batches.
    Accumulate,
}

/// In which numbers a product is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Precision {
    /// In bf16, summed in f32, if each factor is in bf16 or rows packed in 4 or 2 bits, and the CPU multiplies bf16 faster. Rows
    /// times their scales, and packed rows as they are read back, are then rounded to bf16, each element by at most 2⁻⁸ of its
    /// value and by 2⁻⁹ on average; winners, whose scale is 1, are not. Subnormal numbers count as zeros there. Everything else
    /// is in the accumulator's type.
    #[default]
    Native,
    /// In the accumulator's type, whatever the factors are: nothing is rounded before it is multiplied.
    Wide,
}
