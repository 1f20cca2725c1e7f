//! Special registers.

use core::arch::nvptx;

/// A special register of three dimensions.
macro_rules! three {
    ($x:ident, $y:ident, $z:ident) => {
        // SAFETY: reads registers that every thread has.
        unsafe { [nvptx::$x() as u32, nvptx::$y() as u32, nvptx::$z() as u32] }
    };
}

#[inline(always)]
pub(crate) fn thread() -> u32 {
    // SAFETY: reads a register that every thread has.
    unsafe { nvptx::_thread_idx_x() as u32 }
}

#[inline(always)]
pub(crate) fn block_threads() -> u32 {
    // SAFETY: reads a register that every thread has.
    unsafe { nvptx::_block_dim_x() as u32 }
}

#[inline(always)]
pub(crate) fn block() -> [u32; 3] {
    three!(_block_idx_x, _block_idx_y, _block_idx_z)
}

#[inline(always)]
pub(crate) fn grid() -> [u32; 3] {
    three!(_grid_dim_x, _grid_dim_y, _grid_dim_z)
}

/// A comment, which `xtask`'s ptx::text makes a directive of: rustc has no attribute for it.
#[inline(always)]
pub(crate) fn at_most<const THREADS: u32>() {
    // SAFETY: a comment.
    unsafe {
        core::arch::asm!("// most threads: {threads}", threads = const THREADS, options(nostack, preserves_flags))
    }
}
