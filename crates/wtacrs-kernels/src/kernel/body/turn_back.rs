//! Adds partial products and turns them back. Down: a thread has a column and 16 rows of a group, then, through shared memory,
//! those 16 rows apart. Along: a lane has 16 elements of a row's group, as [`group`] says.

use super::block::group::{self, Group, across, block_signs, random_of, within};
use super::block::output::{Destination, Old, typed};
use super::block::repeat;
use super::column_sums;
use crate::kernel::gather_gemm::partial_leading;
use crate::kernel::matrix::DataType;
use crate::kernel::split_reduce;
use crate::kernel::turn_back::{AlongArgs, DownArgs};
use wtacrs_exact::packing::{GROUP, Groups, PackingBits};
use wtacrs_exact::random::Randomness;
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block, grid, lane, warp};
use wtacrs_simt::memory::{U32x4, load_constant};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;

/// Where a matrix's results go.
#[inline(always)]
unsafe fn destination(args: &split_reduce::Args, matrix: u32) -> Destination {
    let bytes = if args.output == DataType::F32 as u32 { 4 } else { 2 };
    let to = args.dw.wrapping_add((args.dw_spacing.of(matrix) * bytes) as usize);
    // SAFETY: threads write elements of their own.
    unsafe { Destination::new(to, args.dw_leading, args.out_features, args.output, args.accumulate != 0) }
}

/// Adds partial products and turns groups of rows back; blocks of their own end column sums.
///
/// # Safety
///
/// Memory as [`DownArgs`] says, and the launch of [`DownArgs::launch`].
#[inline(always)]
pub unsafe fn turn_back_down(args: &DownArgs) {
    let [x, y, matrix] = block();
    // SAFETY: the caller's promise; all threads of a block take the same branch.
    unsafe {
        if y < args.sums_y {
            column_sums::finish(&args.sums, y * grid()[0] + x, matrix);
        } else {
            let rotation = args.rotation;
            let random = random_of(rotation.origin, rotation.first_stream, rotation.stream_step);
            turn_down(&args.reduce, &random, y - args.sums_y, grid()[1] - args.sums_y);
        }
    }
}

/// The groups `first`, `first` + `step`, … of the block's columns.
#[inline(always)]
unsafe fn turn_down(args: &split_reduce::Args, random: &PackingBits, first: u32, step: u32) {
    let [x, _, matrix] = block();
    let groups = Groups::new(args.in_features as usize);
    let leading = partial_leading(args.out_features);
    let of_matrix = groups.padded() as u64 * leading;
    let split_stride = u64::from(grid()[2]) * of_matrix;
    let column = x * WARP + lane();
    let has_column = column < args.out_features;
    let from = args.partials.wrapping_add((u64::from(matrix) * of_matrix + u64::from(column)) as usize);
    let tile = Shared::<f32>::new(0, GROUP as u32 * WARP);
    // SAFETY: behind the tile.
    let signs = unsafe { block_signs(random, Shared::new(tile.end(), 4)) };
    // SAFETY: each element of each row belongs to one thread.
    let to = unsafe { destination(args, matrix) };
    let mut at_group = first;
    while at_group < groups.count() as u32 {
        let sixteenths = groups.size(at_group as usize) as u32 / 16;
        let mut quads = [[0.0_f32; 4]; 4];
        if has_column && warp() < sixteenths {
            let mut at = u64::from(at_group * GROUP as u32 + 16 * warp()) * leading;
            let mut split = 0;
            while split < args.splits {
                repeat!(I in 0 1 2 3 => {
                    repeat!(K in 0 1 2 3 => {
                        let row = at + u64::from(4 * I + K) * leading;
                        // SAFETY: the partial products have all rows of the group.
                        quads[I as usize][K as usize] += unsafe { load_constant(from.wrapping_add(row as usize)) };
                    });
                });
                at += split_stride;
                split += 1;
            }
        }
        within(&mut quads);
        across(&mut quads);
        repeat!(I in 0 1 2 3 => {
            repeat!(K in 0 1 2 3 => {
                // SAFETY: a place of this thread's; before it, a barrier followed the last reads.
                unsafe { tile.write((16 * warp() + 4 * I + K) * WARP + lane(), quads[I as usize][K as usize]) };
            });
        });
        barrier();
        repeat!(HALF in 0 1 => {
            let low = warp() + 8 * HALF;
            let row = |sixteenth: u32| at_group * GROUP as u32 + low + 16 * sixteenth;
            let has = |sixteenth: u32| has_column && sixteenth < sixteenths && row(sixteenth) < args.in_features;
            // All on their way together.
            let mut old = [[0; 4]; 2];
            repeat!(I in 0 1 => {
                repeat!(K in 0 1 2 3 => {
                    if has(4 * I + K) {
                        // SAFETY: an element of dw, and this thread's alone.
                        old[I as usize][K as usize] = unsafe { to.fetch_one(row(4 * I + K), column) };
                    }
                });
            });
            let mut apart = [[0.0_f32; 4]; 2];
            repeat!(I in 0 1 => {
                repeat!(K in 0 1 2 3 => {
                    // SAFETY: written before the barrier.
                    apart[I as usize][K as usize] = unsafe { tile.read((low + 16 * (4 * I + K)) * WARP + lane()) };
                });
            });
            sixteen_apart(&mut apart, sixteenths);
            typed!(to, T => {
                repeat!(I in 0 1 => {
                    repeat!(K in 0 1 2 3 => {
                        const SIXTEENTH: u32 = 4 * I + K;
                        if has(SIXTEENTH) {
                            let sign = signs[(SIXTEENTH / 2) as usize] >> (low + 16 * (SIXTEENTH % 2)) & 1;
                            let value = f32::from_bits(apart[I as usize][K as usize].to_bits() ^ sign << 31) * 2.0;
                            // SAFETY: as above.
                            unsafe { to.put_one::<T>(row(SIXTEENTH), column, value, old[I as usize][K as usize]) };
                        }
                    });
                });
            });
        });
        barrier();
        at_group += step;
    }
}

