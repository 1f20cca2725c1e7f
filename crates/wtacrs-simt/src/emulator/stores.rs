//! Relaxed atomic stores that have not reached the device's memory yet, so that other blocks see them late and in another
//! order than they were made in.
//!
//! A store waits here in random orders of threads only. It arrives at a random moment, before a fence of its block, before its
//! own block accesses the address again, one at a time while no thread can go on, and at the end of the launch.

use super::order::Order;
use super::release::{Known, Notes};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A store under way.
pub(super) struct Store {
    /// The number of its block.
    pub(super) block: u32,
    pub(super) at: usize,
    /// 4 or 8.
    pub(super) bytes: usize,
    pub(super) value: u64,
    pub(super) note: Option<Rc<Known>>,
}

impl Store {
    fn meets(&self, at: usize, bytes: usize) -> bool {
        self.at < at + bytes && at < self.at + self.bytes
    }

    pub(super) fn arrive(self, notes: &RefCell<Notes>) {
        // SAFETY: aligned and writable, as the kernel promised when it stored: until the launch ends.
        unsafe {
            match self.bytes {
                4 => AtomicU32::from_ptr(self.at as *mut u32).store(self.value as u32, Relaxed),
                _ => AtomicU64::from_ptr(self.at as *mut u64).store(self.value, Relaxed),
            }
        }
        notes.borrow_mut().store(self.at, self.note);
    }
}

/// The stores of a launch that are under way, those of one address in order.
#[derive(Default)]
pub(super) struct Stores {
    /// How many wait, for every access to ask at once.
    count: Cell<usize>,
    waiting: RefCell<Vec<Store>>,
}

impl Stores {
    pub(super) fn push(&self, store: Store) {
        self.waiting.borrow_mut().push(store);
        self.count.set(self.count.get() + 1);
    }

    /// Those that meet an access of their own block arrive.
    #[inline(always)]
    pub(super) fn before_access(&self, block: u32, at: usize, bytes: usize, notes: &RefCell<Notes>) {
        if self.count.get() != 0 {
            self.arrive_if(notes, |store| store.block == block && store.meets(at, bytes));
        }
    }

    /// Those of a block arrive.
    pub(super) fn before_fence(&self, block: u32, notes: &RefCell<Notes>) {
        if self.count.get() != 0 {
            self.arrive_if(notes, |store| store.block == block);
        }
    }

    /// All arrive.
    pub(super) fn all(&self, notes: &RefCell<Notes>) {
        if self.count.get() != 0 {
            self.arrive_if(notes, |_| true);
        }
    }

    /// One of them may arrive, before an atomic operation.
    pub(super) fn sometimes(&self, order: &mut Order, notes: &RefCell<Notes>) {
        if self.count.get() != 0 && order.below(4) == 0 {
            self.one(order, notes);
        }
    }

    /// One of them arrives, if there is any, with those of its block and address; returns whether there was one.
    pub(super) fn one(&self, order: &mut Order, notes: &RefCell<Notes>) -> bool {
        let count = self.count.get();
        if count == 0 {
            return false;
        }
        let (block, at, bytes) = {
            let waiting = self.waiting.borrow();
            let store = &waiting[order.below(count)];
            (store.block, store.at, store.bytes)
        };
        self.before_access(block, at, bytes, notes);
        true
    }

    #[cold]
    fn arrive_if(&self, notes: &RefCell<Notes>, arrives: impl Fn(&Store) -> bool) {
        let arriving: Vec<Store> = self.waiting.borrow_mut().extract_if(.., |store| arrives(store)).collect();
        self.count.set(self.count.get() - arriving.len());
        for store in arriving {
            store.arrive(notes);
        }
    }
}
