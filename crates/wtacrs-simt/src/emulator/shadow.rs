//! The record of every byte of shared memory: its last writer, its readers since, and whether a copy is on its way there.
//!
//! Races are found as FastTrack (Flanagan and Freund, 2009) finds them. An access leaves a stamp: its thread, and that
//! thread's [clock](super::clocks). Two accesses race if one of them writes and the later thread finds a stamp of another
//! thread that is neither below the block's floor nor below the clock that it knows of that thread.
//!
//! Shuffles, votes and matrix operations order nothing, as on a GPU. A fence, an acquire or a release can order accesses
//! in ways that the record does not follow, so each of them lifts the floor: such kernels lose some checks, and no correct
//! kernel is refused.
//!
//! Stamps are kept for words of four bytes, and for single bytes where a smaller access has touched the word.

use super::clocks::Clocks;
use super::lanes::lanes;
use std::cell::{Cell, RefCell};
use std::ops::Range;

/// A thread's index, whether its access was atomic, and its clock. 0 stands for no access, since clocks begin at 1.
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

/// The accesses to a word, or to a byte.
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

/// The record of a block's shared memory.
pub(super) struct Shadow {
    words: Vec<Cell<Trace>>,
    /// 1 + the thread whose copy has not landed, or 0; and [`SPLIT`].
    states: Vec<Cell<u16>>,
    /// Traces of single bytes; empty until one is needed.
    bytes: RefCell<Vec<Trace>>,
    pub(super) clocks: Clocks,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Atomic,
}

/// Why an access to a byte of shared memory is a fault.
#[derive(Clone, Copy)]
pub(super) struct Trouble {
    pub(super) offset: u32,
    pub(super) kind: TroubleKind,
}

/// What is wrong with the byte.
#[derive(Clone, Copy)]
pub(super) enum TroubleKind {
    Unwritten,
    /// Another thread accessed it, with nothing to order the two.
    Race {
        other: u32,
        how: &'static str,
    },
    /// A copy of a thread has not landed.
    InFlight {
        issuer: u32,
    },
}

/// A race with the access that left a stamp.
fn race(stamp: Stamp, how: &'static str) -> TroubleKind {
    TroubleKind::Race { other: stamp.thread(), how }
}

impl Shadow {
    /// For a block of so many threads.
    pub(super) fn new(bytes: u32, threads: u32) -> Self {
        let words = bytes.div_ceil(4) as usize;
        Self {
            words: vec![Cell::default(); words],
            states: vec![Cell::default(); words],
            bytes: RefCell::default(),
            clocks: Clocks::new(threads),
        }
    }

    /// Records an access to bytes that lie within the block's, or says why it is a fault.
    #[inline(always)]
    pub(super) fn access(&self, thread: u32, offset: u32, bytes: u32, access: Access) -> Result<(), Trouble> {
        let clock = self.clocks.now(thread);
        if bytes < 4 {
            return self.partly(thread, clock, offset, bytes, access);
        }
        for word in offset / 4..(offset + bytes) / 4 {
            let state = self.states[word as usize].get();
            if state != 0 {
                self.closely(thread, clock, word, access)?;
                continue;
            }
            // SAFETY: one thread of a block runs at a time, and nothing that the trace's method calls accesses traces.
            let trace = unsafe { &mut *self.words[word as usize].as_ptr() };
            trace.access(self, thread, clock, access).map_err(|kind| Trouble { offset: 4 * word, kind })?;
        }
        Ok(())
    }

    /// A copy begins into bytes that lie within the block's. It counts as a write, and until it has landed every access to
    /// them is a fault.
    pub(super) fn depart(&self, thread: u32, offset: u32, bytes: u32) -> Result<(), Trouble> {
        self.access(thread, offset, bytes, Access::Write)?;
        for state in &self.states[offset as usize / 4..(offset + bytes) as usize / 4] {
            state.set(state.get() & SPLIT | (thread + 1) as u16);
        }
        Ok(())
    }

    /// The copy has landed: its issuer writes the bytes now.
    pub(super) fn land(&self, thread: u32, offset: u32, bytes: u32) -> Result<(), Trouble> {
        for state in &self.states[offset as usize / 4..(offset + bytes) as usize / 4] {
            state.set(state.get() & SPLIT);
        }
        self.access(thread, offset, bytes, Access::Write)
    }

    /// A word that awaits a copy, or whose bytes have traces of their own.
    #[cold]
    fn closely(&self, thread: u32, clock: u32, word: u32, access: Access) -> Result<(), Trouble> {
        self.check_flight(word)?;
        self.access_bytes(thread, clock, 4 * word..4 * word + 4, access)
    }

