//! How kept rows lie in one block of memory that lives from the forward to the backward pass.
//!
//! ```text
//! 0           header, 64 bytes
//! 64          indices, u32 × kept
//! aligned 64  scales, f64 × kept
//! aligned 64  rows, kept × columns
//! ```
//!
//! The C library saves this block on the CPU, and `wtacrs memory` counts its bytes. Of the header, only the size is
//! fixed here: its words belong to whoever writes the block.

/// Where the parts of a block begin, and how many bytes it has.
///
/// ```
/// use wtacrs_core::product::SavedLayout;
/// // 300 rows of 64 elements of f32.
/// let layout = SavedLayout::new(300, 64, 4).expect("fits");
/// assert_eq!((layout.scales_at, layout.rows_at, layout.bytes), (1_280, 3_712, 3_712 + 300 * 64 * 4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedLayout {
    /// Where the scales begin. The indices begin behind the header, at [`Self::HEADER`].
    pub scales_at: usize,
    /// Where the rows begin.
    pub rows_at: usize,
    /// Bytes of the block, a multiple of its alignment.
    pub bytes: usize,
}

impl SavedLayout {
    /// Alignment of the block and of its parts: that of a cache line, and of every number.
    pub const ALIGNMENT: usize = 64;
    /// Bytes of the header.
    pub const HEADER: usize = 64;

    /// The layout of at most `kept` rows of `columns` elements of `element_bytes`; `None` if no memory is so large.
    pub const fn new(kept: usize, columns: usize, element_bytes: usize) -> Option<Self> {
        let Some(scales_at) = behind(Self::HEADER, kept, size_of::<u32>()) else { return None };
        let Some(rows_at) = behind(scales_at, kept, size_of::<f64>()) else { return None };
        let Some(elements) = kept.checked_mul(columns) else { return None };
        match behind(rows_at, elements, element_bytes) {
            Some(bytes) if bytes <= isize::MAX as usize => Some(Self { scales_at, rows_at, bytes }),
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
        SavedLayout::new(kept, columns, element_bytes).map(|layout| (layout.scales_at, layout.rows_at, layout.bytes))
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
}
