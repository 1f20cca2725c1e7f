//! 16-bit elements: ldmatrix and mma.sync m16n8k16, with sums in f32.
//!
//! Both tiles lie row by row, [k][m] and [k][n], and ldmatrix.trans turns 8 × 8 pieces of either into fragments: A's from
//! savedᵀ, B's from dZ. A warp has 64 × 64 sums, half of its registers, since shared memory's bandwidth bounds tensor
//! cores at smaller warp tiles: 32 mma of a step need 8 ldmatrix; with 64 × 32 sums 16 would need 6.

use super::warp_product::WarpProduct;
use crate::kernel::body::block::repeat;
use crate::kernel::body::block::tile::Layout;
use crate::kernel::body::element::{Bf16, Element, F16};
use crate::kernel::gather_gemm::TileSizes;
use core::marker::PhantomData;
use wtacrs_simt::WARP;
use wtacrs_simt::index::thread;
use wtacrs_simt::matrix;
use wtacrs_simt::memory::{U32x2, U32x4};
use wtacrs_simt::shared::{Address, Shared};

/// A 16-bit element that tensor cores multiply.
pub trait HalfElement: Element<Bits = u16> {
    /// C + A·B.
    fn multiply(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4];
}

impl HalfElement for Bf16 {
    #[inline(always)]
    fn multiply(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
        matrix::mma_bf16(a, b, c)
    }
}

impl HalfElement for F16 {
    #[inline(always)]
    fn multiply(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
        matrix::mma_f16(a, b, c)
    }
}

/// Tiles of M × N sums, 32 rows deep. Used as 128 × 256 with 8 warps, one block at a time on a multiprocessor; 128 × 128
/// with 4 warps, two blocks at a time; 128 × 64 and 64 × 128, for matrices as narrow as a head of attention, with 4 warps of
/// 64 × 32; and, where operands are not aligned and pass through registers, 128 × 128 with 8 such warps.
#[derive(Debug)]
pub struct Half<T, const M: u32, const N: u32, const THREADS: u32>(PhantomData<T>);

/// 32 rows of FEATURES 16-bit elements.
///
/// ldmatrix reads the same chunk of 8 consecutive rows at a time: flipping by the row's number modulo 8 gives each its
/// own 4 banks.
#[derive(Debug)]
pub struct HalfTile<const FEATURES: u32, const THREADS: u32>;

impl<const FEATURES: u32, const THREADS: u32> Layout for HalfTile<FEATURES, THREADS> {
    const ROW_BYTES: u32 = 2 * FEATURES;
    const ROWS: u32 = 32;
    const THREADS: u32 = THREADS;

    #[inline(always)]
    fn flip(row: u32) -> u32 {
        row % 8
    }
}

/// Where a lane's ldmatrix rows begin, in the first stage's first step.
#[derive(Debug)]
pub struct HalfLane {
    left: [Address; 4],
    right: [Address; 4],
}

/// A step's operands.
#[derive(Debug)]
pub struct HalfFragments {
    left: [[u32; 4]; 4],
    right: [[u32; 4]; 4],
}

impl<T, const M: u32, const N: u32, const THREADS: u32> Half<T, M, N, THREADS> {
    /// Columns of a warp's sums, of which there are 64 rows.
    const WARP_COLUMNS: u32 = M * N / 64 / (THREADS / WARP);
    /// Pairs of mma in a row of them.
    const PAIRS: u32 = Self::WARP_COLUMNS / 16;

    /// A thread's row and column of warps.
    #[inline(always)]
    fn warp_place(thread: u32) -> (u32, u32) {
        let warp = thread / WARP;
        (warp / (N / Self::WARP_COLUMNS), warp % (N / Self::WARP_COLUMNS))
    }

    /// Where a thread's row of ldmatrix.trans for fragment i of A lies in the tile of `saved`. The matrices are
    /// (k, m), (k, m + 8), (k + 8, m), (k + 8, m + 8).
    #[inline(always)]
    pub(super) fn left_offset(thread: u32, i: u32) -> u32 {
        let lane = thread % WARP;
        let (row, _) = Self::warp_place(thread);
        HalfTile::<M, THREADS>::offset(lane % 8 + lane / 16 * 8, row * 8 + 2 * i + lane / 8 % 2)
    }

    /// Where the row for the pair i of fragments of B lies in the tile of dZ. The matrices are (k, n), (k + 8, n),
    /// (k, n + 8), (k + 8, n + 8).
    #[inline(always)]
    pub(super) fn right_offset(thread: u32, i: u32) -> u32 {
        let lane = thread % WARP;
        let (_, column) = Self::warp_place(thread);
        HalfTile::<N, THREADS>::offset(lane % 16, column * (Self::WARP_COLUMNS / 8) + 2 * i + lane / 16)
    }

