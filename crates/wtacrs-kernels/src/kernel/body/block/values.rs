//! What the kernels of operators are built from: a lane's part of a group of a dense array, its values in few bits, its signs,
//! its dropout; and the sums of a row by eight lanes.
//!
//! A loop over quads whose body is large (random bits, an exponential) moves the quads on by one place instead of indexing them. So
//! the body is there once, and the quads stay in registers: [`map_quads`].

use super::group::{Quads, Team, select};
use super::random::philox;
use super::repeat;
use super::vector::Packed;
use crate::kernel::body::element::{Bf16, Element, F16, F32};
use crate::kernel::matrix::DataType;
use crate::kernel::operator::{ROW_LANES, SIGNS, SavedValues, Start, WARP_ROWS};
use crate::kernel::packed_rows::GroupShares;
use wtacrs_exact::operators::dropout::{self, Mask};
use wtacrs_exact::operators::values::{self, Dithers, ValueBits};
use wtacrs_exact::packing::{Bits, GROUP, Grid, Groups};
use wtacrs_exact::random::Randomness;
use wtacrs_simt::index::{block, block_warps, lane, thread, warp};
use wtacrs_simt::memory::{U32x2, U32x4, load, load_constant, store};
use wtacrs_simt::warp::{FULL, ballot, shuffle, shuffle_xor};

/// This lane's elements of a group of a row.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The row.
    pub row: u32,
    /// The group's number in the row.
    pub group: u32,
    /// The group's lanes.
    pub team: Team,
    /// Elements of the row.
    pub columns: u32,
    /// Whether there is such a row.
    pub is_row: bool,
    /// The arrays' element type, a [`DataType`].
    pub element: u32,
    /// Whether quads of all rows of all arrays are aligned to their bytes.
    pub aligned: bool,
}

/// Bytes of an element of a [`DataType`].
#[inline(always)]
fn bytes_of(element: u32) -> u32 {
    if element == DataType::F32 as u32 { 4 } else { 2 }
}

/// Whether the quads of all rows are aligned, of arrays of which these are the first bytes; null where there is no array.
#[inline(always)]
pub fn are_aligned<const N: usize>(arrays: [*const u8; N], saved: &SavedValues) -> bool {
    let bytes = bytes_of(saved.element) as usize;
    let mut bits = saved.shares.columns as usize * bytes;
    let mut i = 0;
    while i < N {
        bits |= arrays[i].addr();
        i += 1;
    }
    bits & (4 * bytes - 1) == 0
}

impl Spot {
    /// The column of the first element of quad i.
    #[inline(always)]
    pub fn column(&self, i: u32) -> u32 {
        self.group * GROUP as u32 + self.team.first(i)
    }

    /// Whether this lane has elements.
    #[inline(always)]
    pub fn is_used(&self) -> bool {
        self.is_row && self.team.takes_part()
    }

    /// How many of the row's elements there are from quad i on.
    #[inline(always)]
    fn left(&self, i: u32) -> u32 {
        self.columns.saturating_sub(self.column(i))
    }

    /// Where quad 0 begins, in bytes, and how far quads are apart.
    #[inline(always)]
    fn place(&self) -> (usize, u32) {
        let (bytes, first) = (bytes_of(self.element), self.column(0));
        let element = u64::from(self.row) * u64::from(self.columns) + u64::from(first);
        ((element * u64::from(bytes)) as usize, 4 * self.team.lanes * bytes)
    }

