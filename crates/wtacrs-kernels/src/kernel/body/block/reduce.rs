//! Reduces a block's values to one: sums, maxima, or any operation whose order does not matter.
//!
//! Each warp reduces by shuffles and leaves its result in shared memory. After one barrier each warp reduces the results of
//! all warps, so that every thread has the value without a second barrier.

use super::words::Words;
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block_warps, lane, warp};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_add, reduce_max, shuffle_xor};

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

/// The sums of all lanes' words, wrapping, in every lane. It takes a third of [`warp_reduce`]'s time: a word is cut into three
/// digits, whose sums do not overflow, take one instruction each and do not wait for one another.
#[inline(always)]
pub fn warp_sum<V: Words>(value: V) -> V {
    const DIGIT: u32 = 27;
    value.each(|_, word| {
        let digits = |place: u32| {
            let digit = (word >> (DIGIT * place)) as u32 & ((1 << DIGIT) - 1);
            u64::from(reduce_add(FULL, digit)) << (DIGIT * place)
        };
        digits(0).wrapping_add(digits(1)).wrapping_add(digits(2))
    })
}

/// The largest of all lanes' words, in every lane: first the largest upper half, then the largest lower half beside it.
#[inline(always)]
pub fn warp_max<V: Words>(value: V) -> V {
    value.each(|_, word| {
        let high = reduce_max(FULL, (word >> 32) as u32);
        let low = if (word >> 32) as u32 == high { word as u32 } else { 0 };
        u64::from(high) << 32 | u64::from(reduce_max(FULL, low))
    })
}

/// The combination of all threads' values, in every thread; `identity` changes nothing. One barrier.
///
/// # Safety
///
/// All threads of the block call it together. `scratch` has
/// [`collective_words`](crate::kernel::team::collective_words), which no thread has accessed since the last barrier and
/// no other code accesses before the next.
#[inline(always)]
pub unsafe fn reduce<V: Words>(value: V, identity: V, scratch: Shared<u64>, combine: impl Fn(V, V) -> V) -> V {
    // SAFETY: the caller's promise.
    unsafe { reduce_by(value, identity, scratch, |value| warp_reduce(value, &combine)) }
}

/// The sums of all threads' words, wrapping, in every thread. One barrier.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
pub unsafe fn sum<V: Words>(value: V, scratch: Shared<u64>) -> V {
    // SAFETY: the caller's promise.
    unsafe { reduce_by(value, value.each(|_, _| 0), scratch, warp_sum) }
}

/// Reduces the values of each warp's lanes by `in_warp`, and then the results of all warps.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
unsafe fn reduce_by<V: Words>(value: V, identity: V, scratch: Shared<u64>, in_warp: impl Fn(V) -> V) -> V {
    // SAFETY: the caller's promise.
    in_warp(unsafe { of_warps(in_warp(value), identity, scratch) })
}

/// For each lane the sums of one warp's words, wrapping, and zeros for lanes beyond the block's warps: [`warp_sum`] of them
/// are the sums over the block, in whichever warps call it. One barrier.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
pub unsafe fn sums_of_warps<V: Words>(value: V, scratch: Shared<u64>) -> V {
    // SAFETY: the caller's promise.
    unsafe { of_warps(warp_sum(value), value.each(|_, _| 0), scratch) }
}

/// For each lane the value of one warp, whose lanes share it. One barrier.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
unsafe fn of_warps<V: Words>(of_warp: V, identity: V, scratch: Shared<u64>) -> V {
    if lane() == 0 {
        of_warp.each(|i, word| {
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
    of_lane
}

/// The largest of all threads' words, in every thread; of the bits of non-negative floats as well. One barrier.
///
/// # Safety
///
/// As for [`reduce`].
#[inline(always)]
pub unsafe fn max<V: Words>(value: V, scratch: Shared<u64>) -> V {
    // SAFETY: the caller's promise.
    unsafe { reduce_by(value, value.each(|_, _| 0), scratch, warp_max) }
}
