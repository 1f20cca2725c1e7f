//! The words that a check reads and writes.

use crate::{index, memory};

/// The arguments of every check.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Aligned to 16 bytes.
    pub input: *const u32,
    /// A zero for each word of [`Check::expected`](super::Check::expected); aligned to 16 bytes.
    pub output: *mut u32,
}

/// This thread's index in the launch, for grids of one dimension.
#[inline(always)]
pub(super) fn global_thread() -> u32 {
    index::block()[0] * index::block_threads() + index::thread()
}

/// Word `i` of the output.
///
/// # Safety
///
/// The output has more than `i` words.
#[inline(always)]
pub(super) unsafe fn put(args: &Args, i: u32, value: u32) {
    // SAFETY: the caller's promise.
    unsafe { memory::store(args.output.add(i as usize), value) }
}

/// Words `i` and `i` + 1 of the output, low half first.
///
/// # Safety
///
/// The output has more than `i` + 1 words.
#[inline(always)]
pub(super) unsafe fn put_wide(args: &Args, i: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        put(args, i, value as u32);
        put(args, i + 1, (value >> 32) as u32);
    }
}

/// Word `i` of the input.
///
/// # Safety
///
/// The input has more than `i` words.
#[inline(always)]
pub(super) unsafe fn take(args: &Args, i: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { memory::load(args.input.add(i as usize)) }
}

/// Words that look random.
#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn random(count: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    (0..count).map(|_| next()).collect()
}
