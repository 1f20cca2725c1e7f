//! The product: a block computes a tile of dw and keeps its sums in registers.
//!
//! It goes through the rows K at a time. Rows of both factors are contiguous over features, so a tile of K rows is copied
//! as it is into a ring of stages in shared memory; the row of dz is the one that the index names. While the warps multiply
//! one stage, the next ones are on their way. How warps multiply is a [`WarpProduct`]'s: tensor cores for 16-bit elements and
//! for f32 in tf32, fma for f32.
//!
//! The first tile of a range is the one that may have fewer than K rows (the missing ones are zeros), so the loop needs no
//! check of rows.

#[cfg(test)]
mod banks;
mod full;
mod half;
mod tf32;
mod warp_product;
mod work;

pub use self::full::Full;
pub use self::half::{Half, HalfElement};
pub use self::tf32::Tf32;
pub use self::warp_product::WarpProduct;

use self::warp_product::PARTS;
use self::work::{Quads, Work};
use super::block::repeat;
use super::block::tile::{CHUNK, Layout, Loader, MAX_PASSES};
use crate::kernel::gather_gemm::Args;
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{cp_async, sync};

/// Multiplies. ROWS is the [`RowLayout`](crate::kernel::matrix::RowLayout) of `saved` and `dz`: aligned if both pointers,
/// their leading dimensions and distances are multiples of 16 bytes, whole if the features are too.
///
/// # Safety
///
/// Memory as [`Args`] says; the launch has blocks and shared memory of [`WarpProduct::SIZES`], a grid.x for each tile of dw.
#[inline(always)]
pub unsafe fn gather_gemm<E: WarpProduct, const ROWS: u32>(args: &Args) {
    let work = Work::of::<E>(args);
    let stages = Shared::<U32x4>::new(0, E::SIZES.stages * stage_bytes::<E>() / CHUNK);
    // SAFETY: `work` gives this block's matrices, and rows and columns within them.
    let (mut left, mut right) = unsafe {
        (
            Loader::<E::Left>::new(
                work.saved,
                work.saved_leading,
                u64::from(work.first_row) * u64::from(E::SIZES.element_bytes),
                u64::from(args.in_features) * u64::from(E::SIZES.element_bytes),
                stages,
                0,
            ),
            Loader::<E::Right>::new(
                work.dz,
                work.dz_leading,
                u64::from(work.first_column) * u64::from(E::SIZES.element_bytes),
                u64::from(args.out_features) * u64::from(E::SIZES.element_bytes),
                stages,
                E::Left::BYTES,
            ),
        )
    };

    let rows = work.end - work.start;
    // A range without rows is one tile of zeros.
    let tiles = if rows == 0 { 1 } else { rows.div_ceil(E::SIZES.depth) };
    let first_tile_rows = rows - (tiles - 1) * E::SIZES.depth;
    // SAFETY: rows before `end` exist, and the ring is empty.
    unsafe {
        repeat!(PASS in 0 1 2 3 => {
            if PASS < E::Left::PASSES {
                let row = left.row(PASS);
                left.copy::<ROWS>(PASS, work.start + row, row < first_tile_rows, E::SIZES.element_bytes);
            }
            if PASS < E::Right::PASSES {
                let row = right.row(PASS);
                let present = row < first_tile_rows;
                let source = if present { work.source(work.start + row, 0) } else { 0 };
                right.copy::<ROWS>(PASS, source, present, E::SIZES.element_bytes);
            }
        });
    }
    cp_async::commit();

    // The first row of the next tile to load, and the rows that it gathers: indices are fetched one tile ahead.
    let mut next = work.start + first_tile_rows;
    let mut sources = [0; MAX_PASSES];
    let mut write = Ring::new();
    let mut loaded = 1;
    while loaded < E::SIZES.stages - 1 {
        let onward = write.advance::<E>();
        left.advance(onward);
        right.advance(onward);
        if loaded < tiles {
            // SAFETY: tiles after the first are whole; the stage is empty.
            unsafe {
                sources = fetch::<E>(&work, &right, next);
                copy_tile::<E, ROWS>(&left, &right, next, &sources);
            }
            next += E::SIZES.depth;
        }
        cp_async::commit();
        loaded += 1;
    }
    if loaded < tiles {
        // SAFETY: as above.
        sources = unsafe { fetch::<E>(&work, &right, next) };
    }

    let mut sums = E::zero();
    let mut lane = E::lane(stages);
    let mut read = Ring::new();
    landed::<E>();
    // SAFETY: the first stage has landed, for all threads.
    let mut fragments = unsafe { E::load(&lane, 0) };
    let mut tile = 0;
    while tile < tiles {
        let onward = write.advance::<E>();
        left.advance(onward);
        right.advance(onward);
        // SAFETY: all warps left the stage that is written when they passed the last barrier; stages that are read have
        // landed, by `landed`.
        unsafe {
            if loaded < tiles {
                copy_tile::<E, ROWS>(&left, &right, next, &sources);
                next += E::SIZES.depth;
                loaded += 1;
                if loaded < tiles {
                    sources = fetch::<E>(&work, &right, next);
                }
            }
            cp_async::commit();
            repeat!(STEP in 0 1 2 3 4 5 6 => {
                if STEP + 1 < E::STEPS {
                    let ahead = E::load(&lane, STEP + 1);
                    E::multiply(&mut sums, &fragments);
                    fragments = ahead;
                }
            });
            landed::<E>();
            tile += 1;
            // After the last tile this loads fragments that are not used.
            if tile < tiles {
                E::advance(&mut lane, read.advance::<E>());
            }
            let ahead = E::load(&lane, 0);
            E::multiply(&mut sums, &fragments);
            fragments = ahead;
        }
    }
    cp_async::wait::<0>();

    // SAFETY: `work` gives this block's part of the output.
    unsafe {
        let quads = Quads::<E>::new(&work, work.destination(args), args.in_features);
        // Old values are on their way while sums go through shared memory.
        let mut ahead = quads.fetch(0);
        let mut group = 0;
        while group < PARTS * Quads::<E>::OF_PART {
            if group % Quads::<E>::OF_PART == 0 {
                // The stages, or the part before, have been read.
                sync::barrier();
                E::stage(&mut sums);
                sync::barrier();
            }
            let old = ahead;
            ahead = quads.fetch(group + 1);
            quads.write(group, &old);
            group += 1;
        }
    }
}