    /// The elements in f32; zeros beyond the row and in idle lanes.
    ///
    /// # Safety
    ///
    /// There are as many rows, and no other thread writes these elements.
    #[inline(always)]
    pub unsafe fn load(&self, from: *const u8) -> Quads {
        let mut quads = [[0.0; 4]; 4];
        if !self.is_used() {
            return quads;
        }
        let (first, apart) = self.place();
        let from = from.wrapping_add(first);
        let [a, b, c, d] = [0, 1, 2, 3].map(|i: u32| from.wrapping_add((i * apart) as usize));
        let (is_single, is_half) = (self.element == DataType::F32 as u32, self.element == DataType::F16 as u32);
        // One branch for all four quads, so that their loads are on their way together.
        if self.aligned && self.left(3) >= 4 {
            // SAFETY: elements of the row, whose quads are aligned.
            unsafe {
                if is_single {
                    let quads = [load::<U32x4>(a.cast()), load(b.cast()), load(c.cast()), load(d.cast())];
                    return quads.map(F32::from_quad);
                }
                let quads = [load::<U32x2>(a.cast()), load(b.cast()), load(c.cast()), load(d.cast())];
                return if is_half { quads.map(F16::from_quad) } else { quads.map(Bf16::from_quad) };
            }
        }
        map_quads(&mut quads, |i, mut quad| {
            let (from, left) = (from.wrapping_add((i * apart) as usize), self.left(i));
            repeat!(K in 0 1 2 3 => {
                if K < left {
                    // SAFETY: an element of the row.
                    quad[K as usize] = unsafe {
                        if is_single {
                            load(from.wrapping_add(4 * K as usize).cast::<f32>())
                        } else {
                            let bits = load(from.wrapping_add(2 * K as usize).cast::<u16>());
                            if is_half { F16::widen(bits) } else { Bf16::widen(bits) }
                        }
                    };
                }
            });
            quad
        });
        quads
    }

    /// Numbers of the columns: a weight or a bias.
    ///
    /// # Safety
    ///
    /// There is a number for each column, and no thread writes it.
    #[inline(always)]
    pub unsafe fn load_numbers(&self, from: *const f32) -> Quads {
        let aligned = from.addr().is_multiple_of(16);
        let of_columns = Self { row: 0, element: DataType::F32 as u32, aligned, ..*self };
        // SAFETY: the caller's promise.
        unsafe { of_columns.load(from.cast()) }
    }

    /// Writes the elements, rounded.
    ///
    /// # Safety
    ///
    /// There are as many rows, and no other thread accesses these elements.
    #[inline(always)]
    pub unsafe fn store(&self, to: *mut u8, quads: &Quads) {
        if !self.is_used() {
            return;
        }
        let (first, apart) = self.place();
        let to = to.wrapping_add(first);
        let at = |i: u32| to.wrapping_add((i * apart) as usize);
        let (is_single, is_half) = (self.element == DataType::F32 as u32, self.element == DataType::F16 as u32);
        if self.aligned && self.left(3) >= 4 {
            // SAFETY: elements of the row, whose quads are aligned.
            unsafe {
                if is_single {
                    repeat!(I in 0 1 2 3 => { store(at(I).cast(), F32::to_quad(quads[I as usize])); });
                    return;
                }
                let quads = if is_half { quads.map(F16::to_quad) } else { quads.map(Bf16::to_quad) };
                repeat!(I in 0 1 2 3 => { store(at(I).cast(), quads[I as usize]); });
            }
            return;
        }
        let mut rest = *quads;
        map_quads(&mut rest, |i, quad| {
            let (to, left) = (at(i), self.left(i));
            repeat!(K in 0 1 2 3 => {
                let value = quad[K as usize];
                if K < left {
                    // SAFETY: an element of the row.
                    unsafe {
                        if is_single {
                            store(to.wrapping_add(4 * K as usize).cast(), value);
                        } else {
                            let bits = if is_half { F16::narrow(value) } else { Bf16::narrow(value) };
                            store(to.wrapping_add(2 * K as usize).cast(), bits);
                        }
                    }
                }
            });
            quad
        });
    }

    /// Replaces elements beyond the row.
    #[inline(always)]
    pub fn fill_up(&self, quads: &mut Quads, value: f32) {
        if self.left(3) >= 4 {
            return;
        }
        map_quads(quads, |i, mut quad| {
            let left = self.left(i);
            repeat!(K in 0 1 2 3 => {
                quad[K as usize] = if K < left { quad[K as usize] } else { value };
            });
            quad
        });
    }

    /// Multiplies the elements by what dropout makes of them.
    #[inline(always)]
    pub fn drop_out(&self, saved: &SavedValues, randomness: Randomness, quads: &mut Quads) {
        if saved.threshold == 0 {
            return;
        }
        let mask = Mask { threshold: saved.threshold, scale: saved.scale };
        let of_row = u64::from(self.row) * dropout::blocks(self.columns as usize);
        map_quads(quads, |i, [a, b, c, d]| {
            let words = philox(randomness.seed, dropout::counter(randomness, of_row + u64::from(self.column(i) / 4)));
            let [e, f, g, h] = words.map(|word| mask.factor(word));
            [a * e, b * f, c * g, d * h]
        });
    }
}

