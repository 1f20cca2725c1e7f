//! `dW (+)= Σ_r saved[r,:]ᵀ dZ[index_r,:]`: the estimate, with dZ's rows gathered as they are loaded.
//!
//! ```text
//! dw (in_features × out_features)  (+)=  Σ_{r < count} saved[r, :]ᵀ · dz[indices[r], :]
//! ```
//!
//! A block computes a tile of dw, keeping its sums in registers. It goes through the rows K at a time: both operands'
//! rows are contiguous over features, so a tile of K rows is copied as it is, the row of dz being whichever the index
//! names, into a ring of stages in shared memory. While the warps multiply one stage, the next ones are on their way.
//! How warps multiply is an [`Engine`]'s: tensor cores for 16-bit elements and for f32 in tf32, fma for f32.
//!
//! With more than one split, blocks sum ranges of rows into `partials`, which
//! [`split_reduce`](super::split_reduce) adds up in order; so bits depend on shapes and splits alone.
//!
//! The first tile of a range is the one that may have fewer than K rows (the missing ones are zeros): the loop itself
//! then needs no check of rows.

#[cfg(test)]
mod banks;
mod engine;
mod full;
mod half;
mod tf32;
#[cfg(not(target_arch = "nvptx64"))]
mod tiling;
mod work;

pub use self::engine::Engine;
pub use self::full::Full;
pub use self::half::{Half, HalfElement};
pub use self::tf32::Tf32;
#[cfg(not(target_arch = "nvptx64"))]
pub use self::tiling::{Multiplier, Sizes, Tile, Tiling, tiling};

use self::work::Work;
use crate::block::repeat::repeat;
use crate::block::spacing::Spacing;
use crate::block::tile::{CHUNK, Layout, Loader, MAX_PASSES};
use wtacrs_simt::memory::U32x4;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::{cp_async, sync};

/// What a launch is given. One grid.z for each (batch, split); grid.x for each tile of dw.
///
/// A row's bytes, `leading` times the element's, fit 32 bits; strides of batches and offsets of rows need not.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × in_features elements: the scaled, gathered rows.
    pub saved: *const u8,
    /// Elements from one row of `saved` to the next.
    pub saved_leading: u64,
    /// Where the matrices of `saved` begin.
    pub saved_spacing: Spacing,
    /// tokens × out_features elements.
    pub dz: *const u8,
    /// Elements from one row of `dz` to the next.
    pub dz_leading: u64,
    /// Where the matrices of `dz` begin.
    pub dz_spacing: Spacing,
    /// batch × rows indices into the rows of `dz`; null: row r is row r.
    pub indices: *const u32,
    /// For each of the batch, how many of the rows count; null: all.
    pub count: *const u32,
    /// Rows of `saved`: the budget.
    pub rows: u32,
    /// Rows of `dw`.
    pub in_features: u32,
    /// Columns of `dw`.
    pub out_features: u32,
    /// Into how many ranges of rows the sum is cut; each has its own partial product if there is more than one.
    pub splits: u32,
    /// Whether `dw` is added to.
    pub accumulate: u32,
    /// The element type of `dw`: an [`Output`](crate::block::output::Output).
    pub output: u32,
    /// in_features × out_features elements.
    pub dw: *mut u8,
    /// Elements from one row of `dw` to the next.
    pub dw_leading: u64,
    /// Where the matrices of `dw` begin.
    pub dw_spacing: Spacing,
    /// splits × batch × in_features rows of [`partial_leading`] sums, aligned to 16, if `splits` > 1.
    pub partials: *mut f32,
}

/// From one row of partial sums to the next: the columns, rounded up to whole 16 bytes.
#[inline(always)]
pub const fn partial_leading(out_features: u32) -> u64 {
    (out_features as u64).next_multiple_of(4)
}

