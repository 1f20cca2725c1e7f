//! Copies that land at their wait: until then their bytes are in flight, and their sources are not read.

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
    let flight = Flight { to, from, bytes: BYTES, valid, group: thread.commits.get(), place };
    thread.flights.borrow_mut().push_back(flight);
}

pub(crate) fn commit() {
    let commits = &current().commits;
    commits.set(commits.get() + 1);
}

pub(crate) fn wait<const PENDING: u32>() {
    let thread = current();
    let landing = thread.commits.get().saturating_sub(u64::from(PENDING));
    let mut flights = thread.flights.borrow_mut();
    while flights.front().is_some_and(|flight| flight.group < landing) {
        if let Some(flight) = flights.pop_front() {
            land(thread, &flight);
        }
    }
}

fn land(thread: &Thread, flight: &Flight) {
    let block = thread.block();
    if let Err(trouble) = block.shadow.land(thread.index, flight.to, flight.bytes) {
        thread.refuse(trouble, Access::Write, flight.place);
    }
    let (bytes, valid) = (flight.bytes as usize, flight.valid as usize);
    // SAFETY: the destination is within the block's bytes, as checked; the issuer promised that the source is readable.
    unsafe {
        let to = block.shared().add(flight.to as usize);
        flight.from.copy_to_nonoverlapping(to, valid);
        to.add(valid).write_bytes(0, bytes - valid);
    }
}
