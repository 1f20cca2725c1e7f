//! A warp takes four whole groups at a time, or more small ones. A lane reads one vector of codes and writes its four quads.

use super::block::group::{Group, NO_INDEX, random_of};
use super::block::repeat;
use super::block::vector::Packed;
use crate::kernel::packed_rows::{THREADS, WARPS};
use crate::kernel::unpack_rows::Args;
use wtacrs_exact::packing::GROUP;
use wtacrs_simt::atomic::{load_relaxed, store_relaxed};
use wtacrs_simt::index::{block, lane, thread, warp};
use wtacrs_simt::memory::{load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_min};

/// Unpacks rows.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::unpack_rows::shape) of these arguments. Their pointers lead to as many
/// elements as their documentation says, aligned to them, and the outputs overlap nothing.
#[inline(always)]
pub unsafe fn unpack_rows<E: Packed>(args: &Args) {
    let ([first, _, matrix], packed) = (block(), &args.packed);
    let shares = packed.shares;
    // SAFETY: the caller's promise.
    let random = unsafe { random_of(packed.origin, packed.first_stream, packed.stream_step) };
    let mut rows = shares.rows;
    if !args.count.is_null() {
        // SAFETY: there is a count for each matrix.
        let count = unsafe { load_constant(args.count.wrapping_add(matrix as usize)) };
        rows = if count < rows { count } else { rows };
    }
    // SAFETY: the caller's promise.
    if unsafe { has_faults(args, matrix) } {
        rows = 0;
    }
    if first == 0 && thread() == 0 && !args.counted.is_null() {
        // SAFETY: the matrix's own place.
        unsafe { store(args.counted.wrapping_add(matrix as usize), rows) };
    }
    let of_matrix = matrix as usize * shares.rows as usize;
    let (indices, scales) = (args.indices.wrapping_add(of_matrix), args.scales.wrapping_add(of_matrix));
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
    shares.for_each_group(&random, index, |group| {
        let Group { row, team, word, .. } = group;
        if row == u32::MAX || !team.takes_part() {
            return;
        }
        let (mut quads, mut scale) = ([[0.0; 4]; 4], 1.0);
        // SAFETY: a row that counts was packed and has a scale, if there are some; the quads lie within the row of `out`,
        // whose groups begin at multiples of 16 elements.
        unsafe {
            if group.index != NO_INDEX {
                quads = packed.unpack(matrix, row, group.group, word, team);
                if !args.scales.is_null() {
                    scale = load_constant(scales.wrapping_add(row as usize)) as f32;
                }
            }
            let of_row = u64::from(matrix) * args.out_matrix + u64::from(row) * args.out_leading;
            repeat!(I in 0 1 2 3 => {
                let at = of_row + u64::from(group.group * GROUP as u32 + team.first(I));
                let to = args.out.wrapping_add((at * u64::from(E::BYTES)) as usize);
                E::store_quad(to, quads[I as usize].map(|value| value * scale));
            });
        }
    });
}

/// Whether a block of the matrix's has met a fault. If so, the first word becomes that of the first. All threads of the block
/// call it together.
#[inline(always)]
unsafe fn has_faults(args: &Args, matrix: u32) -> bool {
    if args.faults.is_null() {
        return false;
    }
    let of_matrix = args.faults.wrapping_add(matrix as usize * args.fault_words as usize);
    let mut first = u32::MAX;
    let mut word = thread();
    while word < args.fault_words {
        // SAFETY: a word of the matrix's. The first may be overwritten meanwhile, atomically, where another one is not 0 either.
        let fault = unsafe { load_relaxed(of_matrix.wrapping_add(word as usize)) };
        // 0 becomes the largest number.
        let row = fault.wrapping_sub(1);
        first = if row < first { row } else { first };
        word += THREADS;
    }
    let first = reduce_min(FULL, first);
    let of_warps = Shared::<u32>::new(0, WARPS);
    // SAFETY: a word for each warp, read after the barrier.
    unsafe {
        if lane() == 0 {
            of_warps.write(warp(), first);
        }
        barrier();
        let mut least = u32::MAX;
        for warp in 0..WARPS {
            let other = of_warps.read(warp);
            least = if other < least { other } else { least };
        }
        if block()[0] == 0 && thread() == 0 && least != u32::MAX {
            store_relaxed(of_matrix, least + 1);
        }
        least != u32::MAX
    }
}
