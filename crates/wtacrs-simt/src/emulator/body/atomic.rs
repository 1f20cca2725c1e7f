//! Atomic operations: those of the host, whose memory a kernel shares with the program that launches it.

use super::{memory, thread as waiting};
use crate::emulator::fault::{Fault, Place};
use crate::emulator::machine::{Block, Polls, Thread, current};
use crate::emulator::release::Known;
use crate::emulator::shadow::Access;
use crate::emulator::stores::Store;
use crate::types::Address;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// After so many polls that found one value at one place, the thread must let others change something.
const POLLS: u32 = 1 << 16;
/// After so many polls that found one value at one place, the thread hangs, whatever others do.
const MOST_POLLS: u32 = 1 << 24;

/// An integer with an atomic type of its own.
pub trait Atomic: Copy + Eq + Ord {
    unsafe fn apply(at: *mut Self, change: Change<Self>) -> Self;
    unsafe fn load(at: *const Self) -> Self;
    fn widened(self) -> u64;
}

/// What an operation does to the value.
#[derive(Clone, Copy)]
pub enum Change<T> {
    Add(T),
    Max(T),
    Min(T),
    Or(T),
    Exchange(T),
    CompareExchange(T, T),
}

macro_rules! atomics {
    ($($integer:ty, $atomic:ty;)*) => {
        $(
            impl Atomic for $integer {
                #[inline(always)]
                unsafe fn apply(at: *mut Self, change: Change<Self>) -> Self {
                    // SAFETY: aligned as checked; the caller promises the rest.
                    let at = unsafe { <$atomic>::from_ptr(at) };
                    match change {
                        Change::Add(value) => at.fetch_add(value, Ordering::Relaxed),
                        Change::Max(value) => at.fetch_max(value, Ordering::Relaxed),
                        Change::Min(value) => at.fetch_min(value, Ordering::Relaxed),
                        Change::Or(value) => at.fetch_or(value, Ordering::Relaxed),
                        Change::Exchange(value) => at.swap(value, Ordering::Relaxed),
                        Change::CompareExchange(expected, value) => {
                            match at.compare_exchange(expected, value, Ordering::Relaxed, Ordering::Relaxed) {
                                Ok(before) | Err(before) => before,
                            }
                        }
                    }
                }

                #[inline(always)]
                unsafe fn load(at: *const Self) -> Self {
                    // SAFETY: aligned as checked; the caller promises the rest.
                    unsafe { <$atomic>::from_ptr(at.cast_mut()) }.load(Ordering::Relaxed)
                }

                #[inline(always)]
                fn widened(self) -> u64 {
                    u64::from(self)
                }
            }
        )*
    };
}

atomics! {
    u32, AtomicU32;
    u64, AtomicU64;
}

/// Counts a poll that found the value of the last one. A thread that polls for ever without [`crate::sync::spin`] fails.
#[inline(always)]
fn polled(thread: &Thread, at: usize, value: u64, place: Place) {
    let mut polls = thread.polls.get();
    if (polls.at, polls.value) != (at, value) {
        polls = Polls { at, value, count: 0, others: thread.others() };
    }
    polls.count += 1;
    if polls.count.is_multiple_of(POLLS) {
        polls.others = others_went_on(thread, &polls, place);
    }
    thread.polls.set(polls);
}

/// Returns how much others have done, which is more than before; they run first if need be. If none of them does anything, the
/// thread polls for a change that never comes, and fails.
#[cold]
fn others_went_on(thread: &Thread, polls: &Polls, place: Place) -> u64 {
    if thread.others() == polls.others {
        waiting::let_others_run(thread, place);
    }
    let now = thread.others();
    if now == polls.others || polls.count >= MOST_POLLS {
        thread.fail(Fault::Spin { culprit: thread.culprit(place) });
    }
    now
}