/// Replaces each quad by what `each` returns for its number and its elements.
#[inline(always)]
pub fn map_quads(quads: &mut Quads, mut each: impl FnMut(u32, [f32; 4]) -> [f32; 4]) {
    let mut i = 0;
    while i < 4 {
        let [first, second, third, fourth] = *quads;
        *quads = [second, third, fourth, each(i, first)];
        i += 1;
    }
}

/// Replaces each element by what `each` returns for it.
#[inline(always)]
pub fn map(quads: &mut Quads, each: impl Fn(f32) -> f32) {
    repeat!(I in 0 1 2 3 => { quads[I as usize] = quads[I as usize].map(&each); });
}

/// Replaces each element by what `each` returns for it and its counterpart.
#[inline(always)]
pub fn zip(quads: &mut Quads, others: &Quads, each: impl Fn(f32, f32) -> f32) {
    repeat!(I in 0 1 2 3 => {
        repeat!(K in 0 1 2 3 => {
            let (i, k) = (I as usize, K as usize);
            quads[i][k] = each(quads[i][k], others[i][k]);
        });
    });
}

/// The random bits of a forward pass, whose origin one thread writes.
///
/// # Safety
///
/// `further_offset` is null or leads to a number; the origin is null or has two places, which no other thread accesses.
#[inline(always)]
pub unsafe fn begin(start: &Start, saved: &SavedValues) -> Randomness {
    // SAFETY: one number, if any.
    let further = if start.further_offset.is_null() { 0 } else { unsafe { load_constant(start.further_offset) } };
    let offset = start.offset.wrapping_add(further);
    if !saved.origin.is_null() && block() == [0; 3] && thread() == 0 {
        // SAFETY: two numbers, which this thread alone writes.
        unsafe {
            store(saved.origin, start.seed);
            store(saved.origin.wrapping_add(1), offset);
        }
    }
    Randomness::new(start.seed, offset)
}

/// The random bits that the forward pass had.
///
/// # Safety
///
/// The origin is null or leads to two numbers, which do not change while the kernel runs.
#[inline(always)]
pub unsafe fn origin(saved: &SavedValues) -> Randomness {
    if saved.origin.is_null() {
        return Randomness::new(0, 0);
    }
    // SAFETY: the caller's promise.
    unsafe { Randomness::new(load_constant(saved.origin), load_constant(saved.origin.wrapping_add(1))) }
}

/// Which of an operator's arrays is packed, or read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The only one, or the values of a gated function.
    First,
    /// The slopes of a gated function, times the gate.
    Second,
}

/// The dithers of a group of a row, by one lane.
#[inline(always)]
pub fn dithers(randomness: Randomness, field: Field, row: u32, group: u32) -> Dithers {
    let [even, odd] = ValueBits::new(randomness, field as u32).dithers(u64::from(row), group / 2);
    if group.is_multiple_of(2) { even } else { odd }
}

/// The dithers that a lane has.
#[inline(always)]
pub fn pass_dithers(dithers: Dithers, from: u32) -> Dithers {
    Dithers { start: shuffle(FULL, dithers.start, from), slope: shuffle(FULL, dithers.slope, from) }
}

/// The grid of the slopes of activation functions.
#[inline(always)]
fn slope_grid(bits: u32) -> Grid {
    match bits {
        8 => values::slope_grid(Bits::Bits8),
        4 => values::slope_grid(Bits::Bits4),
        _ => values::slope_grid(Bits::Bits2),
    }
}

impl SavedValues {
    #[inline(always)]
    fn codes_of(&self, field: Field, row: u32, word: u32) -> *mut u32 {
        let codes = if field == Field::First { self.codes[0] } else { self.codes[1] };
        codes.wrapping_add((u64::from(row) * self.row_words + u64::from(word)) as usize)
    }

    #[inline(always)]
    fn grids_of(&self, field: Field) -> *mut u32 {
        if field == Field::First { self.grids[0] } else { self.grids[1] }
    }

    #[inline(always)]
    fn grid_of(&self, field: Field, spot: &Spot) -> *mut u32 {
        let of_row = Groups::new(spot.columns as usize).count() as u64;
        let at = u64::from(spot.row) * of_row + u64::from(spot.group);
        self.grids_of(field).wrapping_add(at as usize)
    }

