//! Collectives between branches on one condition that differs between lanes. An optimisation that ignores lanes copies
//! everything between into both arms; `cargo xtask ptx` checks that each collective occurs once.

use super::buffers::{Args, put, take};
use crate::shared::Shared;
use crate::warp::FULL;
use crate::{index, matrix, sync, warp};

/// Words of output a thread.
const WORDS: u32 = 7;

/// For the first threads the condition holds; the first word of the input is their number.
#[inline(always)]
pub(super) unsafe fn between_branches(args: &Args) {
    let thread = index::thread();
    let rows = Shared::<u32>::new(0, 256);
    // SAFETY: the input has a word for each thread, the output seven, shared memory four, written before the barrier.
    unsafe {
        let mut i = 0;
        while i < 4 {
            rows.write(4 * thread + i, 4 * thread + i);
            i += 1;
        }
        let limit = take(args, 0);
        let is_low = thread < limit;
        let mut value = thread * 3;
        if is_low {
            value = take(args, thread) % 1024;
        }
        sync::barrier();
        let neighbour = warp::shuffle_xor(FULL, value, 1);
        let place = WORDS * thread;
        if is_low {
            put(args, place, neighbour);
        } else {
            put(args, place, neighbour * 5);
        }

        let mut first = if is_low { Some(thread) } else { None };
        if let Some(low) = first
            && low > 7
        {
            first = None;
        }
        sync::warp_barrier(FULL);
        let even = warp::ballot(FULL, value.is_multiple_of(2));
        match first {
            Some(low) => put(args, WORDS * low + 1, even),
            None => put(args, place + 1, !even),
        }

        let mut sum = value as f32;
        if is_low {
            sum += 1.0;
        }
        // A·0 + C.
        let sums = matrix::mma_f16([0x3c00_3c00; 4], [0; 2], [sum; 4]);
        match first {
            Some(low) => put(args, WORDS * low + 2, sums[0] as u32),
            None => put(args, place + 2, sums[1] as u32 * 2),
        }
        let sums = matrix::mma_bf16([0x3f80_3f80; 4], [0; 2], [sum; 4]);
        if is_low {
            put(args, place + 3, sums[2] as u32);
        } else {
            put(args, place + 3, sums[3] as u32 * 3);
        }
        let sums = matrix::mma_tf32([0x3f80_0000; 4], [0; 2], [sum; 4]);
        match first {
            Some(low) => put(args, WORDS * low + 4, sums[0] as u32),
            None => put(args, place + 4, sums[1] as u32 * 5),
        }
        let all = warp::reduce_add(FULL, value);
        if is_low {
            put(args, place + 5, all);
        } else {
            put(args, place + 5, all * 2);
        }
        // Row `lane` of four matrices.
        let elements = matrix::load_x4(rows.address(4 * thread));
        match first {
            Some(low) => put(args, WORDS * low + 6, elements[0]),
            None => put(args, place + 6, elements[3]),
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn branches_input() -> Vec<u32> {
    let mut input = super::buffers::random(64, 5);
    input[0] = 21;
    input
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn between_branches_expected(input: &[u32]) -> Vec<u32> {
    let limit = input[0] as usize;
    let value = |thread: usize| if thread < limit { input[thread] % 1024 } else { 3 * thread as u32 };
    let output = |thread: usize| {
        let warp = thread / 32 * 32;
        let even = (0..32).filter(|lane| value(warp + lane) % 2 == 0).fold(0, |bits, lane| bits | 1 << lane);
        let (neighbour, own) = (value(thread ^ 1), value(thread));
        let all: u32 = (0..32).map(|lane| value(warp + lane)).sum();
        // Word t of row g of matrix 0 or 3.
        let element = |matrix: usize| (4 * (warp + 8 * matrix + thread % 32 / 4) + thread % 4) as u32;
        match (thread < limit, thread > 7) {
            (true, false) => [neighbour, even, own + 1, own + 1, own + 1, all, element(0)],
            (true, true) => [neighbour, !even, 2 * (own + 1), own + 1, 5 * (own + 1), all, element(3)],
            (false, _) => [5 * neighbour, !even, 2 * own, 3 * own, 5 * own, 2 * all, element(3)],
        }
    };
    (0..64).flat_map(output).collect()
}
