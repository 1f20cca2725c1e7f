//! Special registers; bar.sync, bar.warp.sync, fence, trap.

use super::llvm;
use core::arch::{asm, nvptx};

/// A special register of three dimensions.
macro_rules! three {
    ($x:ident, $y:ident, $z:ident) => {
        // SAFETY: reads registers that every thread has.
        unsafe { [nvptx::$x() as u32, nvptx::$y() as u32, nvptx::$z() as u32] }
    };
}

#[inline(always)]
pub(crate) fn thread() -> u32 {
    // SAFETY: reads a register that every thread has.
    unsafe { nvptx::_thread_idx_x() as u32 }
}

#[inline(always)]
pub(crate) fn block_threads() -> u32 {
    // SAFETY: reads a register that every thread has.
    unsafe { nvptx::_block_dim_x() as u32 }
}

#[inline(always)]
pub(crate) fn block() -> [u32; 3] {
    three!(_block_idx_x, _block_idx_y, _block_idx_z)
}

#[inline(always)]
pub(crate) fn grid() -> [u32; 3] {
    three!(_grid_dim_x, _grid_dim_y, _grid_dim_z)
}

/// Writes a comment, since rustc has no attribute for the directive. `cargo xtask ptx` makes a directive of it.
#[inline(always)]
pub(crate) fn at_most<const THREADS: u32>() {
    // SAFETY: a comment executes nothing.
    unsafe { asm!("// most threads: {threads}", threads = const THREADS, options(nostack, preserves_flags)) }
}

#[inline(always)]
pub(crate) fn barrier() {
    // SAFETY: every thread of the block comes here, as the API demands.
    unsafe { nvptx::_syncthreads() }
}

#[inline(always)]
pub(crate) fn warp_barrier(mask: u32) {
    // SAFETY: every lane of the mask comes here, as the API demands.
    unsafe { llvm::bar_warp_sync(mask) }
}

#[inline(always)]
pub(crate) fn device_fence() {
    // SAFETY: orders memory accesses, and does nothing else.
    unsafe { asm!("fence.acq_rel.gpu;", options(nostack, preserves_flags)) }
}

/// Empty: a sleep between two loads would take as long as a load.
#[inline(always)]
pub(crate) fn spin() {}

#[inline(always)]
pub(crate) fn trap() -> ! {
    // SAFETY: ends the kernel.
    unsafe { asm!("trap;", options(noreturn, nostack)) }
}
