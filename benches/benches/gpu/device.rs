//! A GPU to measure on: memory, a stream, and the time between two events on it.

use cudarc::driver::result;
use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream};
use std::time::Duration;
use wtacrs_kernels::launch::driver::{Driver, OnStream, Stream};
use wtacrs_kernels::plan::Memory;

/// The message of every failed call: a bench cannot go on without its GPU.
const WORKS: &str = "the GPU works";

/// The first GPU, with a stream of its own.
pub(crate) struct Gpu {
    pub(crate) driver: Driver,
    stream: CUstream,
    start: CUevent,
    end: CUevent,
}

/// Device memory, freed when dropped.
pub(crate) struct Buffer {
    at: u64,
    pub(crate) bytes: usize,
}

impl Gpu {
    pub(crate) fn new(driver: Driver) -> Self {
        let event = || result::event::create(CUevent_flags::CU_EVENT_DEFAULT).expect(WORKS);
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).expect(WORKS);
        Self { driver, stream, start: event(), end: event() }
    }

    pub(crate) fn stream(&self) -> CUstream {
        self.stream
    }

    pub(crate) fn launcher(&self) -> OnStream<'_> {
        // SAFETY: the stream lives as long as `self`, in the driver's context, which is current on the only thread.
        unsafe { self.driver.on(Stream(self.stream.cast())) }
    }

    /// The time that the GPU takes for the work that `enqueue` puts on the stream.
    pub(crate) fn time(&self, enqueue: impl FnOnce()) -> Duration {
        // SAFETY: stream and events live in the current context.
        unsafe {
            result::event::record(self.start, self.stream).expect(WORKS);
            enqueue();
            result::event::record(self.end, self.stream).expect(WORKS);
            result::event::synchronize(self.end).expect(WORKS);
            let milliseconds = result::event::elapsed(self.start, self.end).expect(WORKS);
            Duration::from_secs_f64(f64::from(milliseconds) / 1e3)
        }
    }

    /// A buffer with the same bytes.
    pub(crate) fn copy_of(&self, buffer: &Buffer) -> Buffer {
        let copy = Buffer::new(buffer.bytes);
        self.copy(&copy, buffer, buffer.bytes);
        copy
    }

    /// Enqueues a copy.
    pub(crate) fn copy(&self, to: &Buffer, from: &Buffer, bytes: usize) {
        assert!(bytes <= to.bytes && bytes <= from.bytes, "room for the copy");
        // SAFETY: both are device memory of so many bytes at least.
        unsafe { result::memcpy_dtod_async(to.at, from.at, bytes, self.stream) }.expect(WORKS);
    }
}

impl Buffer {
    pub(crate) fn new(bytes: usize) -> Self {
        // SAFETY: a context is current; `drop` frees it.
        Self { at: unsafe { result::malloc_sync(bytes.max(1)) }.expect("enough device memory"), bytes }
    }

    /// A buffer with the values of `block` over and over.
    pub(crate) fn repeated<T: Copy>(bytes: usize, block: &[T]) -> Self {
        let (buffer, mut offset) = (Self::new(bytes), 0);
        while offset < bytes {
            let values = ((bytes - offset) / size_of::<T>()).min(block.len());
            // SAFETY: so many values fit after the offset.
            unsafe { result::memcpy_htod_sync(buffer.at + offset as u64, &block[..values]) }.expect(WORKS);
            offset += values * size_of::<T>();
        }
        // A copy of pageable memory may return before it has arrived, and the stream of runs does not wait for it.
        result::ctx::synchronize().expect(WORKS);
        buffer
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory { at: self.pointer(), bytes: self.bytes as u64 }
    }

    pub(crate) fn pointer<T>(&self) -> *mut T {
        self.at as *mut T
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once; freeing waits for the work that uses it.
        let _ = unsafe { result::free_sync(self.at) };
    }
}
