//! Values of one to four 64-bit words, which lanes and warps hand to one another.

/// A value made of words. Its words are named by literals, so that it stays in registers.
pub trait Words: Copy {
    /// How many words.
    const WORDS: u32;

    /// The value whose word i is `word(i, the own word i)`.
    fn each(self, word: impl FnMut(u32, u64) -> u64) -> Self;
}

impl Words for u64 {
    const WORDS: u32 = 1;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        word(0, self)
    }
}

impl Words for [u64; 2] {
    const WORDS: u32 = 2;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        [word(0, self[0]), word(1, self[1])]
    }
}

impl Words for [u64; 3] {
    const WORDS: u32 = 3;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        [word(0, self[0]), word(1, self[1]), word(2, self[2])]
    }
}

impl Words for [u64; 4] {
    const WORDS: u32 = 4;

    #[inline(always)]
    fn each(self, mut word: impl FnMut(u32, u64) -> u64) -> Self {
        [word(0, self[0]), word(1, self[1]), word(2, self[2]), word(3, self[3])]
    }
}
