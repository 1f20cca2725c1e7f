//! bar.sync, bar.warp.sync, fence, nanosleep, trap.

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

#[inline(always)]
pub(crate) fn spin() {
    // SAFETY: sleeps for about so many nanoseconds.
    unsafe { asm!("nanosleep.u32 40;", options(nostack, preserves_flags)) }
}

#[inline(always)]
pub(crate) fn trap() -> ! {
    // SAFETY: ends the kernel.
    unsafe { asm!("trap;", options(noreturn, nostack)) }
}
