//! The sums of all ranges, column by column.

use super::partial_leading;
use wtacrs_simt::index::{WARP, lane, thread, warp};
use wtacrs_simt::memory::{load, load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;

/// What the end of the sums is given.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FinishArgs {
    /// batch × `ranges` rows of [`partial_leading`] sums.
    pub partials: *const f32,
    /// How many partial sums each column has.
    pub ranges: u32,
    /// Columns.
    pub columns: u32,
    /// Whether `sums` are added to.
    pub accumulate: u32,
    /// batch × columns sums.
    pub sums: *mut f32,
}

/// Warps of a block.
pub(super) const WARPS: u32 = 8;

impl FinishArgs {
    /// Blocks that the sums of a matrix need.
    #[cfg(not(target_arch = "nvptx64"))]
    pub fn blocks(&self) -> u32 {
        self.columns.div_ceil(WARP)
    }
}

/// Bytes of shared memory.
#[cfg(not(target_arch = "nvptx64"))]
pub(in crate::kernel) const SHARED_BYTES: u32 = 4 * WARPS * WARP;

/// The sums of the columns of a block of 256 threads: 32 of them, a lane each; warps take ranges in turn, and the warps'
/// sums are added in their order.
///
/// # Safety
///
/// Memory as [`FinishArgs`] says, in a launch with `SHARED_BYTES` of shared memory that no one else uses; all threads of
/// the block call it together.
#[inline(always)]
pub unsafe fn finish(args: &FinishArgs, block: u32, matrix: u32) {
    let column = block * WARP + lane();
    let is_column = column < args.columns;
    let leading = partial_leading(args.columns);
    let first = u64::from(matrix) * u64::from(args.ranges) * leading + u64::from(column);
    let partials = args.partials.wrapping_add(first as usize);
    let partial = |range: u32| {
        // SAFETY: called for ranges that there are, in threads that have a column.
        unsafe { load_constant(partials.wrapping_add((u64::from(range) * leading) as usize)) }
    };
    let mut sum = 0.0_f32;
    let mut range = warp();
    // Four at a time, so that four loads are on their way; the order of additions is the same.
    while is_column && range + 3 * WARPS < args.ranges {
        let (a, b, c, d) =
            (partial(range), partial(range + WARPS), partial(range + 2 * WARPS), partial(range + 3 * WARPS));
        sum = sum + a + b + c + d;
        range += 4 * WARPS;
    }
    while is_column && range < args.ranges {
        sum += partial(range);
        range += WARPS;
    }
    let of_warps = Shared::<f32>::new(0, WARPS * WARP);
    // SAFETY: an entry of the thread's own, read by others after the barrier.
    unsafe { of_warps.write(thread(), sum) };
    barrier();
    if is_column && warp() == 0 {
        let mut total = 0.0_f32;
        let mut entry = lane();
        while entry < WARPS * WARP {
            // SAFETY: written before the barrier.
            total += unsafe { of_warps.read(entry) };
            entry += WARP;
        }
        let to = args.sums.wrapping_add(matrix as usize * args.columns as usize + column as usize);
        // SAFETY: the column's own place, this thread's alone; old sums are read only if they count.
        unsafe { store(to, if args.accumulate != 0 { load(to) + total } else { total }) };
    }
}
