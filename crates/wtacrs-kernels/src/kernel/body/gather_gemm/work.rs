//! A block's work: its tile of a matrix, its rows, and the way of its sums to the output.

use super::warp_product::{PARTS, WarpProduct};
use crate::kernel::body::block::output::{Destination, Old, typed};
use crate::kernel::body::block::repeat;
use crate::kernel::gather_gemm::{Args, partial_leading};
use crate::kernel::matrix::DataType;
use core::marker::PhantomData;
use core::num::NonZeroU32;
use wtacrs_simt::index::{block, grid, thread};
use wtacrs_simt::memory::{U32x4, load_constant};
use wtacrs_simt::shared::Shared;

/// Tiles of dw are taken in bands of so many rows of tiles, column by column. Blocks that run at the same time then form a
/// square, and share their loads through the L2 cache.
const BAND: u32 = 16;

/// A block's work.
pub(super) struct Work {
    pub(super) saved: *const u8,
    /// In bytes.
    pub(super) saved_leading: u32,
    pub(super) dz: *const u8,
    /// In bytes.
    pub(super) dz_leading: u32,
    indices: *const u32,
    /// The first row of dw.
    pub(super) first_row: u32,
    /// The first column of dw.
    pub(super) first_column: u32,
    /// The first row of the operands to sum.
    pub(super) start: u32,
    /// The row after the last.
    pub(super) end: u32,
    batch: u32,
    split: u32,
}

impl Work {
    #[inline(always)]
    pub(super) fn of<E: WarpProduct>(args: &Args) -> Self {
        let [x, _, z] = block();
        let splits = args.splits.max(1);
        let (batch, split) = (z / splits, z % splits);
        let (tile_row, tile_column) = place(
            x,
            args.in_features.div_ceil(E::SIZES.rows).max(1),
            args.out_features.div_ceil(E::SIZES.columns).max(1),
        );

        let mut rows = args.rows;
        if !args.count.is_null() {
            // SAFETY: there is a count for each of the batch.
            rows = rows.min(unsafe { load_constant(args.count.wrapping_add(batch as usize)) });
        }
        let part = rows.div_ceil(E::SIZES.depth).div_ceil(splits) * E::SIZES.depth;
        let start = split.saturating_mul(part).min(rows);
        let end = start.saturating_add(part).min(rows);

        let bytes = u64::from(E::SIZES.element_bytes);
        let indices = if args.indices.is_null() {
            args.indices
        } else {
            args.indices.wrapping_add((u64::from(batch) * u64::from(args.rows)) as usize)
        };
        Self {
            saved: args.saved.wrapping_add((args.saved_spacing.of(batch) * bytes) as usize),
            saved_leading: (args.saved_leading * bytes) as u32,
            dz: args.dz.wrapping_add((args.dz_spacing.of(batch) * bytes) as usize),
            dz_leading: (args.dz_leading * bytes) as u32,
            indices,
            first_row: tile_row * E::SIZES.rows,
            first_column: tile_column * E::SIZES.columns,
            start,
            end,
            batch,
            split,
        }
    }

    /// The row of dz that is multiplied with row `row` + `further` (a constant) of saved.
    ///
    /// # Safety
    ///
    /// The row is among the first `count`.
    #[inline(always)]
    pub(super) unsafe fn source(&self, row: u32, further: u32) -> u32 {
        if self.indices.is_null() {
            row + further
        } else {
            // SAFETY: the caller's promise.
            unsafe { load_constant(self.indices.wrapping_add(row as usize).wrapping_add(further as usize)) }
        }
    }

    /// Where the sums go: to dw, or to this split's partial product.
    ///
    /// # Safety
    ///
    /// As for the kernel.
    #[inline(always)]
    pub(super) unsafe fn destination(&self, args: &Args) -> Destination {
        // SAFETY: blocks write tiles of their own.
        unsafe {
            if args.splits > 1 {
                let batches = u64::from(grid()[2] / args.splits.max(1));
                let leading = partial_leading(args.out_features);
                let matrix =
                    (u64::from(self.split) * batches + u64::from(self.batch)) * u64::from(args.in_features) * leading;
                let to = args.partials.wrapping_add(matrix as usize);
                // Whole rows, zeros to fill them up: the reduction reads four columns at a time.
                Destination::new(to.cast(), leading, leading as u32, DataType::F32 as u32, false)
            } else {
                let bytes = if args.output == DataType::F32 as u32 { 4 } else { 2 };
                let to = args.dw.wrapping_add((args.dw_spacing.of(self.batch) * bytes) as usize);
                Destination::new(to, args.dw_leading, args.out_features, args.output, args.accumulate != 0)
            }
        }
    }
}

