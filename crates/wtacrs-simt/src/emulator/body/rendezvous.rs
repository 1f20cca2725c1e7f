//! Where lanes of a warp meet: each leaves its words, and the last one does the work of all.

use crate::emulator::fault::{Fault, MaskMisuse, Operation, Place};
use crate::emulator::lanes::Slots;
use crate::emulator::machine::{Status, current};
use crate::types::FULL;
use std::panic::Location;

/// Waits until all lanes of the mask have come with the same operation and mask. The last one calls `work`, which
/// replaces the words that the lanes brought by those that they take.
#[track_caller]
#[inline(always)]
pub(super) fn meet<const IN: usize, const OUT: usize>(
    operation: Operation,
    mask: u32,
    words: [u32; IN],
    work: impl FnOnce(&mut Slots, u32) -> Result<(), Fault>,
) -> [u32; OUT] {
    let place = Place(Location::caller());
    let thread = current();
    let (block, warp, lane) = (thread.block(), thread.warp(), thread.lane() as usize % 32);
    if mask >> lane & 1 == 0 {
        let misuse = MaskMisuse::CallerMissing { mask };
        thread.fail(Fault::LaneMask { culprit: thread.culprit(place), operation, misuse });
    }
    let meeting = warp.meeting.get() | 1 << lane;
    warp.meeting.set(meeting);
    // SAFETY: one thread of a block runs at a time, and none keeps a reference to the slots while it pauses, except
    // one that has failed and never goes on.
    let slots = unsafe { &mut *warp.slots.get() };
    slots.put(lane, operation, mask, place, words);
    if meeting & mask == mask && slots.agree(operation, mask) {
        // An aligned operation has all 32 lanes.
        if operation.is_aligned() && !slots.one_place() {
            thread.status.set(Status::Collective);
            let first = (thread.index - thread.lane()) as usize;
            let groups = block.groups_of(&block.threads[first..first + 32]);
            thread.fail(Fault::WarpDivergence { block: block.index, groups });
        }
        if let Err(fault) = work(slots, mask) {
            thread.fail(fault);
        }
        if mask == FULL {
            block.shadow.clocks.collective(thread.index / 32);
        }
        warp.meeting.set(meeting & !mask);
        block.wake(thread.index / 32, mask & !(1 << lane));
        return slots.take(lane);
    }
    thread.pause(Status::Collective);
    // SAFETY: as above; the reference lives for this read only.
    unsafe { (*warp.slots.get()).take(lane) }
}
