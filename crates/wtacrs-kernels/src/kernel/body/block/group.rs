//! A group of a packed row in the registers of one to eight lanes, and the walk of a warp over groups.
//!
//! Lane m of L has elements 4(m + L·i) + e of the group at `[i][e]`: four quads of neighbours, each one access to memory.
//! Sums and differences of elements 1 and 2 apart are within quads, the next ones between lanes, by shuffles, and those of
//! elements 4L and 8L apart between quads: the order of [`butterflies`](wtacrs_exact::packing::butterflies).
//!
//! Words of codes lie so that the quads of a lane share four words, too. Element 4q + e has bit b·⌊(4q + e)/W⌋ of word
//! (4q + e) mod W, of W = L·b/2 words. So quad i is 8i bits above quad 0, for every b.

use super::repeat;
use crate::kernel::packed_rows::{GroupShares, PackedRows, WARPS};
use core::num::NonZeroU32;
use wtacrs_exact::packing::{self, Bits, GROUP, GROUPS_PER_BLOCK, Grid, PackingBits};
use wtacrs_exact::random::Randomness;
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block, lane, thread, warp};
use wtacrs_simt::memory::{U32x4, load_constant};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, shuffle, shuffle_xor};

/// A lane's elements.
pub type Quads = [[f32; 4]; 4];

/// The lanes of a group, and this one's place among them.
#[derive(Clone, Copy, Debug)]
pub struct Team {
    /// L; lanes from here on have no elements.
    pub lanes: u32,
    /// m.
    pub member: u32,
    /// Lanes of the largest group: a power of two from `lanes` on, the same for all of the warp.
    pub most: u32,
}

impl Team {
    /// The group's elements.
    #[inline(always)]
    pub fn size(self) -> usize {
        16 * self.lanes as usize
    }

    /// Whether this lane has some.
    #[inline(always)]
    pub fn takes_part(self) -> bool {
        self.member < self.lanes
    }

    /// The first element of quad i.
    #[inline(always)]
    pub fn first(self, i: u32) -> u32 {
        4 * (self.member + self.lanes * i)
    }

    /// Multiplies the group by the Hadamard matrix. All lanes of the warp call it together. Cost: 16 shuffles for each
    /// doubling of lanes.
    #[inline(always)]
    pub fn butterflies(self, quads: &mut Quads) {
        within(quads);
        let mut flip = 1;
        while flip < self.most {
            let joins = flip < self.lanes;
            // Adding −0 changes nothing, not even the sign of 0.
            let (kept, added) = if joins { (u32::MAX, 0) } else { (0, 1 << 31) };
            let turned = if joins && self.member & flip != 0 { 1 << 31 } else { 0 };
            repeat!(I in 0 1 2 3 => {
                repeat!(E in 0 1 2 3 => {
                    let own = quads[I as usize][E as usize];
                    let other = shuffle_xor(FULL, own, flip).to_bits() & kept | added;
                    // a + b below and, with −b in place of b, a − b above.
                    quads[I as usize][E as usize] = f32::from_bits(own.to_bits() ^ turned) + f32::from_bits(other);
                });
            });
            flip *= 2;
        }
        across(quads);
    }

    /// The smallest and the largest element. All lanes of the warp call it together. Cost: two shuffles for each doubling of
    /// lanes.
    #[inline(always)]
    pub fn range(self, quads: &Quads) -> [f32; 2] {
        let (mut least, mut most) = (quads[0][0], quads[0][0]);
        repeat!(I in 0 1 2 3 => {
            repeat!(E in 0 1 2 3 => {
                let value = quads[I as usize][E as usize];
                least = least.min(value);
                most = most.max(value);
            });
        });
        let mut flip = 1;
        while flip < self.most {
            let joins = flip < self.lanes;
            let (below, above) = (shuffle_xor(FULL, least, flip), shuffle_xor(FULL, most, flip));
            if joins {
                least = least.min(below);
                most = most.max(above);
            }
            flip *= 2;
        }
        [least, most]
    }

    /// The sign bits of quad i, in bits 0 to 3.
    #[inline(always)]
    pub fn signs(self, signs: [u32; 4], i: u32) -> u32 {
        let quad = self.member + self.lanes * i;
        select(signs, quad / 8) >> (4 * (quad % 8))
    }

