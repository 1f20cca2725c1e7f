//! cp.async and its groups.

use crate::types::Address;
use core::arch::asm;

#[inline(always)]
pub(crate) unsafe fn copy<const BYTES: u32>(to: Address, from: *const u8, valid: u32) {
    const { assert!(matches!(BYTES, 4 | 8 | 16), "cp.async copies 4, 8 or 16 bytes") };
    // Only 16 bytes can bypass the L1 cache.
    if BYTES == 16 {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "cp.async.cg.shared.global [{0}], [{1}], 16, {2};",
                in(reg32) to.0,
                in(reg64) from,
                in(reg32) valid,
                options(nostack, preserves_flags),
            );
        }
    } else {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "cp.async.ca.shared.global [{0}], [{1}], {bytes}, {2};",
                in(reg32) to.0,
                in(reg64) from,
                in(reg32) valid,
                bytes = const BYTES,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[inline(always)]
pub(crate) fn commit() {
    // SAFETY: closes a group.
    unsafe { asm!("cp.async.commit_group;", options(nostack, preserves_flags)) }
}

#[inline(always)]
pub(crate) fn wait<const PENDING: u32>() {
    // SAFETY: waits for the thread's own copies.
    unsafe { asm!("cp.async.wait_group {0};", const PENDING, options(nostack, preserves_flags)) }
}
