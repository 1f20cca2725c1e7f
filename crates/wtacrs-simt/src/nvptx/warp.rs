//! shfl.sync, vote.sync, redux.sync.

use super::llvm;

/// The last lane that a shuffle to higher or named lanes may reach; 0 for one to lower lanes.
const LAST: u32 = 31;

/// What lanes exchange, as one word or two.
pub trait Shuffle: Copy {
    /// Applies the exchange of words to every word of the value.
    fn by_words(self, exchange: impl Fn(u32) -> u32) -> Self;
}

impl Shuffle for u32 {
    #[inline(always)]
    fn by_words(self, exchange: impl Fn(u32) -> u32) -> Self {
        exchange(self)
    }
}

impl Shuffle for i32 {
    #[inline(always)]
    fn by_words(self, exchange: impl Fn(u32) -> u32) -> Self {
        exchange(self as u32) as i32
    }
}

impl Shuffle for u64 {
    #[inline(always)]
    fn by_words(self, exchange: impl Fn(u32) -> u32) -> Self {
        let low = exchange(self as u32);
        let high = exchange((self >> 32) as u32);
        u64::from(high) << 32 | u64::from(low)
    }
}

impl Shuffle for f32 {
    #[inline(always)]
    fn by_words(self, exchange: impl Fn(u32) -> u32) -> Self {
        f32::from_bits(exchange(self.to_bits()))
    }
}

impl Shuffle for f64 {
    #[inline(always)]
    fn by_words(self, exchange: impl Fn(u32) -> u32) -> Self {
        f64::from_bits(self.to_bits().by_words(exchange))
    }
}

macro_rules! shuffles {
    ($($name:ident, $clamp:expr;)*) => { $(
        #[inline(always)]
        pub(crate) fn $name<T: Shuffle>(mask: u32, value: T, by: u32) -> T {
            value.by_words(
                #[inline(always)]
                // SAFETY: every lane of the mask comes here, as the API demands.
                |word| unsafe { llvm::$name(mask, word, by, $clamp) },
            )
        }
    )* };
}

shuffles! {
    shuffle, LAST;
    shuffle_xor, LAST;
    shuffle_up, 0;
    shuffle_down, LAST;
}

#[inline(always)]
pub(crate) fn ballot(mask: u32, predicate: bool) -> u32 {
    // SAFETY: every lane of the mask comes here, as the API demands.
    unsafe { llvm::ballot(mask, predicate) }
}

macro_rules! reductions {
    ($($name:ident)*) => { $(
        #[inline(always)]
        pub(crate) fn $name(mask: u32, value: u32) -> u32 {
            // SAFETY: every lane of the mask comes here, as the API demands.
            unsafe { llvm::$name(value, mask) }
        }
    )* };
}

reductions!(reduce_add reduce_min reduce_max reduce_or);
