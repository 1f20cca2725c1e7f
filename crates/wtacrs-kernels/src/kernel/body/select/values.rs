//! A number for each pair of a warp's run, which the pair's lane alone sets. Those of the run's first two rows stay in
//! registers between passes, so that a pass over a short run loads nothing.

use crate::kernel::body::team::Run;
use wtacrs_simt::memory::{load, store};

/// The numbers of this lane's pairs.
#[derive(Clone, Copy)]
pub(super) struct Values {
    run: Run,
    /// A number for each of the problem's pairs.
    memory: *mut u64,
    /// Of the first two rows. They are indexed by constants alone, so that they are registers.
    held: [u64; 2],
}

impl Values {
    /// `memory` has a place for each of the problem's pairs.
    #[inline(always)]
    pub(super) fn new(run: Run, memory: *mut u64) -> Self {
        Self { run, memory, held: [0; 2] }
    }

    /// Sets each number from what `read` finds for its pair. Numbers in registers are not written to memory.
    #[inline(always)]
    pub(super) fn set<T: Copy>(&mut self, read: impl Fn(u32) -> T, mut of: impl FnMut(u32, T) -> u64) {
        let Self { run, memory, held } = self;
        pass(
            *run,
            held,
            |pair, _| read(pair),
            |pair, is_held, in_run, found| {
                let number = if in_run { of(pair, found) } else { 0 };
                if in_run && !is_held {
                    write(*memory, pair, number);
                }
                number
            },
        );
    }

    /// Replaces each number, in memory as well.
    #[inline(always)]
    pub(super) fn replace(&mut self, mut by: impl FnMut(u64) -> u64) {
        let Self { run, memory, held } = self;
        let memory = *memory;
        pass(
            *run,
            held,
            |pair, held| number(memory, pair, held),
            |pair, _, in_run, found| {
                let number = if in_run { by(found) } else { 0 };
                if in_run {
                    write(memory, pair, number);
                }
                number
            },
        );
    }

    /// Calls `look` for every row with this lane's pair, whether it is in the run, its number, and what `read` finds for it.
    #[inline(always)]
    pub(super) fn rows<T: Copy>(mut self, read: impl Fn(u32) -> T, mut look: impl FnMut(u32, bool, u64, T)) {
        let memory = self.memory;
        let read = |pair: u32, held: Option<u64>| (number(memory, pair, held), read(pair));
        pass(self.run, &mut self.held, read, |pair, _, in_run, (number, found)| {
            look(pair, in_run, number, found);
            number
        });
    }
}

/// A pair's number: the one in a register, or else the one in memory.
#[inline(always)]
fn number(memory: *mut u64, pair: u32, held: Option<u64>) -> u64 {
    // SAFETY: a pair's place, which its own lane has written: this one.
    held.unwrap_or_else(|| unsafe { load(memory.wrapping_add(pair as usize)) })
}

#[inline(always)]
fn write(memory: *mut u64, pair: u32, number: u64) {
    // SAFETY: the pair's own place.
    unsafe { store(memory.wrapping_add(pair as usize), number) }
}

/// Goes through the rows of a run, two at a time, while the next two are read. `read` gets a pair and its number, if that is in
/// a register. `each` gets the pair, whether its number is in a register, whether it is in the run, and what was read; it
/// returns the number.
#[inline(always)]
fn pass<T: Copy>(
    run: Run,
    held: &mut [u64; 2],
    read: impl Fn(u32, Option<u64>) -> T,
    mut each: impl FnMut(u32, bool, bool, T) -> u64,
) {
    if run.rows == 0 {
        return;
    }
    let from_register = |row, number| read(run.at_most_last(run.pair(row)), Some(number));
    // Beyond the run the lane reads a place of its own once more: a run with a third row has a pair for each lane in its first.
    let from_memory = |row| {
        let pair = run.pair(row);
        read(if run.holds(pair) { pair } else { run.pair(0) }, None)
    };
    let mut next = [from_register(0, held[0]), from_register(1, held[1])];
    let mut row = 0;
    while row < run.rows {
        let found = next;
        if row + 2 < run.rows {
            next = [from_memory(row + 2), from_memory(row + 3)];
        }
        let is_held = row == 0;
        let mut each = |row, found, number: &mut u64| {
            let pair = run.pair(row);
            let new = each(pair, is_held, run.holds(pair), found);
            if is_held {
                *number = new;
            }
        };
        let [first, second] = held;
        each(row, found[0], first);
        each(row + 1, found[1], second);
        row += 2;
    }
}
