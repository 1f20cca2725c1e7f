//! Sizes, and device memory: one piece, cut into parts whose places are known before there is any memory.

use super::error::{ExecuteError, PlanError};

/// The alignment of parts and of the memory itself. It is that of GPUs' allocators, and enough for the widest accesses.
pub const ALIGNMENT: u64 = 256;

/// The most bytes of a memory: 32 TiB. Below that, the tiles of a matrix can be counted in 31 bits.
pub(super) const MOST_BYTES: u64 = 1 << 45;

/// The most matrices of a batch: the third dimension of a grid.
pub(super) const MOST_OF_A_BATCH: usize = 65_535;
/// The most of anything that kernels count in 32 bits, with room to round up to a tile.
const MOST: usize = (1 << 31) - 1;

/// A part of a plan's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Bytes from the memory's beginning, a multiple of [`ALIGNMENT`].
    pub offset: u64,
    /// Bytes of the part.
    pub bytes: u64,
}

/// Device memory of the caller's. It may be null if no bytes of it are needed.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its beginning, aligned to [`ALIGNMENT`].
    pub at: *mut u8,
    /// Its size.
    pub bytes: u64,
}

/// Cuts memory into parts, one behind the other.
///
/// ```
/// use wtacrs_kernels::plan::Layout;
/// let mut layout = Layout::default();
/// let (norms, rows) = (layout.part("norms", &[4, 100])?, layout.part("rows", &[2, 100, 64])?);
/// assert_eq!((norms.offset, rows.offset, layout.bytes()), (0, 512, 512 + 12_800));
/// # Ok::<(), wtacrs_kernels::plan::PlanError>(())
/// ```
#[derive(Debug, Default)]
pub struct Layout {
    end: u64,
}

impl Layout {
    /// A part whose size in bytes is the product of `sizes`.
    ///
    /// # Errors
    ///
    /// [`PlanError::Overflow`] if the parts are of more than 32 TiB.
    pub fn part(&mut self, what: &'static str, sizes: &[u64]) -> Result<Part, PlanError> {
        let bytes = product(what, sizes)?;
        let part = Part { offset: self.end, bytes };
        let end = self.end.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
        self.end = end.filter(|&end| end <= MOST_BYTES).ok_or(PlanError::Overflow { what })?;
        Ok(part)
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        self.end
    }
}

impl Memory {
    pub(super) fn check<E>(self, what: &'static str, needed: u64) -> Result<(), ExecuteError<E>> {
        if needed == 0 {
            return Ok(());
        }
        check_pointer(what, self.at.cast_const(), ALIGNMENT)?;
        if self.bytes < needed {
            return Err(ExecuteError::TooSmall { what, needed, found: self.bytes });
        }
        Ok(())
    }

    /// Where a part begins, in memory that was checked for all parts.
    pub(super) fn of<T>(self, part: Part) -> *mut T {
        // Not `add`: for a part without bytes there may be no memory.
        self.at.wrapping_add(part.offset as usize).cast()
    }
}

/// Refuses a pointer that is null or not aligned.
pub(super) fn check_pointer<T, E>(what: &'static str, at: *const T, alignment: u64) -> Result<(), ExecuteError<E>> {
    let (address, alignment) = (at.addr(), alignment as usize);
    if at.is_null() {
        Err(ExecuteError::Null { what })
    } else if !address.is_multiple_of(alignment) {
        Err(ExecuteError::Misaligned { what, address, alignment })
    } else {
        Ok(())
    }
}

/// The product of sizes in bytes, if memory can be as large.
pub(super) fn product(what: &'static str, sizes: &[u64]) -> Result<u64, PlanError> {
    let product = sizes.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
    product.filter(|&bytes| bytes <= MOST_BYTES).ok_or(PlanError::Overflow { what })
}

/// Refuses a size that is more than kernels count.
pub(super) fn check_count(what: &'static str, found: usize) -> Result<(), PlanError> {
    check_most(what, found.max(1), MOST)
}

/// Refuses a size that is zero, or more than kernels count.
pub(super) fn check_size(what: &'static str, found: usize) -> Result<(), PlanError> {
    check_most(what, found, MOST)
}

pub(super) fn check_most(what: &'static str, found: usize, most: usize) -> Result<(), PlanError> {
    match found {
        0 => Err(PlanError::Zero { what }),
        _ if found > most => Err(PlanError::TooLarge { what, found, most }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_side_by_side() {
        let mut layout = Layout::default();
        assert_eq!(layout.part("a", &[3, 100]), Ok(Part { offset: 0, bytes: 300 }));
        assert_eq!(layout.part("nothing", &[0, 9]), Ok(Part { offset: 512, bytes: 0 }));
        assert_eq!(layout.part("b", &[1]), Ok(Part { offset: 512, bytes: 1 }));
        assert_eq!(layout.bytes(), 768);
        assert_eq!(layout.part("c", &[1 << 40, 1 << 40]), Err(PlanError::Overflow { what: "c" }));
        assert_eq!(layout.part("d", &[MOST_BYTES]), Err(PlanError::Overflow { what: "d" }));
    }

    #[test]
    fn memory_is_checked() {
        let memory = |address, bytes| Memory { at: core::ptr::without_provenance_mut(address), bytes };
        type Checked = Result<(), ExecuteError<()>>;
        assert_eq!(memory(0x300, 8).check("m", 8), Checked::Ok(()));
        assert_eq!(memory(0, 0).check("m", 0), Checked::Ok(()));
        assert_eq!(memory(0, 8).check("m", 8), Checked::Err(ExecuteError::Null { what: "m" }));
        assert_eq!(
            memory(0x310, 8).check("m", 8),
            Checked::Err(ExecuteError::Misaligned { what: "m", address: 0x310, alignment: 256 })
        );
        assert_eq!(
            memory(0x300, 7).check("m", 8),
            Checked::Err(ExecuteError::TooSmall { what: "m", needed: 8, found: 7 })
        );
    }
}
