//! A thread's accesses to global memory: each is recorded, and is a fault if another one races with it.

use super::clocks::CLOCKS;
use super::fault::{Culprit, Fault, Place};
use super::global::{Earlier, Stamp};
use super::machine::{Block, Thread};
use super::release::{Insight, Known, Notes, Passed};
use super::shadow::Access;
use super::shape::block_index;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

impl Thread {
    /// A plain load of bytes of global memory.
    #[inline(always)]
    pub(super) fn reads(&self, at: usize, bytes: usize, place: Place) {
        self.block().own_stores_arrive(at, bytes);
        self.record(at, bytes, Access::Read, false, place);
    }

    /// A load by the read-only path.
    #[inline(always)]
    pub(super) fn reads_constant(&self, at: usize, bytes: usize, place: Place) {
        let global = &self.block().global;
        if global.is_recorded
            && let Some(write) = global.record.written(at, bytes)
        {
            let (culprit, writer) = (self.culprit(place), self.culprit_of(write));
            self.fail(Fault::NotConstant { culprit, address: at as u64, writer });
        }
        self.record(at, bytes, Access::Read, false, place);
    }

    /// A plain store.
    #[inline(always)]
    pub(super) fn writes(&self, at: usize, bytes: usize, place: Place) {
        self.changed();
        self.block().own_stores_arrive(at, bytes);
        self.record(at, bytes, Access::Write, false, place);
    }

    /// An atomic operation: a load, or a store or change. Others run first now and then, and stores arrive.
    #[inline(never)]
    pub(super) fn accesses_atomically(&self, at: usize, bytes: usize, access: Access, place: Place) {
        self.pause_sometimes();
        let block = self.block();
        let global = &block.global;
        global.stores.sometimes(&mut block.order.borrow_mut(), &global.notes);
        self.record(at, bytes, access, true, place);
    }

    /// A copy reads its source, from now until it lands.
    pub(super) fn departs(&self, from: usize, bytes: usize, place: Place) {
        let global = &self.block().global;
        if global.is_recorded && bytes != 0 {
            self.reads(from, bytes, place);
            let flights = global.record.flights(from);
            flights.set(flights.get() + 1);
        }
    }

    /// A copy has read its source.
    pub(super) fn lands(&self, from: usize, bytes: usize, place: Place) {
        let global = &self.block().global;
        if global.is_recorded && bytes != 0 {
            let flights = global.record.flights(from);
            flights.set(flights.get() - 1);
            self.record(from, bytes, Access::Read, false, place);
        }
    }

    #[inline(always)]
    fn record(&self, at: usize, bytes: usize, access: Access, atomic: bool, place: Place) {
        let block = self.block();
        let global = &*block.global;
        if !global.is_recorded {
            return;
        }
        let clock = block.shadow.clocks.now_in_global(self.index);
        let now = Stamp::new(clock, block.number, self.index, global.places.number(place), atomic);
        let recorded = if access == Access::Read {
            block.shadow.clocks.reads(self.index);
            global.record.read(at, bytes, now, |stamp| self.is_after(stamp))
        } else {
            if global.record.flights(at).get() != 0 {
                self.check_sources(at, bytes, place);
            }
            global.record.write(at, bytes, now, |stamp| self.is_after(stamp), |stamp| self.is_after_read(stamp))
        };
        if let Err(earlier) = recorded {
            self.refuse_race(at, earlier, access, atomic, place);
        }
    }

    /// Whether the access that left the stamp comes before everything that the thread does now.
    #[inline(always)]
    fn is_after(&self, stamp: Stamp) -> bool {
        let block = self.block();
        // The clocks of its block have ended: nothing is known any more.
        if stamp.clock() == CLOCKS - 1 {
            return true;
        }
        if stamp.block() == block.number {
            let clocks = &block.shadow.clocks;
            if stamp.thread() == self.index
                || stamp.clock() < clocks.at_barrier()
                || clocks.knows(self.index, stamp.thread(), stamp.clock())
            {
                return true;
            }
        }
        let (own, common) = (self.insight.borrow(), block.common.borrow());
        own.covers(&common, stamp.block(), stamp.thread(), stamp.clock())
    }

    /// Whether a read that left the stamp comes before everything that the thread writes now.
    #[inline(always)]
    fn is_after_read(&self, stamp: Stamp) -> bool {
        let block = self.block();
        let is_of_warp = stamp.block() == block.number && stamp.thread() / 32 == self.index / 32;
        is_of_warp && stamp.clock() < block.shadow.clocks.at_collective(self.index) || self.is_after(stamp)
    }