    /// Turns the elements whose sign bits are set, and multiplies all.
    #[inline(always)]
    pub fn turn(self, quads: &mut Quads, signs: [u32; 4], factor: f32) {
        repeat!(I in 0 1 2 3 => {
            let bits = self.signs(signs, I);
            repeat!(E in 0 1 2 3 => {
                let value = quads[I as usize][E as usize].to_bits() ^ (bits >> E & 1) << 31;
                quads[I as usize][E as usize] = f32::from_bits(value) * factor;
            });
        });
    }

    /// Vectors of four words that the group's codes have; the only one may be partial.
    #[inline(always)]
    pub fn code_vectors(self, bits: u32) -> u32 {
        let vectors = self.lanes * bits / 8;
        if vectors > 1 { vectors } else { 1 }
    }

    /// Bits below this lane's first code in its words.
    #[inline(always)]
    fn own_bits(self, bits: u32) -> u32 {
        // ⌊8m/(L·b)⌋, of powers of two.
        bits * ((8 * self.member) >> (self.lanes * bits).trailing_zeros())
    }

    /// Codes of the group's elements on a grid, with the dither of each element: the lanes below [`Self::code_vectors`] have a
    /// vector each. All lanes of the warp call it together. Cost: 4 shuffles at 4 bits, 8 at 2.
    #[inline(always)]
    pub fn codes(self, quads: &Quads, bits: u32, grid: Grid, dither: impl Fn(u32) -> u32) -> U32x4 {
        let (lo, density) = (grid.lo, grid.density());
        let mut words = [0_u32; 4];
        repeat!(I in 0 1 2 3 => {
            let first = self.first(I);
            repeat!(E in 0 1 2 3 => {
                let code = packing::code(quads[I as usize][E as usize], lo, density, dither(first + E));
                words[E as usize] |= code << (8 * I);
            });
        });
        let own = self.own_bits(bits);
        words = words.map(|word| if self.takes_part() { word << own } else { 0 });
        if bits <= 4 {
            words = self.joined(words, self.lanes / 2);
        }
        if bits == 2 {
            words = self.joined(words, self.lanes / 4);
        }
        let [a, b, c, d] = words;
        U32x4(match self.lanes * bits / 2 {
            1 => [a | b << bits | c << (2 * bits) | d << (3 * bits), 0, 0, 0],
            2 => [a | c << bits, b | d << bits, 0, 0],
            _ => words,
        })
    }

    /// The words with those of the lane so many lanes away, which may be this one.
    #[inline(always)]
    fn joined(self, words: [u32; 4], flip: u32) -> [u32; 4] {
        let from = lane() ^ flip;
        let mut joined = words;
        repeat!(E in 0 1 2 3 => { joined[E as usize] |= shuffle(FULL, words[E as usize], from); });
        joined
    }

    /// The values of a lane's elements, from its vector of codes: vector m mod [`Self::code_vectors`].
    #[inline(always)]
    pub fn values(self, codes: U32x4, bits: u32, grid: Grid, dither: impl Fn(u32) -> u32) -> Quads {
        let (lo, fine) = (grid.lo, grid.fine());
        let U32x4([a, b, c, d]) = codes;
        let words = match self.lanes * bits / 2 {
            1 => [a, a >> bits, a >> (2 * bits), a >> (3 * bits)],
            2 => [a, b, a >> bits, b >> bits],
            _ => [a, b, c, d],
        };
        let (own, largest) = (self.own_bits(bits), (1 << bits) - 1);
        let mut quads = [[0.0; 4]; 4];
        repeat!(I in 0 1 2 3 => {
            let first = self.first(I);
            repeat!(E in 0 1 2 3 => {
                let code = words[E as usize] >> own >> (8 * I) & largest;
                quads[I as usize][E as usize] = packing::value(code, dither(first + E), lo, fine);
            });
        });
        quads
    }
}

/// Sums and differences of elements one and two places apart within quads.
#[inline(always)]
pub fn within<const N: usize>(quads: &mut [[f32; 4]; N]) {
    let mut i = 0;
    while i < N {
        let [a, b, c, d] = quads[i];
        let [a, b, c, d] = [a + b, a - b, c + d, c - d];
        quads[i] = [a + c, b + d, a - c, b - d];
        i += 1;
    }
}

