//! The features of the rows that a step learns from, and what is known of their ‖dZ‖: a block for each row.
//!
//! P (r × in_features) = W · F · D as in wtacrs-core: D flips signs, F folds column j onto place j mod n, W is the first r
//! rows of the Walsh-Hadamard matrix. A thread folds its places in the order of columns, so that sums have
//! the CPU's bits; the transform's n log₂ n additions are the same in any order.

use super::{Args, FAINT, Scratch, State, VANISHED, at};
use crate::block::logarithm::ln;
use crate::block::row_team::{RowTeam, THREADS, WARP_VECTORS};
use crate::block::vector::{self, Packed};
use wtacrs_core::predictor_rules::{LARGEST_VALID_SCALE, Target, chosen_row, grid, numbers, squared_weight};
use wtacrs_simt::index::{self, WARP, block, lane, thread, warp};
use wtacrs_simt::math::{fma_f64, sqrt_f64};
use wtacrs_simt::memory;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_min};

/// Warps of a block.
const WARPS: u32 = THREADS / WARP;

/// Room for the norm's sum and the least invalid row of each warp.
pub(super) const SCRATCH_BYTES: u32 = (8 + 4) * WARPS;

/// √ω·P(h/‖h‖) of a row on the grid, its √ω and target; and a look at all kept rows for scales and norms that are none.
///
/// # Safety
///
/// The launch has the shape `features_shape` of these arguments, whose pointers lead to as many elements as their
/// documentation says.
#[inline(always)]
pub unsafe fn predictor_features<E: Packed>(args: &Args) {
    let ([at_row, _, _], [blocks, _, _]) = (block(), index::grid());
    let projection = args.projection();
    let (r, width) = (projection.features, projection.width);
    let scratch = Scratch::new(args.blocks(), r);
    let team = RowTeam::new(WARP_VECTORS + 1);
    let norm_sums = Shared::<f64>::new(0, WARPS);
    let least = Shared::<u32>::new(norm_sums.end(), WARPS);
    let folded = Shared::<f32>::new(SCRATCH_BYTES, width);
    // SAFETY: the chosen row is one of those given, so that everything of its index exists; blocks write what is theirs
    // in scratch, threads what is theirs in shared memory, between barriers that all of them reach.
    unsafe {
        let (given, chosen) = args.rows_given_and_chosen();
        let has_row = at_row < chosen;
        let row = if has_row { chosen_row(at_row.into(), given.into(), chosen.into()) } else { 0 };
        let columns = if has_row { args.in_features } else { 0 };
        let from = args.rows.add((row * args.leading * u64::from(E::BYTES)) as usize);
        let element = |j: u32| vector::value::<E>(vector::load_element::<E>(from.add(j as usize * E::BYTES as usize)));

        let mut squares = 0.0;
        let mut j = thread();
        while j < columns {
            let value = f64::from(element(j));
            squares = fma_f64(value, value, squares);
            j += THREADS;
        }
        let norm = sqrt_f64(team.sum(squares, norm_sums)) as f32;
        let is_row_invalid = !norm.is_finite();

        let mut invalid = if is_row_invalid { row as u32 } else { u32::MAX };
        let mut i = at_row * THREADS + thread();
        while i < given {
            let (dz_norm, scale) = facts(args, i);
            let is_valid = (0.0..f32::INFINITY).contains(&dz_norm) && (0.0..=LARGEST_VALID_SCALE).contains(&scale);
            if !is_valid && i < invalid {
                invalid = i;
            }
            i += blocks * THREADS;
        }
        let invalid = reduce_min(FULL, invalid);
        if lane() == 0 {
            least.write(warp(), invalid);
        }

        // A power of two brings the row near length one, exactly, so that sums of extreme elements stay finite.
        let norm_f64 = f64::from(norm);
        let exponent = 1023 - (norm_f64.to_bits() >> 52) as i32;
        let exponent = exponent.clamp(-126, 126);
        let prescale = f32::from_bits(((exponent + 127) as u32) << 23);
        let columns = if is_row_invalid || norm == 0.0 { 0 } else { columns };
        fold(args, element, prescale, columns, folded);
        walsh_hadamard(folded);

        let (dz_norm, scale) = if has_row { facts(args, row as u32) } else { (0.0, 0.0) };
        let share = if has_row { f64::from(given) / f64::from(chosen) } else { 1.0 };
        let root = grid::root(sqrt_f64(sqrt_f64(squared_weight(share * scale))));
        let unit = 1.0 / (norm_f64 * f64::from(prescale));
        let x = at::<u32>(args.scratch, scratch.x).add(at_row as usize * r as usize);
        let mut i = thread();
        while i < r {
            let feature = if columns > 0 { f64::from(folded.read(i)) * unit } else { 0.0 };
            memory::store(x.add(i as usize), grid::units(feature, root) as u32);
            i += THREADS;
        }
        if thread() == 0 {
            let mut invalid = u32::MAX;
            for warp in 0..WARPS {
                let other = least.read(warp);
                invalid = if other < invalid { other } else { invalid };
            }
            let scalars = at::<f64>(args.state, State::new(args.in_features, args.features).scalars);
            let level = memory::load(scalars.add(numbers::LEVEL));
            let target = match Target::new(dz_norm, ln(dz_norm), level, args.clamp) {
                Target::Log(log) => grid::target(log, root),
                Target::Faint => FAINT,
                Target::Zero => VANISHED,
            };
            memory::store(at::<f64>(args.scratch, scratch.roots).add(at_row as usize), root);
            memory::store(at::<f64>(args.scratch, scratch.targets).add(at_row as usize), target);
            memory::store(at::<u32>(args.scratch, scratch.invalid).add(at_row as usize), invalid);
        }
    }
}

