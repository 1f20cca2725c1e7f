//! Which thread calls, and how many threads there are.

use crate::{WARP, body};

/// This thread's index in its block.
#[inline(always)]
pub fn thread() -> u32 {
    body::thread::thread()
}

/// Threads of a block; a multiple of [`WARP`].
#[inline(always)]
pub fn block_threads() -> u32 {
    body::thread::block_threads()
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
    body::thread::block()
}

/// Blocks of the grid: x, y, z.
#[inline(always)]
pub fn grid() -> [u32; 3] {
    body::thread::grid()
}

/// Limits this entry point's blocks to so many threads. `cargo xtask ptx` passes the limit on to the assembler, which then
/// gives no thread more registers than such a block can have. Launchers must keep to it. The emulator, which has no
/// registers, ignores it.
#[inline(always)]
pub fn at_most<const THREADS: u32>() {
    body::thread::at_most::<THREADS>();
}