    #[inline(always)]
    fn vector_of(&self, field: Field, spot: &Spot, vector: u32) -> *mut u32 {
        self.codes_of(field, spot.row, spot.group * (GROUP as u32 / 32) * self.bits + 4 * vector)
    }

    /// Packs a group, whose elements beyond the row are zeros. All lanes of the warp call it together. Cost: two shuffles for each
    /// doubling of lanes, unless codes are on the slopes' grid, and those of [`Team::codes`].
    ///
    /// # Safety
    ///
    /// The memory is as documented, and no other group is written to the spot's place.
    #[inline(always)]
    pub unsafe fn pack(&self, field: Field, spot: &Spot, quads: &Quads, dithers: Dithers) {
        let (team, bits) = (spot.team, self.bits);
        let grid = if self.grids_of(field).is_null() { slope_grid(bits) } else { range_grid(team, quads, bits) };
        let codes = team.codes(quads, bits, grid, |j| dithers.at(j));
        let codes = if grid.lo.is_nan() { U32x4([0; 4]) } else { codes };
        if !spot.is_used() {
            return;
        }
        // SAFETY: a vector of the group's and its grid, which one lane writes.
        unsafe {
            if team.member < team.code_vectors(bits) {
                store(self.vector_of(field, spot, team.member).cast(), codes);
            }
            if team.member == 0 && !self.grids_of(field).is_null() {
                store(self.grid_of(field, spot), grid.word());
            }
        }
    }

    /// A group's grid, and this lane's values on it; zeros in idle lanes. What it returns beyond the row has no meaning.
    ///
    /// # Safety
    ///
    /// The group was packed, and the memory is as documented.
    #[inline(always)]
    pub unsafe fn unpack(&self, field: Field, spot: &Spot, dithers: Dithers) -> (Grid, Quads) {
        if !spot.is_used() {
            return (Grid { lo: 0.0, step: 0.0 }, [[0.0; 4]; 4]);
        }
        let (team, bits) = (spot.team, self.bits);
        let vector = team.member & (team.code_vectors(bits) - 1);
        let has_grids = !self.grids_of(field).is_null();
        // SAFETY: a vector of the group's, in rows of whole vectors, and the group's grid if it has one of its own.
        let (codes, word) = unsafe {
            (
                load_constant(self.vector_of(field, spot, vector).cast::<U32x4>().cast_const()),
                if has_grids { load_constant(self.grid_of(field, spot).cast_const()) } else { 0 },
            )
        };
        let grid = if has_grids { Grid::from_word(word) } else { slope_grid(bits) };
        (grid, team.values(codes, bits, grid, |j| dithers.at(j)))
    }

    /// Writes whether elements are above 0: bit j % 32 of word j / 32 of the row. All lanes of the warp call it together. Cost: four
    /// shuffles for each doubling of lanes.
    ///
    /// # Safety
    ///
    /// As for [`Self::pack`].
    #[inline(always)]
    pub unsafe fn pack_signs(&self, spot: &Spot, quads: &Quads) {
        let team = spot.team;
        let mut words = [0_u32; 4];
        repeat!(I in 0 1 2 3 => {
            let mut bits = 0;
            repeat!(K in 0 1 2 3 => {
                // Elements beyond the row are zeros.
                bits |= u32::from(quads[I as usize][K as usize] > 0.0) << K;
            });
            let quad = team.member + team.lanes * I;
            let bits = if team.takes_part() { bits << (4 * (quad % 8)) } else { 0 };
            repeat!(W in 0 1 2 3 => { words[W as usize] |= if quad / 8 == W { bits } else { 0 }; });
        });
        let mut flip = 1;
        while flip < team.most {
            let joins = flip < team.lanes;
            let others = words.map(|word| shuffle_xor(FULL, word, flip));
            repeat!(W in 0 1 2 3 => { words[W as usize] |= if joins { others[W as usize] } else { 0 }; });
            flip *= 2;
        }
        // A lane writes a word; a lane alone its only one.
        let word = spot.group * (GROUP as u32 / 32) + team.member;
        if spot.is_used() && team.member < 4 && u64::from(word) < self.row_words {
            // SAFETY: the word of the row, which this lane alone writes.
            unsafe { store(self.codes_of(Field::First, spot.row, word), select(words, team.member)) };
        }
    }