/// Bytes of a stage: a tile of each operand.
#[inline(always)]
const fn stage_bytes<E: WarpProduct>() -> u32 {
    E::Left::BYTES + E::Right::BYTES
}

/// A walk around the ring of stages.
struct Ring {
    /// Where the stage at hand begins, in bytes.
    stage: u32,
}

impl Ring {
    /// At the first stage.
    #[inline(always)]
    fn new() -> Self {
        Self { stage: 0 }
    }

    /// Goes to the next stage, and returns how many bytes further it begins.
    #[inline(always)]
    fn advance<E: WarpProduct>(&mut self) -> i32 {
        let last = (E::SIZES.stages - 1) * stage_bytes::<E>();
        let onward = if self.stage == last { -(last as i32) } else { stage_bytes::<E>() as i32 };
        self.stage = self.stage.wrapping_add_signed(onward);
        onward
    }
}

/// Waits until the stage after the one being multiplied has landed, and all warps are here.
#[inline(always)]
fn landed<E: WarpProduct>() {
    const { assert!(E::SIZES.stages == 3 || E::SIZES.stages == 4, "the ways to wait below") };
    match E::SIZES.stages - 2 {
        1 => cp_async::wait::<1>(),
        _ => cp_async::wait::<2>(),
    }
    sync::barrier();
}

/// Fetches the indices of this thread's rows of the whole tile that begins at row `first`.
#[inline(always)]
unsafe fn fetch<E: WarpProduct>(work: &Work, right: &Loader<E::Right>, first: u32) -> [u32; MAX_PASSES] {
    let mut sources = [0; MAX_PASSES];
    let row = first + right.row(0);
    repeat!(PASS in 0 1 2 3 => {
        if PASS < E::Right::PASSES {
            // SAFETY: the caller's promise: the tile's rows are all there.
            sources[PASS as usize] = unsafe { work.source(row, PASS * E::Right::ROWS_PER_PASS) };
        }
    });
    sources
}

/// Starts copying the whole tile that begins at row `first` into the stage at hand.
#[inline(always)]
unsafe fn copy_tile<E: WarpProduct, const ROWS: u32>(
    left: &Loader<E::Left>,
    right: &Loader<E::Right>,
    first: u32,
    sources: &[u32; MAX_PASSES],
) {
    repeat!(PASS in 0 1 2 3 => {
        // SAFETY: the caller's promise.
        unsafe {
            if PASS < E::Left::PASSES {
                left.copy::<ROWS>(PASS, first + left.row(PASS), true, E::SIZES.element_bytes);
            }
            if PASS < E::Right::PASSES {
                right.copy::<ROWS>(PASS, sources[PASS as usize], true, E::SIZES.element_bytes);
            }
        }
    });
}
