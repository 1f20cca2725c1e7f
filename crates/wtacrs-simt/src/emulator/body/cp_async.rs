//! Copies that land at their wait: until then their bytes are in flight. They read their sources at their issue, at a commit
//! after it, or at their wait, as the order of threads draws.

use super::memory;
use crate::emulator::fault::{Fault, Place};
use crate::emulator::machine::{Flight, SHARED_BASE, Thread, current};
use crate::emulator::shadow::Access;
use crate::types::Address;
use std::panic::Location;

#[track_caller]
pub(crate) unsafe fn copy<const BYTES: u32>(to: Address, from: *const u8, valid: u32) {
    let place = Place(Location::caller());
    let thread = current();
    if !matches!(BYTES, 4 | 8 | 16) || valid > BYTES {
        thread.fail(Fault::CopySize { culprit: thread.culprit(place), bytes: BYTES, valid });
    }
    let block = thread.block();
    thread.changed();
    let to = memory::shared_offset(thread, to.0, SHARED_BASE + block.shared_bytes, BYTES, place);
    if valid != 0 || !(from as usize).is_multiple_of(BYTES as usize) {
        memory::check(from as usize, BYTES as usize);
    }
    if let Err(trouble) = block.shadow.depart(thread.index, to, BYTES) {
        thread.refuse(trouble, Access::Write, place);
    }
    thread.departs(from as usize, valid as usize, place);
    let mut flight = Flight { to, from, bytes: BYTES, valid, value: None, group: thread.commits.get(), place };
    if block.order.borrow_mut().reads_early() {
        read(&mut flight);
    }
    thread.flights.borrow_mut().push_back(flight);
}

pub(crate) fn commit() {
    let thread = current();
    thread.commits.set(thread.commits.get() + 1);
    let mut order = thread.block().order.borrow_mut();
    for flight in thread.flights.borrow_mut().iter_mut().filter(|flight| flight.value.is_none()) {
        if order.reads_early() {
            read(flight);
        }
    }
}

/// Reads the source, and fills up with zeros.
fn read(flight: &mut Flight) -> [u8; 16] {
    let value = flight.value.get_or_insert([0; 16]);
    // SAFETY: the issuer promised that so many bytes are readable until the copy has landed; there are at most 16.
    unsafe { flight.from.copy_to_nonoverlapping(value.as_mut_ptr(), flight.valid as usize) };
    *value
}

pub(crate) fn wait<const PENDING: u32>() {
    let thread = current();
    let landing = thread.commits.get().saturating_sub(u64::from(PENDING));
    let mut flights = thread.flights.borrow_mut();
    while flights.front().is_some_and(|flight| flight.group < landing) {
        if let Some(flight) = flights.pop_front() {
            land(thread, flight);
        }
    }
}

fn land(thread: &Thread, mut flight: Flight) {
    let block = thread.block();
    thread.lands(flight.from as usize, flight.valid as usize, flight.place);
    if let Err(trouble) = block.shadow.land(thread.index, flight.to, flight.bytes) {
        thread.refuse(trouble, Access::Write, flight.place);
    }
    let value = flight.value.unwrap_or_else(|| read(&mut flight));
    // SAFETY: the destination is within the block's bytes, as checked; a copy has at most 16.
    unsafe { block.shared().add(flight.to as usize).copy_from_nonoverlapping(value.as_ptr(), flight.bytes as usize) };
}
