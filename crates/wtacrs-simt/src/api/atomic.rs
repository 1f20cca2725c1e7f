//! Atomic operations, relaxed unless their name says otherwise, in the scope of the device (global) or block (shared).
//!
//! They are for integers only: sums of floats would depend on the order of the threads.

use super::memory::Word;
use super::shared::Shared;
use crate::body;

/// An integer that atomics work on: u32, u64.
pub trait Integer: Word + Ord + body::atomic::Atomic {}

impl Integer for u32 {}
impl Integer for u64 {}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// `at` is aligned, readable and writable global memory that is accessed atomically only.
            #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
            #[inline(always)]
            pub unsafe fn $name<T: Integer>(at: *mut T, value: T) -> T {
                // SAFETY: the caller's promise.
                unsafe { body::atomic::global::$name(at, value) }
            }
        )*

        impl<T: Integer> Shared<T> {
            $(
                $(#[$doc])*
                ///
                /// # Safety
                ///
                /// As for [`Shared::read`], except that other threads may access the element atomically.
                #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
                #[inline(always)]
                pub unsafe fn $name(self, i: u32, value: T) -> T {
                    // SAFETY: the caller's promise.
                    unsafe { body::atomic::shared::$name(self.address(i), self.limit(), value) }
                }
            )*
        }
    };
}

operations! {
    /// Adds, wrapping; returns the value before.
    atomic_add;
    /// Keeps the larger; returns the value before.
    atomic_max;
    /// Keeps the smaller; returns the value before.
    atomic_min;
    /// Sets the value's bits; returns the value before.
    atomic_or;
    /// Replaces; returns the value before.
    atomic_exchange;
}

/// Replaces `expected` by `value`; returns the value before, whether replaced or not.
///
/// # Safety
///
/// `at` is aligned, readable and writable global memory that is accessed atomically only.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn compare_exchange<T: Integer>(at: *mut T, expected: T, value: T) -> T {
    // SAFETY: the caller's promise.
    unsafe { body::atomic::global::compare_exchange(at, expected, value) }
}

/// Loads, and orders nothing else.
///
/// # Safety
///
/// `at` is aligned, readable global memory that is accessed atomically only.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_relaxed<T: Integer>(at: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { body::atomic::global::load_relaxed(at) }
}

/// Stores, and orders nothing else.
///
/// # Safety
///
/// `at` is aligned global memory, readable and writable until the launch ends, that is accessed atomically only.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn store_relaxed<T: Integer>(at: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { body::atomic::global::store_relaxed(at, value) }
}

/// Loads. Everything that the storing thread wrote before its [`store_release`] of the value is then visible.
///
/// # Safety
///
/// `at` is aligned, readable global memory that is accessed atomically only.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_acquire<T: Integer>(at: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { body::atomic::global::load_acquire(at) }
}

/// Stores, after everything that this thread wrote before.
///
/// # Safety
///
/// `at` is aligned, writable global memory that is accessed atomically only.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn store_release<T: Integer>(at: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { body::atomic::global::store_release(at, value) }
}
