//! How the warps of a block multiply a tile of `saved` with a tile of gathered dZ.

use crate::kernel::body::block::tile::Layout;
use crate::kernel::gather_gemm::TileSizes;
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::Shared;

/// In so many parts, one after another, the sums leave the registers.
pub(super) const PARTS: u32 = 4;

/// A block's way to multiply: its tiles in shared memory, the fragments that lanes load of them, and where the sums end up.
///
/// A block computes M × N sums, K rows at a time, in STEPS steps. The fragments of a step are loaded during the step before.
pub trait WarpProduct {
    /// The sizes of a block's tiles.
    const SIZES: TileSizes;
    /// Steps in which a tile is multiplied, at most 8.
    const STEPS: u32;
    /// The tile of `saved`, K × M.
    type Left: Layout;
    /// The tile of dZ, K × N.
    type Right: Layout;

    /// Where this lane loads from, in the stage at hand.
    type Lane;
    /// A lane's fragments of one step's operands.
    type Fragments;
    /// A thread's sums.
    type Sums;

    /// Where this thread loads from; the first stage begins with `stages`.
    fn lane(stages: Shared<U32x4>) -> Self::Lane;

    /// Goes to the stage that begins so many bytes after, or before, the one at hand.
    fn advance(lane: &mut Self::Lane, bytes: i32);

    /// Sums of nothing.
    fn zero() -> Self::Sums;

    /// Loads the operands of step `step` (a constant) from the stage at hand.
    ///
    /// # Safety
    ///
    /// The stage has landed.
    unsafe fn load(lane: &Self::Lane, step: u32) -> Self::Fragments;

    /// Adds the product of a step's operands.
    fn multiply(sums: &mut Self::Sums, fragments: &Self::Fragments);

    /// Writes the first of PARTS parts of the sums to the first bytes of shared memory: a row of `SIZES.part_rows()` every
    /// `SIZES.pitch` sums. The next part becomes the first, so that one piece of code serves all.
    ///
    /// # Safety
    ///
    /// The memory is the block's to write.
    unsafe fn stage(sums: &mut Self::Sums);

    /// The row of the block's tile that lies in row `row` of part `part`.
    fn row(part: u32, row: u32) -> u32;
}
