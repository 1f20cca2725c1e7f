//! Copies from global to shared memory that run beside the thread's own work (cp.async).
//!
//! A thread issues copies, [`commit`]s them as a group, and [`wait`]s until all but the newest groups have landed. Then
//! the thread itself sees its copies, and others see them after a barrier. Until then the bytes are undefined.

use crate::body;
use crate::types::Address;

/// Starts a copy of BYTES (4, 8 or 16) bytes, of which the first `valid` come from memory and the rest are zeros. 16
/// bytes bypass the L1 cache.
///
/// # Safety
///
/// `to` and `from` are aligned to BYTES; `valid` ≤ BYTES bytes of `from` are readable; BYTES bytes of `to` lie in the
/// launch's shared memory and are not accessed before the copy has landed.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn copy<const BYTES: u32>(to: Address, from: *const u8, valid: u32) {
    // SAFETY: the caller's promise.
    unsafe { body::cp_async::copy::<BYTES>(to, from, valid) }
}

/// Closes the group of copies issued since the last commit; it may be empty.
#[inline(always)]
pub fn commit() {
    body::cp_async::commit();
}

/// Waits until at most the newest `PENDING` groups of this thread have not landed.
#[inline(always)]
pub fn wait<const PENDING: u32>() {
    body::cp_async::wait::<PENDING>();
}