/// Sums and differences of eight elements 1, 2 and 4 places apart, of which so many belong to the group, a power of two.
#[inline(always)]
fn sixteen_apart(values: &mut [[f32; 4]; 2], count: u32) {
    if count == 2 {
        let [a, b, ..] = values[0];
        values[0] = [a + b, a - b, 0.0, 0.0];
    }
    if count > 2 {
        within(values);
    }
    if count > 4 {
        repeat!(K in 0 1 2 3 => {
            let (a, b) = (values[0][K as usize], values[1][K as usize]);
            values[0][K as usize] = a + b;
            values[1][K as usize] = a - b;
        });
    }
}

/// Adds partial products and turns groups of columns back.
///
/// # Safety
///
/// Memory as [`AlongArgs`] says, and the launch of [`AlongArgs::launch`].
#[inline(always)]
pub unsafe fn turn_back_along(args: &AlongArgs) {
    let ([_, _, matrix], reduce) = (block(), &args.reduce);
    let rotation = args.rotation;
    // SAFETY: the caller's promise.
    let random = unsafe { random_of(rotation.origin, rotation.first_stream, rotation.stream_step) };
    // SAFETY: nothing else is in shared memory.
    let signs = unsafe { block_signs(&random, Shared::new(0, 4)) };
    let leading = args.shares.groups().padded() as u64;
    let of_matrix = u64::from(reduce.in_features) * leading;
    let split_stride = u64::from(grid()[2]) * of_matrix;
    let from = reduce.partials.wrapping_add((u64::from(matrix) * of_matrix) as usize);
    // SAFETY: each element of each row belongs to one lane.
    let to = unsafe { destination(reduce, matrix) };
    let nothing = PackingBits::new(Randomness::new(0, 0), 0);
    args.shares.for_each_group(&nothing, |_| group::NO_INDEX, |group| {
        let Group { row, team, .. } = group;
        let has_row = row != u32::MAX && team.takes_part();
        let column = |i: u32| group.group * GROUP as u32 + team.first(i);
        let mut quads = [[0.0_f32; 4]; 4];
        let mut old = [Old::NONE; 4];
        if has_row {
            // On their way while partial products are added.
            repeat!(I in 0 1 2 3 => {
                // SAFETY: a row of dw; columns beyond its last are not read.
                old[I as usize] = unsafe { to.fetch(row, column(I)) };
            });
            let mut at = u64::from(row) * leading;
            let mut split = 0;
            while split < reduce.splits {
                repeat!(I in 0 1 2 3 => {
                    let from = from.wrapping_add((at + u64::from(column(I))) as usize).cast::<U32x4>();
                    // SAFETY: the partial products have all columns of the group.
                    let U32x4(partial) = unsafe { load_constant(from) };
                    repeat!(K in 0 1 2 3 => { quads[I as usize][K as usize] += f32::from_bits(partial[K as usize]); });
                });
                at += split_stride;
                split += 1;
            }
        }
        team.butterflies(&mut quads);
        team.turn(&mut quads, signs, 2.0);
        if has_row {
            // SAFETY: a row of dw; columns beyond its last are not written.
            unsafe {
                typed!(to, T => {
                    repeat!(I in 0 1 2 3 => { to.put::<T>(row, column(I), quads[I as usize], old[I as usize]); });
                });
            }
        }
    });
}
