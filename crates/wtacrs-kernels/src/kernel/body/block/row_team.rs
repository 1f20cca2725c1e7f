//! This thread's place among the threads that share a row, and the row's sums.

use crate::kernel::row_team::RowTeam;
use core::ops::Add;
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block_warps, lane, thread, warp};
use wtacrs_simt::memory::Word;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{Exchange, FULL, shuffle_xor};

impl RowTeam {
    /// This thread's row, among the block's.
    #[inline(always)]
    pub fn row(self) -> u32 {
        self.split(thread()).0
    }

    /// This thread's place, among its row's threads.
    #[inline(always)]
    pub fn member(self) -> u32 {
        self.split(thread()).1
    }

    /// The sum over the row's threads, the same bits in each of them: butterflies over lanes, then over warps. All
    /// threads of the block call it together. Cost: log₂(threads) shuffles, and one barrier if the row belongs to a block.
    ///
    /// # Safety
    ///
    /// If the row belongs to a block, `scratch` has an entry for each warp, in shared memory that no other call uses.
    #[inline(always)]
    pub unsafe fn sum<T: Exchange + Word + Add<Output = T>>(self, value: T, scratch: Shared<T>) -> T {
        let lanes = if self.is_block() { WARP } else { self.threads() };
        let sum = butterfly(value, lanes);
        if !self.is_block() {
            return sum;
        }
        // SAFETY: warps of a block index the scratch, which has an entry for each as the caller promises; the barrier is
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

/// The sum over groups of so many lanes, a power of two, in each of them.
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
    use crate::kernel::row_team::{THREADS, WARP_VECTORS};
    use std::sync::Mutex;
    use wtacrs_simt::emulator::{Launch, launch};

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
                    found.lock().expect("no thread panicked")[thread() as usize] = sum;
                };
                launch(shape, &kernel).expect("no fault");
                let threads = RowTeam::new(vectors).threads();
                for (i, &sum) in found.lock().expect("no thread panicked").iter().enumerate() {
                    let first = i as u32 / threads * threads;
                    assert_eq!(sum, (first..first + threads).map(f64::from).sum::<f64>(), "{vectors} {seed}");
                }
            }
        }
    }
}
