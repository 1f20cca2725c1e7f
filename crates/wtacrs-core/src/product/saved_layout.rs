//! How kept rows lie in one block of memory that lives from the forward to the backward pass.
//!
//! ```text
//! 0           header, 64 bytes
//! 64          indices, u32 × kept                none if all rows are packed
//! aligned 64  scales, f64 × kept                 none if all rows are packed
//! aligned 64  grids, u32 × kept × groups         none of native rows
//! aligned 64  rows, kept × columns, or codes, u32 × kept × words
//! ```
//!
//! The C library saves this block on the CPU, and `wtacrs memory` counts its bytes. Of the header, only the size is
//! fixed here: its words belong to whoever writes the block.

use super::packing::Packing;
use wtacrs_exact::packing::Groups;

/// Where the parts of a block begin, and how many bytes it has.
///
/// ```
/// use wtacrs_core::product::{Packing, SavedLayout};
/// // 300 of 1000 rows of 64 elements of f32.
/// let layout = SavedLayout::new(Packing::Native, 1000, 300, 64, 4).expect("fits");
/// assert_eq!((layout.scales_at, layout.rows_at, layout.bytes), (1_280, 3_712, 3_712 + 300 * 64 * 4));
/// // All of them in 4 bits an element: one grid and 8 words for each row.
/// let layout = SavedLayout::new(Packing::Bits4, 1000, 1000, 64, 4).expect("fits");
/// assert_eq!((layout.grids_at, layout.rows_at, layout.bytes), (64, 4_096, 4_096 + 32_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedLayout {
    /// Where the scales begin. The indices begin behind the header, at [`Self::HEADER`].
    pub scales_at: usize,
    /// Where the grids of packed rows begin.
    pub grids_at: usize,
    /// Where the rows, or their codes, begin.
    pub rows_at: usize,
    /// Bytes of the block, a multiple of its alignment.
    pub bytes: usize,
}

impl SavedLayout {
    /// Alignment of the block and of its parts: that of a cache line, and of every number.
    pub const ALIGNMENT: usize = 64;
    /// Bytes of the header.
    pub const HEADER: usize = 64;

    /// The layout of at most `kept` of `pairs` rows of `columns` elements, which are of `element_bytes` if native; `None` if
    /// no memory is so large.
    pub const fn new(
        packing: Packing,
        pairs: usize,
        kept: usize,
        columns: usize,
        element_bytes: usize,
    ) -> Option<Self> {
        let selected = if packing.keeps_all(kept, pairs) { 0 } else { kept };
        let Some(scales_at) = behind(Self::HEADER, selected, size_of::<u32>()) else { return None };
        let Some(grids_at) = behind(scales_at, selected, size_of::<f64>()) else { return None };
        let groups = Groups::new(columns);
        let (grids, row_elements, element_bytes) = match packing.bits() {
            None => (0, columns, element_bytes),
            // Padded elements are fewer than columns and a group, so that words are too.
            Some(_) if columns > isize::MAX as usize => return None,
            Some(bits) => (groups.count(), groups.words(bits), size_of::<u32>()),
        };
        let Some(grids) = kept.checked_mul(grids) else { return None };
        let Some(rows_at) = behind(grids_at, grids, size_of::<u32>()) else { return None };
        let Some(elements) = kept.checked_mul(row_elements) else { return None };
        match behind(rows_at, elements, element_bytes) {
            Some(bytes) if bytes <= isize::MAX as usize => Some(Self { scales_at, grids_at, rows_at, bytes }),
            _ => None,
        }
    }
}

/// The first aligned place behind `count` elements that begin at `start`.
const fn behind(start: usize, count: usize, element_bytes: usize) -> Option<usize> {
    let Some(bytes) = count.checked_mul(element_bytes) else { return None };
    match start.checked_add(bytes) {
        Some(end) => end.checked_next_multiple_of(SavedLayout::ALIGNMENT),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kept: usize, columns: usize, element_bytes: usize) -> Option<(usize, usize, usize)> {
        SavedLayout::new(Packing::Native, usize::MAX, kept, columns, element_bytes)
            .map(|layout| (layout.scales_at, layout.rows_at, layout.bytes))
    }

    #[test]
    fn parts_lie_one_behind_another() {
        assert_eq!(layout(0, 100, 4), Some((64, 64, 64)));
        assert_eq!(layout(0, usize::MAX, 4), Some((64, 64, 64)));
        assert_eq!(layout(1, 1, 2), Some((128, 192, 256)));
        assert_eq!(layout(16, 32, 2), Some((128, 256, 256 + 16 * 64)));
        assert_eq!(layout(17, 0, 8), Some((192, 384, 384)));
    }

    #[test]
    fn sizes_beyond_any_memory() {
        assert_eq!(layout(usize::MAX, 1, 1), None);
        assert_eq!(layout(1, usize::MAX, 2), None);
        assert_eq!(layout(1, isize::MAX as usize, 1), None);
        assert_eq!(layout(usize::MAX / 4, 1, 1), None);
    }

    #[test]
    fn packed_rows_have_grids_and_words() {
        let layout = |packing, pairs, kept| SavedLayout::new(packing, pairs, kept, 300, 4).expect("fits");
        let some = layout(Packing::Bits2, 17, 16);
        assert_eq!((some.scales_at, some.grids_at, some.rows_at), (128, 256, 256 + 16 * 3 * 4));
        assert_eq!(some.bytes, some.rows_at + 16 * 20 * 4);
        let all = layout(Packing::Bits2, 16, 16);
        assert_eq!((all.grids_at, all.rows_at, all.bytes), (64, 256, 256 + 16 * 20 * 4));
        assert_eq!(SavedLayout::new(Packing::Bits8, 9, 1, usize::MAX, 4), None);
        assert_eq!(SavedLayout::new(Packing::Bits8, usize::MAX, usize::MAX / 64, 300, 4), None);
    }
}