    /// An access to less than a word.
    fn partly(&self, thread: u32, clock: u32, offset: u32, count: u32, access: Access) -> Result<(), Trouble> {
        let word = offset / 4;
        self.check_flight(word)?;
        let state = &self.states[word as usize];
        if state.get() & SPLIT == 0 {
            state.set(state.get() | SPLIT);
            let mut bytes = self.bytes.borrow_mut();
            bytes.resize(4 * self.words.len(), Trace::default());
            bytes[4 * word as usize..][..4].fill(self.words[word as usize].get());
        }
        self.access_bytes(thread, clock, offset..offset + count, access)
    }

    fn access_bytes(&self, thread: u32, clock: u32, range: Range<u32>, access: Access) -> Result<(), Trouble> {
        let mut bytes = self.bytes.borrow_mut();
        for offset in range {
            let accessed = bytes[offset as usize].access(self, thread, clock, access);
            accessed.map_err(|kind| Trouble { offset, kind })?;
        }
        Ok(())
    }

    #[inline(always)]
    fn check_flight(&self, word: u32) -> Result<(), Trouble> {
        match self.states[word as usize].get() & !SPLIT {
            0 => Ok(()),
            issuer => Err(Trouble { offset: 4 * word, kind: TroubleKind::InFlight { issuer: u32::from(issuer) - 1 } }),
        }
    }

    /// Whether the access that left the stamp comes before everything that the thread does now.
    #[inline(always)]
    fn is_before(&self, stamp: Stamp, thread: u32) -> bool {
        stamp.clock() < self.clocks.floor()
            || stamp.thread() == thread
            || self.clocks.knows(thread, stamp.thread(), stamp.clock())
    }
}

impl Trace {
    #[inline(always)]
    fn access(&mut self, shadow: &Shadow, thread: u32, clock: u32, access: Access) -> Result<(), TroubleKind> {
        match access {
            Access::Read => self.read(shadow, thread, clock),
            Access::Write => self.write(shadow, thread, clock, false),
            Access::Atomic if self.write == Stamp::NONE => Err(TroubleKind::Unwritten),
            Access::Atomic => self.write(shadow, thread, clock, true),
        }
    }

    #[inline(always)]
    fn read(&mut self, shadow: &Shadow, thread: u32, clock: u32) -> Result<(), TroubleKind> {
        if self.write == Stamp::NONE {
            return Err(TroubleKind::Unwritten);
        }
        if !shadow.is_before(self.write, thread) {
            return Err(race(self.write, self.written()));
        }
        let mut stamp = Stamp::new(thread, false, clock);
        let mut readers = 1 << (thread % 32);
        if self.read == stamp && self.readers == readers {
            return Ok(());
        }
        if self.read.clock() >= shadow.clocks.floor() {
            if self.read.warp() != stamp.warp() {
                self.other = self.read;
            } else if self.readers != readers && !self.replaces(shadow, thread, clock) {
                readers |= self.readers;
                stamp = Stamp::new(thread, false, clock.min(self.read.clock()));
            }
        } else {
            self.other = Stamp::NONE;
        }
        self.read = stamp;
        self.readers = readers;
        Ok(())
    }

    /// Whether all earlier readers, which are of the same warp, come before this read.
    #[inline(always)]
    fn replaces(&self, shadow: &Shadow, thread: u32, clock: u32) -> bool {
        let before = self.read.clock();
        clock != before
            && lanes(self.readers)
                .all(|lane| lane == thread % 32 || shadow.clocks.knows(thread, thread / 32 * 32 + lane, before))
    }

    #[inline(always)]
    fn write(&mut self, shadow: &Shadow, thread: u32, clock: u32, atomic: bool) -> Result<(), TroubleKind> {
        let floor = shadow.clocks.floor();
        if self.write.clock() >= floor && !(atomic && self.write.is_atomic()) && !shadow.is_before(self.write, thread) {
            return Err(race(self.write, self.written()));
        }
        if self.read.clock() >= floor {
            self.after_reads(shadow, thread)?;
        }
        *self = Self { write: Stamp::new(thread, atomic, clock), ..Self::default() };
        Ok(())
    }

    /// Whether the reads come before what the thread does now.
    fn after_reads(&self, shadow: &Shadow, thread: u32) -> Result<(), TroubleKind> {
        let warp = self.read.thread() & !31;
        let one = |lane| Stamp::new(warp + lane, false, self.read.clock());
        if let Some(lane) = lanes(self.readers).find(|&lane| !shadow.is_before(one(lane), thread)) {
            return Err(race(one(lane), "read"));
        }
        if self.other != Stamp::NONE && !shadow.is_before(self.other, thread) {
            return Err(race(self.other, "read"));
        }
        Ok(())
    }

    fn written(&self) -> &'static str {
        if self.write.is_atomic() { "changed atomically" } else { "written" }
    }
}
