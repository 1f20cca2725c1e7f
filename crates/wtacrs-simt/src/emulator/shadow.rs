//! What is known of every byte of shared memory: who wrote it, who read it since, and whether a copy awaits it.
//!
//! Races are found as FastTrack (Flanagan and Freund, 2009) finds them. Every thread has a clock, and an access leaves a
//! stamp: its thread, and the thread's clock then. A block's barrier lifts the floor above all clocks; a stamp below the
//! floor is ordered before everything that comes. A warp's barrier advances the clocks of its lanes, and each lane
//! learns what the others have known. An access that meets another thread's stamp, neither below the floor nor below
//! what this thread knows of that thread's clock, races with it, if one of the two writes.
//!
//! Shuffles, votes and matrix operations order nothing, as on a GPU. A fence, an acquire or a release may order what is
//! not followed here, and lifts the floor: such kernels lose some checks, and no correct one is refused.
//!
//! Stamps are kept for words of four bytes, and for single bytes where a smaller access has touched the word.

use super::fault::{Fault, Place};
use super::machine::Thread;
use super::rendezvous::lanes;
use std::cell::{Cell, RefCell};

/// Clocks stay below; a block that synchronises more often is no longer checked for races.
const CLOCKS: u32 = 1 << 21;

/// A thread's index, whether its access was atomic, and its clock; 0 is no access, for clocks begin at 1.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stamp(u32);

impl Stamp {
    const NONE: Self = Self(0);

    #[inline(always)]
    fn new(thread: u32, atomic: bool, clock: u32) -> Self {
        Self(clock << 11 | u32::from(atomic) << 10 | thread)
    }

    #[inline(always)]
    fn thread(self) -> u32 {
        self.0 & 0x3FF
    }

    #[inline(always)]
    fn warp(self) -> u32 {
        self.thread() / 32
    }

    #[inline(always)]
    fn is_atomic(self) -> bool {
        self.0 >> 10 & 1 != 0
    }

    #[inline(always)]
    fn clock(self) -> u32 {
        self.0 >> 11
    }
}

/// Of a word, or of a byte.
#[derive(Clone, Copy, Default)]
struct Trace {
    write: Stamp,
    /// The last reader since that write; its clock is the least of all lanes in `readers`.
    read: Stamp,
    /// Lanes of the last reader's warp.
    readers: u32,
    /// A reader of another warp.
    other: Stamp,
}

/// Set in a word's state when its bytes have traces of their own.
const SPLIT: u16 = 1 << 15;

/// Of a block's shared memory.
pub(super) struct Shadow {
    words: Vec<Cell<Trace>>,
    /// 1 + the thread whose copy has not landed, or 0; and [`SPLIT`].
    states: Vec<Cell<u16>>,
    /// Made when first needed.
    bytes: RefCell<Vec<Trace>>,
    /// Accesses before this clock are ordered before all that come.
    floor: Cell<u32>,
    /// The latest of all threads' clocks.
    latest: Cell<u32>,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Atomic,
}

/// What an access met.
enum Trouble {
    Unwritten,
    Race(Stamp, &'static str),
}

impl Shadow {
    pub(super) fn new(bytes: u32) -> Self {
        let words = bytes.div_ceil(4) as usize;
        Self {
            words: vec![Cell::default(); words],
            states: vec![Cell::default(); words],
            bytes: RefCell::default(),
            floor: Cell::new(1),
            latest: Cell::new(1),
        }
    }

    /// Orders all that was before all that comes.
    pub(super) fn lift(&self) {
        let floor = (self.latest.get() + 1).min(CLOCKS - 1);
        self.floor.set(floor);
        self.latest.set(floor);
    }

    /// Lanes of a warp order their accesses: each learns what all of them know.
    pub(super) fn join(&self, thread: &Thread, mask: u32) {
        let block = thread.block();
        let mut known = thread.warp().known.borrow_mut();
        let known = known.get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let mut all = [0; 32];
        for lane in lanes(mask) {
            for (all, &one) in all.iter_mut().zip(&known[lane as usize]) {
                *all = one.max(*all);
            }
        }
        for lane in lanes(mask) {
            let clock = &block.threads[(thread.index - thread.lane() + lane) as usize].clock;
            let next = (clock.get().max(self.floor.get()) + 1).min(CLOCKS - 1);
            clock.set(next);
            all[lane as usize] = next;
            self.latest.set(self.latest.get().max(next));
        }
        for lane in lanes(mask) {
            known[lane as usize] = all;
        }
    }

