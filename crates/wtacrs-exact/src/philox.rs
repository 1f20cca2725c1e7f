//! Philox4x32-10, the counter-based generator behind every reproducible selection.
//!
//! A block of 128 random bits is a pure function of a 64-bit key and a 128-bit counter, so the bits of a pair or of a
//! tree node do not depend on which thread asks for them, nor in what order.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The known answers in
//! this file's tests are those of the authors' Random123 distribution.

use core::convert::Infallible;
use rand_core::{SeedableRng, TryRng};

/// The factors of a round.
pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What is added to the key in each round.
pub const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
/// How many rounds a block takes.
pub const ROUNDS: usize = 10;

/// The 128 random bits of one counter under one key, as four words.
///
/// ```
/// assert_eq!(wtacrs_exact::philox::block([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
/// ```
#[inline]
pub const fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut c = counter;
    let mut k = key;
    let mut round = 0;
    while round < ROUNDS {
        let first = MULTIPLIERS[0] as u64 * c[0] as u64;
        let second = MULTIPLIERS[1] as u64 * c[2] as u64;
        c = [(second >> 32) as u32 ^ c[1] ^ k[0], second as u32, (first >> 32) as u32 ^ c[3] ^ k[1], first as u32];
        k = [k[0].wrapping_add(KEY_STEPS[0]), k[1].wrapping_add(KEY_STEPS[1])];
        round += 1;
    }
    c
}

/// [`block`] with the counter and the key as integers, words little-endian.
#[inline]
pub const fn bits(counter: u128, key: u64) -> u128 {
    let words = [counter as u32, (counter >> 32) as u32, (counter >> 64) as u32, (counter >> 96) as u32];
    join(block(words, [key as u32, (key >> 32) as u32]))
}

/// [`bits`] of `N` counters in a row, which differ in their low 64 bits: word by word over all of them, so that a
/// compiler can make vector code of it.
#[inline]
pub fn run<const N: usize>(high: u64, low: u64, key: u64) -> [u128; N] {
    words(high, low, key).map(join)
}

/// [`run`] as words.
#[inline(always)]
pub fn words<const N: usize>(high: u64, low: u64, key: u64) -> [[u32; 4]; N] {
    let words = columns::<N>(high, low, key);
    core::array::from_fn(|lane| core::array::from_fn(|word| words[word][lane] as u32))
}

/// [`run`] as the first words of all blocks, then the second ones, and so on: each the lower half of 64 bits, whose upper
/// half is anything.
#[inline(always)]
pub fn columns<const N: usize>(high: u64, low: u64, key: u64) -> [[u64; N]; 4] {
    // Each word is the lower half of 64 bits. Products read that half alone, so nothing clears the upper one, and no word is
    // moved from one width to another.
    let product = |multiplier: u32, word: u64| u64::from(multiplier) * (word & 0xffff_ffff);
    let mut c0: [u64; N] = core::array::from_fn(|lane| low.wrapping_add(lane as u64));
    let mut c1: [u64; N] = c0.map(|counter| counter >> 32);
    let mut c2 = [high; N];
    let mut c3 = [high >> 32; N];
    let mut k = [key as u32, (key >> 32) as u32];
    for _ in 0..ROUNDS {
        for lane in 0..N {
            let first = product(MULTIPLIERS[0], c0[lane]);
            let second = product(MULTIPLIERS[1], c2[lane]);
            c0[lane] = second >> 32 ^ c1[lane] ^ u64::from(k[0]);
            c1[lane] = second;
            c2[lane] = first >> 32 ^ c3[lane] ^ u64::from(k[1]);
            c3[lane] = first;
        }
        k = [k[0].wrapping_add(KEY_STEPS[0]), k[1].wrapping_add(KEY_STEPS[1])];
    }
    [c0, c1, c2, c3]
}

const fn join(words: [u32; 4]) -> u128 {
    words[0] as u128 | (words[1] as u128) << 32 | (words[2] as u128) << 64 | (words[3] as u128) << 96
}

/// Philox4x32-10 as a sequential generator: the words of the blocks at `offset`, `offset + 1`, ….
///
/// # Example
///
/// ```
/// use rand_core::Rng;
/// let mut rng = wtacrs_exact::philox::Philox4x32_10::new(0, 0);
/// assert_eq!(rng.next_u32(), 0x6627e8d5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Philox4x32_10 {
    key: u64,
    /// Counter of the next block.
    counter: u128,
    words: [u32; 4],
    /// Words of `words` already handed out.
    used: usize,
}

impl Philox4x32_10 {
    /// The stream of `seed`, from block `offset` on (a block is 128 bits).
    pub fn new(seed: u64, offset: u64) -> Self {
        Self { key: seed, counter: u128::from(offset), words: [0; 4], used: 4 }
    }

    fn next_word(&mut self) -> u32 {
        if self.used == self.words.len() {
            let bits = bits(self.counter, self.key);
            self.words = core::array::from_fn(|i| (bits >> (32 * i)) as u32);
            self.counter = self.counter.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }
}

impl TryRng for Philox4x32_10 {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_u64_via_u32(self)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        rand_core::utils::fill_bytes_via_next_word(dst, || self.try_next_u32())
    }
}

impl SeedableRng for Philox4x32_10 {
    /// Eight bytes of key, then eight of offset, little-endian.
    type Seed = [u8; 16];

    fn from_seed(seed: Self::Seed) -> Self {
        let [key, offset] = rand_core::utils::read_words(&seed);
        Self::new(key, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng;

    #[test]
    fn published_known_answers() {
        let max = u32::MAX;
        assert_eq!(block([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(block([max; 4], [max; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            block([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn integers_and_words_agree() {
        let counter = 0x03707344_13198a2e_85a308d3_243f6a88;
        assert_eq!(bits(counter, 0x299f31d0_a4093822), 0x24126ea1_5001e420_94fdcceb_d16cfe09);
    }

    #[test]
    fn a_run_is_its_counters_one_by_one() {
        for low in [0, 5, u64::from(u32::MAX) - 3, u64::MAX - 2] {
            let expected = core::array::from_fn(|lane| bits(7 << 64 | u128::from(low.wrapping_add(lane as u64)), 11));
            assert_eq!(run::<8>(7, low, 11), expected);
        }
    }

    #[test]
    fn the_stream_is_the_blocks_in_order() {
        let mut rng = Philox4x32_10::new(7, 3);
        let mut bytes = [0; 33];
        rng.fill_bytes(&mut bytes);
        assert_eq!(bytes[..16], bits(3, 7).to_le_bytes());
        assert_eq!(bytes[16..32], bits(4, 7).to_le_bytes());
        assert_eq!(bytes[32], bits(5, 7).to_le_bytes()[0]);

        let mut seed = [0; 16];
        seed[0] = 7;
        seed[8] = 3;
        assert_eq!(Philox4x32_10::from_seed(seed), Philox4x32_10::new(7, 3));
        assert_eq!(Philox4x32_10::new(7, 3).next_u64(), bits(3, 7) as u64);
    }
}
