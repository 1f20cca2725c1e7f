//! Random bits as a pure function of (seed, offset, stream, index), and integers made of them.

use crate::philox;

/// Where a plan's randomness begins: a seed, and an offset into the blocks of 128 bits under it.
///
/// There is no generator with a state. A plan that starts here and uses up to `draws` blocks leaves
/// [`next`](Self::next)`(draws)` to whatever comes after it.
///
/// ```
/// use wtacrs_exact::random::Randomness;
/// let first_step = Randomness::new(42, 0);
/// let second_step = first_step.next(1024); // the first step used at most 1024 draws
/// assert_eq!(second_step, Randomness { seed: 42, offset: 1024 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Randomness {
    /// The key: plans of different seeds are independent.
    pub seed: u64,
    /// The first block.
    pub offset: u64,
}

impl Randomness {
    /// From block `offset` of `seed` on.
    #[inline]
    pub const fn new(seed: u64, offset: u64) -> Self {
        Self { seed, offset }
    }

    /// Where the next plan begins after one that used at most `draws` blocks. Offsets wrap at 2^64.
    #[inline]
    #[must_use]
    pub const fn next(self, draws: u64) -> Self {
        Self { seed: self.seed, offset: self.offset.wrapping_add(draws) }
    }
}

/// "wtac", in ASCII.
const TAG: u64 = 0x7774_6163;

/// The bits of one problem: Philox4x32-10 under key `seed` with the counter (offset + index, stream, tag).
///
/// Streams are for the items of a batch, which share one offset. The tag in the counter's top word keeps these bits
/// apart from those of other users of the same seed, such as a framework's dropout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    offset: u64,
    high: u64,
}

impl Stream {
    /// The bits from a seed's block `offset` on, for item `stream` of a batch.
    #[inline]
    pub const fn new(randomness: Randomness, stream: u32) -> Self {
        Self { seed: randomness.seed, offset: randomness.offset, high: TAG << 32 | stream as u64 }
    }

    /// 128 random bits of their own for every index.
    #[inline]
    pub const fn bits(&self, index: u64) -> u128 {
        philox::bits((self.high as u128) << 64 | self.offset.wrapping_add(index) as u128, self.seed)
    }

    /// [`Self::bits`] of `first` and the indices that follow it.
    #[inline]
    pub fn run<const N: usize>(&self, first: u64) -> [u128; N] {
        philox::run(self.high, self.offset.wrapping_add(first), self.seed)
    }

    /// Whether events of probability `parts[i] / wholes[i]` happen by the bits of index `first + i`: [`happens`], as operations
    /// that vectors have. `parts[i]` ≤ `wholes[i]`; where both are 0, nothing happens.
    #[inline(always)]
    pub fn happen_all<const N: usize>(&self, first: u64, parts: &[u64; N], wholes: &[u64; N]) -> [bool; N] {
        let [w0, w1, w2, w3] = philox::columns::<N>(self.high, self.offset.wrapping_add(first), self.seed);
        let mut happen = [false; N];
        for lane in 0..N {
            let (upper, lower) = (w3[lane] << 32 | lower_half(w2[lane]), w1[lane] << 32 | lower_half(w0[lane]));
            let whole = wholes[lane];
            let carried = upper.wrapping_mul(whole).checked_add(upper_product(lower, whole)).is_none();
            happen[lane] = upper_product(upper, whole) + u64::from(carried) < parts[lane];
        }
        happen
    }
}

/// ⌊bits / 2^128 · bound⌋: uniform on the integers below `bound`.
#[inline]
pub const fn point_below(bits: u128, bound: u64) -> u64 {
    let bound = bound as u128;
    let low = (bits as u64 as u128 * bound) >> 64;
    (((bits >> 64) * bound + low) >> 64) as u64
}

/// Whether these bits make an event of probability `part / whole` happen; `part` ≤ `whole`, `whole` > 0.
#[inline]
pub const fn happens(bits: u128, part: u64, whole: u64) -> bool {
    point_below(bits, whole) < part
}