    /// 1 where the bit of an element is set, else 0.
    ///
    /// # Safety
    ///
    /// As for [`Self::unpack`].
    #[inline(always)]
    pub unsafe fn unpack_signs(&self, spot: &Spot) -> Quads {
        let mut quads = [[0.0; 4]; 4];
        repeat!(I in 0 1 2 3 => {
            let column = spot.column(I);
            let mut word = 0;
            if spot.is_used() && spot.left(I) > 0 {
                // SAFETY: the word of an element of the row.
                word = unsafe { load_constant(self.codes_of(Field::First, spot.row, column / 32).cast_const()) };
            }
            repeat!(K in 0 1 2 3 => { quads[I as usize][K as usize] = (word >> (column % 32 + K) & 1) as f32; });
        });
        quads
    }
}

/// The grid of a group's range, or that of a group with an element that is not finite. All lanes of the warp call it together.
#[inline(always)]
fn range_grid(team: Team, quads: &Quads, bits: u32) -> Grid {
    let mut exponents = 0;
    repeat!(I in 0 1 2 3 => {
        repeat!(K in 0 1 2 3 => {
            let exponent = quads[I as usize][K as usize].to_bits() & 0x7f80_0000;
            exponents = if exponent > exponents { exponent } else { exponents };
        });
    });
    let faults = ballot(FULL, team.takes_part() && exponents == 0x7f80_0000);
    let all_finite = faults >> (lane() - team.member) & ((1 << team.lanes) - 1) == 0;
    let [least, most] = team.range(quads);
    Grid::from_word(match bits {
        8 => values::grid_word(least, most, all_finite, Bits::Bits8),
        4 => values::grid_word(least, most, all_finite, Bits::Bits4),
        _ => values::grid_word(least, most, all_finite, Bits::Bits2),
    })
}

/// A row that eight lanes share: this lane's.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub row: u32,
    /// Whether there is such a row.
    pub is_row: bool,
    columns: u32,
    element: u32,
    aligned: bool,
}

impl Row {
    /// The row of this lane, of the four of its warp: blocks and warps take rows in order.
    #[inline(always)]
    pub fn of_lane(saved: &SavedValues, aligned: bool) -> Self {
        let first = (block()[0] * block_warps() + warp()) * WARP_ROWS;
        Self::of_warp(saved, first, aligned)
    }

    /// The row of this lane, of the four that begin at `first`.
    #[inline(always)]
    pub fn of_warp(saved: &SavedValues, first: u32, aligned: bool) -> Self {
        let row = first + lane() / ROW_LANES;
        let GroupShares { rows, columns, .. } = saved.shares;
        Self { row, is_row: row < rows, columns, element: saved.element, aligned }
    }

    /// This lane's place among the row's eight.
    #[inline(always)]
    pub fn member() -> u32 {
        lane() % ROW_LANES
    }

    /// This lane's elements of a group, as codes have them.
    #[inline(always)]
    pub fn spot(&self, group: u32) -> Spot {
        let lanes = Groups::new(self.columns as usize).size(group as usize) as u32 / 16;
        self.spot_of(group, lanes)
    }

    #[inline(always)]
    fn spot_of(&self, group: u32, lanes: u32) -> Spot {
        let team = Team { lanes, member: Self::member(), most: ROW_LANES };
        let &Self { row, is_row, columns, element, aligned } = self;
        Spot { row, group, team, columns, is_row, element, aligned }
    }

    #[inline(always)]
    fn groups(&self) -> u32 {
        Groups::new(self.columns as usize).count() as u32
    }

    /// Calls `each` with the row's groups, as codes have them. All lanes of the warp call it together.
    #[inline(always)]
    pub fn for_each(&self, mut each: impl FnMut(Spot)) {
        let mut group = 0;
        while group < self.groups() {
            each(self.spot(group));
            group += 1;
        }
    }

    /// Calls `each` with the row's groups, each of which belongs to all eight lanes.
    #[inline(always)]
    pub fn for_each_whole(&self, mut each: impl FnMut(Spot)) {
        let mut group = 0;
        while group < self.groups() {
            each(self.spot_of(group, ROW_LANES));
            group += 1;
        }
    }

