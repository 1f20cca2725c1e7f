//! Barriers and fences.

use crate::body;

/// Waits for all threads of the block (bar.sync 0); what they wrote to shared and global memory before is then visible
/// to the block. All threads of the block call it, from the same place.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn barrier() {
    body::thread::barrier();
}

/// Waits for the lanes of `mask`, which all name the same mask and are in it, and orders their memory accesses.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn warp_barrier(mask: u32) {
    body::thread::warp_barrier(mask);
}

/// Orders this thread's earlier accesses before its later ones, as the whole device sees them (fence.acq_rel.gpu).
#[inline(always)]
pub fn device_fence() {
    body::thread::device_fence();
}

/// Lets others run; to be called in a loop that waits for another block. Only a launch whose blocks are all resident may
/// wait so, and the emulator reports it anywhere else.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn spin() {
    body::thread::spin();
}

/// Ends the kernel with an error.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn trap() -> ! {
    body::thread::trap()
}
