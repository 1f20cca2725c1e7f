//! Indices, barriers, and blocks that wait for one another.

use super::buffers::{Args, global_thread, put};
use crate::shared::Shared;
use crate::warp::FULL;
use crate::{atomic, index, memory, sync};

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn no_input() -> Vec<u32> {
    Vec::new()
}

/// Eleven words of every thread of a 2 × 3 × 2 grid.
#[inline(always)]
pub(super) unsafe fn indices(args: &Args) {
    let [x, y, z] = index::block();
    let [width, height, depth] = index::grid();
    let row = (((z * height + y) * width + x) * index::block_threads() + index::thread()) * 11;
    // SAFETY: a row for every thread.
    unsafe {
        put(args, row, index::thread());
        put(args, row + 1, index::lane());
        put(args, row + 2, index::warp());
        put(args, row + 3, index::block_threads());
        put(args, row + 4, index::block_warps());
        put(args, row + 5, x);
        put(args, row + 6, y);
        put(args, row + 7, z);
        put(args, row + 8, width);
        put(args, row + 9, height);
        put(args, row + 10, depth);
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn indices_expected(_: &[u32]) -> Vec<u32> {
    let mut all = Vec::new();
    for z in 0..2 {
        for y in 0..3 {
            for x in 0..2 {
                for thread in 0..64 {
                    all.extend([thread, thread % 32, thread / 32, 64, 2, x, y, z, 2, 3, 2]);
                }
            }
        }
    }
    all
}

/// Every thread adds its neighbour's value of the round before, for 50 rounds, with two windows in turn.
#[inline(always)]
pub(super) unsafe fn barriers(args: &Args) {
    let threads = index::block_threads();
    let thread = index::thread();
    let even = Shared::<u32>::new(0, 1024);
    let odd = Shared::<u32>::new(even.end(), 1024);
    let mut value = index::block()[0] + thread;
    let mut round = 0;
    while round < 50 {
        let window = if round % 2 == 0 { even } else { odd };
        // SAFETY: an element for every thread; a barrier is between writing and reading, and another one between
        // reading and the next writing to the same window.
        unsafe {
            window.write(thread, value);
            sync::barrier();
            value = value.wrapping_mul(3).wrapping_add(window.read((thread + 1) % threads.max(1)));
        }
        round += 1;
    }
    // SAFETY: a word for every thread.
    unsafe { put(args, global_thread(), value) };
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn barriers_expected(_: &[u32]) -> Vec<u32> {
    let mut all = Vec::new();
    for block in 0..2u32 {
        let mut values: Vec<u32> = (0..1024).map(|thread| block + thread).collect();
        for _ in 0..50 {
            values = (0..1024).map(|i| values[i].wrapping_mul(3).wrapping_add(values[(i + 1) % 1024])).collect();
        }
        all.extend(values);
    }
    all
}

/// The halves of a warp branch and exchange values through shared memory; then the whole warp does.
#[inline(always)]
pub(super) unsafe fn warp_barriers(args: &Args) {
    let (thread, lane) = (index::thread(), index::lane());
    let window = Shared::<u32>::new(0, 64);
    let mut value = thread * thread;
    // SAFETY: an element for every thread; a warp's barrier is between accesses of different lanes.
    unsafe {
        window.write(thread, value);
        if lane < 16 {
            sync::warp_barrier(0xFFFF);
            value += window.read(thread ^ 1);
            sync::warp_barrier(0xFFFF);
            window.write(thread, value);
        } else {
            sync::warp_barrier(0xFFFF_0000);
            value += 1000 + window.read(thread ^ 2);
            sync::warp_barrier(0xFFFF_0000);
            window.write(thread, value);
        }
        sync::warp_barrier(FULL);
        put(args, thread, window.read(thread ^ 31));
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn warp_barriers_expected(_: &[u32]) -> Vec<u32> {
    let square = |i: u32| i * i;
    let value = |i: u32| square(i) + if i % 32 < 16 { square(i ^ 1) } else { 1000 + square(i ^ 2) };
    (0..64).map(|i| value(i ^ 31)).collect()
}

/// Block b waits for block b + 1, adds 1 to its value, and wakes block b − 1.
#[inline(always)]
pub(super) unsafe fn waiting_blocks(args: &Args) {
    let block = index::block()[0];
    let blocks = index::grid()[0];
    // SAFETY: words 0 to 3 are values, words 4 to 7 flags; a value is read after its flag is seen.
    unsafe {
        if index::thread() == 0 {
            let mut value = 100;
            if block + 1 < blocks {
                while atomic::load_acquire(args.output.add(4 + block as usize + 1)) == 0 {
                    sync::spin();
                }
                value = memory::load(args.output.add(block as usize + 1));
            }
            put(args, block, value + 1);
            atomic::store_release(args.output.add(4 + block as usize), 1);
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn waiting_blocks_expected(_: &[u32]) -> Vec<u32> {
    vec![104, 103, 102, 101, 1, 1, 1, 1]
}

/// The same with one word for each block, which holds value and flag and orders nothing else.
#[inline(always)]
pub(super) unsafe fn polling_blocks(args: &Args) {
    const PUBLISHED: u64 = 1 << 63;
    let block = index::block()[0];
    let words = args.output.cast::<u64>();
    // SAFETY: four words of 8 bytes, accessed atomically.
    unsafe {
        if index::thread() == 0 {
            let mut value = 100;
            if block + 1 < index::grid()[0] {
                loop {
                    let word = atomic::load_relaxed(words.add(block as usize + 1));
                    if word & PUBLISHED != 0 {
                        value = word & !PUBLISHED;
                        break;
                    }
                    sync::spin();
                }
            }
            atomic::store_relaxed(words.add(block as usize), (value + 1) | PUBLISHED);
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn polling_blocks_expected(_: &[u32]) -> Vec<u32> {
    [104, 103, 102, 101].into_iter().flat_map(|value| [value, 1 << 31]).collect()
}

/// Every thread writes a number; the block that comes last, whichever it is, adds all.
#[inline(always)]
pub(super) unsafe fn last_block(args: &Args) {
    let (thread, threads) = (index::thread(), index::block_threads());
    let blocks = index::grid()[0];
    let is_last = Shared::<u32>::new(0, 1);
    // SAFETY: words 0 and 1 are the ticket and the sum, then one word for every thread of the launch; fences are between
    // their writing and the ticket, and between the ticket and their reading.
    unsafe {
        put(args, 2 + global_thread(), global_thread() * 3);
        sync::device_fence();
        sync::barrier();
        if thread == 0 {
            let ticket = atomic::atomic_add(args.output, 1);
            is_last.write(0, u32::from(ticket + 1 == blocks));
        }
        sync::barrier();
        if is_last.read(0) != 0 {
            sync::device_fence();
            let mut sum = 0;
            let mut block = 0;
            while block < blocks {
                sum += memory::load(args.output.add((2 + block * threads + thread) as usize));
                block += 1;
            }
            atomic::atomic_add(args.output.add(1), sum);
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn last_block_expected(_: &[u32]) -> Vec<u32> {
    let values: Vec<u32> = (0..512).map(|i| 3 * i).collect();
    [vec![8, values.iter().sum()], values].concat()
}
