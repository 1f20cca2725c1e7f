//! How the pairs of a problem are shared out among blocks, and the memory by which blocks and warps agree on values.

use wtacrs_simt::WARP;

/// The most words of a value on which blocks agree.
pub(super) const MOST_WORDS: u32 = 4;

/// Halves of the exchange, used in turn.
pub(super) const HALVES: u32 = 2;

/// Slots of a block in one half of the exchange: two for each word.
pub(super) const SLOTS: u32 = 2 * MOST_WORDS;

/// Words of device memory that a problem of so many blocks needs for the exchange: none for one block. The slots of 32
/// blocks, which a warp reads, lie at constant distances, so that a lane needs one address for all of its block's.
#[inline(always)]
pub const fn exchange_words(blocks: u32) -> u32 {
    if blocks > 1 { HALVES * SLOTS * blocks.next_multiple_of(WARP) } else { 0 }
}

/// Words of shared memory that one reduction or scan over a block needs, for values of so many words.
#[inline(always)]
pub const fn collective_words(words: u32) -> u32 {
    words * WARP
}

/// Bytes of shared memory that a team's collectives need, from the first byte on: two windows, used in turn.
pub const SHARED_BYTES: u32 = 2 * 8 * collective_words(MOST_WORDS);

/// R: how many pairs each block has, except the last ones. It is the least power of two of at least 32 with which `blocks`
/// blocks have all pairs.
#[inline(always)]
pub const fn range(pairs: u32, blocks: u32) -> u32 {
    // Without a division: the compiler could not rule out a zero divisor.
    let mut range = WARP;
    while (range as u64 * blocks as u64) < pairs as u64 {
        range *= 2;
    }
    range
}