/// Sums and differences of quads one and two places apart.
#[inline(always)]
pub fn across(quads: &mut Quads) {
    repeat!(E in 0 1 2 3 => {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i: usize| quads[i][E as usize]);
        let [a, b, c, d] = [a + b, a - b, c + d, c - d];
        quads[0][E as usize] = a + c;
        quads[1][E as usize] = b + d;
        quads[2][E as usize] = a - c;
        quads[3][E as usize] = b - d;
    });
}

/// The grid of a group's range.
#[inline(always)]
pub fn grid([least, most]: [f32; 2], bits: u32) -> Grid {
    // Written out, so that each has constants of its own.
    match bits {
        8 => Grid::new(least, most, Bits::Bits8),
        4 => Grid::new(least, most, Bits::Bits4),
        _ => Grid::new(least, most, Bits::Bits2),
    }
}

/// One of four words, in registers.
#[inline(always)]
pub fn select([a, b, c, d]: [u32; 4], i: u32) -> u32 {
    let (low, high) = if i & 1 == 0 { (a, c) } else { (b, d) };
    if i & 2 == 0 { low } else { high }
}

/// The random bits of a matrix whose packed rows have this origin.
///
/// # Safety
///
/// `origin` leads to two numbers, which do not change while the kernel runs.
#[inline(always)]
pub unsafe fn random_of(origin: *const u64, first_stream: u32, stream_step: u32) -> PackingBits {
    // SAFETY: the caller's promise.
    let (seed, offset) = unsafe { (load_constant(origin), load_constant(origin.wrapping_add(1))) };
    PackingBits::new(Randomness::new(seed, offset), stream(first_stream, stream_step))
}

/// The stream of the matrix at hand.
#[inline(always)]
pub fn stream(first: u32, step: u32) -> u32 {
    first.wrapping_add(block()[2].wrapping_mul(step))
}

/// The word of a group's dithers.
#[inline(always)]
pub fn dither_word(random: &PackingBits, index: u32, group: u32) -> u32 {
    let of_block = GROUPS_PER_BLOCK as u32;
    select(random.words(u64::from(index), group / of_block), group % of_block)
}

/// The signs of a rotation, in all threads of the block, which call it together; four words of shared memory. One warp draws
/// them. Cost: one barrier.
///
/// # Safety
///
/// Nothing else uses the shared memory.
#[inline(always)]
pub unsafe fn block_signs(random: &PackingBits, shared: Shared<u32>) -> [u32; 4] {
    if warp() == 0 {
        let signs = random.signs();
        if thread() == 0 {
            // SAFETY: four words; others read them after the barrier.
            unsafe {
                repeat!(I in 0 1 2 3 => { shared.write(I, signs[I as usize]); });
            }
        }
    }
    barrier();
    // SAFETY: written before the barrier.
    [0, 1, 2, 3].map(|i| unsafe { shared.read(i) })
}

/// A group that a warp has come to.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The row, or `u32::MAX` where there is no group left.
    pub row: u32,
    /// The group's number in its row.
    pub group: u32,
    /// The row's index, if it has one.
    pub index: u32,
    /// The word of its dithers, if the row has an index.
    pub word: u32,
    /// The group's lanes.
    pub team: Team,
}

/// A row without an index.
pub const NO_INDEX: u32 = u32::MAX;

/// A group that a warp has come to, and what its lanes drew for it.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<D> {
    /// The row, or `u32::MAX` where there is no group left.
    pub row: u32,
    /// The group's number in its row.
    pub group: u32,
    /// What was drawn.
    pub drawn: D,
    /// The group's lanes.
    pub team: Team,
}

