//! A block's dynamic shared memory, in typed windows.
//!
//! Every block of a launch has the same number of bytes, aligned to 1024 and of undefined content. A kernel cuts them into
//! windows:
//!
//! ```text
//! let sums = Shared::<f32>::new(0, 32);
//! let flags = Shared::<u32>::new(sums.end(), 64);
//! ```
//!
//! The emulator checks every access: its window, the launch's bytes, its alignment, and copies that have not landed.

use super::memory::Word;
use crate::body;
use core::marker::PhantomData;

pub use crate::types::Address;

/// `len` elements of T in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shared<T> {
    /// In bytes, from the block's first byte.
    offset: u32,
    len: u32,
    element: PhantomData<*mut T>,
}

impl<T: Word> Shared<T> {
    /// The window of `len` elements that begins `offset` bytes into the block's shared memory; `offset` is a multiple
    /// of T's alignment.
    #[inline(always)]
    pub const fn new(offset: u32, len: u32) -> Self {
        Self { offset, len, element: PhantomData }
    }

    /// How many elements it has.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.len
    }

    /// Whether it has no elements.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The first byte after it, rounded up to 16: where a next window may begin.
    #[inline(always)]
    pub const fn end(self) -> u32 {
        (self.offset + self.len * size_of::<T>() as u32).next_multiple_of(16)
    }

    /// Element `i`.
    ///
    /// # Safety
    ///
    /// `i` < `len`; the window lies in the launch's shared memory; no other thread writes the element without a
    /// barrier between.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    #[inline(always)]
    pub unsafe fn read(self, i: u32) -> T {
        // SAFETY: the caller's promise.
        unsafe { body::memory::read_shared(self.address(i), self.limit()) }
    }

    /// Element `i` becomes `value`.
    ///
    /// # Safety
    ///
    /// As for [`Self::read`], and no other thread reads the element without a barrier between.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    #[inline(always)]
    pub unsafe fn write(self, i: u32, value: T) {
        // SAFETY: the caller's promise.
        unsafe { body::memory::write_shared(self.address(i), self.limit(), value) }
    }

    /// The element at a place in the window.
    ///
    /// # Safety
    ///
    /// As for [`Self::read`]; `at` is aligned to T and lies in the window.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    #[inline(always)]
    pub unsafe fn read_at(self, at: Address) -> T {
        // SAFETY: the caller's promise.
        unsafe { body::memory::read_shared(at, self.limit()) }
    }

    /// The element at a place in the window becomes `value`.
    ///
    /// # Safety
    ///
    /// As for [`Self::write`]; `at` is aligned to T and lies in the window.
    #[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
    #[inline(always)]
    pub unsafe fn write_at(self, at: Address, value: T) {
        // SAFETY: the caller's promise.
        unsafe { body::memory::write_shared(at, self.limit(), value) }
    }

    /// Where element `i` lies.
    #[inline(always)]
    pub fn address(self, i: u32) -> Address {
        Address(body::memory::shared_base() + self.offset + i * size_of::<T>() as u32)
    }

    /// The first byte after the window's last element.
    #[inline(always)]
    pub(crate) fn limit(self) -> Address {
        self.address(self.len)
    }
}
