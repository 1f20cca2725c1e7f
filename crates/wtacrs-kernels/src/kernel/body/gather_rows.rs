//! A warp takes part of a row, or of as many narrow rows as it has lanes for, in vectors of 16 bytes, four of them in
//! flight in each lane.

use super::block::vector::{self, Packed};
use crate::kernel::gather_rows::{Args, UNROLL};
use crate::kernel::matrix::VECTOR_BYTES;
use crate::kernel::row_team::RowTeam;
use wtacrs_simt::index::{block, grid};
use wtacrs_simt::memory::{self, U32x4};

/// Copies and scales rows. If `ALIGNED`, those of both sides are aligned to a vector.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::gather_rows::shape) of these arguments. Their pointers lead to as many
/// elements as their documentation says, aligned to them; indices lie within `x`, and `out` overlaps nothing.
#[inline(always)]
pub unsafe fn gather_rows<E: Packed, const ALIGNED: bool>(args: &Args) {
    let team = RowTeam::of_lanes(args.columns.div_ceil(E::PER_VECTOR));
    let [first, part, matrix] = block();
    let row = first * team.rows() + team.row();
    if row >= args.rows {
        return;
    }
    let bytes = u64::from(E::BYTES);
    let at = matrix as usize * args.rows as usize + row as usize;
    // SAFETY: there is an entry for each row of each matrix; an index within the count is a row of `x`.
    unsafe {
        let count =
            if args.count.is_null() { args.rows } else { memory::load_constant(args.count.add(matrix as usize)) };
        let is_kept = row < count;
        let (mut from, mut scale) = (args.spacing.of(matrix), 1.0);
        if is_kept {
            from += u64::from(memory::load_constant(args.indices.add(at))) * args.leading;
            if !args.scales.is_null() {
                scale = memory::load_constant(args.scales.add(at)) as f32;
            }
        }
        let to = args.out_spacing.of(matrix) + u64::from(row) * args.out_leading;
        let job = Job {
            x: args.x.add((from * bytes) as usize),
            out: args.out.add((to * bytes) as usize),
            columns: args.columns,
            is_kept,
            scale: if args.scales.is_null() { None } else { Some(scale) },
            team,
            part,
        };
        if ALIGNED {
            return job.run::<E, true, true>();
        }
        match args.are_aligned(E::BYTES) {
            [true, _] => job.run::<E, true, false>(),
            [false, true] => job.run::<E, false, true>(),
            [false, false] => job.run::<E, false, false>(),
        }
    }
}

/// A lane's part of a row.
struct Job {
    x: *const u8,
    out: *mut u8,
    columns: u32,
    is_kept: bool,
    scale: Option<f32>,
    team: RowTeam,
    part: u32,
}

impl Job {
    #[inline(always)]
    unsafe fn run<E: Packed, const ALIGNED: bool, const OUT_ALIGNED: bool>(&self) {
        let &Self { x, out, columns, is_kept, scale, team, part } = self;
        let (vectors, lanes, parts) = (columns / E::PER_VECTOR, team.threads(), grid()[1]);
        let place = |v: u32| v as usize * VECTOR_BYTES as usize;
        let mut first = part * UNROLL * lanes + team.member();
        while first < vectors {
            // Written out, as an array would be kept in local memory.
            let (v1, v2, v3) = (first + lanes, first + 2 * lanes, first + 3 * lanes);
            let load = |v: u32| {
                if is_kept && v < vectors {
                    // SAFETY: the vector lies within the row.
                    unsafe { vector::load::<E, ALIGNED>(x.add(place(v))) }
                } else {
                    U32x4([0; 4])
                }
            };
            let store = |v: u32, vector: U32x4| {
                if v < vectors {
                    // SAFETY: as above, for `out`.
                    unsafe { vector::store::<E, OUT_ALIGNED>(out.add(place(v)), scaled::<E>(vector, scale)) };
                }
            };
            let (a, b, c, d) = (load(first), load(v1), load(v2), load(v3));
            store(first, a);
            store(v1, b);
            store(v2, c);
            store(v3, d);
            first += parts * UNROLL * lanes;
        }
        let mut j = vectors * E::PER_VECTOR + team.member();
        while part == 0 && j < columns {
            let place = j as usize * E::BYTES as usize;
            // SAFETY: the element lies within both rows.
            unsafe {
                let element = if is_kept { vector::load_element::<E>(x.add(place)) } else { 0 };
                let U32x4([element, ..]) = scaled::<E>(U32x4([element, 0, 0, 0]), scale);
                vector::store_element::<E>(out.add(place), element);
            }
            j += lanes;
        }
    }
}

#[inline(always)]
fn scaled<E: Packed>(vector: U32x4, scale: Option<f32>) -> U32x4 {
    match scale {
        Some(scale) => {
            let U32x4([a, b, c, d]) = vector;
            let times = |word| E::map(word, |value| value * scale);
            U32x4([times(a), times(b), times(c), times(d)])
        }
        None => vector,
    }
}