    /// Notes an access to bytes that lie within the block's; ends the launch if it must not be.
    #[inline(always)]
    pub(super) fn access(&self, thread: &Thread, offset: u32, bytes: u32, access: Access, place: Place) {
        let clock = thread.clock.get().max(self.floor.get());
        if bytes < 4 {
            self.partly(thread, clock, offset, bytes, access, place);
            return;
        }
        for word in offset / 4..(offset + bytes) / 4 {
            let state = self.states[word as usize].get();
            if state != 0 {
                self.closely(thread, clock, word, access, place);
                continue;
            }
            // SAFETY: one thread of a block runs at a time, and what the trace's method calls does not touch traces.
            let trace = unsafe { &mut *self.words[word as usize].as_ptr() };
            if let Err(trouble) = trace.access(self, thread, clock, access) {
                self.refuse(thread, 4 * word, access, &trouble, place);
            }
        }
    }

    /// A copy into bytes that lie within the block's begins: a write, and nobody may access them until it has landed.
    pub(super) fn depart(&self, thread: &Thread, offset: u32, bytes: u32, place: Place) {
        self.access(thread, offset, bytes, Access::Write, place);
        for state in &self.states[offset as usize / 4..(offset + bytes) as usize / 4] {
            state.set(state.get() & SPLIT | (thread.index + 1) as u16);
        }
    }

    /// The copy has landed: its issuer writes the bytes now.
    pub(super) fn land(&self, thread: &Thread, offset: u32, bytes: u32, place: Place) {
        for state in &self.states[offset as usize / 4..(offset + bytes) as usize / 4] {
            state.set(state.get() & SPLIT);
        }
        self.access(thread, offset, bytes, Access::Write, place);
    }

    /// A word that awaits a copy, or whose bytes have their own traces.
    #[cold]
    fn closely(&self, thread: &Thread, clock: u32, word: u32, access: Access, place: Place) {
        self.refuse_flight(thread, word, place);
        let mut bytes = self.bytes.borrow_mut();
        for at in 4 * word..4 * word + 4 {
            if let Err(trouble) = bytes[at as usize].access(self, thread, clock, access) {
                drop(bytes);
                self.refuse(thread, at, access, &trouble, place);
            }
        }
    }

    /// Less than a word.
    fn partly(&self, thread: &Thread, clock: u32, offset: u32, count: u32, access: Access, place: Place) {
        let word = offset / 4;
        self.refuse_flight(thread, word, place);
        let mut bytes = self.bytes.borrow_mut();
        let state = &self.states[word as usize];
        if state.get() & SPLIT == 0 {
            state.set(state.get() | SPLIT);
            bytes.resize(4 * self.words.len(), Trace::default());
            bytes[4 * word as usize..][..4].fill(self.words[word as usize].get());
        }
        for at in offset..offset + count {
            if let Err(trouble) = bytes[at as usize].access(self, thread, clock, access) {
                drop(bytes);
                self.refuse(thread, at, access, &trouble, place);
            }
        }
    }

    #[inline(always)]
    fn refuse_flight(&self, thread: &Thread, word: u32, place: Place) {
        let state = self.states[word as usize].get() & !SPLIT;
        if state != 0 {
            self.in_flight(thread, word, u32::from(state) - 1, place);
        }
    }

    #[cold]
    #[inline(never)]
    fn in_flight(&self, thread: &Thread, word: u32, issuer: u32, place: Place) -> ! {
        let flights = thread.block().threads[issuer as usize].flights.borrow();
        let covers = flights.iter().find(|flight| flight.to / 4 <= word && word < (flight.to + flight.bytes) / 4);
        let issued = covers.map_or(place, |flight| flight.place);
        drop(flights);
        thread.fail(Fault::InFlight { culprit: thread.culprit(place), offset: 4 * word, issuer, issued })
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, thread: &Thread, offset: u32, access: Access, trouble: &Trouble, place: Place) -> ! {
        let culprit = thread.culprit(place);
        thread.fail(match *trouble {
            Trouble::Unwritten => Fault::Unwritten { culprit, offset },
            Trouble::Race(stamp, before) => {
                let other = stamp.thread();
                let now = match access {
                    Access::Read => "read",
                    Access::Write => "written",
                    Access::Atomic => "changed atomically",
                };
                Fault::Race { culprit, offset, other, how: format!("{before} by thread {other} and {now} here") }
            }
        })
    }