#[inline(always)]
const fn lower_half(word: u64) -> u64 {
    word & 0xffff_ffff
}

/// ⌊a · b / 2^64⌋ by products of halves, which vectors have.
#[inline(always)]
const fn upper_product(a: u64, b: u64) -> u64 {
    let (a0, a1, b0, b1) = (lower_half(a), a >> 32, lower_half(b), b >> 32);
    let (low, middle, other) = (a0 * b0, a0 * b1, a1 * b0);
    let carried = (low >> 32) + lower_half(middle) + lower_half(other);
    a1 * b1 + (middle >> 32) + (other >> 32) + (carried >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_together_are_events_one_by_one() {
        for (seed, offset) in [(3, 0), (u64::MAX, u64::MAX - 3)] {
            let stream = Stream::new(Randomness::new(seed, offset), 5);
            for first in (0..4000).step_by(8) {
                let bits: [u128; 8] = stream.run(first);
                // Of the nearest to happening or not, too: parts beside the point itself.
                let wholes: [u64; 8] =
                    core::array::from_fn(|lane| [0, 1, 2, 40_503, (1 << 62) - 57, 1 << 62, 3 << 40, u64::MAX][lane]);
                for beside in 0..3 {
                    let points: [u64; 8] = core::array::from_fn(|lane| point_below(bits[lane], wholes[lane]));
                    let parts: [u64; 8] =
                        core::array::from_fn(|lane| (points[lane] + beside).saturating_sub(1).min(wholes[lane]));
                    let expected = core::array::from_fn(|lane| points[lane] < parts[lane]);
                    assert_eq!(stream.happen_all(first, &parts, &wholes), expected);
                }
            }
        }
    }

    /// bits · bound / 2^128 by schoolbook multiplication of 32-bit digits.
    fn by_digits(bits: u128, bound: u64) -> u64 {
        let digit = |x: u128, i: usize| (x >> (32 * i)) & 0xffff_ffff;
        let mut product = [0_u128; 7];
        for i in 0..4 {
            for j in 0..2 {
                product[i + j] += digit(bits, i) * digit(bound.into(), j);
            }
        }
        for i in 0..6 {
            product[i + 1] += product[i] >> 32;
            product[i] &= 0xffff_ffff;
        }
        (product[4] | product[5] << 32) as u64
    }

    #[test]
    fn points_are_the_exact_product() {
        let stream = Stream::new(Randomness::new(3, 0), 0);
        let edges = [0, 1, u128::MAX, (1 << 64) - 1, 1 << 64, 7 << 64 | u128::from(u64::MAX)];
        let random: Vec<u128> = (0..1000).map(|i| stream.bits(i)).collect();
        for bits in edges.into_iter().chain(random) {
            for bound in [1, 2, 3, 40_503, (1 << 62) - 57, 1 << 62, u64::MAX - 58, u64::MAX] {
                assert_eq!(point_below(bits, bound), by_digits(bits, bound), "{bits} {bound}");
            }
        }
        // A case in which the low half carries into the result.
        assert_eq!(
            point_below(1 << 127 | u128::from(u64::MAX), u64::MAX),
            by_digits(1 << 127 | u128::from(u64::MAX), u64::MAX)
        );
    }

    #[test]
    fn the_counter_is_offset_stream_and_tag() {
        let expected = philox::bits(0x7774_6163_0000_0002_0000_0000_0000_0005, 9);
        let stream = |offset| Stream::new(Randomness::new(9, offset), 2);
        assert_eq!(stream(5).bits(0), expected);
        assert_eq!(stream(0).bits(5), expected);
        assert_eq!(stream(0).run::<8>(2)[3], expected);
        assert_eq!(stream(u64::MAX).bits(6), expected);
        assert_eq!(Stream::new(Randomness::new(9, u64::MAX).next(6), 2).bits(0), expected);
    }
}
