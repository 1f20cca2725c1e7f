//! The features of the rows that a step learns from, and their targets: a block for each row.
//!
//! P (r × in_features) = W · F · D as in wtacrs-core: D flips signs, F folds column j onto place j mod n, W is the first r
//! rows of the Walsh-Hadamard matrix. A thread folds its places in the order of columns, so that sums have
//! the CPU's bits; the transform's n log₂ n additions are the same in any order.

use super::arguments::{FAINT, NOT_CACHED, VANISHED, at};
use crate::kernel::body::block::functions::{ln, ln_norm};
use crate::kernel::body::block::group::{Team, dither_word, random_of};
use crate::kernel::body::block::repeat;
use crate::kernel::body::block::vector::{self, Packed};
use crate::kernel::packed_rows::PackedRows;
use crate::kernel::predictor_update::{
    Args, FEATURES_SCRATCH_BYTES, PACKED_TILE, PackedArgs, Scratch, State, packed_tile_begin,
};
use crate::kernel::row_team::{RowTeam, THREADS, WARP_VECTORS};
use core::marker::PhantomData;
use wtacrs_exact::packing::{GROUP, PackingBits};
use wtacrs_exact::predictor::{LARGEST_VALID_SCALE, Target, blend, chosen_row, grid, squared_weight, state};
use wtacrs_simt::WARP;
use wtacrs_simt::index::{self, block, lane, thread, warp};
use wtacrs_simt::math::{fma_f64, sqrt_f64};
use wtacrs_simt::memory;
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, reduce_min};

/// Warps of a block.
const WARPS: u32 = THREADS / WARP;

/// √ω·P(h/‖h‖) of a row on the grid, its √ω and its targets; and a search of all kept rows for invalid scales and norms.
///
/// # Safety
///
/// The launch has the [`features_shape`](crate::kernel::predictor_update::features_shape) of these arguments. Their
/// pointers lead to as many elements as their documentation says.
#[inline(always)]
pub unsafe fn predictor_features<E: Packed>(args: &Args) {
    // SAFETY: the caller's promise.
    unsafe {
        features_of(args, |row| {
            Native::<E>(args.rows.add((row * args.leading) as usize * E::BYTES as usize), PhantomData)
        })
    }
}

/// The same for packed rows, which are unpacked and turned back.
///
/// # Safety
///
/// As for [`predictor_features`], with [`packed_features_shape`](crate::kernel::predictor_update::packed_features_shape).
#[inline(always)]
pub unsafe fn predictor_features_packed(args: &PackedArgs) {
    let (packed, update) = (&args.packed, &args.update);
    // SAFETY: the caller's promise.
    let random = unsafe { random_of(packed.origin, packed.first_stream, packed.stream_step) };
    let tile = Shared::new(packed_tile_begin(update.in_features, update.features), PACKED_TILE);
    let rows = |row: u64| Unpacked { packed, random, row: row as u32, indices: update.indices, tile };
    // SAFETY: as above.
    unsafe { features_of(update, rows) }
}

/// A row whose elements are read in tiles of so many columns, a multiple of the block's threads and of the projection's width.
trait Row {
    /// Columns of a tile.
    const TILE: u32;

    /// Makes a tile's elements readable. All threads of the block call it together, and have read the tile before.
    unsafe fn load(&self, first: u32);

    /// Element j, of the tile that begins at `first`.
    unsafe fn element(&self, first: u32, j: u32) -> f32;
}

/// A row in memory, of which all elements are readable.
struct Native<E>(*const u8, PhantomData<E>);

impl<E: Packed> Row for Native<E> {
    const TILE: u32 = 1 << 31;

    #[inline(always)]
    unsafe fn load(&self, _: u32) {}

    #[inline(always)]
    unsafe fn element(&self, _: u32, j: u32) -> f32 {
        // SAFETY: the caller's promise: an element of the row.
        vector::value::<E>(unsafe { vector::load_element::<E>(self.0.add(j as usize * E::BYTES as usize)) })
    }
}

/// A packed row, of which a tile is in shared memory.
struct Unpacked<'a> {
    packed: &'a PackedRows,
    random: PackingBits,
    row: u32,
    indices: *const u32,
    tile: Shared<f32>,
}