    /// Where the first of a thread's sums in a part goes, in sums. The others go 8 columns, and 8 rows, further.
    #[inline(always)]
    pub(super) fn staged(thread: u32) -> u32 {
        let (row, column) = Self::warp_place(thread);
        let (group, member) = (thread % WARP / 4, thread % 4);
        (row * 16 + group) * TileSizes::half(M, N, THREADS).pitch + column * Self::WARP_COLUMNS + 2 * member
    }
}

impl<T: HalfElement, const M: u32, const N: u32, const THREADS: u32> WarpProduct for Half<T, M, N, THREADS> {
    const SIZES: TileSizes = TileSizes::half(M, N, THREADS);
    const STEPS: u32 = 2;
    type Left = HalfTile<M, THREADS>;
    type Right = HalfTile<N, THREADS>;

    type Lane = HalfLane;
    type Fragments = HalfFragments;
    type Sums = [[[f32; 4]; 8]; 4];

    #[inline(always)]
    fn lane(stages: Shared<U32x4>) -> HalfLane {
        let base = stages.address(0);
        let mut left = [base; 4];
        let mut right = [base; 4];
        repeat!(I in 0 1 2 3 => {
            left[I as usize] = base.bytes(Self::left_offset(thread(), I));
            if I < Self::PAIRS {
                right[I as usize] = base.bytes(Self::Left::BYTES + Self::right_offset(thread(), I));
            }
        });
        HalfLane { left, right }
    }

    #[inline(always)]
    fn advance(lane: &mut HalfLane, bytes: i32) {
        lane.left = lane.left.map(|row| row.moved(bytes));
        lane.right = lane.right.map(|row| row.moved(bytes));
    }

    #[inline(always)]
    fn zero() -> Self::Sums {
        [[[0.0; 4]; 8]; 4]
    }

    #[inline(always)]
    unsafe fn load(lane: &HalfLane, step: u32) -> HalfFragments {
        let mut fragments = HalfFragments { left: [[0; 4]; 4], right: [[0; 4]; 4] };
        let (left_step, right_step) = (step * 16 * Self::Left::ROW_BYTES, step * 16 * Self::Right::ROW_BYTES);
        // SAFETY: the stage has landed, and rows of 16 bytes at multiples of 16 lie in it.
        unsafe {
            repeat!(I in 0 1 2 3 => {
                fragments.left[I as usize] = matrix::load_x4_transposed(lane.left[I as usize].bytes(left_step));
                if I < Self::PAIRS {
                    fragments.right[I as usize] = matrix::load_x4_transposed(lane.right[I as usize].bytes(right_step));
                }
            });
        }
        fragments
    }

    #[inline(always)]
    fn multiply(sums: &mut Self::Sums, fragments: &HalfFragments) {
        repeat!(J in 0 1 2 3 => {
            const COLUMN: usize = 2 * J as usize;
            if J < Self::PAIRS {
                let [b0, b1, b2, b3] = fragments.right[J as usize];
                repeat!(I in 0 1 2 3 => {
                    let (a, row) = (fragments.left[I as usize], &mut sums[I as usize]);
                    row[COLUMN] = T::multiply(a, [b0, b1], row[COLUMN]);
                    row[COLUMN + 1] = T::multiply(a, [b2, b3], row[COLUMN + 1]);
                });
            }
        });
    }

    #[inline(always)]
    unsafe fn stage(sums: &mut Self::Sums) {
        let to = Shared::<U32x2>::new(0, Self::SIZES.part_rows() * Self::SIZES.pitch / 2);
        let at = Self::staged(thread()) / 2;
        repeat!(J in 0 1 2 3 4 5 6 7 => {
            if J < 2 * Self::PAIRS {
                let [a, b, c, d] = sums[0][J as usize].map(f32::to_bits);
                // SAFETY: the caller's promise; each lane has places of its own.
                unsafe {
                    to.write(at + 4 * J, U32x2([a, b]));
                    to.write(at + 4 * J + 4 * Self::SIZES.pitch, U32x2([c, d]));
                }
            }
        });
        let [_, b, c, d] = *sums;
        *sums = [b, c, d, b];
    }

    #[inline(always)]
    fn row(part: u32, row: u32) -> u32 {
        row / 16 * 64 + part * 16 + row % 16
    }
}
