//! The running thread: its indices, barriers, fences, and waiting for other blocks.

use super::rendezvous::meet;
use crate::emulator::fault::{Fault, Operation, Place};
use crate::emulator::lanes::lanes;
use crate::emulator::machine::{Status, Thread, current};
use std::panic::Location;

#[inline(always)]
pub(crate) fn thread() -> u32 {
    current().index
}

#[inline(always)]
pub(crate) fn block_threads() -> u32 {
    current().block().threads.len() as u32
}

#[inline(always)]
pub(crate) fn block() -> [u32; 3] {
    current().block().index
}

#[inline(always)]
pub(crate) fn grid() -> [u32; 3] {
    current().block().grid
}

#[inline(always)]
pub(crate) fn at_most<const THREADS: u32>() {}

#[track_caller]
#[inline(never)]
pub(crate) fn barrier() {
    let place = Place(Location::caller());
    let thread = current();
    let block = thread.block();
    let arrived = block.at_barrier.get() + 1;
    let (first, same) = if arrived == 1 { (place, true) } else { block.barrier.get() };
    let same = same && first == place;
    if (arrived as usize) < block.threads.len() {
        block.at_barrier.set(arrived);
        block.barrier.set((first, same));
        thread.pause(Status::Barrier(place));
        return;
    }
    all_arrived(thread, same, place);
}

/// Ends the barrier: wakes the other threads.
#[inline(never)]
fn all_arrived(thread: &Thread, same: bool, place: Place) {
    let block = thread.block();
    if !same {
        thread.status.set(Status::Barrier(place));
        thread.fail(Fault::BarrierDivergence { block: block.index, groups: block.groups() });
    }
    block.at_barrier.set(0);
    block.barriers.set(block.barriers.get() + 1);
    block.shadow.clocks.barrier();
    block.share();
    for warp in 0..block.warps.len() as u32 {
        let own = if warp == thread.index / 32 { 1 << thread.lane() } else { 0 };
        block.wake(warp, !own);
    }
}

#[track_caller]
#[inline(never)]
pub(crate) fn warp_barrier(mask: u32) {
    let [] = meet(Operation::WarpBarrier, mask, [], |_, mask| {
        let (thread, block) = (current(), current().block());
        let first = thread.index - thread.lane();
        block.shadow.clocks.join(first / 32, mask);
        block.share_among(|| lanes(mask).map(|lane| first + lane));
        Ok(())
    });
}

pub(crate) fn device_fence() {
    current().fences();
}

#[track_caller]
pub(crate) fn spin() {
    let place = Place(Location::caller());
    let thread = current();
    if !thread.block().cooperative {
        thread.fail(Fault::Spin { culprit: thread.culprit(place) });
    }
    let_others_run(thread, place);
}

/// Pauses until no other thread is ready.
pub(super) fn let_others_run(thread: &Thread, place: Place) {
    let block = thread.block();
    let spinning = &thread.warp().spinning;
    spinning.set(spinning.get() | 1 << thread.lane());
    block.spinning.set(block.spinning.get() + 1);
    thread.pause(Status::Spinning(place));
}

#[track_caller]
pub(crate) fn trap() -> ! {
    let thread = current();
    thread.fail(Fault::Trap { culprit: thread.culprit(Place(Location::caller())) })
}