impl Row for Unpacked<'_> {
    const TILE: u32 = PACKED_TILE;

    #[inline(always)]
    unsafe fn load(&self, first: u32) {
        let groups = self.packed.shares.groups();
        let group = first / GROUP as u32 + thread() / 8;
        let is_group = group < groups.count() as u32;
        let lanes = if is_group { groups.size(group as usize) as u32 / 16 } else { 0 };
        let team = Team { lanes, member: thread() % 8, most: 8 };
        let index = if self.indices.is_null() {
            self.row
        } else {
            // SAFETY: a kept row's index.
            unsafe { memory::load_constant(self.indices.add(self.row as usize)) }
        };
        let word = dither_word(&self.random, index, group);
        // SAFETY: the row was packed; places of the tile are this thread's between the barriers.
        unsafe {
            let mut quads = self.packed.unpack(0, self.row, group, word, team);
            team.butterflies(&mut quads);
            team.turn(&mut quads, self.random.signs(), 2.0);
            barrier();
            if team.takes_part() {
                repeat!(I in 0 1 2 3 => {
                    repeat!(K in 0 1 2 3 => {
                        self.tile.write(thread() / 8 * GROUP as u32 + team.first(I) + K, quads[I as usize][K as usize]);
                    });
                });
            }
            barrier();
        }
    }

    #[inline(always)]
    unsafe fn element(&self, first: u32, j: u32) -> f32 {
        // SAFETY: the caller's promise: a column of the tile.
        unsafe { self.tile.read(j - first) }
    }
}

