//! Saved and scratch memory on the CPU: sizes and alignment, and checked memory as numbers.

use crate::arguments::{Array, Dtype, Number, with_element};
use crate::boundary::status::WTACRS_STATUS_SIZE_OVERFLOW;
use crate::boundary::{Failure, Outcome};
use wtacrs_core::product::{Packing, SavedLayout, packed_workspace_len, workspace_len};
use wtacrs_exact::packing::GROUP;

/// Alignment of saved and scratch memory.
pub(super) const ALIGNMENT: usize = SavedLayout::ALIGNMENT;

/// The next multiple of the alignment.
pub(super) fn aligned(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(ALIGNMENT)
}

/// Bytes that a weight gradient from `kept` rows works in.
pub(super) fn workspace_bytes(
    packing: Packing,
    h: Dtype,
    kept: usize,
    in_features: usize,
    out_features: usize,
) -> Outcome<usize> {
    let overflow =
        || Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("the scratch memory for {kept} rows overflows"));
    // An upper bound first, so that the numbers below cannot overflow.
    let most = match packing {
        Packing::Native => in_features.checked_add(out_features).and_then(|columns| columns.checked_mul(kept)),
        _ => in_features.checked_add(GROUP).and_then(|padded| padded.checked_mul(out_features)),
    };
    most.and_then(|count| count.checked_mul(size_of::<f64>())).ok_or_else(overflow)?;
    let numbers = match packing {
        Packing::Native => with_element!(h, T => workspace_len::<T>(kept, in_features, out_features)),
        _ => packed_workspace_len(in_features, out_features),
    };
    aligned(numbers * h.accumulator().bytes()).filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(overflow)
}

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
