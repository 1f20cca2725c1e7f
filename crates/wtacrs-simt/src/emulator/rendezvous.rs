//! Where lanes of a warp meet: each leaves what it brings, the last one does the work for all.

use super::fault::{Fault, MaskMisuse, Operation, Place};
use super::machine::{Status, current};
use std::panic::Location;

/// What a lane brings, and what it takes away.
pub(super) type Load = [u32; 10];

#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) operation: Operation,
    pub(super) mask: u32,
    pub(super) place: Place,
    pub(super) load: Load,
}

impl Slot {
    pub(super) const fn new() -> Self {
        Self { operation: Operation::WarpBarrier, mask: 0, place: Place(Location::caller()), load: [0; 10] }
    }
}

/// Waits until all lanes of the mask have come with the same operation and mask; the last one calls `work` with all
/// slots, which turns what the lanes brought into what they take.
#[track_caller]
#[inline(always)]
pub(super) fn meet(
    operation: Operation,
    mask: u32,
    load: Load,
    work: impl FnOnce(&mut [Slot; 32], u32) -> Result<(), Fault>,
) -> Load {
    let place = Place(Location::caller());
    let thread = current();
    let (block, warp, lane) = (thread.block(), thread.warp(), thread.lane());
    if mask >> lane & 1 == 0 {
        let misuse = MaskMisuse::CallerMissing { mask };
        thread.fail(Fault::LaneMask { culprit: thread.culprit(place), operation, misuse });
    }
    let meeting = warp.meeting.get() | 1 << lane;
    warp.meeting.set(meeting);
    // SAFETY: one thread of a block runs at a time, and none keeps a reference to the slots while it pauses, except
    // one that has failed and never goes on.
    let slots = unsafe { &mut *warp.slots.get() };
    slots[lane as usize] = Slot { operation, mask, place, load };
    if meeting & mask == mask && all_agree(slots, operation, mask) {
        if let Err(fault) = work(slots, mask) {
            thread.fail(fault);
        }
        warp.meeting.set(meeting & !mask);
        block.wake(thread.index / 32, mask & !(1 << lane));
        return slots[lane as usize].load;
    }
    thread.pause(Status::Collective);
    // SAFETY: as above; the reference lives for this read only.
    unsafe { (*warp.slots.get())[lane as usize].load }
}

fn all_agree(slots: &[Slot; 32], operation: Operation, mask: u32) -> bool {
    lanes(mask).all(|lane| slots[lane as usize].operation == operation && slots[lane as usize].mask == mask)
}

/// The bits set.
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros();
            mask &= mask - 1;
            lane
        })
    })
}
