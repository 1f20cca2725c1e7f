//! Global memory is ordinary memory in plain accesses, so that AddressSanitizer sees them. Shared memory is the block's
//! bytes, and each access is checked.

use crate::emulator::fault::{Fault, Place};
use crate::emulator::machine::{SHARED_BASE, Thread, current};
use crate::emulator::shadow;
use crate::types::{Address, U32x2, U32x4};
use std::panic::Location;

/// A type of which every bit pattern is a value, without padding: words can be taken apart and put together.
pub trait Access {}

impl Access for u8 {}
impl Access for u16 {}
impl Access for u32 {}
impl Access for u64 {}
impl Access for f32 {}
impl Access for f64 {}
impl Access for U32x2 {}
impl Access for U32x4 {}

/// Faults unless a GPU would accept the address.
#[track_caller]
#[inline(always)]
pub(super) fn check(address: usize, alignment: usize) {
    if address & (alignment - 1) != 0 || address == 0 {
        refuse(address, alignment, Place(Location::caller()));
    }
}

#[cold]
fn refuse(address: usize, alignment: usize, place: Place) -> ! {
    let thread = current();
    let culprit = thread.culprit(place);
    thread.fail(match address {
        0 => Fault::Null { culprit },
        _ => Fault::Misaligned { culprit, address: address as u64, alignment: alignment as u32 },
    })
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load<T: Copy + Access>(from: *const T) -> T {
    check(from as usize, size_of::<T>());
    reads(from as usize, size_of::<T>(), Place(Location::caller()));
    // SAFETY: aligned as checked; readable as the caller promises.
    unsafe { from.read() }
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load_constant<T: Copy + Access>(from: *const T) -> T {
    check(from as usize, size_of::<T>());
    reads_constant(from as usize, size_of::<T>(), Place(Location::caller()));
    // SAFETY: aligned as checked; readable as the caller promises.
    unsafe { from.read() }
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn store<T: Copy + Access>(to: *mut T, value: T) {
    check(to as usize, size_of::<T>());
    writes(to as usize, size_of::<T>(), Place(Location::caller()));
    // SAFETY: aligned as checked; writable as the caller promises.
    unsafe { to.write(value) };
}

#[inline(never)]
fn reads(at: usize, bytes: usize, place: Place) {
    current().reads(at, bytes, place);
}

#[inline(never)]
fn reads_constant(at: usize, bytes: usize, place: Place) {
    current().reads_constant(at, bytes, place);
}

#[inline(never)]
fn writes(at: usize, bytes: usize, place: Place) {
    current().writes(at, bytes, place);
}

#[inline(always)]
pub(crate) fn shared_base() -> u32 {
    SHARED_BASE
}

/// Where an access of `bytes` bytes begins, from the block's first byte; faults unless it is aligned to `bytes` and ends
/// below the limit and within the launch's bytes.
#[inline(always)]
pub(super) fn shared_offset(thread: &Thread, address: u32, limit: u32, bytes: u32, place: Place) -> u32 {
    let end = limit.min(SHARED_BASE + thread.block().shared_bytes);
    let fits = address >= SHARED_BASE && end >= bytes && address <= end - bytes;
    if !fits || address & (bytes - 1) != 0 {
        refuse_shared(thread, address, end, bytes, fits, place);
    }
    address - SHARED_BASE
}

#[cold]
fn refuse_shared(thread: &Thread, address: u32, end: u32, bytes: u32, fits: bool, place: Place) -> ! {
    let culprit = thread.culprit(place);
    let offset = i64::from(address) - i64::from(SHARED_BASE);
    thread.fail(if fits {
        Fault::Misaligned { culprit, address: offset as u64, alignment: bytes }
    } else {
        Fault::OutOfBounds { culprit, offset, bytes, end: end.saturating_sub(SHARED_BASE) }
    })
}

#[track_caller]
#[inline(never)]
pub(crate) unsafe fn read_shared<T: Copy + Access>(address: Address, limit: Address) -> T {
    let place = Place(Location::caller());
    let thread = current();
    let bytes = size_of::<T>() as u32;
    let offset = shared_offset(thread, address.0, limit.0, bytes, place);
    thread.access(offset, bytes, shadow::Access::Read, place);
    // SAFETY: within the block's bytes and aligned, as checked.
    unsafe { thread.block().shared().add(offset as usize).cast::<T>().read() }
}

#[track_caller]
#[inline(never)]
pub(crate) unsafe fn write_shared<T: Copy + Access>(address: Address, limit: Address, value: T) {
    let place = Place(Location::caller());
    let thread = current();
    let bytes = size_of::<T>() as u32;
    let offset = shared_offset(thread, address.0, limit.0, bytes, place);
    let block = thread.block();
    thread.changed();
    thread.access(offset, bytes, shadow::Access::Write, place);
    // SAFETY: within the block's bytes and aligned, as checked.
    unsafe { block.shared().add(offset as usize).cast::<T>().write(value) };
}