    /// Ends the launch if a write meets the source of a copy that has not landed.
    #[cold]
    fn check_sources(&self, at: usize, bytes: usize, place: Place) {
        let of_thread = |issuer: &Thread| {
            let flights = issuer.flights.borrow();
            let met = flights.iter().find(|flight| flight.reads(at, bytes));
            met.map(|flight| issuer.culprit(flight.place))
        };
        let blocks = self.block().residents.borrow().clone();
        let of_block = |block: Rc<Block>| block.threads.iter().find_map(of_thread);
        if let Some(issuer) = blocks.iter().filter_map(Weak::upgrade).find_map(of_block) {
            let culprit = self.culprit(place);
            self.fail(Fault::CopySource { culprit, address: at as u64, issuer });
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse_race(&self, at: usize, (stamp, how): Earlier, access: Access, atomic: bool, place: Place) -> ! {
        let now = match (access, atomic) {
            (Access::Read, false) => "read",
            (Access::Read, true) => "read atomically",
            (_, false) => "written",
            (_, true) => "changed atomically",
        };
        let (culprit, other) = (self.culprit(place), self.culprit_of(stamp));
        let how = format!("{how} by {other}, and {now} here");
        self.fail(Fault::GlobalRace { culprit, address: at as u64, other, how })
    }

    fn culprit_of(&self, stamp: Stamp) -> Culprit {
        let block = self.block();
        let index = block_index(block.grid, stamp.block().into());
        Culprit { block: index, thread: stamp.thread(), place: block.global.places.place(stamp.place()) }
    }

    /// A fence: what the thread has read is known, stores of its block arrive, and later stores say what came before.
    pub(super) fn fences(&self) {
        let block = self.block();
        block.global.stores.before_fence(block.number, &block.global.notes);
        self.acquires();
        self.insight.borrow_mut().fence(&block.common.borrow(), &self.passed());
        block.has_news.set(true);
    }

    /// Knows what the values say that it has read.
    pub(super) fn acquires(&self) {
        let block = self.block();
        block.shadow.clocks.lift();
        self.insight.borrow_mut().acquire(&block.common.borrow());
        block.has_news.set(true);
    }

    /// The note of a release that belongs to one store. Stores of the block arrive before.
    pub(super) fn releases(&self) -> Rc<Known> {
        let block = self.block();
        block.global.stores.before_fence(block.number, &block.global.notes);
        block.shadow.clocks.lift();
        self.insight.borrow().release(&block.common.borrow(), &self.passed())
    }

    /// Clocks that all accesses so far are below. They have been lifted just before.
    fn passed(&self) -> Passed {
        let block = self.block();
        let clocks = &block.shadow.clocks;
        Passed {
            block: block.number,
            thread: self.index,
            at_barrier: clocks.at_barrier(),
            clock: clocks.now_in_global(self.index),
            of_warp: clocks.of_warp(self.index),
        }
    }

    /// The note that a relaxed store leaves.
    pub(super) fn note(&self) -> Option<Rc<Known>> {
        self.insight.borrow().note(&self.block().common.borrow())
    }

    /// An atomic operation has changed a value, or stored it after reading it.
    pub(super) fn has_changed(&self, notes: &RefCell<Notes>, at: usize) {
        let note = self.note();
        let mut own = self.insight.borrow_mut();
        notes.borrow_mut().change(at, &mut own, note);
        self.has_read(&own);
    }

    /// An atomic operation has loaded a value.
    pub(super) fn has_loaded(&self, notes: &RefCell<Notes>, at: usize) {
        let mut own = self.insight.borrow_mut();
        notes.borrow().load(at, &mut own);
        self.has_read(&own);
    }

    fn has_read(&self, own: &Insight) {
        if own.is_new() {
            self.block().has_news.set(true);
        }
    }
}

impl Block {
    /// Stores of the block that meet an access arrive.
    #[inline(always)]
    pub(super) fn own_stores_arrive(&self, at: usize, bytes: usize) {
        self.global.stores.before_access(self.number, at, bytes, &self.global.notes);
    }

    /// All threads have come to a barrier.
    pub(super) fn share(&self) {
        if self.has_news.replace(false) {
            let mut common = self.common.borrow_mut();
            self.threads.iter().for_each(|thread| common.share(&mut thread.insight.borrow_mut()));
        }
    }

    /// Threads of a warp have come to a barrier.
    pub(super) fn share_among<I: Iterator<Item = u32>>(&self, threads: impl Fn() -> I) {
        if !self.has_news.get() {
            return;
        }
        let (common, mut all) = (self.common.borrow(), Insight::default());
        for index in threads() {
            common.share_among(&mut all, &self.threads[index as usize].insight.borrow());
        }
        if all.is_new() {
            threads().for_each(|index| *self.threads[index as usize].insight.borrow_mut() = all.clone());
        }
    }
}
