//! Where lanes of a warp meet: each leaves what it brings, the last one does the work for all.

use super::fault::{Fault, MaskMisuse, Operation, Place};
use super::machine::{Status, current};
use std::panic::Location;

/// What the lanes of a warp bring, and what they take away. Words of all lanes lie together, since the last lane works on
/// all of them, and mostly on few words.
pub(super) struct Slots {
    pub(super) operations: [Operation; 32],
    pub(super) masks: [u32; 32],
    pub(super) places: [Place; 32],
    pub(super) words: [[u32; 32]; 10],
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            operations: [Operation::WarpBarrier; 32],
            masks: [0; 32],
            places: [Place(Location::caller()); 32],
            words: [[0; 32]; 10],
        }
    }

    /// Whether all lanes of the mask name it and the operation.
    #[inline(always)]
    fn agree(&self, operation: Operation, mask: u32) -> bool {
        let agrees = |lane: usize| (self.operations[lane] == operation) & (self.masks[lane] == mask);
        (0..32).fold(true, |all, lane| all & (agrees(lane) | (mask >> lane & 1 == 0)))
    }

    /// Whether all lanes came from one place of the source.
    #[inline(always)]
    fn one_place(&self) -> bool {
        self.places.iter().all(|place| *place == self.places[0])
    }

    #[inline(always)]
    fn take<const OUT: usize>(&self, lane: usize) -> [u32; OUT] {
        std::array::from_fn(|i| self.words[i][lane])
    }
}

/// Waits until all lanes of the mask have come with the same operation and mask; the last one calls `work`, which turns
/// the words that the lanes brought into those they take.
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
    slots.operations[lane] = operation;
    slots.masks[lane] = mask;
    slots.places[lane] = place;
    for (i, word) in words.into_iter().enumerate() {
        slots.words[i][lane] = word;
    }
    if meeting & mask == mask && slots.agree(operation, mask) {
        // An aligned operation has all 32 lanes.
        if operation.is_aligned() && !slots.one_place() {
            thread.status.set(Status::Collective);
            let first = (thread.index - thread.lane()) as usize;
            let stands = block.stands_of(&block.threads[first..first + 32]);
            thread.fail(Fault::WarpDivergence { block: block.index, stands });
        }
        if let Err(fault) = work(slots, mask) {
            thread.fail(fault);
        }
        warp.meeting.set(meeting & !mask);
        block.wake(thread.index / 32, mask & !(1 << lane));
        return slots.take(lane);
    }
    thread.pause(Status::Collective);
    // SAFETY: as above; the reference lives for this read only.
    unsafe { (*warp.slots.get()).take(lane) }
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
