//! How the warps of a block multiply a tile of `saved` with a tile of gathered dZ.

use crate::block::tile::Layout;
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::Shared;

/// A block's way to multiply: its tiles in shared memory, what lanes load of them, and where the sums are in the end.
///
/// A block computes M × N sums, K rows at a time, in STEPS steps; what a step multiplies is loaded during the step before.
pub trait Engine {
    /// Threads of a block.
    const THREADS: u32;
    /// Rows of dw in a block's tile.
    const M: u32;
    /// Columns of dw in a block's tile.
    const N: u32;
    /// Rows of the operands in a tile.
    const K: u32;
    /// Steps in which a tile is multiplied, at most 8.
    const STEPS: u32;
    /// Tiles in flight or in use: 3 or 4.
    const STAGES: u32;
    /// Bytes of the operands' elements.
    const ELEMENT_BYTES: u32;
    /// The tile of `saved`, K × M.
    type Left: Layout;
    /// The tile of dZ, K × N.
    type Right: Layout;

    /// Where this lane loads from, in the stage at hand.
    type Lane;
    /// What a lane holds of one step's operands.
    type Fragments;
    /// What a thread holds of the sums.
    type Sums;

    /// Where this thread loads from; the first stage begins with `stages`.
    fn lane(stages: Shared<U32x4>) -> Self::Lane;

    /// Goes to the stage that begins so many bytes after, or before, the one at hand.
    fn advance(lane: &mut Self::Lane, bytes: i32);

    /// No sums yet.
    fn zero() -> Self::Sums;

    /// Loads the operands of step `step` (a constant) from the stage at hand.
    ///
    /// # Safety
    ///
    /// The stage has landed.
    unsafe fn load(lane: &Self::Lane, step: u32) -> Self::Fragments;

    /// Adds the product of a step's operands.
    fn multiply(sums: &mut Self::Sums, fragments: &Self::Fragments);

    /// Rows of the block's tile that leave the registers at once, in 4 parts.
    const PART_ROWS: u32 = Self::M / 4;
    /// From one of these rows to the next, in sums: such that [`Self::stage`] writes without bank conflicts.
    const PITCH: u32;

    /// Writes part `part` (a constant) of the sums to the first bytes of shared memory: PART_ROWS rows, PITCH sums apart.
    ///
    /// # Safety
    ///
    /// The memory is the block's to write.
    unsafe fn stage(sums: &Self::Sums, part: u32);

    /// Which row of the block's tile lies in row `row` of part `part`.
    fn row(part: u32, row: u32) -> u32;
}
