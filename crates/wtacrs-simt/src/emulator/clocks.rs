//! The clocks of a block's threads: which accesses come before which.
//!
//! Every thread has a clock, which it leaves on what it accesses. A block's barrier lifts the floor above all clocks, and an
//! access below the floor is ordered before everything that follows. A warp's barrier advances the clocks of its lanes, and
//! each lane learns the clocks that the others knew.
//!
//! Any operation of all lanes of a warp orders what they read of global memory before what they write there later: the values
//! have come when the operation needs them. It orders no writes, as on a GPU, and nothing in shared memory.

use super::lanes::lanes;
use std::cell::{Cell, RefCell};

/// Clocks stay below this. A block that synchronises more often is no longer checked for races.
pub(super) const CLOCKS: u32 = 1 << 21;

/// For each lane of a warp, the clocks that it knows of all lanes.
type KnownClocks = [[u32; 32]; 32];

pub(super) struct Clocks {
    /// Accesses to shared memory before this clock are ordered before all later ones.
    floor: Cell<u32>,
    /// The floor at the last barrier, which fences do not lift.
    at_barrier: Cell<u32>,
    /// The latest of all threads' clocks.
    latest: Cell<u32>,
    /// For each warp, the clock of its last operation of all lanes.
    collectives: Vec<Cell<u32>>,
    /// Whether a lane has read global memory since.
    has_read: Vec<Cell<bool>>,
    /// The clock of each thread, if it is above the floor.
    clocks: Vec<Cell<u32>>,
    /// For each warp, made at its first barrier.
    known: Vec<RefCell<Option<Box<KnownClocks>>>>,
}

impl Clocks {
    pub(super) fn new(threads: u32) -> Self {
        Self {
            floor: Cell::new(1),
            at_barrier: Cell::new(1),
            latest: Cell::new(1),
            collectives: vec![Cell::new(0); threads.div_ceil(32) as usize],
            has_read: vec![Cell::new(false); threads.div_ceil(32) as usize],
            clocks: vec![Cell::new(1); threads as usize],
            known: (0..threads.div_ceil(32)).map(|_| RefCell::default()).collect(),
        }
    }

    #[inline(always)]
    pub(super) fn floor(&self) -> u32 {
        self.floor.get()
    }

    /// The floor at the last barrier: all threads know all accesses before it.
    #[inline(always)]
    pub(super) fn at_barrier(&self) -> u32 {
        self.at_barrier.get()
    }

    /// The clock of a thread.
    #[inline(always)]
    pub(super) fn now(&self, thread: u32) -> u32 {
        self.clocks[thread as usize].get().max(self.floor.get())
    }

    /// The clock that a thread leaves on global memory.
    #[inline(always)]
    pub(super) fn now_in_global(&self, thread: u32) -> u32 {
        self.now(thread).max(self.collectives[(thread / 32) as usize].get())
    }

    /// A thread reads global memory.
    #[inline(always)]
    pub(super) fn reads(&self, thread: u32) {
        self.has_read[(thread / 32) as usize].set(true);
    }

    /// All lanes of a warp do a collective operation.
    #[inline(always)]
    pub(super) fn collective(&self, warp: u32) {
        if self.has_read[warp as usize].replace(false) {
            let next = (self.latest.get() + 1).min(CLOCKS - 1);
            self.collectives[warp as usize].set(next);
            self.latest.set(next);
        }
    }

    /// The clock of the last collective operation of a thread's warp.
    #[inline(always)]
    pub(super) fn at_collective(&self, thread: u32) -> u32 {
        self.collectives[(thread / 32) as usize].get()
    }

    /// All threads have come to a barrier.
    pub(super) fn barrier(&self) {
        self.lift();
        self.at_barrier.set(self.floor.get());
    }

    /// Lifts the floor of shared memory, and with it all clocks.
    pub(super) fn lift(&self) {
        let floor = (self.latest.get() + 1).min(CLOCKS - 1);
        self.floor.set(floor);
        self.latest.set(floor);
    }

    /// Lanes of a warp order their accesses: each learns what all of them know.
    pub(super) fn join(&self, warp: u32, mask: u32) {
        let mut known = self.known[warp as usize].borrow_mut();
        let known = known.get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let mut all = [0; 32];
        for lane in lanes(mask) {
            for (all, &one) in all.iter_mut().zip(&known[lane as usize]) {
                *all = one.max(*all);
            }
        }
        for lane in lanes(mask) {
            let clock = &self.clocks[(warp * 32 + lane) as usize];
            let next = (self.now_in_global(warp * 32 + lane) + 1).min(CLOCKS - 1);
            clock.set(next);
            all[lane as usize] = next;
            self.latest.set(self.latest.get().max(next));
        }
        for lane in lanes(mask) {
            known[lane as usize] = all;
        }
    }

    /// Whether a thread has learnt, by barriers of its warp, that another has passed a clock.
    #[inline(always)]
    pub(super) fn knows(&self, thread: u32, other: u32, clock: u32) -> bool {
        if self.latest.get() == CLOCKS - 1 {
            return true;
        }
        if thread / 32 != other / 32 {
            return false;
        }
        let known = self.known[(thread / 32) as usize].borrow();
        known.as_ref().is_some_and(|known| clock < known[(thread % 32) as usize][(other % 32) as usize])
    }

    /// The clocks that a thread knows of its warp's lanes.
    pub(super) fn of_warp(&self, thread: u32) -> [u32; 32] {
        let known = self.known[(thread / 32) as usize].borrow();
        known.as_ref().map_or([0; 32], |known| known[(thread % 32) as usize])
    }
}
