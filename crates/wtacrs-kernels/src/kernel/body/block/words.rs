//! Values of one to four 64-bit words, which lanes and warps exchange.

/// A value made of words. Words are indexed by literals, so that the value stays in registers.
pub trait Words: Copy {
    /// How many words.
    const WORDS: u32;

    /// The value whose word i is `word(i, word i of this value)`.
    fn each(self, word: impl FnMut(u32, u64) -> u64) -> Self;

    /// The value whose words are made of this value's and the other's.
    fn with(self, other: Self, word: impl FnMut(u64, u64) -> u64) -> Self;

    /// The sum word by word, wrapping.
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }
}

impl Words for u64 {
    const WORDS: u32 = 1;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        word(0, self)
    }

    #[inline(always)]
    fn with(self, other: Self, mut word: impl FnMut(u64, u64) -> u64) -> Self {
        word(self, other)
    }
}

impl Words for [u64; 2] {
    const WORDS: u32 = 2;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        [word(0, self[0]), word(1, self[1])]
    }

    #[inline(always)]
    fn with(self, other: Self, mut word: impl FnMut(u64, u64) -> u64) -> Self {
        [word(self[0], other[0]), word(self[1], other[1])]
    }
}

impl Words for [u64; 3] {
    const WORDS: u32 = 3;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        [word(0, self[0]), word(1, self[1]), word(2, self[2])]
    }

    #[inline(always)]
    fn with(self, other: Self, mut word: impl FnMut(u64, u64) -> u64) -> Self {
        [word(self[0], other[0]), word(self[1], other[1]), word(self[2], other[2])]
    }
}

impl Words for [u64; 4] {
    const WORDS: u32 = 4;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        [word(0, self[0]), word(1, self[1]), word(2, self[2]), word(3, self[3])]
    }

    #[inline(always)]
    fn with(self, other: Self, mut word: impl FnMut(u64, u64) -> u64) -> Self {
        [word(self[0], other[0]), word(self[1], other[1]), word(self[2], other[2]), word(self[3], other[3])]
    }
}
