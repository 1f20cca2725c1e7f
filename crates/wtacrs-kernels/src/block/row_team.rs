//! Which threads share a row, and their sums.
//!
//! A row of up to [`WARP_VECTORS`] vectors belongs to the fewest lanes of a warp, a power of two, that have a vector
//! each; a wider one to a block. The choice depends on the row's width alone, so that no launch geometry changes a sum.

use core::ops::Add;
use wtacrs_simt::index::{WARP, block_warps, lane, thread, warp};
use wtacrs_simt::memory::Word;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{Exchange, FULL, shuffle_xor};

/// Threads of a block.
pub const THREADS: u32 = 256;

/// Up to so many vectors of 16 bytes (8 KiB) a row is a warp's: 16 for each lane, in few enough rounds. Then a barrier
/// would cost more than a block's further loads in flight gain.
pub const WARP_VECTORS: u32 = 512;

/// The threads that share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTeam {
    /// log₂ of the number of threads.
    shift: u32,
}

impl RowTeam {
    /// For rows of so many vectors, the last of which may be partial. Blocks have [`THREADS`] threads.
    #[inline(always)]
    pub const fn new(vectors: u32) -> Self {
        if vectors > WARP_VECTORS { Self { shift: THREADS.trailing_zeros() } } else { Self::of_lanes(vectors) }
    }

    /// The same for rows of which a warp takes a part, however wide they are.
    #[inline(always)]
    pub const fn of_lanes(vectors: u32) -> Self {
        Self::of_at_most(WARP, vectors)
    }

    /// The same for rows of which a block takes a part, with a thread for each vector of it.
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

    /// Whether the row is a block's.
    #[inline(always)]
    pub const fn is_block(self) -> bool {
        self.threads() > WARP
    }

    /// This thread's row, among the block's.
    #[inline(always)]
    pub fn row(self) -> u32 {
        thread() >> self.shift
    }

    /// This thread's place, among its row's threads.
    #[inline(always)]
    pub fn member(self) -> u32 {
        thread() & (self.threads() - 1)
    }

    /// A number as row and place: those of the thread that has it, if there is one.
    #[inline(always)]
    pub const fn split(self, index: u32) -> (u32, u32) {
        (index >> self.shift, index & (self.threads() - 1))
    }

    /// The sum over the row's threads, the same bits in each of them: butterflies over lanes, then over warps. All
    /// threads of the block call it together. Cost: log₂(threads) shuffles, and one barrier if the row is a block's.
    ///
    /// # Safety
    ///
    /// `scratch` has an entry for each warp if the row is a block's, in shared memory that no other call uses.
    #[inline(always)]
    pub unsafe fn sum<T: Exchange + Word + Add<Output = T>>(self, value: T, scratch: Shared<T>) -> T {
        let lanes = if self.is_block() { WARP } else { self.threads() };
        let sum = butterfly(value, lanes);
        if !self.is_block() {
            return sum;
        }
        // SAFETY: warps of a block index the scratch, of which the caller promises an entry for each; the barrier is
        // between the writes and the reads.
        unsafe {
            if lane() == 0 {
                scratch.write(warp(), sum);
            }
            barrier();
            butterfly(scratch.read(lane() & (block_warps() - 1)), block_warps())
        }
    }
}

/// The sum over groups of so many lanes, a power of two, in all of them.
#[inline(always)]
fn butterfly<T: Exchange + Add<Output = T>>(value: T, lanes: u32) -> T {
    let mut sum = value;
    let mut flip = lanes / 2;
    while flip > 0 {
        sum = sum + shuffle_xor(FULL, sum, flip);
        flip /= 2;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use wtacrs_simt::emulator::{Launch, launch};

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

    #[test]
    fn every_thread_has_its_rows_sum() {
        for vectors in [1, 2, 3, 8, 32, WARP_VECTORS + 1] {
            for seed in 0..3 {
                let found = Mutex::new(vec![0.0; THREADS as usize]);
                let shape = Launch { grid: [1; 3], block: THREADS, shared_bytes: 128, cooperative: false, seed };
                let kernel = || {
                    let team = RowTeam::new(vectors);
                    // SAFETY: 8 warps have an entry each.
                    let sum = unsafe { team.sum(f64::from(thread()), Shared::new(0, 8)) };
                    found.lock().expect("nobody panicked")[thread() as usize] = sum;
                };
                launch(shape, &kernel).expect("no fault");
                let threads = RowTeam::new(vectors).threads();
                for (i, &sum) in found.lock().expect("nobody panicked").iter().enumerate() {
                    let first = i as u32 / threads * threads;
                    assert_eq!(sum, (first..first + threads).map(f64::from).sum::<f64>(), "{vectors} {seed}");
                }
            }
        }
    }
}
