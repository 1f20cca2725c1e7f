//! A warp takes four whole groups at a time, or more small ones. A lane reads one vector of codes and writes its four quads.

use super::block::values::{Field, are_aligned, map, origin};
use super::pointwise::for_each_spot;
use crate::kernel::unpack_values::Args;
use wtacrs_exact::operators::values::{square, variance};

/// Writes an array from its codes.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::unpack_values::shape) of what is saved, which a forward pass wrote. The pointers lead
/// to as many elements as their documentation says, aligned to them, and the output overlaps nothing.
#[inline(always)]
pub unsafe fn unpack_values(args: &Args) {
    let saved = &args.saved;
    // SAFETY: the caller's promise.
    let randomness = unsafe { origin(saved) };
    let aligned = are_aligned([args.y.cast_const()], saved);
    for_each_spot(saved, randomness, aligned, |spot, drawn| {
        // SAFETY: the group's elements, which only this lane accesses, and its place in what is saved.
        unsafe {
            let (grid, mut values) = saved.unpack(Field::First, &spot, drawn.0);
            if args.has_roots != 0 {
                let variance = variance(grid);
                map(&mut values, |root| square(root, variance));
            }
            spot.drop_out(saved, randomness, &mut values);
            spot.store(args.y, &values);
        }
    });
}
