//! Handles: numbers that look like pointers and are never followed.
//!
//! A handle is looked up in the table of its kind. So a handle that was destroyed, belongs to another kind or was never
//! returned is an error and not undefined behaviour, and an object lives until the calls that use it have returned.

use super::failure::{Failure, Outcome};
use super::status::{WTACRS_STATUS_INVALID_HANDLE, WTACRS_STATUS_NULL_POINTER};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Numbers are this far apart, so that handles look aligned.
const STEP: usize = 64;

/// One for all kinds: no two objects ever have the same number.
static NEXT: AtomicUsize = AtomicUsize::new(STEP);

/// The living objects of one kind.
pub(crate) struct Registry<T> {
    what: &'static str,
    objects: RwLock<BTreeMap<usize, Arc<T>>>,
}

impl<T> Registry<T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, objects: RwLock::new(BTreeMap::new()) }
    }

    /// The new object's handle, of the C type `H`.
    pub(crate) fn insert<H>(&self, object: T) -> *mut H {
        let number = NEXT.fetch_add(STEP, Ordering::Relaxed);
        // A panic inside the map's own code is all that poisons: the map is whole even then.
        self.objects.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(object));
        core::ptr::without_provenance_mut(number)
    }

    pub(crate) fn get<H>(&self, handle: *const H) -> Outcome<Arc<T>> {
        if handle.is_null() {
            return Err(Failure::new(WTACRS_STATUS_NULL_POINTER, format!("the {} is NULL", self.what)));
        }
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&handle.addr()).cloned().ok_or_else(|| self.unknown())
    }

    /// Takes the object out of the table. NULL is allowed and does nothing.
    pub(crate) fn remove<H>(&self, handle: *const H) -> Outcome {
        if handle.is_null() {
            return Ok(());
        }
        let removed = self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.addr());
        // Dropped here, after the lock.
        removed.map(drop).ok_or_else(|| self.unknown())
    }

    fn unknown(&self) -> Failure {
        let message = format!("there is no such {}: it was destroyed, never created, or is of another kind", self.what);
        Failure::new(WTACRS_STATUS_INVALID_HANDLE, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_given_twice_and_kinds_are_apart() {
        let (words, others) = (Registry::new("word"), Registry::new("other"));
        let first: *mut u8 = words.insert("first");
        let second: *mut u8 = words.insert("second");
        let other: *mut u8 = others.insert(());
        assert_eq!(*words.get(second).expect("living"), "second");
        let held = words.get(first).expect("living");
        words.remove(first).expect("living");
        assert_eq!(*held, "first");
        let third: *mut u8 = words.insert("third");
        assert_ne!(first, third);
        for refused in [first, other, core::ptr::dangling_mut()] {
            assert_eq!(words.get(refused).expect_err("refused").status, WTACRS_STATUS_INVALID_HANDLE);
            assert_eq!(words.remove(refused).expect_err("refused").status, WTACRS_STATUS_INVALID_HANDLE);
        }
        assert_eq!(words.get::<u8>(core::ptr::null()).expect_err("refused").status, WTACRS_STATUS_NULL_POINTER);
        words.remove::<u8>(core::ptr::null()).expect("nothing to do");
    }
}
