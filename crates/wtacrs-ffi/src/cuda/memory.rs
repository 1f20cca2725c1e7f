//! Memory of a GPU that the library owns: the state of predictors and caches.

use super::gpu::Gpu;
use crate::arguments::heap;
use crate::boundary::Outcome;
use std::sync::Arc;
use wtacrs_kernels::plan::Memory;

/// Aligned to 256 bytes. Once it is dropped, the context's next allocation frees it.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    gpu: Arc<Gpu>,
    at: *mut u8,
    bytes: usize,
}

// SAFETY: an address and a size; only unsafe functions touch what is there, on their own promises.
unsafe impl Send for DeviceMemory {}
// SAFETY: as above.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    /// `bytes`, more than 0, which begin with `first` and are zero behind it.
    pub(super) fn zeroed(gpu: &Arc<Gpu>, bytes: usize, first: &[u8]) -> Outcome<Self> {
        heap::check("a copy of device memory", &[(bytes, 1)])?;
        let mut contents = first.to_vec();
        contents.resize(bytes, 0);
        Self::new(gpu, bytes, &contents)
    }

    /// `bytes`, more than 0, which begin with `first` and are uninitialised behind it.
    pub(super) fn new(gpu: &Arc<Gpu>, bytes: usize, first: &[u8]) -> Outcome<Self> {
        Ok(Self { gpu: Arc::clone(gpu), at: gpu.allocate(bytes, first)?, bytes })
    }

    /// Some bytes from `offset` on.
    pub(super) fn part(&self, offset: u64, bytes: u64) -> Memory {
        debug_assert!(offset + bytes <= self.bytes as u64);
        Memory { at: self.at.wrapping_add(offset as usize), bytes }
    }

    /// Whose memory it is.
    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; only launches of this object have used it.
        unsafe { self.gpu.end(self.at, self.bytes) };
    }
}
