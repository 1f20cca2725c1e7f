//! One value out of a block's: sums, maxima, or any operation whose order does not matter.
//!
//! Each warp reduces by shuffles, leaves its result in shared memory, and after one barrier reduces all warps' results
//! again, so that every thread has the value without a second barrier.

use super::words::Words;
use wtacrs_simt::index::{WARP, block_warps, lane, warp};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, shuffle_xor};

/// Words of shared memory that [`reduce`] needs for values of `words` words.
pub const fn room(words: u32) -> u32 {
    words * WARP
}

/// The combination of all lanes' values, in every lane. `combine` is associative and commutative.
#[inline(always)]
pub fn warp_reduce<V: Words>(mut value: V, combine: impl Fn(V, V) -> V) -> V {
    let mut flip = WARP / 2;
    while flip > 0 {
        let other = value.each(|_, word| shuffle_xor(FULL, word, flip));
        value = combine(value, other);
        flip /= 2;
    }
    value
}

/// The combination of all threads' values, in every thread; `identity` changes nothing. One barrier.
///
/// # Safety
///
/// All threads of the block call it together. `room` has [`room`] words, which nobody has accessed since the last
/// barrier, and nobody accesses before the next.
#[inline(always)]
pub unsafe fn reduce<V: Words>(value: V, identity: V, room: Shared<u64>, combine: impl Fn(V, V) -> V) -> V {
    let of_warp = warp_reduce(value, &combine);
    if lane() == 0 {
        of_warp.each(|i, word| {
            // SAFETY: the warp's own place in a room of 32 for each word.
            unsafe { room.write(i * WARP + warp(), word) };
            word
        });
    }
    barrier();
    let mut of_lane = identity;
    if lane() < block_warps() {
        // SAFETY: written by warp `lane` before the barrier.
        of_lane = identity.each(|i, _| unsafe { room.read(i * WARP + lane()) });
    }
    warp_reduce(of_lane, combine)
}

/// [`reduce`] by wrapping addition.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
pub unsafe fn sum(value: u64, room: Shared<u64>) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { reduce(value, 0, room, u64::wrapping_add) }
}

/// [`reduce`] by the larger of two; of the bits of non-negative floats as well.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
pub unsafe fn max(value: u64, room: Shared<u64>) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { reduce(value, 0, room, Ord::max) }
}
