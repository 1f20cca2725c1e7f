//! Who a thread is, and how many there are.

use crate::body;

/// Threads of a warp.
pub const WARP: u32 = 32;

/// This thread's index in its block.
#[inline(always)]
pub fn thread() -> u32 {
    body::index::thread()
}

/// Threads of a block; a multiple of [`WARP`].
#[inline(always)]
pub fn block_threads() -> u32 {
    body::index::block_threads()
}

/// This thread's index in its warp.
#[inline(always)]
pub fn lane() -> u32 {
    thread() % WARP
}

/// This warp's index in its block.
#[inline(always)]
pub fn warp() -> u32 {
    thread() / WARP
}

/// Warps of a block.
#[inline(always)]
pub fn block_warps() -> u32 {
    block_threads() / WARP
}

/// This block's index in the grid: x, y, z.
#[inline(always)]
pub fn block() -> [u32; 3] {
    body::index::block()
}

/// Blocks of the grid: x, y, z.
#[inline(always)]
pub fn grid() -> [u32; 3] {
    body::index::grid()
}

/// Tells the assembler, by way of `cargo xtask ptx`, that this entry point's blocks have at most so many threads, so that
/// it gives each no more registers than a launch of so many can have. A launcher must keep to it; on the emulator, which
/// has no registers, it means nothing.
#[inline(always)]
pub fn at_most<const THREADS: u32>() {
    body::index::at_most::<THREADS>();
}
