//! A warp takes four rows. Forward it reads them three times, the last times from cache: for the largest element, for the sum, for
//! the probabilities. Backward it reads them twice.

use super::block::group::Quads;
use super::block::repeat;
use super::block::values::{
    DrawnDithers, Field, Row, Spot, add_elements, are_aligned, begin, map, map_quads, origin, row_combine, row_total,
    zip,
};
use crate::kernel::operator::SIGNS;
use crate::kernel::softmax::{BackwardArgs, ForwardArgs};
use wtacrs_exact::operators::functions::exp;
use wtacrs_exact::operators::values::{self, Dithers};
use wtacrs_exact::random::Randomness;
use wtacrs_simt::math::sqrt_f32;
use wtacrs_simt::warp::{FULL, shuffle_xor};

/// The forward pass.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::softmax::shape) of what is saved. The pointers lead to as many elements as their
/// documentation says, aligned to them. The outputs overlap nothing, except that y may be x.
#[inline(always)]
pub unsafe fn softmax_forward(args: &ForwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { begin(&args.start, saved) };
    let aligned = are_aligned([args.x, args.y.cast_const()], saved);
    let row = Row::of_lane(saved, aligned);

    let mut most = f32::NEG_INFINITY;
    row.for_each_whole(|spot| {
        // SAFETY: elements of the row, which its lanes alone access, and write after the last shuffle of the sum.
        let mut quads = unsafe { spot.load(args.x) };
        spot.fill_up(&mut quads, f32::NEG_INFINITY);
        repeat!(I in 0 1 2 3 => {
            repeat!(K in 0 1 2 3 => { most = larger(most, quads[I as usize][K as usize]); });
        });
    });
    let most = row_combine(most, |value, flip| shuffle_xor(FULL, value, flip), larger);
    // SAFETY: as above.
    let sum = row.sum(|spot| unsafe {
        let mut quads = spot.load(args.x);
        exponentials(&mut quads, most);
        quads
    });
    let inverse = 1.0 / sum;
    let mut drawn = DrawnDithers::NONE;
    row.for_each(|spot| {
        let dithers = saved.next_dithers(&mut drawn, randomness, &spot);
        // SAFETY: as above, and the group's place in what is saved.
        unsafe {
            let mut quads = spot.load(args.x);
            exponentials(&mut quads, most);
            map(&mut quads, |value| value * inverse);
            if saved.bits > SIGNS {
                let mut roots = quads;
                map(&mut roots, sqrt_f32);
                spot.fill_up(&mut roots, 0.0);
                saved.pack(Field::First, &spot, &roots, dithers);
            }
            if !args.y.is_null() {
                spot.drop_out(saved, randomness, &mut quads);
                spot.store(args.y, &quads);
            }
        }
    });
}

/// The backward pass.
///
/// # Safety
///
/// As for [`softmax_forward`]; it ran before, and dx may be an input.
#[inline(always)]
pub unsafe fn softmax_backward(args: &BackwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { origin(saved) };
    let aligned = are_aligned([args.y, args.dy, args.dx.cast_const()], saved);
    let row = Row::of_lane(saved, aligned);

    let mut drawn = DrawnDithers::NONE;
    let mut sums = [0.0_f32; 4];
    row.for_each(|spot| {
        let dithers = saved.next_dithers(&mut drawn, randomness, &spot);
        // SAFETY: elements of the row, which its lanes alone access, and the group's place in what was saved.
        let Read { mut quads, dy, .. } = unsafe { read(args, randomness, &spot, dithers) };
        zip(&mut quads, &dy, |value, dy| value * dy);
        add_elements(&mut sums, &quads);
    });
    let mean = row_total(sums);
    row.for_each(|spot| {
        let dithers = saved.next_dithers(&mut drawn, randomness, &spot);
        // SAFETY: as above.
        let Read { mut quads, variance, dy } = unsafe { read(args, randomness, &spot, dithers) };
        zip(&mut quads, &dy, |p, dy| p * (dy - mean) + values::variance_of_square(p, variance) * dy);
        // SAFETY: elements of the row, which its lanes alone access: each has been read by the lane that writes it.
        unsafe { spot.store(args.dx, &quads) };
    });
}

/// What a lane reads of a group of a row.
struct Read {
    /// Probabilities.
    quads: Quads,
    /// The variance of their roots, if those were packed.
    variance: f32,
    /// dY behind dropout.
    dy: Quads,
}

/// A lane's part of a group. Elements of dY beyond the row are zeros.
#[inline(always)]
unsafe fn read(args: &BackwardArgs, randomness: Randomness, spot: &Spot, dithers: Dithers) -> Read {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    unsafe {
        let mut dy = spot.load(args.dy);
        spot.drop_out(saved, randomness, &mut dy);
        if saved.bits > SIGNS {
            let (grid, mut quads) = saved.unpack(Field::First, spot, dithers);
            let variance = values::variance(grid);
            map(&mut quads, |root| values::square(root, variance));
            return Read { quads, variance, dy };
        }
        Read { quads: spot.load(args.y), variance: 0.0, dy }
    }
}

/// The larger one; NaN if one is.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// e^(x − most), which is NaN for a NaN.
#[inline(always)]
fn exponentials(quads: &mut Quads, most: f32) {
    map_quads(quads, |_, quad| {
        quad.map(|x| {
            let below = x - most;
            if below.is_nan() { below } else { exp(below) }
        })
    });
}