    /// The sum of what `of` returns for a row's elements, in the order of
    /// [`lane_sum`](wtacrs_exact::operators::functions::lane_sum). All lanes of the warp call it together.
    #[inline(always)]
    pub fn sum(&self, mut of: impl FnMut(&Spot) -> Quads) -> f32 {
        let mut sums = [0.0_f32; 4];
        self.for_each_whole(|spot| {
            let mut quads = of(&spot);
            // Adding zeros changes no sum.
            spot.fill_up(&mut quads, 0.0);
            add_elements(&mut sums, &quads);
        });
        row_total(sums)
    }
}

/// Adds a lane's elements to its four sums.
#[inline(always)]
pub fn add_elements(sums: &mut [f32; 4], quads: &Quads) {
    repeat!(I in 0 1 2 3 => {
        repeat!(K in 0 1 2 3 => { sums[K as usize] += quads[I as usize][K as usize]; });
    });
}

/// The total of a row's 32 partial sums, of which lane m of eight has number 4m + k at `[k]`: the upper half is added to the lower,
/// five times. All lanes of the warp call it together. Cost: 12 shuffles.
#[inline(always)]
pub fn row_total(mut sums: [f32; 4]) -> f32 {
    let mut flip = ROW_LANES / 2;
    while flip > 0 {
        sums = sums.map(|sum| sum + shuffle_xor(FULL, sum, flip));
        flip /= 2;
    }
    let [a, b, c, d] = sums;
    (a + c) + (b + d)
}

/// What `combine` makes of the values of a row's eight lanes, in each of them. It does not depend on the order.
#[inline(always)]
pub fn row_combine<T: Copy>(mut value: T, from: impl Fn(T, u32) -> T, combine: impl Fn(T, T) -> T) -> T {
    let mut flip = 1;
    while flip < ROW_LANES {
        value = combine(value, from(value, flip));
        flip *= 2;
    }
    value
}

/// Adds the sums of the rows of a warp, lane by lane.
#[inline(always)]
pub fn add_rows(quads: &mut Quads) {
    let mut flip = ROW_LANES;
    while flip < ROW_LANES * WARP_ROWS {
        map(quads, |value| value + shuffle_xor(FULL, value, flip));
        flip *= 2;
    }
}

/// Dithers that eight lanes draw at once, each one for a pair of groups, and pass on.
#[derive(Clone, Copy, Debug)]
pub struct DrawnDithers {
    words: [u32; 4],
}

impl DrawnDithers {
    /// None yet.
    pub const NONE: Self = Self { words: [0; 4] };

    /// Draws, in this lane, those of a pair of groups of a row.
    #[inline(always)]
    pub fn draw(&mut self, randomness: Randomness, row: u32, pair: u32) {
        let [even, odd] = ValueBits::new(randomness, Field::First as u32).dithers(u64::from(row), pair);
        self.words = [even.start, even.slope, odd.start, odd.slope];
    }

    /// Of those that lane `member` of the row's eight drew, the ones of a group. All lanes of the warp call it together.
    #[inline(always)]
    pub fn of(&self, member: u32, group: u32) -> Dithers {
        let [a, b, c, d] = self.words;
        let (start, slope) = if group.is_multiple_of(2) { (a, b) } else { (c, d) };
        let from = lane() / ROW_LANES * ROW_LANES + member;
        pass_dithers(Dithers { start, slope }, from)
    }
}

/// Groups of a row whose dithers eight lanes draw at once.
const DRAWN_GROUPS: u32 = 2 * ROW_LANES;

impl SavedValues {
    /// The dithers of a row's group, if anything is packed, when a warp takes a row's groups in turn: every sixteenth time its lanes
    /// draw.
    #[inline(always)]
    pub fn next_dithers(&self, drawn: &mut DrawnDithers, randomness: Randomness, spot: &Spot) -> Dithers {
        if self.bits <= SIGNS {
            return Dithers::NONE;
        }
        if spot.group.is_multiple_of(DRAWN_GROUPS) {
            drawn.draw(randomness, spot.row, spot.group / 2 + Row::member());
        }
        drawn.of(spot.group % DRAWN_GROUPS / 2, spot.group)
    }
}
