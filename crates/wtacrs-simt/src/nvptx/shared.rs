//! Dynamic shared memory, by the name that [`crate::shared_memory!`] declares.

use crate::memory::Word;
use crate::shared::Address;
use core::arch::asm;

/// The first byte's address in shared memory.
#[inline(always)]
pub(crate) fn base() -> u32 {
    let address: u32;
    // SAFETY: takes an address, which is the same all the time.
    unsafe {
        asm!("mov.u32 {0}, wtacrs_shared;", out(reg32) address, options(pure, nomem, nostack, preserves_flags));
    }
    address
}

#[inline(always)]
pub(crate) unsafe fn read<T: Word>(from: Address, _limit: Address) -> T {
    // SAFETY: the caller's promise.
    unsafe { T::read(from.0) }
}

#[inline(always)]
pub(crate) unsafe fn write<T: Word>(to: Address, _limit: Address, value: T) {
    // SAFETY: the caller's promise.
    unsafe { T::write(to.0, value) }
}
