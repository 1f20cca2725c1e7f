//! A warp takes four whole groups at a time, or more small ones, as `gather_pack` does. A lane has four quads of neighbours.

use super::block::group::{Drawn, Quads};
use super::block::repeat;
use super::block::values::{Field, Spot, are_aligned, begin, dithers, map, map_quads, origin, pass_dithers, zip};
use crate::kernel::operator::{Function, SIGNS, SavedValues};
use crate::kernel::pointwise::{BackwardArgs, ForwardArgs};
use wtacrs_exact::operators::functions::{self, Point};
use wtacrs_exact::operators::values::{Dithers, bounded_slope};
use wtacrs_exact::random::Randomness;

/// The forward pass.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::pointwise::shape) of what is saved. The pointers lead to as many elements as their
/// documentation says, aligned to them. The outputs overlap nothing, except that y may be an input.
#[inline(always)]
pub unsafe fn pointwise_forward(args: &ForwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { begin(&args.start, saved) };
    let is_gated = !args.gate.is_null();
    let aligned = are_aligned([args.x, args.gate, args.y.cast_const()], saved);
    for_each_spot(saved, randomness, aligned, |spot, drawn| {
        // SAFETY: the group's elements, which only this lane accesses, and its place in what is saved.
        unsafe {
            let mut values = spot.load(args.x);
            // Elements beyond the row are zeros, and so are their functions, but not their slopes.
            let mut slopes = values;
            evaluate(args.function, &mut values, &mut slopes);
            let mut y = values;
            if is_gated {
                let gates = spot.load(args.gate);
                zip(&mut y, &gates, |value, gate| value * gate);
                zip(&mut slopes, &gates, |slope, gate| slope * gate);
            }
            if saved.bits == SIGNS {
                saved.pack_signs(&spot, &values);
            }
            // Written before anything is packed, so that its registers are free then.
            if !args.y.is_null() {
                spot.drop_out(saved, randomness, &mut y);
                spot.store(args.y, &y);
            }
            if saved.bits <= SIGNS {
                return;
            }
            let mut packed = slopes;
            if is_gated {
                packed = values;
            } else if args.function != Function::Identity as u32 {
                map(&mut packed, bounded_slope);
                spot.fill_up(&mut packed, 0.0);
            }
            // A loop, so that the code of packing is there once.
            let mut field = Field::First;
            loop {
                saved.pack(field, &spot, &packed, dithers_of(drawn, field));
                if !is_gated || field == Field::Second {
                    break;
                }
                (packed, field) = (slopes, Field::Second);
            }
        }
    });
}

/// The backward pass.
///
/// # Safety
///
/// As for [`pointwise_forward`]; it ran before, and dx or dgate may be an input.
#[inline(always)]
pub unsafe fn pointwise_backward(args: &BackwardArgs) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { origin(saved) };
    let is_gated = !args.dgate.is_null();
    let arrays = [args.x, args.gate, args.dy, args.dx.cast_const(), args.dgate.cast_const()];
    let aligned = are_aligned(arrays, saved);
    let is_identity = args.function == Function::Identity as u32;
    for_each_spot(saved, randomness, aligned, |spot, drawn| {
        // SAFETY: the group's elements, which only this lane accesses, and its place in what is saved.
        unsafe {
            let mut dy = spot.load(args.dy);
            let (mut values, mut slopes) = ([[1.0; 4]; 4], [[1.0; 4]; 4]);
            if saved.bits == SIGNS {
                slopes = saved.unpack_signs(&spot);
            } else if saved.bits != 0 && !is_identity {
                // A loop, so that the code of unpacking is there once. The last array has slopes.
                let mut field = Field::First;
                loop {
                    values = slopes;
                    slopes = saved.unpack(field, &spot, dithers_of(drawn, field)).1;
                    if !is_gated || field == Field::Second {
                        break;
                    }
                    field = Field::Second;
                }
            } else if !is_identity {
                values = spot.load(args.x);
                slopes = values;
                let gates = if is_gated { spot.load(args.gate) } else { slopes };
                evaluate(args.function, &mut values, &mut slopes);
                if is_gated {
                    zip(&mut slopes, &gates, |slope, gate| slope * gate);
                }
            }
            spot.drop_out(saved, randomness, &mut dy);
            zip(&mut slopes, &dy, |slope, dy| dy * slope);
            spot.store(args.dx, &slopes);
            if is_gated {
                zip(&mut values, &dy, |value, dy| value * dy);
                spot.store(args.dgate, &values);
            }
        }
    });
}

/// Those of an array, word by word: a choice between the two as they are would be one between places in local memory.
#[inline(always)]
fn dithers_of((first, second): (Dithers, Dithers), field: Field) -> Dithers {
    let is_first = field == Field::First;
    Dithers {
        start: if is_first { first.start } else { second.start },
        slope: if is_first { first.slope } else { second.slope },
    }
}

/// Calls `each` with this lane's part of each of its groups, and with the dithers of the two arrays. All lanes of the warp call it
/// together, and `each` is called in all of them together.
#[inline(always)]
pub(super) fn for_each_spot(
    saved: &SavedValues,
    randomness: Randomness,
    aligned: bool,
    mut each: impl FnMut(Spot, (Dithers, Dithers)),
) {
    let draw = |row: u32, group: u32| {
        let (mut first, mut second) = (Dithers::NONE, Dithers::NONE);
        if saved.bits > SIGNS {
            first = dithers(randomness, Field::First, row, group);
            if !saved.codes[1].is_null() {
                second = dithers(randomness, Field::Second, row, group);
            }
        }
        (first, second)
    };
    let pass = |(first, second): (Dithers, Dithers), from| (pass_dithers(first, from), pass_dithers(second, from));
    let (columns, element) = (saved.shares.columns, saved.element);
    saved.shares.for_each_drawn((Dithers::NONE, Dithers::NONE), draw, pass, |group| {
        let Drawn { row, group, drawn, team } = group;
        each(Spot { row, group, team, columns, is_row: row != u32::MAX, element, aligned }, drawn);
    });
}

/// Replaces arguments, of which `slopes` has a copy, by their functions and slopes. The identity changes nothing.
#[inline(always)]
fn evaluate(function: u32, values: &mut Quads, slopes: &mut Quads) {
    if function & Function::Relu as u32 != 0 {
        each_point(functions::relu, values, slopes);
    } else if function & Function::Gelu as u32 != 0 {
        each_point(functions::gelu, values, slopes);
    } else if function & Function::GeluTanh as u32 != 0 {
        each_point(functions::gelu_tanh, values, slopes);
    } else if function & Function::Silu as u32 != 0 {
        each_point(functions::silu, values, slopes);
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