#[inline(always)]
unsafe fn features_of<R: Row>(args: &Args, rows: impl Fn(u64) -> R) {
    let ([at_row, _, _], [blocks, _, _]) = (block(), index::grid());
    let projection = args.projection();
    let (r, width) = (projection.features, projection.width);
    let scratch = Scratch::new(args.blocks(), r);
    let team = RowTeam::new(WARP_VECTORS + 1);
    let norm_sums = Shared::<f64>::new(0, WARPS);
    let least = Shared::<u32>::new(norm_sums.end(), WARPS);
    let folded = Shared::<f32>::new(FEATURES_SCRATCH_BYTES, width);
    // SAFETY: the chosen row is one of those given, so everything of its index exists. Blocks write their own places of the
    // scratch, and threads their own of shared memory, between barriers that all of them reach.
    unsafe {
        let (given, chosen) = args.rows_given_and_chosen();
        let has_row = at_row < chosen;
        let row = if has_row { chosen_row(at_row.into(), given.into(), chosen.into()) } else { 0 };
        let columns = if has_row { args.in_features } else { 0 };
        let of_row = rows(row);

        let mut squares = 0.0;
        let mut first = 0;
        while first < columns {
            of_row.load(first);
            let end = end_of_tile(first, R::TILE, columns);
            let mut j = first + thread();
            while j < end {
                let value = f64::from(of_row.element(first, j));
                squares = fma_f64(value, value, squares);
                j += THREADS;
            }
            first += R::TILE;
        }
        let norm = sqrt_f64(team.sum(squares, norm_sums)) as f32;
        let is_row_invalid = !norm.is_finite();

        let mut invalid = if is_row_invalid { row as u32 } else { u32::MAX };
        let mut i = at_row * THREADS + thread();
        while i < given {
            let Facts { dz_norm, cached, scale } = facts(args, i);
            let is_valid = (0.0..f32::INFINITY).contains(&dz_norm)
                && cached < f32::INFINITY
                && (0.0..=LARGEST_VALID_SCALE).contains(&scale);
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
        fold(args, &of_row, prescale, columns, folded);
        walsh_hadamard(folded);

        let Facts { dz_norm, cached, scale } =
            if has_row { facts(args, row as u32) } else { Facts { dz_norm: 0.0, cached: UNKNOWN, scale: 0.0 } };
        let share = if has_row { f64::from(given) / f64::from(chosen) } else { 1.0 };
        let root = grid::root(sqrt_f64(sqrt_f64(squared_weight(share * scale))));
        let unit = 1.0 / (norm_f64 * f64::from(prescale));
        let x = at::<u32>(args.scratch, scratch.x).add(at_row as usize * r as usize);
        let state = State::new(args.in_features, args.features);
        let coefficients = at::<f64>(args.state, state.coefficients);
        let has_cache = !args.cached_norms.is_null();
        let mut explained = 0.0;
        let mut i = thread();
        while i < r {
            let feature = if columns > 0 { f64::from(folded.read(i)) * unit } else { 0.0 };
            memory::store(x.add(i as usize), grid::units(feature, root) as u32);
            if has_cache {
                explained = fma_f64(memory::load_constant(coefficients.add(i as usize)), feature, explained);
            }
            i += THREADS;
        }
        if has_cache {
            // Between the sum before and this one lie the transform's barriers.
            explained = team.sum(explained, norm_sums);
        }
        if thread() == 0 {
            let mut invalid = u32::MAX;
            for warp in 0..WARPS {
                let other = least.read(warp);
                invalid = if other < invalid { other } else { invalid };
            }
            let scalars = at::<f64>(args.state, state.scalars);
            let level = memory::load(scalars.add(state::LEVEL));
            let target = Target::new(dz_norm, ln(dz_norm), level, args.clamp);
            if has_cache {
                let has_learned = memory::load(scalars.add(state::TRACE)) > 0.0;
                let (mut distance, mut error) = (NOT_CACHED, 0.0);
                if let Target::Log(log) = target
                    && has_learned
                    && cached >= 0.0
                {
                    let guess = memory::load(scalars.add(state::INTERCEPT)) + explained;
                    distance = grid::distance(blend::distance(ln_norm(cached), guess, args.clamp), root);
                    error = grid::distance(log - guess, root);
                }
                let blends = at::<f64>(args.scratch, scratch.blends).add(2 * at_row as usize);
                memory::store(blends, distance);
                memory::store(blends.add(1), error);
            }
            let target = match target {
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

/// In place of a cached norm that is not known.
const UNKNOWN: f32 = -1.0;

/// The numbers of a kept row.
struct Facts {
    dz_norm: f32,
    /// Negative if the cache has none.
    cached: f32,
    scale: f64,
}

#[inline(always)]
unsafe fn facts(args: &Args, row: u32) -> Facts {
    // SAFETY: the row is one of those given.
    unsafe {
        let token = if args.indices.is_null() { row } else { memory::load_constant(args.indices.add(row as usize)) };
        let cached = if args.cached_norms.is_null() {
            UNKNOWN
        } else {
            memory::load_constant(args.cached_norms.add(token as usize))
        };
        Facts {
            dz_norm: memory::load_constant(args.dz_norms.add(token as usize)),
            cached,
            scale: if args.scales.is_null() { 1.0 } else { memory::load_constant(args.scales.add(row as usize)) },
        }
    }
}

/// Where a tile ends.
#[inline(always)]
fn end_of_tile(first: u32, tile: u32, columns: u32) -> u32 {
    if columns - first < tile { columns } else { first + tile }
}

/// `folded` ← F·D·row, for so many columns; visible to its own thread only.
#[inline(always)]
unsafe fn fold<R: Row>(args: &Args, row: &R, prescale: f32, columns: u32, folded: Shared<f32>) {
    let width = folded.len();
    let mut first = 0;
    loop {
        let end = end_of_tile(first, R::TILE, columns);
        if first < columns {
            // SAFETY: all threads of the block are here.
            unsafe { row.load(first) };
        }
        let mut place = thread();
        while place < width {
            // SAFETY: place < width, and no other thread has it.
            let mut sum = if first == 0 { 0.0_f32 } else { unsafe { folded.read(place) } };
            let mut j = first + place;
            while j < end {
                // SAFETY: there is a bit for each column, and the state's signs are never written; the column is one of the
                // tile's.
                let (word, element) = unsafe {
                    let signs = at::<u32>(args.state, State::new(args.in_features, args.features).signs);
                    (memory::load_constant(signs.add(j as usize / 32)), row.element(first, j))
                };
                let value = element * prescale;
                sum += if word >> (j % 32) & 1 == 0 { value } else { -value };
                j += width;
            }
            // SAFETY: as above.
            unsafe { folded.write(place, sum) };
            place += THREADS;
        }
        first += R::TILE;
        if first >= columns {
            return;
        }
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
            // SAFETY: pairs are disjoint, and a barrier is between two rounds.
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
