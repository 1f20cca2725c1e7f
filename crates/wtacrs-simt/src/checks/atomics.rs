//! Atomic operations: their result after all threads, and that each value before was returned once.

use super::buffers::{Args, put, put_wide, take};
use crate::atomic::{self, Integer};
use crate::memory::load;
use crate::shared::Shared;
use crate::{index, sync};

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn numbers() -> Vec<u32> {
    super::buffers::random(256, 3)
}

/// The operations' results on u32 in words 0 to 6, and on u64 in the pairs from word 8; then a permutation.
#[inline(always)]
pub(super) unsafe fn global(args: &Args) {
    let thread = index::thread();
    // SAFETY: words up to 24 are initialised before a barrier and atomic from then on; then a word for every thread.
    unsafe {
        if thread == 0 {
            put(args, 2, u32::MAX);
            put_wide(args, 12, u64::MAX);
        }
        sync::barrier();
        let value = take(args, thread);
        let words = args.output;
        let before = all_operations(words, value);
        put(args, 24 + before, 1);
        let wide = args.output.add(8).cast::<u64>();
        all_operations(wide, u64::from(value) << 20);
        sync::barrier();
        if thread == 0 {
            // The exchanged value is one of the threads'; which one is open.
            put(args, 4, u32::from(load(words.add(4)) != 0));
            put_wide(args, 16, u64::from(load(wide.add(4)) != 0));
        }
    }
}

/// Returns the value before the first atomic add.
#[inline(always)]
unsafe fn all_operations<T: Integer + From<u32>>(at: *mut T, value: T) -> T {
    // SAFETY: seven integers, as the caller promises.
    unsafe {
        let before = atomic::atomic_add(at, T::from(1));
        atomic::atomic_max(at.add(1), value);
        atomic::atomic_min(at.add(2), value);
        atomic::atomic_or(at.add(3), value);
        atomic::atomic_exchange(at.add(4), T::from(1 + index::thread()));
        // Counts by tries: of several threads that try at the same time, one succeeds.
        let mut expected = T::from(0);
        loop {
            let found = atomic::compare_exchange(at.add(5), expected, next(expected));
            if found == expected {
                break;
            }
            expected = found;
        }
        atomic::atomic_add(at.add(6), value);
        before
    }
}

/// x + 1: [`Integer`] has no sum.
#[inline(always)]
fn next<T: Integer + From<u32>>(x: T) -> T {
    // SAFETY: T is u32 or u64, and its low word is read.
    let low = unsafe { (&raw const x).cast::<u32>().read() };
    T::from(low + 1)
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn global_expected(input: &[u32]) -> Vec<u32> {
    let sum = input.iter().fold(0u32, |sum, x| sum.wrapping_add(*x));
    let most = input.iter().copied().max().unwrap_or(0);
    let least = input.iter().copied().min().unwrap_or(0);
    let or = input.iter().fold(0, |or, x| or | x);
    let words = [256, most, least, or, 1, 256, sum, 0];
    let wide_sum: u64 = input.iter().map(|x| u64::from(*x) << 20).sum();
    let wide = [256, u64::from(most) << 20, u64::from(least) << 20, u64::from(or) << 20, 1, 256, wide_sum, 0];
    let wide = wide.into_iter().flat_map(|x| [x as u32, (x >> 32) as u32]);
    words.into_iter().chain(wide).chain(vec![1; 256]).collect()
}

/// The same in shared memory, without the tries.
#[inline(always)]
pub(super) unsafe fn shared(args: &Args) {
    let thread = index::thread();
    let words = Shared::<u32>::new(0, 8);
    let wide = Shared::<u64>::new(words.end(), 8);
    // SAFETY: initialised before a barrier, atomic until the next, then read.
    unsafe {
        if thread < 8 {
            let start = if thread == 2 { u32::MAX } else { 0 };
            words.write(thread, start);
            wide.write(thread, u64::from(start) << 32);
        }
        sync::barrier();
        let value = take(args, thread);
        let ticket = words.atomic_add(0, 1);
        put(args, 24 + ticket, 1);
        words.atomic_max(1, value);
        words.atomic_min(2, value);
        words.atomic_or(3, value);
        words.atomic_exchange(4, 1 + thread);
        let value = u64::from(value) << 20;
        wide.atomic_add(0, value);
        wide.atomic_max(1, value);
        wide.atomic_min(2, value);
        wide.atomic_or(3, value);
        wide.atomic_exchange(4, 1 + u64::from(thread));
        sync::barrier();
        if thread < 8 {
            let word = words.read(thread);
            let pair = wide.read(thread);
            put(args, thread, if thread == 4 { u32::from(word != 0) } else { word });
            put_wide(args, 8 + 2 * thread, if thread == 4 { u64::from(pair != 0) } else { pair });
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn shared_expected(input: &[u32]) -> Vec<u32> {
    let mut all = global_expected(input);
    all[5] = 0;
    all[6] = 0;
    // The wide sum is the first integer here.
    all[8] = all[20];
    all[9] = all[21];
    for word in &mut all[18..24] {
        *word = 0;
    }
    all
}
