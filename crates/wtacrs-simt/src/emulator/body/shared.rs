//! Shared memory: bytes of the block, every access checked.

use super::memory;
use crate::emulator::fault::{Fault, Place};
use crate::emulator::machine::{SHARED_BASE, Thread, current};
use crate::emulator::shadow::Access;
use crate::shared::Address;
use std::panic::Location;

#[inline(always)]
pub(crate) fn base() -> u32 {
    SHARED_BASE
}

/// Where `bytes` bytes at an address begin, from the block's first byte; faults unless they are aligned to `bytes` and
/// lie below the limit and within the launch's bytes.
#[inline(always)]
pub(super) fn place_of(thread: &Thread, address: u32, limit: u32, bytes: u32, place: Place) -> u32 {
    let end = limit.min(SHARED_BASE + thread.block().shared_bytes);
    let fits = address >= SHARED_BASE && end >= bytes && address <= end - bytes;
    if !fits || address & (bytes - 1) != 0 {
        refuse(thread, address, end, bytes, fits, place);
    }
    address - SHARED_BASE
}

#[cold]
fn refuse(thread: &Thread, address: u32, end: u32, bytes: u32, fits: bool, place: Place) -> ! {
    let culprit = thread.culprit(place);
    let offset = i64::from(address) - i64::from(SHARED_BASE);
    thread.fail(if fits {
        Fault::Misaligned { culprit, address: offset as u64, alignment: bytes }
    } else {
        Fault::OutOfBounds { culprit, offset, bytes, end: end.saturating_sub(SHARED_BASE) }
    })
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn read<T: Copy + memory::Access>(address: Address, limit: Address) -> T {
    let place = Place(Location::caller());
    let thread = current();
    let bytes = size_of::<T>() as u32;
    let offset = place_of(thread, address.0, limit.0, bytes, place);
    thread.block().shadow.access(thread, offset, bytes, Access::Read, place);
    // SAFETY: within the block's bytes and aligned, as checked.
    unsafe { thread.block().shared().add(offset as usize).cast::<T>().read() }
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn write<T: Copy + memory::Access>(address: Address, limit: Address, value: T) {
    let place = Place(Location::caller());
    let thread = current();
    let bytes = size_of::<T>() as u32;
    let offset = place_of(thread, address.0, limit.0, bytes, place);
    let block = thread.block();
    thread.changed();
    block.shadow.access(thread, offset, bytes, Access::Write, place);
    // SAFETY: within the block's bytes and aligned, as checked.
    unsafe { block.shared().add(offset as usize).cast::<T>().write(value) };
}
