//! f32 elements rounded to tf32 (10 bits after the point): mma.sync m16n8k8, with sums in f32.
//!
//! ldmatrix cannot transpose 4-byte elements, so lanes read fragments as plain 16-byte words. The assignment of dw's rows to
//! rows of fragments is free. So lane 4g + t reads columns 4g to 4g + 3 of `saved`'s row t at once, which are rows of dw, and
//! uses them as row g (and g + 8) of four (two) fragments; columns of dZ likewise. 6 reads feed 16 mma, where single words
//! would take 24.

use super::warp_product::WarpProduct;
use crate::kernel::body::block::repeat;
use crate::kernel::body::block::tile::Layout;
use crate::kernel::gather_gemm::TileSizes;
use wtacrs_simt::WARP;
use wtacrs_simt::index::thread;
use wtacrs_simt::math::f32_to_tf32;
use wtacrs_simt::matrix::mma_tf32;
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::{Address, Shared};

/// Tiles of 128 × 128 sums, 16 rows deep; 8 warps, as 2 × 4, have 64 × 32 each.
#[derive(Debug)]
pub struct Tf32;

/// 16 rows of 128 f32.
///
/// The 8 lanes that read 16 bytes together are two neighbouring chunks of 4 consecutive rows: flipping by twice the row's
/// number modulo 4 keeps all eight apart.
#[derive(Debug)]
pub struct Tf32Tile;

impl Layout for Tf32Tile {
    const ROW_BYTES: u32 = 512;
    const ROWS: u32 = 16;
    const THREADS: u32 = 256;

    #[inline(always)]
    fn flip(row: u32) -> u32 {
        row % 4 * 2
    }
}

/// Where a lane's operands lie.
#[derive(Debug)]
pub struct Tf32Lane {
    stages: Shared<U32x4>,
    left: [Address; 2],
    right: Address,
}

/// A step's operands: rows t and t + 4 of the step; 8 rows of dw, 4 columns.
#[derive(Debug)]
pub struct Tf32Fragments {
    left: [[u32; 8]; 2],
    right: [[u32; 4]; 2],
}

impl Tf32 {
    /// Where a thread reads first in the tiles of `saved` and of dZ: row t, columns 4g to 4g + 3.
    #[inline(always)]
    pub(super) fn offsets(thread: u32) -> ([u32; 2], u32) {
        let (warp, lane) = (thread / WARP, thread % WARP);
        let (row, chunk) = (lane % 4, lane / 4);
        let left = warp / 4 * 16 + chunk;
        let right = warp % 4 * 8 + chunk;
        ([Tf32Tile::offset(row, left), Tf32Tile::offset(row, left + 8)], Tf32Tile::offset(row, right))
    }

    /// Where the first of a thread's sums in a part goes, in chunks. The others go a chunk, and 8 rows, further.
    #[inline(always)]
    pub(super) fn staged(thread: u32) -> u32 {
        let (warp, lane) = (thread / WARP, thread % WARP);
        (warp / 4 * 16 + lane / 4) * (Self::SIZES.pitch / 4) + warp % 4 * 8 + 2 * (lane % 4)
    }
}

impl WarpProduct for Tf32 {
    const SIZES: TileSizes = TileSizes::TF32;
    const STEPS: u32 = 2;
    type Left = Tf32Tile;
    type Right = Tf32Tile;

    type Lane = Tf32Lane;
    type Fragments = Tf32Fragments;
    type Sums = [[[f32; 4]; 4]; 4];

    #[inline(always)]
    fn lane(stages: Shared<U32x4>) -> Tf32Lane {
        let (left, right) = Self::offsets(thread());
        let base = stages.address(0);
        Tf32Lane { stages, left: left.map(|at| base.bytes(at)), right: base.bytes(Tf32Tile::BYTES + right) }
    }

    #[inline(always)]
    fn advance(lane: &mut Tf32Lane, bytes: i32) {
        lane.left = lane.left.map(|at| at.moved(bytes));
        lane.right = lane.right.moved(bytes);
    }

    #[inline(always)]
    fn zero() -> Self::Sums {
        [[[0.0; 4]; 4]; 4]
    }

    #[inline(always)]
    unsafe fn load(lane: &Tf32Lane, step: u32) -> Tf32Fragments {
        // Rows 4 apart are flipped alike.
        let four = |at: Address, half: u32| {
            let at = at.bytes((8 * step + 4 * half) * Tf32Tile::ROW_BYTES);
            // SAFETY: the stage has landed, and has the chunk.
            unsafe { lane.stages.read_at(at) }.0
        };
        let eight = |half: u32| {
            let ([a, b, c, d], [e, f, g, h]) = (four(lane.left[0], half), four(lane.left[1], half));
            [a, b, c, d, e, f, g, h]
        };
        Tf32Fragments { left: [eight(0), eight(1)], right: [four(lane.right, 0), four(lane.right, 1)] }
    }

    #[inline(always)]
    fn multiply(sums: &mut Self::Sums, fragments: &Tf32Fragments) {
        let round = |bits: u32| f32_to_tf32(f32::from_bits(bits));
        let left = fragments.left.map(|row| row.map(round));
        let right = fragments.right.map(|row| row.map(round));
        repeat!(I in 0 1 2 3 => {
            const UPPER: usize = 2 * I as usize;
            let a = [left[0][UPPER], left[0][UPPER + 1], left[1][UPPER], left[1][UPPER + 1]];
            repeat!(J in 0 1 2 3 => {
                let sum = &mut sums[I as usize][J as usize];
                *sum = mma_tf32(a, [right[0][J as usize], right[1][J as usize]], *sum);
            });
        });
    }

    #[inline(always)]
    unsafe fn stage(sums: &mut Self::Sums) {
        let to = Shared::<U32x4>::new(0, Self::SIZES.part_rows() * Self::SIZES.pitch / 4);
        let at = Self::staged(thread());
        let column = |i: usize| sums[0].map(|sum| sum[i].to_bits());
        // SAFETY: the caller's promise; each lane has places of its own.
        unsafe {
            to.write(at, U32x4(column(0)));
            to.write(at + 1, U32x4(column(1)));
            to.write(at + 8 * (Self::SIZES.pitch / 4), U32x4(column(2)));
            to.write(at + 8 * (Self::SIZES.pitch / 4) + 1, U32x4(column(3)));
        }
        let [_, b, c, d] = *sums;
        *sums = [b, c, d, b];
    }

    #[inline(always)]
    fn row(part: u32, row: u32) -> u32 {
        // Staged row h·8 + g of a warp is row g + 8h of fragment `part`: the lane's row 2·part + h of eight.
        let lane_row = 2 * part + row / 8 % 2;
        row / 16 * 64 + lane_row / 4 * 32 + row % 8 * 4 + lane_row % 4
    }
}
