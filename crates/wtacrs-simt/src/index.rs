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
