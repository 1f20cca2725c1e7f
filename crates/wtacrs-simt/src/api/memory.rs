//! Global memory, by pointers and in accesses of 1 to 16 bytes.
//!
//! A plain `*pointer` works as well. These functions fix the instruction, and the emulator checks the alignment that a GPU
//! demands.

use crate::body;

pub use crate::types::{U32x2, U32x4};

/// A type that one instruction loads or stores: u8, u16, u32, u64, f32, f64, [`U32x2`], [`U32x4`].
pub trait Word: Copy + 'static + body::memory::Access {}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}
impl Word for f32 {}
impl Word for f64 {}
impl Word for U32x2 {}
impl Word for U32x4 {}

/// Loads from global memory.
///
/// # Safety
///
/// `from` is aligned to its type and readable.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load<T: Word>(from: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { body::memory::load(from) }
}

/// Loads through the read-only path from global memory that does not change while the kernel runs.
///
/// # Safety
///
/// `from` is aligned to its type and readable, and no thread of the launch writes it.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_constant<T: Word>(from: *const T) -> T {
    // SAFETY: the caller's promise.
    unsafe { body::memory::load_constant(from) }
}

/// Stores to global memory.
///
/// # Safety
///
/// `to` is aligned to its type and writable, and no other thread accesses it without an ordering between.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn store<T: Word>(to: *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { body::memory::store(to, value) }
}
