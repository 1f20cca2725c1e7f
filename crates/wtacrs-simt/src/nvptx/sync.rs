//! bar.sync, bar.warp.sync, fence, trap.

use super::llvm;
use core::arch::{asm, nvptx};

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

/// Nothing: what is waited for is a load away, and a sleep between two loads would take as long again.
#[inline(always)]
pub(crate) fn spin() {}

#[inline(always)]
pub(crate) fn trap() -> ! {
    // SAFETY: ends the kernel.
    unsafe { asm!("trap;", options(noreturn, nostack)) }
}