/// ‖dZ‖ and the scale of a kept row.
#[inline(always)]
unsafe fn facts(args: &Args, row: u32) -> (f32, f64) {
    // SAFETY: the row is one of those given.
    unsafe {
        let token = if args.indices.is_null() { row } else { memory::load_constant(args.indices.add(row as usize)) };
        (memory::load_constant(args.dz_norms.add(token as usize)), memory::load_constant(args.scales.add(row as usize)))
    }
}

/// `folded` ← F·D·row, for so many columns; visible to its own thread only.
#[inline(always)]
unsafe fn fold(args: &Args, element: impl Fn(u32) -> f32, prescale: f32, columns: u32, folded: Shared<f32>) {
    let width = folded.len();
    let mut place = thread();
    while place < width {
        let mut sum = 0.0_f32;
        let mut j = place;
        while j < columns {
            // SAFETY: there is a bit for each column, and the state's signs are never written.
            let word = unsafe {
                let signs = at::<u32>(args.state, State::new(args.in_features, args.features).signs);
                memory::load_constant(signs.add(j as usize / 32))
            };
            let value = element(j) * prescale;
            sum += if word >> (j % 32) & 1 == 0 { value } else { -value };
            j += width;
        }
        // SAFETY: place < width, and no other thread has it.
        unsafe { folded.write(place, sum) };
        place += THREADS;
    }
}

/// The unnormalised Walsh-Hadamard transform in place, visible to all threads of the block afterwards.
#[inline(always)]
unsafe fn walsh_hadamard(values: Shared<f32>) {
    let mut half = 1;
    barrier();
    while half < values.len() {
        let mut pair = thread();
        while pair < values.len() / 2 {
            let low = pair & (half - 1);
            let left = (pair - low) * 2 + low;
            // SAFETY: pairs are disjoint, and a barrier stands between two rounds.
            unsafe {
                let (a, b) = (values.read(left), values.read(left + half));
                values.write(left, a + b);
                values.write(left + half, a - b);
            }
            pair += THREADS;
        }
        barrier();
        half *= 2;
    }
}