    /// Whether what left the stamp comes before everything that the thread does now.
    #[inline(always)]
    fn is_before(&self, stamp: Stamp, thread: &Thread) -> bool {
        stamp.clock() < self.floor.get() || stamp.thread() == thread.index || self.is_known(stamp, thread)
    }

    /// By a warp's barrier.
    fn is_known(&self, stamp: Stamp, thread: &Thread) -> bool {
        stamp.warp() == thread.index / 32 && knows(thread, stamp.thread() % 32, stamp.clock())
            || self.latest.get() == CLOCKS - 1
    }
}

/// Whether a thread has learnt that a lane of its warp has passed a clock.
fn knows(thread: &Thread, lane: u32, clock: u32) -> bool {
    thread.warp().known.borrow().as_ref().is_some_and(|known| clock < known[thread.lane() as usize][lane as usize])
}

impl Trace {
    #[inline(always)]
    fn access(&mut self, shadow: &Shadow, thread: &Thread, clock: u32, access: Access) -> Result<(), Trouble> {
        match access {
            Access::Read => self.read(shadow, thread, clock),
            Access::Write => self.write(shadow, thread, clock, false),
            Access::Atomic if self.write == Stamp::NONE => Err(Trouble::Unwritten),
            Access::Atomic => self.write(shadow, thread, clock, true),
        }
    }

    #[inline(always)]
    fn read(&mut self, shadow: &Shadow, thread: &Thread, clock: u32) -> Result<(), Trouble> {
        if self.write == Stamp::NONE {
            return Err(Trouble::Unwritten);
        }
        if !shadow.is_before(self.write, thread) {
            return Err(Trouble::Race(self.write, self.written()));
        }
        let mut stamp = Stamp::new(thread.index, false, clock);
        let mut readers = 1 << thread.lane();
        if self.read == stamp && self.readers == readers {
            return Ok(());
        }
        if self.read.clock() >= shadow.floor.get() {
            if self.read.warp() != stamp.warp() {
                self.other = self.read;
            } else if self.readers != readers && !self.replaces(thread, clock) {
                readers |= self.readers;
                stamp = Stamp::new(thread.index, false, clock.min(self.read.clock()));
            }
        } else {
            self.other = Stamp::NONE;
        }
        self.read = stamp;
        self.readers = readers;
        Ok(())
    }

    /// Whether all earlier readers, of the same warp, come before this read.
    #[inline(always)]
    fn replaces(&self, thread: &Thread, clock: u32) -> bool {
        let before = self.read.clock();
        clock != before && lanes(self.readers).all(|lane| lane == thread.lane() || knows(thread, lane, before))
    }

    #[inline(always)]
    fn write(&mut self, shadow: &Shadow, thread: &Thread, clock: u32, atomic: bool) -> Result<(), Trouble> {
        let floor = shadow.floor.get();
        if self.write.clock() >= floor && !(atomic && self.write.is_atomic()) && !shadow.is_before(self.write, thread) {
            return Err(Trouble::Race(self.write, self.written()));
        }
        if self.read.clock() >= floor {
            self.after_reads(shadow, thread)?;
        }
        *self = Self { write: Stamp::new(thread.index, atomic, clock), ..Self::default() };
        Ok(())
    }

    /// Whether the reads come before what the thread does now.
    fn after_reads(&self, shadow: &Shadow, thread: &Thread) -> Result<(), Trouble> {
        let warp = self.read.thread() & !31;
        let one = |lane| Stamp::new(warp + lane, false, self.read.clock());
        if let Some(lane) = lanes(self.readers).find(|&lane| !shadow.is_before(one(lane), thread)) {
            return Err(Trouble::Race(one(lane), "read"));
        }
        if self.other != Stamp::NONE && !shadow.is_before(self.other, thread) {
            return Err(Trouble::Race(self.other, "read"));
        }
        Ok(())
    }

    fn written(&self) -> &'static str {
        if self.write.is_atomic() { "changed atomically" } else { "written" }
    }
}
