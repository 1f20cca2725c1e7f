//! Global memory is ordinary memory, read and written by plain accesses, so that AddressSanitizer sees them.

use crate::emulator::fault::{Fault, Place};
use crate::emulator::machine::current;
use crate::memory::{U32x2, U32x4};
use std::panic::Location;

/// Every bit pattern is a value, and every bit of a value is set: words can be taken apart and put together.
pub trait Access {}

impl Access for u8 {}
impl Access for u16 {}
impl Access for u32 {}
impl Access for u64 {}
impl Access for f32 {}
impl Access for f64 {}
impl Access for U32x2 {}
impl Access for U32x4 {}

/// Faults unless a GPU would take the address.
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
    // SAFETY: aligned as checked; readable as the caller promises.
    unsafe { from.read() }
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn load_constant<T: Copy + Access>(from: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { load(from) }
}

#[track_caller]
#[inline(always)]
pub(crate) unsafe fn store<T: Copy + Access>(to: *mut T, value: T) {
    check(to as usize, size_of::<T>());
    current().changed();
    // SAFETY: aligned as checked; writable as the caller promises.
    unsafe { to.write(value) };
}
