//! The lanes of a warp: masks of them, and the slots in which they exchange values.

use super::fault::{Operation, Place};
use std::panic::Location;

/// The lanes of a mask, in ascending order.
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros();
            mask &= mask - 1;
            lane
        })
    })
}

/// The values that the lanes of a warp exchange in a collective operation. Words of all lanes lie side by side, because
/// the last lane to arrive works on all of them, and mostly on few words.
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

    /// Fills one lane's slot.
    #[inline(always)]
    pub(super) fn put<const IN: usize>(
        &mut self,
        lane: usize,
        operation: Operation,
        mask: u32,
        place: Place,
        words: [u32; IN],
    ) {
        self.operations[lane] = operation;
        self.masks[lane] = mask;
        self.places[lane] = place;
        for (i, word) in words.into_iter().enumerate() {
            self.words[i][lane] = word;
        }
    }

    /// The words in one lane's slot.
    #[inline(always)]
    pub(super) fn take<const OUT: usize>(&self, lane: usize) -> [u32; OUT] {
        std::array::from_fn(|i| self.words[i][lane])
    }

    /// Whether all lanes of the mask name it and the operation.
    #[inline(always)]
    pub(super) fn agree(&self, operation: Operation, mask: u32) -> bool {
        let agrees = |lane: usize| (self.operations[lane] == operation) & (self.masks[lane] == mask);
        (0..32).fold(true, |all, lane| all & (agrees(lane) | (mask >> lane & 1 == 0)))
    }

    /// Whether all lanes came from one place of the source.
    #[inline(always)]
    pub(super) fn one_place(&self) -> bool {
        self.places.iter().all(|place| *place == self.places[0])
    }
}
