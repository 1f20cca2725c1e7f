//! What the blocks of a problem find in one round: the largest of their values, and the sums of all by its scale.

use crate::kernel::body::block::reduce::{warp_max, warp_sum};
use crate::kernel::body::block::words::Words;
use crate::kernel::body::team::Team;
use wtacrs_simt::warp::{FULL, any};

/// A sum that no block knows. Sums that are known are smaller.
const UNKNOWN: u64 = 1 << 63;

/// One block's share, or that of several together.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// The largest value as bits of an f64. If it is 0, all sums are 0, or none depends on a scale.
    pub(super) largest: u64,
    /// The sums of the values' integers, by the scale of the largest and by those one and two octaves coarser.
    pub(super) sums: [u64; 3],
}

impl Share {
    /// The share of all blocks, of the sums of this one's threads. Its first sum is [unknown](Self::is_unknown) if the largest
    /// value of some block lies more than two octaves below that of all.
    #[inline(always)]
    pub(super) fn of_all(team: &mut Team, largest: u64, sums: [u64; 3]) -> Self {
        let of_block = |sums| Self { largest, sums }.words();
        let join = |a, b| Self::from(a).join(Self::from(b)).words();
        let in_warp = |share| Self::from(share).in_warp().words();
        Self::from(team.agree(sums, of_block, [0; 4], join, in_warp))
    }

    #[inline(always)]
    pub(super) fn is_unknown(self) -> bool {
        self.sums[0] >= UNKNOWN
    }

    #[inline(always)]
    fn from([largest, a, b, c]: [u64; 4]) -> Self {
        Self { largest, sums: [a, b, c] }
    }

    #[inline(always)]
    fn words(self) -> [u64; 4] {
        let Self { largest, sums: [a, b, c] } = self;
        [largest, a, b, c]
    }

    /// The same by the scale of a value that is not smaller.
    #[inline(always)]
    fn by_scale_of(self, largest: u64) -> Self {
        let [a, b, c] = self.sums;
        let sums = match octaves(self.largest, largest) {
            0 => [a, b, c],
            1 => [b, c, UNKNOWN],
            2 => [c, UNKNOWN, UNKNOWN],
            _ => [UNKNOWN; 3],
        };
        Self { largest, sums }
    }

    #[inline(always)]
    fn join(self, other: Self) -> Self {
        let largest = self.largest.max(other.largest);
        let [a, b] = [self, other].map(|share| share.by_scale_of(largest).sums);
        Self { largest, sums: a.with(b, |a, b| if (a | b) >= UNKNOWN { UNKNOWN } else { a + b }) }
    }

    /// The lanes' shares together, in every lane.
    #[inline(always)]
    fn in_warp(self) -> Self {
        let largest = warp_max(self.largest);
        let Self { sums, .. } = self.by_scale_of(largest);
        let is_unknown = any(FULL, sums[0] >= UNKNOWN);
        let [a, b, c] = warp_sum(sums);
        Self { largest, sums: [if is_unknown { UNKNOWN } else { a }, b, c] }
    }
}

/// How many octaves the scale of the second lies above that of the first, which is not larger; as good as none above 0. For a
/// subnormal number more than two, which is always right: the sums are then taken again.
#[inline(always)]
fn octaves(value: u64, largest: u64) -> u32 {
    const MANTISSA_BITS: u32 = 52;
    let [exponent, of_largest] = [value, largest].map(|bits| (bits >> MANTISSA_BITS) as u32);
    if value == 0 {
        0
    } else if exponent == 0 {
        u32::MAX
    } else {
        of_largest - exponent
    }
}
