//! A warp takes four whole groups at a time, or more small ones, as `gather_pack` does. A lane has four quads of neighbours.

use super::block::group::{Drawn, Quads};
use super::block::repeat;
use super::block::values::{Field, Spot, are_aligned, begin, dithers, map, map_quads, origin, zip};
use super::block::vector::Packed;
use crate::kernel::operator::{Function, SIGNS, SavedValues};
use crate::kernel::pointwise::{BackwardArgs, ForwardArgs};
use wtacrs_exact::operators::functions::{self, Point};
use wtacrs_exact::operators::values::{Dithers, SLOPES};
use wtacrs_exact::random::Randomness;

/// The forward pass.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::pointwise::shape) of what is saved. The pointers lead to as many elements as their
/// documentation says, aligned to them. The outputs overlap nothing, except that y may be an input.
#[inline(always)]
pub unsafe fn pointwise_forward<E: Packed>(args: &ForwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { begin(&args.start, saved) };
    let is_gated = !args.gate.is_null();
    let aligned = are_aligned::<E, 3>([args.x, args.gate, args.y.cast_const()], saved.shares.columns);
    for_each_spot(saved, randomness, aligned, |spot, drawn| {
        // SAFETY: the group's elements, which only this lane accesses, and its place in what is saved.
        unsafe {
            let mut values = spot.load::<E>(args.x);
            let gates = if is_gated { spot.load::<E>(args.gate) } else { [[0.0; 4]; 4] };
            // Elements beyond the row are zeros, and so are their functions, but not their slopes.
            let mut slopes = values;
            evaluate(args.function, &mut values, &mut slopes);
            if saved.bits == SIGNS {
                saved.pack_signs(&spot, &values);
            } else if saved.bits != 0 && is_gated {
                saved.pack(Field::First, &spot, &values, drawn[0]);
                zip(&mut slopes, &gates, |slope, gate| slope * gate);
                saved.pack(Field::Second, &spot, &slopes, drawn[1]);
            } else if saved.bits != 0 {
                // Of the identity, the slopes are x.
                if args.function != Function::Identity as u32 {
                    map(&mut slopes, |slope| slope.max(SLOPES[0]).min(SLOPES[1]));
                    spot.fill_up(&mut slopes);
                }
                saved.pack(Field::First, &spot, &slopes, drawn[0]);
            }
            if args.y.is_null() {
                return;
            }
            if is_gated {
                zip(&mut values, &gates, |value, gate| value * gate);
            }
            spot.drop_out(saved, randomness, &mut values);
            spot.store::<E>(args.y, &values);
        }
    });
}

/// The backward pass.
///
/// # Safety
///
/// As for [`pointwise_forward`]; it ran before, and dx or dgate may be an input.
#[inline(always)]
pub unsafe fn pointwise_backward<E: Packed>(args: &BackwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { origin(saved) };
    let is_gated = !args.dgate.is_null();
    let arrays = [args.x, args.gate, args.dy, args.dx.cast_const(), args.dgate.cast_const()];
    let aligned = are_aligned::<E, 5>(arrays, saved.shares.columns);
    let is_identity = args.function == Function::Identity as u32;
    for_each_spot(saved, randomness, aligned, |spot, drawn| {
        // SAFETY: the group's elements, which only this lane accesses, and its place in what is saved.
        unsafe {
            let mut dy = spot.load::<E>(args.dy);
            let (mut values, mut slopes) = ([[1.0; 4]; 4], [[1.0; 4]; 4]);
            if saved.bits == SIGNS {
                slopes = saved.unpack_signs(&spot);
            } else if saved.bits != 0 && is_gated {
                values = saved.unpack(Field::First, &spot, drawn[0]).1;
                slopes = saved.unpack(Field::Second, &spot, drawn[1]).1;
            } else if saved.bits != 0 && !is_identity {
                slopes = saved.unpack(Field::First, &spot, drawn[0]).1;
            } else if !is_identity {
                values = spot.load::<E>(args.x);
                slopes = values;
                let gates = if is_gated { spot.load::<E>(args.gate) } else { slopes };
                evaluate(args.function, &mut values, &mut slopes);
                if is_gated {
                    zip(&mut slopes, &gates, |slope, gate| slope * gate);
                }
            }
            spot.drop_out(saved, randomness, &mut dy);
            zip(&mut slopes, &dy, |slope, dy| dy * slope);
            spot.store::<E>(args.dx, &slopes);
            if is_gated {
                zip(&mut values, &dy, |value, dy| value * dy);
                spot.store::<E>(args.dgate, &values);
            }
        }
    });
}

/// Calls `each` with this lane's part of each of its groups, and with the dithers of the two arrays. All lanes of the warp call it
/// together, and `each` is called in all of them together.
#[inline(always)]
pub(super) fn for_each_spot(
    saved: &SavedValues,
    randomness: Randomness,
    aligned: bool,
    mut each: impl FnMut(Spot, [Dithers; 2]),
) {
    let draw = |row: u32, group: u32| {
        let mut words = [0; 4];
        if saved.bits > SIGNS {
            let Dithers { start, slope } = dithers(randomness, Field::First, row, group);
            [words[0], words[1]] = [start, slope];
            if !saved.codes[1].is_null() {
                let Dithers { start, slope } = dithers(randomness, Field::Second, row, group);
                [words[2], words[3]] = [start, slope];
            }
        }
        words
    };
    let columns = saved.shares.columns;
    saved.shares.for_each_drawn([0; 4], draw, |drawn| {
        let Drawn { row, group, words: [a, b, c, d], team } = drawn;
        let spot = Spot { row, group, team, columns, is_row: row != u32::MAX, aligned };
        each(spot, [Dithers { start: a, slope: b }, Dithers { start: c, slope: d }]);
    });
}

/// Replaces arguments, of which `slopes` has a copy, by their functions and slopes. The identity changes nothing.
#[inline(always)]
fn evaluate(function: u32, values: &mut Quads, slopes: &mut Quads) {
    const RELU: u32 = Function::Relu as u32;
    const GELU: u32 = Function::Gelu as u32;
    const GELU_TANH: u32 = Function::GeluTanh as u32;
    const SILU: u32 = Function::Silu as u32;
    match function {
        RELU => each_point(functions::relu, values, slopes),
        GELU => each_point(functions::gelu, values, slopes),
        GELU_TANH => each_point(functions::gelu_tanh, values, slopes),
        SILU => each_point(functions::silu, values, slopes),
        _ => {}
    }
}

/// The values are turned into functions while the slopes, quad by quad, follow.
#[inline(always)]
fn each_point(function: impl Fn(f32) -> Point, values: &mut Quads, slopes: &mut Quads) {
    map_quads(values, |_, quad| {
        let mut of_quad = quad;
        let mut found = quad;
        repeat!(K in 0 1 2 3 => {
            let point = function(quad[K as usize]);
            of_quad[K as usize] = point.slope;
            found[K as usize] = point.value;
        });
        let [_, second, third, fourth] = *slopes;
        *slopes = [second, third, fourth, of_quad];
        found
    });
}
