//! More memory than the machine has, for addresses far apart: only written pages exist.
#![cfg(target_os = "linux")]
#![allow(dead_code, unreachable_pub)]

/// Zeroed memory. No machine but those of the host sees it.
pub struct Sparse {
    at: *mut u8,
    bytes: usize,
}

impl Sparse {
    pub fn new(bytes: usize) -> Self {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, which nothing else uses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags | libc::MAP_NORESERVE, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "there is room for addresses");
        Self { at: at.cast(), bytes }
    }

    /// A place for a value, `at` values from the begin.
    pub fn place<T>(&self, at: usize) -> *mut T {
        assert!((at + 1) * size_of::<T>() <= self.bytes);
        self.at.wrapping_add(at * size_of::<T>()).cast()
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no longer used.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}
