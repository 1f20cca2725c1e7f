//! Asynchronous copies of every size, cut short, and in a pipeline of groups.

use super::buffers::{Args, put};
use crate::cp_async::{commit, copy, wait};
use crate::shared::Shared;
use crate::{index, sync};

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn copies_input() -> Vec<u32> {
    super::buffers::random(1024, 4)
}

/// Every thread copies 4, 8 and 16 bytes, and then again with fewer valid bytes, a number that follows from its lane.
#[inline(always)]
pub(super) unsafe fn copies(args: &Args) {
    let thread = index::thread();
    let words = Shared::<u32>::new(0, 32 * 28);
    let input = args.input.cast::<u8>();
    // SAFETY: seven words to each thread for whole copies, seven for short ones, in six windows; the input is longer.
    unsafe {
        let at = thread as usize;
        copy::<4>(words.address(thread), input.add(4 * at), 4);
        copy::<8>(words.address(32 + 2 * thread), input.add(8 * at), 8);
        copy::<16>(words.address(96 + 4 * thread), input.add(16 * at), 16);
        copy::<4>(words.address(224 + thread), input.add(4 * at), thread % 5);
        copy::<8>(words.address(256 + 2 * thread), input.add(8 * at), thread % 9);
        copy::<16>(words.address(320 + 4 * thread), input.add(16 * at), thread % 17);
        commit();
        wait::<0>();
        sync::barrier();
        let mut i = 31 - thread;
        while i < 448 {
            put(args, i, words.read(i));
            i += 32;
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn copies_expected(input: &[u32]) -> Vec<u32> {
    let bytes: Vec<u8> = input.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut all = Vec::new();
    for short in [false, true] {
        for size in [4, 8, 16] {
            for thread in 0..32 {
                let valid = if short { thread % (size + 1) } else { size };
                all.extend((0..size).map(|i| if i < valid { bytes[size * thread + i] } else { 0 }));
            }
        }
    }
    let words = all.chunks(4).map(|word| word.iter().rev().fold(0, |all, &byte| all << 8 | u32::from(byte)));
    words.collect()
}

/// A ring of four stages, three in flight: the sum of stage after stage, each read by another thread than its copier.
#[inline(always)]
pub(super) unsafe fn groups(args: &Args) {
    const STAGES: u32 = 4;
    const ROUNDS: u32 = 16;
    let thread = index::thread();
    let ring = Shared::<u32>::new(0, 64 * STAGES);
    // SAFETY: a word for each thread and stage; a stage is read after its group has landed and a barrier, and refilled
    // after another barrier.
    unsafe {
        let fill = |round: u32| {
            if round < ROUNDS {
                let from = args.input.add((64 * round + thread) as usize);
                copy::<4>(ring.address(64 * (round % STAGES) + thread), from.cast(), 4);
            }
            commit();
        };
        fill(0);
        fill(1);
        fill(2);
        let mut sum = 0u32;
        let mut round = 0;
        while round < ROUNDS {
            wait::<2>();
            sync::barrier();
            fill(round + 3);
            sum = sum.wrapping_mul(5).wrapping_add(ring.read(64 * (round % STAGES) + (thread + 17) % 64));
            round += 1;
        }
        put(args, thread, sum);
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn groups_expected(input: &[u32]) -> Vec<u32> {
    let sum = |thread: usize| {
        input.chunks(64).fold(0u32, |sum, stage| sum.wrapping_mul(5).wrapping_add(stage[(thread + 17) % 64]))
    };
    (0..64).map(sum).collect()
}
