//! Shuffles, votes and reductions, of whole warps and of parts.

use super::buffers::{Args, put, put_wide, take};
use crate::index;
use crate::warp::{
    FULL, all, any, ballot, reduce_add, reduce_max, reduce_min, reduce_or, shuffle, shuffle_down, shuffle_up,
    shuffle_xor,
};

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn shuffles_input() -> Vec<u32> {
    super::buffers::random(128, 2).into_iter().map(|word| word & 0xBFBF_BFBF).collect()
}

/// Two words of every thread, exchanged as every type and by every shuffle.
#[inline(always)]
pub(super) unsafe fn shuffles(args: &Args) {
    let thread = index::thread();
    // SAFETY: two words in and 18 out for every thread.
    unsafe {
        let low = take(args, 2 * thread);
        let high = take(args, 2 * thread + 1);
        let wide = u64::from(high) << 32 | u64::from(low);
        let row = 18 * thread;
        put(args, row, shuffle(FULL, low, 7));
        put(args, row + 1, shuffle(FULL, low as i32, low) as u32);
        put(args, row + 2, shuffle(FULL, f32::from_bits(low), thread + 33).to_bits());
        put_wide(args, row + 3, shuffle(FULL, wide, 31 - thread % 32));
        put_wide(args, row + 5, shuffle(FULL, f64::from_bits(wide), 5).to_bits());
        put(args, row + 7, shuffle_xor(FULL, low, 1));
        put(args, row + 8, shuffle_xor(FULL, f32::from_bits(high), 31).to_bits());
        put_wide(args, row + 9, shuffle_xor(FULL, wide, 16));
        put(args, row + 11, shuffle_up(FULL, low, 1));
        put(args, row + 12, shuffle_up(FULL, high as i32, 9) as u32);
        put_wide(args, row + 13, shuffle_up(FULL, f64::from_bits(wide), 16).to_bits());
        put(args, row + 15, shuffle_down(FULL, low, 1));
        put_wide(args, row + 16, shuffle_down(FULL, wide, 31));
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn shuffles_expected(input: &[u32]) -> Vec<u32> {
    let row = |thread: usize| {
        let (warp, lane) = (thread / 32, thread % 32);
        let low = |lane: usize| input[2 * (32 * warp + lane)];
        let high = |lane: usize| input[2 * (32 * warp + lane) + 1];
        let up = |distance: usize| if lane < distance { lane } else { lane - distance };
        let down = |distance: usize| if lane + distance < 32 { lane + distance } else { lane };
        [
            low(7),
            low(low(lane) as usize % 32),
            low((thread + 33) % 32),
            low(31 - lane),
            high(31 - lane),
            low(5),
            high(5),
            low(lane ^ 1),
            high(31 - lane),
            low(lane ^ 16),
            high(lane ^ 16),
            low(up(1)),
            high(up(9)),
            low(up(16)),
            high(up(16)),
            low(down(1)),
            low(down(31)),
            high(down(31)),
        ]
    };
    (0..64).flat_map(row).collect()
}

/// The lower half of a warp and the odd lanes of the upper half shuffle on their own, at the same time.
#[inline(always)]
pub(super) unsafe fn part_shuffles(args: &Args) {
    let lane = index::lane();
    // SAFETY: one word in and one out for every thread.
    unsafe {
        let value = take(args, lane);
        if lane < 16 {
            let sum = value.wrapping_add(shuffle_xor(0xFFFF, value, 8));
            put(args, lane, sum.wrapping_add(shuffle(0xFFFF, sum, 3)));
        } else if lane % 2 == 1 {
            put(args, lane, shuffle_xor(0xAAAA_0000, value, 2).wrapping_add(reduce_add(0xAAAA_0000, value)));
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn part_shuffles_expected(input: &[u32]) -> Vec<u32> {
    let half = |lane: usize| input[lane].wrapping_add(input[lane ^ 8]);
    let odd = (16..32).filter(|lane| lane % 2 == 1).fold(0u32, |sum, lane| sum.wrapping_add(input[lane]));
    let of = |lane: usize| match lane {
        0..16 => half(lane).wrapping_add(half(3)),
        _ if lane % 2 == 1 => input[lane ^ 2].wrapping_add(odd),
        _ => 0,
    };
    (0..32).map(of).collect()
}

/// Votes of the whole warp, and of its lanes 8 to 23.
#[inline(always)]
pub(super) unsafe fn votes(args: &Args) {
    const MIDDLE: u32 = 0x00FF_FF00;
    let (thread, lane) = (index::thread(), index::lane());
    // SAFETY: one word in and seven out for every thread.
    unsafe {
        let value = take(args, thread);
        let row = 7 * thread;
        put(args, row, ballot(FULL, value.is_multiple_of(3)));
        put(args, row + 1, u32::from(any(FULL, value.is_multiple_of(8))));
        put(args, row + 2, u32::from(any(FULL, lane == 32)));
        put(args, row + 3, u32::from(all(FULL, lane < 32)));
        put(args, row + 4, u32::from(all(FULL, lane != 9)));
        if MIDDLE >> lane & 1 != 0 {
            put(args, row + 5, ballot(MIDDLE, value.is_multiple_of(2)));
            put(args, row + 6, u32::from(all(MIDDLE, lane < 24)));
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn votes_expected(input: &[u32]) -> Vec<u32> {
    let row = |thread: usize| {
        let (warp, lane) = (&input[thread / 32 * 32..][..32], thread % 32);
        let ballot = |lanes: std::ops::Range<usize>, holds: fn(u32) -> bool| {
            lanes.filter(|&lane| holds(warp[lane])).fold(0, |all, lane| all | 1 << lane)
        };
        let middle = if (8..24).contains(&lane) { [ballot(8..24, |x| x % 2 == 0), 1] } else { [0, 0] };
        let any = u32::from(warp.iter().any(|x| x % 8 == 0));
        [ballot(0..32, |x| x % 3 == 0), any, 0, 1, 0, middle[0], middle[1]]
    };
    (0..64).flat_map(row).collect()
}

/// Reductions of the whole warp, and of its even lanes.
#[inline(always)]
pub(super) unsafe fn reductions(args: &Args) {
    const EVEN: u32 = 0x5555_5555;
    let thread = index::thread();
    // SAFETY: one word in and eight out for every thread.
    unsafe {
        let value = take(args, thread);
        let row = 8 * thread;
        put(args, row, reduce_add(FULL, value));
        put(args, row + 1, reduce_min(FULL, value));
        put(args, row + 2, reduce_max(FULL, value));
        put(args, row + 3, reduce_or(FULL, value & 0x1111));
        if thread.is_multiple_of(2) {
            put(args, row + 4, reduce_add(EVEN, value));
            put(args, row + 5, reduce_min(EVEN, value));
            put(args, row + 6, reduce_max(EVEN, value));
            put(args, row + 7, reduce_or(EVEN, value & 0x8001));
        }
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn reductions_expected(input: &[u32]) -> Vec<u32> {
    let of = |values: Vec<u32>, kept: u32| {
        let sum = values.iter().fold(0u32, |sum, x| sum.wrapping_add(*x));
        let (least, most) = (values.iter().min().copied(), values.iter().max().copied());
        let or = values.iter().fold(0, |or, x| or | x & kept);
        [sum, least.unwrap_or(0), most.unwrap_or(0), or]
    };
    let row = |thread: usize| {
        let warp = &input[thread / 32 * 32..][..32];
        let even = warp.iter().step_by(2).copied().collect();
        let even = if thread.is_multiple_of(2) { of(even, 0x8001) } else { [0; 4] };
        [of(warp.to_vec(), 0x1111), even].concat()
    };
    (0..64).flat_map(row).collect()
}
