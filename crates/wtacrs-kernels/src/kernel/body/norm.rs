//! Forward a warp takes four rows, and reads them up to three times, the last times from cache: for the mean, for the variance, for
//! the normalised elements. Backward a block takes a range of rows twice.

use super::block::group::Quads;
use super::block::repeat;
use super::block::values::{
    DrawnDithers, Field, Row, Spot, add_elements, add_rows, are_aligned, begin, map, origin, row_total, zip,
};
use super::block::vector::Packed;
use super::element::F32;
use crate::kernel::column_sums::partial_leading;
use crate::kernel::norm::{BackwardArgs, ForwardArgs, WARPS};
use crate::kernel::operator::{ROW_LANES, SIGNS, SavedValues, WARP_ROWS};
use wtacrs_exact::operators::values::{self, Dithers};
use wtacrs_exact::packing::Groups;
use wtacrs_exact::random::Randomness;
use wtacrs_simt::index::{block, lane, warp};
use wtacrs_simt::math::sqrt_f32;
use wtacrs_simt::memory::{load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;

/// Rows that a block of the backward pass takes at a time.
const BLOCK_ROWS: u32 = WARPS * WARP_ROWS;

/// The forward pass.
///
/// # Safety
///
/// The launch has the [`forward_shape`](crate::kernel::norm::forward_shape) of what is saved. The pointers lead to as many elements
/// as their documentation says, aligned to them. The outputs overlap nothing, except that y may be x.
#[inline(always)]
pub unsafe fn norm_forward(args: &ForwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { begin(&args.start, saved) };
    let columns = saved.shares.columns;
    let aligned = are_aligned([args.x, args.y.cast_const()], saved);
    let row = Row::of_lane(saved, aligned);
    // SAFETY: elements of the row, which its lanes alone access, and write after the last shuffle of the sums.
    let load = |spot: &Spot| unsafe { spot.load(args.x) };

    let mut mean = 0.0;
    if args.has_mean != 0 {
        mean = row.sum(load) / columns as f32;
    }
    let squares = row.sum(|spot| {
        let mut quads = load(spot);
        map(&mut quads, |x| (x - mean) * (x - mean));
        quads
    });
    let inverse = 1.0 / sqrt_f32(squares / columns as f32 + args.epsilon);
    if row.is_row && Row::member() == 0 {
        let numbers = statistics_of(saved, args.has_mean, row.row);
        // SAFETY: the row's own numbers, which one lane writes.
        unsafe {
            if saves_mean(saved, args.has_mean) {
                store(numbers, mean);
                store(numbers.wrapping_add(1), inverse);
            } else {
                store(numbers, inverse);
            }
        }
    }
    let mut drawn = DrawnDithers::NONE;
    row.for_each(|spot| {
        let dithers = saved.next_dithers(&mut drawn, randomness, &spot);
        let mut quads = load(&spot);
        map(&mut quads, |x| (x - mean) * inverse);
        // SAFETY: as above, and the group's place in what is saved; weight and bias have a number for each column.
        unsafe {
            if saved.bits > SIGNS {
                spot.fill_up(&mut quads, 0.0);
                saved.pack(Field::First, &spot, &quads, dithers);
            }
            if args.y.is_null() {
                return;
            }
            if !args.weight.is_null() {
                zip(&mut quads, &spot.load_numbers(args.weight), |x, weight| x * weight);
            }
            if !args.bias.is_null() {
                zip(&mut quads, &spot.load_numbers(args.bias), |x, bias| x + bias);
            }
            spot.drop_out(saved, randomness, &mut quads);
            spot.store(args.y, &quads);
        }
    });
}

/// Whether a row's mean is saved.
#[inline(always)]
fn saves_mean(saved: &SavedValues, has_mean: u32) -> bool {
    has_mean != 0 && saved.bits <= SIGNS
}

/// The numbers of a row.
#[inline(always)]
fn statistics_of(saved: &SavedValues, has_mean: u32, row: u32) -> *mut f32 {
    let count = if saves_mean(saved, has_mean) { 2 } else { 1 };
    saved.statistics.wrapping_add((u64::from(row) * count) as usize)
}

/// What a lane reads of a group of a row.
struct Read {
    /// Normalised elements.
    normal: Quads,
    /// Their variance, if they were packed.
    variance: f32,
    /// dY behind dropout.
    dy: Quads,
    /// 1/σ of the row.
    inverse: f32,
}

/// The backward pass, but for the end of the sums.
///
/// # Safety
///
/// The launch has the [`backward_shape`](crate::kernel::norm::backward_shape) of what was saved. The forward pass ran before. The
/// pointers lead to as many elements as their documentation says, aligned to them. The outputs overlap nothing, except that dx may
/// be an input.
#[inline(always)]
pub unsafe fn norm_backward(args: &BackwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { origin(saved) };
    let (shares, ranges) = (&saved.shares, args.ranges);
    let columns = shares.columns;
    let aligned = are_aligned([args.x, args.dy, args.dx.cast_const()], saved);
    let first = block()[0] * ranges.rows;
    // The mean of g, and that of g times the normalised elements, for each row of the range.
    let means = Shared::<f32>::new(0, 2 * ranges.rows);

    let mut at = WARP_ROWS * warp();
    while at < ranges.rows {
        let row = Row::of_warp(saved, first + at, aligned);
        let (mut drawn, mut of_g, mut along) = (DrawnDithers::NONE, [0.0; 4], [0.0; 4]);
        row.for_each(|spot| {
            let dithers = saved.next_dithers(&mut drawn, randomness, &spot);
            // SAFETY: elements of the row, which its block alone accesses, and writes after the barrier; a number for each column.
            unsafe {
                let Read { mut normal, mut dy, .. } = read(args, randomness, &spot, dithers);
                weigh(args, &spot, &mut dy);
                add_elements(&mut of_g, &dy);
                zip(&mut normal, &dy, |x, g| x * g);
                add_elements(&mut along, &normal);
            }
        });
        let (of_g, along) = (row_total(of_g) / columns as f32, row_total(along) / columns as f32);
        if Row::member() == 0 {
            let place = at + lane() / ROW_LANES;
            // SAFETY: the row's own place, which others read after the barrier.
            unsafe {
                means.write(2 * place, if args.has_mean != 0 { of_g } else { 0.0 });
                means.write(2 * place + 1, along);
            }
        }
        at += BLOCK_ROWS;
    }
    barrier();

    let of_split = ranges.rows >> ranges.split_shift;
    let groups = Groups::new(columns as usize).count() as u32;
    let mut unit = warp();
    while unit < groups << ranges.split_shift {
        let (group, split) = (unit >> ranges.split_shift, unit & ((1 << ranges.split_shift) - 1));
        let (mut of_weight, mut of_bias) = ([[0.0; 4]; 4], [[0.0; 4]; 4]);
        let mut drawn = DrawnDithers::NONE;
        let mut turn = 0;
        while WARP_ROWS * turn < of_split {
            let at = split * of_split + WARP_ROWS * turn;
            let row = Row::of_warp(saved, first + at, aligned);
            let spot = row.spot(group);
            let mut dithers = Dithers::NONE;
            if saved.bits > SIGNS {
                // Each lane draws for one of the next eight turns.
                if turn % ROW_LANES == 0 {
                    drawn.draw(randomness, row.row + WARP_ROWS * Row::member(), group / 2);
                }
                dithers = drawn.of(turn % ROW_LANES, group);
            }
            // SAFETY: as above: this lane alone accesses its elements after the barrier, before which the means were written.
            unsafe {
                let Read { mut normal, variance, mut dy, inverse } = read(args, randomness, &spot, dithers);
                zip(&mut of_bias, &dy, |sum, dy| sum + dy);
                repeat!(I in 0 1 2 3 => {
                    repeat!(K in 0 1 2 3 => {
                        let (i, k) = (I as usize, K as usize);
                        of_weight[i][k] += dy[i][k] * normal[i][k];
                    });
                });
                weigh(args, &spot, &mut dy);
                let place = at + lane() / ROW_LANES;
                let (of_g, along) = (means.read(2 * place), means.read(2 * place + 1));
                let correction = variance * (1.0 / columns as f32);
                zip(&mut normal, &dy, |x, g| (((g - of_g) - x * along) + correction * g) * inverse);
                spot.store(args.dx, &normal);
            }
            turn += 1;
        }
        // SAFETY: the sums of the range's split, of which this warp alone writes those of the group.
        unsafe {
            let range = (block()[0] << ranges.split_shift) + split;
            let spot = Row::of_warp(saved, 0, aligned).spot(group);
            store_sums(args.of_weight, range, &spot, &mut of_weight);
            store_sums(args.of_bias, range, &spot, &mut of_bias);
        }
        unit += WARPS;
    }
}

/// A lane's part of a group. Elements of dY beyond the row are zeros.
#[inline(always)]
unsafe fn read(args: &BackwardArgs, randomness: Randomness, spot: &Spot, dithers: Dithers) -> Read {
    let saved = &args.saved;
    let numbers = statistics_of(saved, args.has_mean, spot.row).cast_const();
    let has_saved_mean = saves_mean(saved, args.has_mean);
    let (mut mean, mut inverse) = (0.0, 0.0);
    // SAFETY: the caller's promise: numbers and elements of a row that there is.
    unsafe {
        if spot.is_row {
            if has_saved_mean {
                mean = load_constant(numbers);
            }
            inverse = load_constant(numbers.wrapping_add(usize::from(has_saved_mean)));
        }
        let mut dy = spot.load(args.dy);
        spot.drop_out(saved, randomness, &mut dy);
        if saved.bits > SIGNS {
            let (grid, normal) = saved.unpack(Field::First, spot, dithers);
            return Read { normal, variance: values::variance(grid), dy, inverse };
        }
        let mut normal = spot.load(args.x);
        map(&mut normal, |x| (x - mean) * inverse);
        Read { normal, variance: 0.0, dy, inverse }
    }
}

/// Multiplies by the weight, if there is one.
#[inline(always)]
unsafe fn weigh(args: &BackwardArgs, spot: &Spot, quads: &mut Quads) {
    if !args.weight.is_null() {
        // SAFETY: a number for each column.
        let weights = unsafe { spot.load_numbers(args.weight) };
        zip(quads, &weights, |x, weight| x * weight);
    }
}

/// Adds the sums of the warp's four rows, and writes them to a range's.
#[inline(always)]
unsafe fn store_sums(to: *mut f32, range: u32, spot: &Spot, sums: &mut Quads) {
    if to.is_null() {
        return;
    }
    add_rows(sums);
    let leading = partial_leading(spot.columns);
    if lane() < ROW_LANES && spot.team.takes_part() {
        repeat!(I in 0 1 2 3 => {
            let column = u64::from(spot.column(I));
            if column < leading {
                let at = to.wrapping_add((u64::from(range) * leading + column) as usize);
                // SAFETY: a quad of the range's sums: both are multiples of four.
                unsafe { F32::store_quad(at.cast(), sums[I as usize]) };
            }
        });
    }
}