macro_rules! operations {
    ($($name:ident, $change:ident;)*) => {
        pub(crate) mod global {
            use super::*;

            #[track_caller]
            #[inline(always)]
            unsafe fn apply<T: Atomic>(at: *mut T, change: Change<T>) -> T {
                let place = Place(Location::caller());
                memory::check(at as usize, size_of::<T>());
                let thread = current();
                let (block, bytes) = (thread.block(), size_of::<T>());
                thread.accesses_atomically(at as usize, bytes, Access::Atomic, place);
                block.own_stores_arrive(at as usize, bytes);
                // SAFETY: the caller's promise.
                let before = unsafe { T::apply(at, change) };
                let changes = match change {
                    Change::Add(value) | Change::Or(value) => value.widened() != 0,
                    Change::Max(value) => value > before,
                    Change::Min(value) => value < before,
                    Change::Exchange(value) => value != before,
                    Change::CompareExchange(expected, value) => before == expected && value != before,
                };
                match change {
                    Change::CompareExchange(expected, _) if before != expected => {
                        thread.has_loaded(&block.global.notes, at as usize);
                    }
                    _ => thread.has_changed(&block.global.notes, at as usize),
                }
                if changes {
                    thread.changed();
                } else if matches!(change, Change::CompareExchange(..)) {
                    polled(thread, at as usize, before.widened(), place);
                }
                before
            }

            $(
                #[track_caller]
                #[inline(never)]
                pub(crate) unsafe fn $name<T: Atomic>(at: *mut T, value: T) -> T {
                    // SAFETY: the caller's promise.
                    unsafe { apply(at, Change::$change(value)) }
                }
            )*

            #[track_caller]
            #[inline(never)]
            pub(crate) unsafe fn compare_exchange<T: Atomic>(at: *mut T, expected: T, value: T) -> T {
                // SAFETY: the caller's promise.
                unsafe { apply(at, Change::CompareExchange(expected, value)) }
            }

            #[track_caller]
            #[inline(always)]
            unsafe fn load<T: Atomic>(at: *const T) -> T {
                let place = Place(Location::caller());
                memory::check(at as usize, size_of::<T>());
                let thread = current();
                let (block, bytes) = (thread.block(), size_of::<T>());
                thread.accesses_atomically(at as usize, bytes, Access::Read, place);
                block.own_stores_arrive(at as usize, bytes);
                // SAFETY: the caller's promise.
                let value = unsafe { T::load(at) };
                thread.has_loaded(&block.global.notes, at as usize);
                polled(thread, at as usize, value.widened(), place);
                value
            }

            #[track_caller]
            #[inline(always)]
            unsafe fn begin_store<T: Atomic>(
                at: *mut T,
                value: T,
                note: impl FnOnce(&Thread) -> Option<Rc<Known>>,
            ) -> (&'static Block, Store) {
                let (at, bytes) = (at as usize, size_of::<T>());
                memory::check(at, bytes);
                let thread = current();
                thread.accesses_atomically(at, bytes, Access::Atomic, Place(Location::caller()));
                thread.changed();
                let block = thread.block();
                (block, Store { block: block.number, at, bytes, value: value.widened(), note: note(thread) })
            }

            #[track_caller]
            #[inline(never)]
            pub(crate) unsafe fn load_relaxed<T: Atomic>(at: *const T) -> T {
                // SAFETY: the caller's promise.
                unsafe { load(at) }
            }

            #[track_caller]
            #[inline(never)]
            pub(crate) unsafe fn store_relaxed<T: Atomic>(at: *mut T, value: T) {
                // SAFETY: the caller's promise.
                let (block, store) = unsafe { begin_store(at, value, Thread::note) };
                if block.order.borrow_mut().delays() {
                    // SAFETY: the caller's promise. AddressSanitizer sees a stray access here, not when the store arrives.
                    std::hint::black_box(unsafe { T::load(at) });
                    block.global.stores.push(store);
                } else {
                    block.own_stores_arrive(store.at, store.bytes);
                    store.arrive(&block.global.notes);
                }
            }

            #[track_caller]
            #[inline(never)]
            pub(crate) unsafe fn load_acquire<T: Atomic>(at: *const T) -> T {
                // SAFETY: the caller's promise.
                let value = unsafe { load(at) };
                current().acquires();
                value
            }

            #[track_caller]
            #[inline(never)]
            pub(crate) unsafe fn store_release<T: Atomic>(at: *mut T, value: T) {
                // SAFETY: the caller's promise.
                let (block, store) = unsafe { begin_store(at, value, |thread| Some(thread.releases())) };
                store.arrive(&block.global.notes);
            }
        }

        pub(crate) mod shared {
            use super::*;

            $(
                #[track_caller]
                #[inline(never)]
                pub(crate) unsafe fn $name<T: Atomic>(address: Address, limit: Address, value: T) -> T {
                    let place = Place(Location::caller());
                    let thread = current();
                    thread.pause_sometimes();
                    let offset = memory::shared_offset(thread, address.0, limit.0, size_of::<T>() as u32, place);
                    let block = thread.block();
                    thread.changed();
                    thread.access(offset, size_of::<T>() as u32, Access::Atomic, place);
                    thread.has_changed(&block.notes, offset as usize);
                    // SAFETY: within the block's bytes and aligned, as checked.
                    unsafe { T::apply(block.shared().add(offset as usize).cast(), Change::$change(value)) }
                }
            )*
        }
    };
}

operations! {
    atomic_add, Add;
    atomic_max, Max;
    atomic_min, Min;
    atomic_or, Or;
    atomic_exchange, Exchange;
}
