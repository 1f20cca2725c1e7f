//! Random bits as a pure function of (seed, offset, stream, index), and integers made of them.
//!
//! Both the CPU's draws ([`crate::draws`], with `std`) and a GPU kernel's are these, so they are equal bit by bit.

use crate::philox;

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
    /// The bits of `seed` from block `offset` on.
    #[inline]
    pub const fn new(seed: u64, offset: u64, stream: u32) -> Self {
        Self { seed, offset, high: TAG << 32 | stream as u64 }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let stream = Stream::new(3, 0, 0);
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
        assert_eq!(Stream::new(9, 5, 2).bits(0), expected);
        assert_eq!(Stream::new(9, 0, 2).bits(5), expected);
        assert_eq!(Stream::new(9, 0, 2).run::<8>(2)[3], expected);
        assert_eq!(Stream::new(9, u64::MAX, 2).bits(6), expected);
    }
}
