//! A warp takes four whole groups at a time, or more small ones: it loads their quads, rotates them in registers and by
//! shuffles, finds their range, and writes their codes in vectors of 16 bytes.

use super::block::group::{self, Group, NO_INDEX, Quads, block_signs};
use super::block::repeat;
use super::block::vector::{self, Packed};
use crate::kernel::gather_pack::Args;
use crate::kernel::packed_rows::WARPS;
use wtacrs_exact::packing::{self, GROUP, PackingBits, prescale};
use wtacrs_exact::random::Randomness;
use wtacrs_simt::index::{block, grid, lane, thread, warp};
use wtacrs_simt::memory::{load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_min};

/// Packs rows.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::gather_pack::shape) of these arguments. Their pointers lead to as many
/// elements as their documentation says, aligned to them; indices lie within `x`, and the outputs overlap nothing.
#[inline(always)]
pub unsafe fn gather_pack<E: Packed>(args: &Args) {
    let ([_, _, matrix], packed) = (block(), &args.packed);
    let shares = packed.shares;
    // SAFETY: one number, if any.
    let further = if args.further_offset.is_null() { 0 } else { unsafe { load_constant(args.further_offset) } };
    let offset = args.offset.wrapping_add(further);
    if block() == [0; 3] && thread() == 0 {
        // SAFETY: two numbers, which this thread alone writes.
        unsafe {
            store(packed.origin, args.seed);
            store(packed.origin.wrapping_add(1), offset);
        }
    }
    let stream = group::stream(packed.first_stream, packed.stream_step);
    let random = PackingBits::new(Randomness::new(args.seed, offset), stream);
    let of_signs = Shared::<u32>::new(0, 4);
    // SAFETY: the words are used by nothing else.
    let signs = unsafe { block_signs(&random, of_signs) };

    let mut rows = shares.rows;
    if !args.count.is_null() {
        // SAFETY: there is a count for each matrix.
        let count = unsafe { load_constant(args.count.wrapping_add(matrix as usize)) };
        rows = if count < rows { count } else { rows };
    }
    let indices = args.indices.wrapping_add(matrix as usize * shares.rows as usize);
    let index = |row: u32| {
        if row >= rows {
            NO_INDEX
        } else if args.indices.is_null() {
            row
        } else {
            // SAFETY: an index of a row that counts.
            unsafe { load_constant(indices.wrapping_add(row as usize)) }
        }
    };
    let bytes = u64::from(E::BYTES);
    let x = args.x.wrapping_add((args.spacing.of(matrix) * bytes) as usize);
    let stride = (args.leading | args.spacing.bits()) * bytes;
    let aligned = (args.x.addr() as u64 | stride) & (4 * bytes - 1) == 0;
    let mut fault = u32::MAX;
    shares.for_each_group(&random, index, |group| {
        let Group { row, team, word, .. } = group;
        let is_kept = group.index != NO_INDEX;
        let mut quads = [[0.0; 4]; 4];
        if is_kept && team.takes_part() {
            let from = x.wrapping_add((u64::from(group.index) * args.leading * bytes) as usize);
            // SAFETY: the index lies within `x`.
            quads = unsafe { load::<E>(from, group, shares.columns, aligned) };
        }
        team.turn(&mut quads, signs, prescale(team.size()));
        team.butterflies(&mut quads);
        let lines = group::grid(team.range(&quads), packed.bits);
        let codes = team.codes(&quads, packed.bits, lines, |j| packing::dither(word, j));
        if is_kept && team.member < team.code_vectors(packed.bits) {
            let to = packed.codes_of(matrix, row, group.group).wrapping_add(4 * team.member as usize);
            // SAFETY: a vector of the group's, which this lane alone writes.
            unsafe { store(to.cast(), codes) };
        }
        if is_kept && team.member == 0 {
            // SAFETY: the group's own place.
            unsafe { store(packed.grid_of(matrix, row, group.group), lines.word()) };
            // Element 0 is the sum of all.
            if !quads[0][0].is_finite() && row < fault {
                fault = row;
            }
        }
    });
    if args.faults.is_null() {
        return;
    }
    let of_warps = Shared::<u32>::new(of_signs.end(), WARPS);
    let fault = reduce_min(FULL, fault);
    // SAFETY: a word for each warp, read after the barrier.
    unsafe {
        if lane() == 0 {
            of_warps.write(warp(), fault);
        }
        barrier();
        if thread() == 0 {
            let mut first = u32::MAX;
            for warp in 0..WARPS {
                let other = of_warps.read(warp);
                first = if other < first { other } else { first };
            }
            let at = matrix as usize * grid()[0] as usize + block()[0] as usize;
            // One more than no row is 0.
            store(args.faults.wrapping_add(at), first.wrapping_add(1));
        }
    }
}

/// This lane's elements of a group of the row at `from`, zeros beyond the columns.
#[inline(always)]
unsafe fn load<E: Packed>(from: *const u8, group: Group, columns: u32, aligned: bool) -> Quads {
    let column = |i: u32| group.group * GROUP as u32 + group.team.first(i);
    let at = |column: u32| from.wrapping_add(column as usize * E::BYTES as usize);
    // One branch for all four, so that their loads are on their way together.
    if aligned && column(3) + 4 <= columns {
        // SAFETY: elements of the row, and quads aligned as the first and the distances of rows are.
        return unsafe {
            [
                E::load_quad(at(column(0))),
                E::load_quad(at(column(1))),
                E::load_quad(at(column(2))),
                E::load_quad(at(column(3))),
            ]
        };
    }
    let mut quads = [[0.0; 4]; 4];
    repeat!(I in 0 1 2 3 => {
        repeat!(K in 0 1 2 3 => {
            if column(I) + K < columns {
                // SAFETY: an element of the row.
                let element = unsafe { vector::load_element::<E>(at(column(I) + K)) };
                quads[I as usize][K as usize] = vector::value::<E>(element);
            }
        });
    });
    quads
}
