//! The record of a launch's accesses to global memory: the last writer and the last readers of each word.
//!
//! Races are found as those on shared memory: an access leaves a stamp, and a later one by another thread must know of it, by
//! barriers if both are of one block, or by [releases and acquires](super::release). What an access finds does not depend on
//! how long ago the other one was: blocks may run one after another, and a missing fence still shows.
//!
//! Words are found by their address, in pages that are made when they are first accessed. A word that an access touches in
//! part gets traces for its bytes. A trace remembers two plain readers, of different warps if there are any, an atomic reader, and
//! an atomic change beside the last one, and forgets others.

use super::place::Places;
use super::release::Notes;
use super::stores::Stores;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Bytes of a page.
const PAGE: usize = 4096;
const WORDS: usize = PAGE / 4;

/// Launches of more blocks are not checked.
const BLOCKS: u64 = 1 << 20;

/// Pages that are found without a search.
const RECENT: usize = 64;

/// An access: the thread's clock, the block's number, the thread's index, the number of the place in the source, and whether
/// it was atomic. 0 stands for no access, since clocks begin at 1.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp(u64);

impl Stamp {
    const NONE: Self = Self(0);

    #[inline(always)]
    pub(super) fn new(clock: u32, block: u32, thread: u32, place: u16, atomic: bool) -> Self {
        let who = u64::from(block) << 23 | u64::from(thread) << 13;
        Self(u64::from(clock) << 43 | who | u64::from(place) << 1 | u64::from(atomic))
    }

    #[inline(always)]
    pub(super) fn clock(self) -> u32 {
        (self.0 >> 43) as u32
    }

    #[inline(always)]
    pub(super) fn block(self) -> u32 {
        (self.0 >> 23) as u32 & 0xF_FFFF
    }

    #[inline(always)]
    pub(super) fn thread(self) -> u32 {
        (self.0 >> 13) as u32 & 0x3FF
    }

    pub(super) fn place(self) -> u16 {
        (self.0 >> 1) as u16 & 0xFFF
    }

    #[inline(always)]
    fn is_atomic(self) -> bool {
        self.0 & 1 != 0
    }

    #[inline(always)]
    fn is_of_thread_of(self, other: Self) -> bool {
        (self.0 ^ other.0) << 21 >> 34 == 0
    }

    #[inline(always)]
    fn is_of_warp_of(self, other: Self) -> bool {
        (self.0 ^ other.0) << 21 >> 39 == 0
    }

    /// Whether the two may be in any order though one of them writes.
    #[inline(always)]
    fn races(self, now: Self, is_before: impl Fn(Self) -> bool) -> bool {
        self != Self::NONE && !(self.is_atomic() && now.is_atomic()) && !is_before(self)
    }
}

/// The accesses to a word, or to a byte.
#[derive(Clone, Copy, Default)]
struct Trace {
    write: Stamp,
    /// A write before that one, if that one is atomic: another atomic one that it does not know, or a plain one.
    beside: Stamp,
    /// The last plain reader since the last plain write.
    read: Stamp,
    /// Another plain reader since.
    other: Stamp,
    /// The last atomic reader since.
    atomic_read: Stamp,
}

