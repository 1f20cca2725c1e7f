//! How many threads share a row of a matrix.
//!
//! A row of up to [`WARP_VECTORS`] vectors belongs to the fewest lanes of a warp, a power of two, that have a vector each.
//! A wider row belongs to a block. The choice depends on the row's width alone, so no launch geometry changes a sum.

use wtacrs_simt::WARP;

/// Threads of a block.
pub const THREADS: u32 = 256;

/// Rows of up to so many vectors of 16 bytes (8 KiB) belong to a warp: 16 vectors for each lane take few enough rounds that
/// a barrier would cost more than a block's further loads in flight gain.
pub const WARP_VECTORS: u32 = 512;

/// The threads that share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTeam {
    /// log₂ of the number of threads.
    pub(super) shift: u32,
}

impl RowTeam {
    /// For rows of so many vectors, the last of which may be partial. Blocks have [`THREADS`] threads.
    #[inline(always)]
    pub const fn new(vectors: u32) -> Self {
        if vectors > WARP_VECTORS { Self { shift: THREADS.trailing_zeros() } } else { Self::of_lanes(vectors) }
    }

    /// For rows of which a warp takes a part, however wide they are.
    #[inline(always)]
    pub const fn of_lanes(vectors: u32) -> Self {
        Self::of_at_most(WARP, vectors)
    }

    /// For rows of which a block takes a part, with a thread for each vector of the part.
    #[inline(always)]
    pub const fn of_threads(vectors: u32) -> Self {
        Self::of_at_most(THREADS, vectors)
    }

    #[inline(always)]
    const fn of_at_most(threads: u32, vectors: u32) -> Self {
        let most = if vectors > threads { threads } else { vectors };
        // The bits of vectors − 1, for at least one vector.
        Self { shift: u32::BITS - most.saturating_sub(1).leading_zeros() }
    }

    /// Threads of a row.
    #[inline(always)]
    pub const fn threads(self) -> u32 {
        1 << self.shift
    }

    /// Rows of a block.
    #[inline(always)]
    pub const fn rows(self) -> u32 {
        THREADS >> self.shift
    }

    /// Whether the row belongs to a block.
    #[inline(always)]
    pub const fn is_block(self) -> bool {
        self.threads() > WARP
    }

    /// A number as a row and a place in it.
    #[inline(always)]
    pub const fn split(self, index: u32) -> (u32, u32) {
        (index >> self.shift, index & (self.threads() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_enough_threads_and_no_more() {
        for vectors in 0..2 * WARP_VECTORS {
            let team = RowTeam::new(vectors);
            let expected = match vectors {
                0 => 1,
                1..=WARP => vectors.next_power_of_two(),
                _ if vectors <= WARP_VECTORS => WARP,
                _ => THREADS,
            };
            assert_eq!((team.threads(), team.rows()), (expected, THREADS / expected), "{vectors} vectors");
            assert_eq!(RowTeam::of_lanes(vectors).threads(), expected.min(WARP));
            let of_threads = vectors.next_power_of_two().min(THREADS);
            assert_eq!(RowTeam::of_threads(vectors).threads(), of_threads);
            assert_eq!(RowTeam::of_threads(vectors).split(2 * of_threads), (2, 0));
        }
    }
}