/// The row and column of tile `x` of rows × columns.
#[inline(always)]
fn place(x: u32, rows: u32, columns: u32) -> (u32, u32) {
    let band = x / BAND / columns;
    let within = x - band * BAND * columns;
    let height = NonZeroU32::new((rows - band * BAND).min(BAND)).unwrap_or(NonZeroU32::MIN);
    (band * BAND + within % height, within / height)
}

/// Quads of a thread that are written one after another, after their old values were fetched together.
const FLIGHT: u32 = 4;

/// A thread's way through its quads of the output: FLIGHT of them at a time, one below the other, so that as many old values
/// are on their way together.
pub(super) struct Quads<'a, E> {
    work: &'a Work,
    destination: Destination,
    /// Rows of the output.
    rows: u32,
    /// The first column.
    column: u32,
    by: PhantomData<E>,
}

impl<'a, E: WarpProduct> Quads<'a, E> {
    /// Quads of a row.
    const ACROSS: u32 = E::SIZES.columns / 4;
    /// Rows that the block's threads have at a time.
    const DOWN: u32 = E::SIZES.threads / Self::ACROSS;
    /// Groups of FLIGHT quads in a part.
    pub(super) const OF_PART: u32 = E::SIZES.part_rows() / (FLIGHT * Self::DOWN);

    #[inline(always)]
    pub(super) fn new(work: &'a Work, destination: Destination, rows: u32) -> Self {
        const { assert!(Self::OF_PART * FLIGHT * Self::DOWN == E::SIZES.part_rows(), "groups fill the parts") };
        let column = work.first_column + 4 * (thread() % Self::ACROSS);
        Self { work, destination, rows, column, by: PhantomData }
    }

    /// The staged row of quad `at` (a constant) of group `group` within its part.
    #[inline(always)]
    fn staged_row(group: u32, at: u32) -> u32 {
        (group % Self::OF_PART * FLIGHT + at) * Self::DOWN + thread() / Self::ACROSS
    }

    /// The output's row of the same.
    #[inline(always)]
    fn row(&self, group: u32, at: u32) -> u32 {
        self.work.first_row + E::row(group / Self::OF_PART, Self::staged_row(group, at))
    }

    /// The old values of a group, numbered through all parts; zeros behind the last.
    ///
    /// # Safety
    ///
    /// As for the kernel.
    #[inline(always)]
    pub(super) unsafe fn fetch(&self, group: u32) -> [Old; FLIGHT as usize] {
        let mut old = [Old::NONE; FLIGHT as usize];
        if self.destination.accumulates() && group < PARTS * Self::OF_PART {
            repeat!(I in 0 1 2 3 => {
                let row = self.row(group, I);
                if row < self.rows {
                    // SAFETY: the output has the row.
                    old[I as usize] = unsafe { self.destination.fetch(row, self.column) };
                }
            });
        }
        old
    }

    /// Writes the staged sums of a group.
    ///
    /// # Safety
    ///
    /// All threads have staged the group's part.
    #[inline(always)]
    pub(super) unsafe fn write(&self, group: u32, old: &[Old; FLIGHT as usize]) {
        let pitch = E::SIZES.pitch / 4;
        let staged = Shared::<U32x4>::new(0, E::SIZES.part_rows() * pitch);
        typed!(self.destination, T => {
            repeat!(I in 0 1 2 3 => {
                let row = self.row(group, I);
                if row < self.rows {
                    // SAFETY: the part has the row, and so has the output.
                    unsafe {
                        let U32x4(sums) = staged.read(Self::staged_row(group, I) * pitch + thread() % Self::ACROSS);
                        self.destination.put::<T>(row, self.column, sums.map(f32::from_bits), old[I as usize]);
                    }
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn every_tile_has_one_block() {
        for (rows, columns) in [(1, 1), (1, 9), (9, 1), (16, 5), (17, 3), (40, 7), (33, 33)] {
            let mut seen: Vec<_> = (0..rows * columns).map(|x| place(x, rows, columns)).collect();
            assert!(seen.iter().all(|&(row, column)| row < rows && column < columns));
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len() as u32, rows * columns, "{rows} × {columns}");
        }
    }
}