impl GroupShares {
    /// Calls `each` with the groups of this warp's, one after the other, in the lanes that share them, and in idle ones. All
    /// lanes of the warp call it together, and `each` is called in all of them together. `index` returns the index of a
    /// row, by which its dithers are drawn, or [`NO_INDEX`]: a lane for each of 32 groups at a time.
    #[inline(always)]
    pub fn for_each_group(&self, random: &PackingBits, index: impl Fn(u32) -> u32, mut each: impl FnMut(Group)) {
        let draw = |row: u32, group: u32| {
            let index = index(row);
            (index, if index != NO_INDEX { dither_word(random, index, group) } else { 0 })
        };
        let pass = |(index, word): (u32, u32), from| (shuffle(FULL, index, from), shuffle(FULL, word, from));
        self.for_each_drawn((NO_INDEX, 0), draw, pass, |group| {
            let Drawn { row, group, drawn: (index, word), team } = group;
            each(Group { row, group, index, word, team });
        });
    }

    /// The same with what `draw` returns for a row and a group of it, which `pass` shuffles from a lane to this one. Where there is
    /// no group left, it is `none`.
    #[inline(always)]
    pub fn for_each_drawn<D: Copy>(
        &self,
        none: D,
        draw: impl Fn(u32, u32) -> D,
        pass: impl Fn(D, u32) -> D,
        mut each: impl FnMut(Drawn<D>),
    ) {
        let (groups, all, of_warp, lanes) = (self.groups(), self.all(), self.of_warp(), self.lanes());
        let of_row = NonZeroU32::new(groups.count() as u32).unwrap_or(NonZeroU32::MIN);
        let at_once = WARP >> lanes.trailing_zeros();
        let mine = lane() >> lanes.trailing_zeros();
        let begin = block()[0].saturating_mul(self.groups_of_block);
        let end = begin.saturating_add(self.groups_of_block);
        let end = if end < all { end } else { all };
        let mut first = begin + warp() * of_warp;
        while first < end {
            let own = first + lane();
            let (mut own_row, mut own_group, mut own_drawn) = (u32::MAX, 0, none);
            if lane() < of_warp && own < end {
                own_row = own / of_row;
                own_group = own - own_row * of_row.get();
                own_drawn = draw(own_row, own_group);
            }
            let mut at = 0;
            while at < of_warp {
                let from = at + mine;
                let row = shuffle(FULL, own_row, from);
                let group = shuffle(FULL, own_group, from);
                let team =
                    Team { lanes: groups.size(group as usize) as u32 / 16, member: lane() & (lanes - 1), most: lanes };
                each(Drawn { row, group, drawn: pass(own_drawn, from), team });
                at += at_once;
            }
            first += WARPS * of_warp;
        }
    }
}

impl PackedRows {
    /// The first code of a group of a row.
    #[inline(always)]
    pub fn codes_of(&self, matrix: u32, row: u32, group: u32) -> *mut u32 {
        let row = self.row_of(matrix, row) * self.row_words;
        let words = group * (GROUP as u32 / 32) * self.bits;
        self.codes.wrapping_add((row + u64::from(words)) as usize)
    }

    /// The grid of a group of a row.
    #[inline(always)]
    pub fn grid_of(&self, matrix: u32, row: u32, group: u32) -> *mut u32 {
        let row = self.row_of(matrix, row) * self.shares.groups().count() as u64;
        self.grids.wrapping_add((row + u64::from(group)) as usize)
    }

    #[inline(always)]
    fn row_of(&self, matrix: u32, row: u32) -> u64 {
        u64::from(matrix) * u64::from(self.shares.rows) + u64::from(row)
    }

    /// This lane's values of a group of a row that is packed; zeros in idle lanes.
    ///
    /// # Safety
    ///
    /// The row was packed, and the memory is as documented.
    #[inline(always)]
    pub unsafe fn unpack(&self, matrix: u32, row: u32, group: u32, word: u32, team: Team) -> Quads {
        if !team.takes_part() {
            return [[0.0; 4]; 4];
        }
        let vector = team.member & (team.code_vectors(self.bits) - 1);
        let codes = self.codes_of(matrix, row, group).wrapping_add(4 * vector as usize);
        // SAFETY: the vector is one of the group's, and rows of codes are whole vectors.
        let (codes, grid) = unsafe {
            (
                load_constant(codes.cast::<U32x4>().cast_const()),
                load_constant(self.grid_of(matrix, row, group).cast_const()),
            )
        };
        team.values(codes, self.bits, Grid::from_word(grid), |j| packing::dither(word, j))
    }
}
