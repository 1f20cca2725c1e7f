//! f32 elements, every product and sum in f32: fma, in ascending order of rows.
//!
//! A thread has 8 × 8 sums, in four 4 × 4 squares 64 apart, so that 16-byte reads of neighbouring lanes adjoin.

use super::warp_product::WarpProduct;
use crate::kernel::body::block::repeat;
use crate::kernel::body::block::tile::Layout;
use crate::kernel::gather_gemm::TileSizes;
use wtacrs_simt::index::thread;
use wtacrs_simt::math::fma_f32;
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::{Address, Shared};

/// Tiles of 128 × 128 sums, 8 rows deep.
#[derive(Debug)]
pub struct Full;

/// 8 rows of 128 f32, as they are: lanes read the same row.
#[derive(Debug)]
pub struct FullTile;

impl Layout for FullTile {
    const ROW_BYTES: u32 = 512;
    const ROWS: u32 = 8;
    const THREADS: u32 = 256;

    #[inline(always)]
    fn flip(_: u32) -> u32 {
        0
    }
}

/// Where a thread's operands lie.
#[derive(Debug)]
pub struct FullLane {
    stages: Shared<U32x4>,
    left: Address,
    right: Address,
}

impl Full {
    /// Where a thread reads first in the first row of the tiles of `saved` and of dZ, in chunks. It also reads the chunks
    /// that are 64 columns further.
    #[inline(always)]
    pub(super) fn chunks(thread: u32) -> (u32, u32) {
        (thread / 16, thread % 16)
    }

    /// Where the first of a thread's sums in a part goes, in chunks. The others go 64 columns, and a row, further.
    #[inline(always)]
    pub(super) fn staged(thread: u32) -> u32 {
        let (row, column) = Self::chunks(thread);
        2 * row * (Self::SIZES.pitch / 4) + column
    }
}

impl WarpProduct for Full {
    const SIZES: TileSizes = TileSizes::FULL;
    const STEPS: u32 = 8;
    type Left = FullTile;
    type Right = FullTile;

    type Lane = FullLane;
    type Fragments = ([f32; 8], [f32; 8]);
    type Sums = [[f32; 8]; 8];

    #[inline(always)]
    fn lane(stages: Shared<U32x4>) -> FullLane {
        let (left, right) = Self::chunks(thread());
        FullLane { stages, left: stages.address(left), right: stages.address(right).bytes(FullTile::BYTES) }
    }

    #[inline(always)]
    fn advance(lane: &mut FullLane, bytes: i32) {
        (lane.left, lane.right) = (lane.left.moved(bytes), lane.right.moved(bytes));
    }

    #[inline(always)]
    fn zero() -> Self::Sums {
        [[0.0; 8]; 8]
    }

    #[inline(always)]
    unsafe fn load(lane: &FullLane, step: u32) -> Self::Fragments {
        let eight = |at: Address| {
            let at = at.bytes(FullTile::offset(step, 0));
            // SAFETY: the stage has landed, and has both chunks.
            let (U32x4([a, b, c, d]), U32x4([e, f, g, h])) =
                unsafe { (lane.stages.read_at(at), lane.stages.read_at(at.bytes(256))) };
            [a, b, c, d, e, f, g, h].map(f32::from_bits)
        };
        (eight(lane.left), eight(lane.right))
    }

    #[inline(always)]
    fn multiply(sums: &mut Self::Sums, (left, right): &Self::Fragments) {
        repeat!(I in 0 1 2 3 4 5 6 7 => {
            repeat!(J in 0 1 2 3 4 5 6 7 => {
                let sum = &mut sums[I as usize][J as usize];
                *sum = fma_f32(left[I as usize], right[J as usize], *sum);
            });
        });
    }

    #[inline(always)]
    unsafe fn stage(sums: &mut Self::Sums) {
        let to = Shared::<U32x4>::new(0, Self::SIZES.part_rows() * Self::SIZES.pitch / 4);
        let staged = Self::staged(thread());
        repeat!(I in 0 1 => {
            let [a, b, c, d, e, f, g, h] = sums[I as usize].map(f32::to_bits);
            let at = staged + I * (Self::SIZES.pitch / 4);
            // SAFETY: the caller's promise; each thread has places of its own.
            unsafe {
                to.write(at, U32x4([a, b, c, d]));
                to.write(at + 16, U32x4([e, f, g, h]));
            }
        });
        let [_, _, c, d, e, f, g, h] = *sums;
        *sums = [c, d, e, f, g, h, c, d];
    }

    #[inline(always)]
    fn row(part: u32, row: u32) -> u32 {
        let i = 2 * part + row % 2;
        i / 4 * 64 + row / 2 * 4 + i % 4
    }
}