/// The product's kernel. ROWS, one of [`Rows`](crate::block::tile::Rows), tells how the rows of `saved` and `dz` lie: aligned
/// if both pointers, their leading dimensions and distances are multiples of 16 bytes, whole if the features are too.
///
/// # Safety
///
/// Pointers are as [`Args`] tells; the launch has the shape that [`tiling`](self::tiling()) gives for E.
#[inline(always)]
pub unsafe fn gather_gemm<E: Engine, const ROWS: u32>(args: &Args) {
    let work = Work::of::<E>(args);
    let stages = Shared::<U32x4>::new(0, E::STAGES * stage_bytes::<E>() / CHUNK);
    // SAFETY: `work` gives this block's matrices, and rows and columns within them.
    let (mut left, mut right) = unsafe {
        (
            Loader::<E::Left>::new(
                work.saved,
                work.saved_leading,
                u64::from(work.first_row) * u64::from(E::ELEMENT_BYTES),
                u64::from(args.in_features) * u64::from(E::ELEMENT_BYTES),
                stages,
                0,
            ),
            Loader::<E::Right>::new(
                work.dz,
                work.dz_leading,
                u64::from(work.first_column) * u64::from(E::ELEMENT_BYTES),
                u64::from(args.out_features) * u64::from(E::ELEMENT_BYTES),
                stages,
                E::Left::BYTES,
            ),
        )
    };

    let rows = work.end - work.start;
    // A range without rows is one tile of zeros.
    let tiles = if rows == 0 { 1 } else { rows.div_ceil(E::K) };
    let first_tile_rows = rows - (tiles - 1) * E::K;
    // SAFETY: rows before `end` exist, and the ring is empty.
    unsafe {
        repeat!(PASS in 0 1 2 3 => {
            if PASS < E::Left::PASSES {
                let row = left.row(PASS);
                left.copy::<ROWS>(PASS, work.start + row, row < first_tile_rows, E::ELEMENT_BYTES);
            }
            if PASS < E::Right::PASSES {
                let row = right.row(PASS);
                let present = row < first_tile_rows;
                let source = if present { work.source(work.start + row, 0) } else { 0 };
                right.copy::<ROWS>(PASS, source, present, E::ELEMENT_BYTES);
            }
        });
    }
    cp_async::commit();

    // The first row of the next tile to load, and what it gathers: indices are fetched one tile ahead of their rows.
    let mut next = work.start + first_tile_rows;
    let mut sources = [0; MAX_PASSES];
    let mut write = Ring::new();
    let mut loaded = 1;
    while loaded < E::STAGES - 1 {
        let onward = write.advance::<E>();
        left.advance(onward);
        right.advance(onward);
        if loaded < tiles {
            // SAFETY: tiles after the first are whole; the stage is empty.
            unsafe {
                sources = fetch::<E>(&work, &right, next);
                copy_tile::<E, ROWS>(&left, &right, next, &sources);
            }
            next += E::K;
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
                next += E::K;
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
            // After the last tile there is no further one: what is loaded instead is not used.
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
        let destination = work.destination(args);
        repeat!(PART in 0 1 2 3 => {
            // The stages, or the part before, have been read.
            sync::barrier();
            E::stage(&sums, PART);
            sync::barrier();
            work::write_part::<E>(&work, destination, PART, args.in_features);
        });
    }
}

/// Bytes of a stage: a tile of each operand.
#[inline(always)]
const fn stage_bytes<E: Engine>() -> u32 {
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

    /// Goes to the next stage; how many bytes further it begins.
    #[inline(always)]
    fn advance<E: Engine>(&mut self) -> i32 {
        let last = (E::STAGES - 1) * stage_bytes::<E>();
        let onward = if self.stage == last { -(last as i32) } else { stage_bytes::<E>() as i32 };
        self.stage = self.stage.wrapping_add_signed(onward);
        onward
    }
}

/// Waits until the stage after the one being multiplied has landed, and all warps are here.
#[inline(always)]
fn landed<E: Engine>() {
    if E::STAGES == 4 {
        cp_async::wait::<2>();
    } else {
        cp_async::wait::<1>();
    }
    sync::barrier();
}

/// Fetches the indices of this thread's rows of the whole tile that begins at row `first`.
#[inline(always)]
unsafe fn fetch<E: Engine>(work: &Work, right: &Loader<E::Right>, first: u32) -> [u32; MAX_PASSES] {
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
unsafe fn copy_tile<E: Engine, const ROWS: u32>(
    left: &Loader<E::Left>,
    right: &Loader<E::Right>,
    first: u32,
    sources: &[u32; MAX_PASSES],
) {
    repeat!(PASS in 0 1 2 3 => {
        // SAFETY: the caller's promise.
        unsafe {
            if PASS < E::Left::PASSES {
                left.copy::<ROWS>(PASS, first + left.row(PASS), true, E::ELEMENT_BYTES);
            }
            if PASS < E::Right::PASSES {
                right.copy::<ROWS>(PASS, sources[PASS as usize], true, E::ELEMENT_BYTES);
            }
        }
    });
}
