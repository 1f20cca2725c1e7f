//! Saved and scratch memory on the CPU: its alignment, and checked memory as numbers.

use crate::arguments::{Array, Number};
use wtacrs_core::product::SavedLayout;

/// Alignment of saved and scratch memory.
pub(super) const ALIGNMENT: usize = SavedLayout::ALIGNMENT;

/// Checked memory as numbers to read.
///
/// # Safety
///
/// It is aligned to the numbers and readable, and nobody writes to it as long as the numbers live.
pub(super) unsafe fn numbers<'a, A: Number>(memory: &Array<u8>) -> &'a [A] {
    let bytes = memory.region().bytes;
    if bytes == 0 {
        return &[];
    }
    // SAFETY: `Array` has checked for NULL and size; any bytes are a number; the caller has the rest.
    unsafe { core::slice::from_raw_parts(memory.as_ptr().cast(), bytes / size_of::<A>()) }
}

/// Checked memory as numbers to write, such as scratch memory.
///
/// # Safety
///
/// It is aligned to the numbers and writable, and nobody else uses it as long as the numbers live.
pub(super) unsafe fn numbers_mut<'a, A: Number>(memory: &Array<u8>) -> &'a mut [A] {
    let bytes = memory.region().bytes;
    if bytes == 0 {
        return &mut [];
    }
    // SAFETY: as in `numbers`.
    unsafe { core::slice::from_raw_parts_mut(memory.as_ptr().cast(), bytes / size_of::<A>()) }
}

const _: () = assert!(ALIGNMENT.is_multiple_of(align_of::<f64>()));
