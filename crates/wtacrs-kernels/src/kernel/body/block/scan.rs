//! For each thread of a block, the combination of the values of all threads before it: prefix sums, or any other associative
//! operation.
//!
//! Each warp scans by shuffles and leaves its total in shared memory; after one barrier every warp scans the totals.

use super::words::Words;
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block_warps, lane, warp};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, shuffle, shuffle_up};

/// A thread's (or a lane's) result of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<V> {
    /// The combination of the values before the thread's own.
    pub before: V,
    /// The combination of all values.
    pub total: V,
}

/// The scan over the lanes of a warp. `combine` is associative, `identity` changes nothing.
#[inline(always)]
pub fn warp_scan<V: Words>(value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
    let mut through = value;
    let mut distance = 1;
    while distance < WARP {
        let below = through.each(|_, word| shuffle_up(FULL, word, distance));
        if lane() >= distance {
            through = combine(below, through);
        }
        distance *= 2;
    }
    let total = through.each(|_, word| shuffle(FULL, word, WARP - 1));
    let before = through.each(|_, word| shuffle_up(FULL, word, 1));
    Prefix { before: if lane() == 0 { identity } else { before }, total }
}

/// The scan over the threads of a block. One barrier.
///
/// # Safety
///
/// All threads of the block call it together. `scratch` has
/// [`collective_words`](crate::kernel::team::collective_words), which no thread has accessed since the last barrier and
/// no other code accesses before the next.
#[inline(always)]
pub unsafe fn scan<V: Words>(value: V, identity: V, scratch: Shared<u64>, combine: impl Fn(V, V) -> V) -> Prefix<V> {
    let of_lane = warp_scan(value, identity, &combine);
    // SAFETY: the caller's promise.
    let of_warp = unsafe { across_warps(of_lane.total, identity, scratch, &combine) };
    Prefix { before: combine(of_warp.before, of_lane.before), total: of_warp.total }
}

/// The scan over warps, of values that are the same in all lanes of a warp. One barrier.
///
/// # Safety
///
/// As for [`scan`].
#[inline(always)]
pub unsafe fn across_warps<V: Words>(
    value: V,
    identity: V,
    scratch: Shared<u64>,
    combine: impl Fn(V, V) -> V,
) -> Prefix<V> {
    if lane() == 0 {
        value.each(|i, word| {
            // SAFETY: the warp's own place among 32 for each word.
            unsafe { scratch.write(i * WARP + warp(), word) };
            word
        });
    }
    barrier();
    let mut of_lane = identity;
    if lane() < block_warps() {
        // SAFETY: written by warp `lane` before the barrier.
        of_lane = identity.each(|i, _| unsafe { scratch.read(i * WARP + lane()) });
    }
    let warps = warp_scan(of_lane, identity, combine);
    Prefix { before: warps.before.each(|_, word| shuffle(FULL, word, warp())), total: warps.total }
}