/// The earlier access of a race, and what it did.
pub(super) type Earlier = (Stamp, &'static str);

impl Trace {
    #[inline(always)]
    fn read(&mut self, now: Stamp, is_before: impl Fn(Stamp) -> bool) -> Result<(), Earlier> {
        if self.read == now {
            return Ok(());
        }
        self.is_written_before(now, &is_before)?;
        if now.is_atomic() {
            self.atomic_read = now;
            return Ok(());
        }
        let last = self.read;
        if last != Stamp::NONE && !last.is_of_thread_of(now) && !is_before(last) {
            // Two readers of different warps, if there are any.
            if self.other == Stamp::NONE || !last.is_of_warp_of(now) || self.other.is_of_warp_of(now) {
                self.other = last;
            }
        }
        self.read = now;
        Ok(())
    }

    #[inline(always)]
    fn write(
        &mut self,
        now: Stamp,
        is_before: impl Fn(Stamp) -> bool,
        is_read_before: impl Fn(Stamp) -> bool,
    ) -> Result<(), Earlier> {
        self.is_written_before(now, &is_before)?;
        for read in [self.read, self.other, self.atomic_read] {
            if read.races(now, &is_read_before) {
                return Err((read, if read.is_atomic() { "read atomically" } else { "read" }));
            }
        }
        if now.is_atomic() {
            // Those who come later need not know what this one has met, or be known to it.
            let is_unknown = |stamp: Stamp| stamp != Stamp::NONE && !is_before(stamp);
            if is_unknown(self.write) || !is_unknown(self.beside) && !self.write.is_atomic() {
                self.beside = self.write;
            }
            self.write = now;
        } else {
            *self = Self { write: now, ..Self::default() };
        }
        Ok(())
    }

    /// An error if a write races with an access.
    #[inline(always)]
    fn is_written_before(&self, now: Stamp, is_before: impl Fn(Stamp) -> bool) -> Result<(), Earlier> {
        for write in [self.write, self.beside] {
            if write.races(now, &is_before) {
                return Err((write, if write.is_atomic() { "changed atomically" } else { "written" }));
            }
        }
        Ok(())
    }
}

/// The traces of a page's words.
struct Page {
    words: Vec<Cell<Trace>>,
    /// Whether any word has traces of its bytes.
    is_split: Cell<bool>,
    /// Which words have.
    split: [Cell<u64>; WORDS / 64],
    bytes: RefCell<Vec<Trace>>,
    /// Copies that have not landed and have their source here.
    flights: Cell<u32>,
}

impl Page {
    fn new() -> Self {
        Self {
            words: vec![Cell::default(); WORDS],
            is_split: Cell::new(false),
            split: Default::default(),
            bytes: RefCell::default(),
            flights: Cell::new(0),
        }
    }

    /// Applies something to the trace of every byte of an access, or to those of its words.
    #[inline(always)]
    fn each<E>(&self, at: usize, bytes: usize, mut act: impl FnMut(&mut Trace) -> Result<(), E>) -> Result<(), E> {
        let first = at % PAGE;
        if !(first | bytes).is_multiple_of(4) || self.is_split.get() {
            return self.each_closely(first, bytes, act);
        }
        for word in &self.words[first / 4..(first + bytes) / 4] {
            // SAFETY: one thread of a launch runs at a time. `act` calls methods of this trace and asks clocks what they know,
            // neither of which accesses a trace.
            act(unsafe { &mut *word.as_ptr() })?;
        }
        Ok(())
    }

    #[inline(never)]
    fn each_closely<E>(
        &self,
        first: usize,
        bytes: usize,
        mut act: impl FnMut(&mut Trace) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = first + bytes;
        for word in first / 4..end.div_ceil(4) {
            let within = first.max(4 * word)..end.min(4 * word + 4);
            let (split, bit) = (&self.split[word / 64], 1 << (word % 64));
            if split.get() & bit == 0 {
                let trace = &self.words[word];
                if within.len() == 4 {
                    let mut changed = trace.get();
                    act(&mut changed)?;
                    trace.set(changed);
                    continue;
                }
                split.set(split.get() | bit);
                self.is_split.set(true);
                let mut traces = self.bytes.borrow_mut();
                traces.resize(PAGE, Trace::default());
                traces[4 * word..4 * word + 4].fill(trace.get());
            }
            self.bytes.borrow_mut()[within].iter_mut().try_for_each(&mut act)?;
        }
        Ok(())
    }
}

/// The accesses that a launch has made so far.
pub(super) struct Record {
    pages: RefCell<HashMap<usize, Box<Page>>>,
    recent: [Cell<(usize, *const Page)>; RECENT],
}

impl Record {
    fn new() -> Self {
        Self { pages: RefCell::default(), recent: [const { Cell::new((usize::MAX, std::ptr::null())) }; RECENT] }
    }

    /// Records a read of bytes of one page, or returns the write that it races with.
    #[inline(always)]
    pub(super) fn read(
        &self,
        at: usize,
        bytes: usize,
        now: Stamp,
        is_before: impl Fn(Stamp) -> bool,
    ) -> Result<(), Earlier> {
        self.page(at).each(at, bytes, |trace| trace.read(now, &is_before))
    }

    /// Records a write of bytes of one page, or returns the access that it races with. Reads may come before in more ways
    /// than writes.
    #[inline(always)]
    pub(super) fn write(
        &self,
        at: usize,
        bytes: usize,
        now: Stamp,
        is_before: impl Fn(Stamp) -> bool,
        is_read_before: impl Fn(Stamp) -> bool,
    ) -> Result<(), Earlier> {
        self.page(at).each(at, bytes, |trace| trace.write(now, &is_before, &is_read_before))
    }

    /// The last write of bytes of one page, if there is one.
    #[inline(always)]
    pub(super) fn written(&self, at: usize, bytes: usize) -> Option<Stamp> {
        let unwritten = |trace: &mut Trace| if trace.write == Stamp::NONE { Ok(()) } else { Err(trace.write) };
        self.page(at).each(at, bytes, unwritten).err()
    }

    /// How many copies that have not landed have their source in a page.
    #[inline(always)]
    pub(super) fn flights(&self, at: usize) -> &Cell<u32> {
        &self.page(at).flights
    }

    #[inline(always)]
    fn page(&self, at: usize) -> &Page {
        let number = at / PAGE;
        let recent = &self.recent[number % RECENT];
        let (found, page) = recent.get();
        if found == number {
            // SAFETY: pages are boxed, and stay until the launch ends.
            return unsafe { &*page };
        }
        let page: *const Page = self.searched(number);
        recent.set((number, page));
        // SAFETY: as above.
        unsafe { &*page }
    }

    #[inline(never)]
    fn searched(&self, number: usize) -> *const Page {
        &raw const **self.pages.borrow_mut().entry(number).or_insert_with(|| Box::new(Page::new()))
    }
}

/// What the blocks of a launch share: global memory, as they see it.
pub(super) struct Global {
    /// Whether accesses are recorded.
    pub(super) is_recorded: bool,
    pub(super) record: Record,
    pub(super) places: Places,
    pub(super) notes: RefCell<Notes>,
    pub(super) stores: Stores,
}

impl Global {
    /// For a launch of so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            is_recorded: blocks <= BLOCKS,
            record: Record::new(),
            places: Places::new(),
            notes: RefCell::default(),
            stores: Stores::default(),
        }
    }
}
