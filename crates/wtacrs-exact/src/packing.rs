//! A row in 8, 4 or 2 bits an element, without bias: groups, rotation, grids, dithers and codes.
//!
//! A row x is cut into groups of [`GROUP`] elements; the last may be a smaller power of two, filled up with zeros. Each
//! group of P elements is rotated, y = H D x / 2P, with random signs D and the Hadamard matrix H, so that no single element
//! sets the range of all. A [`Grid`] of 2ᵇ lines covers y. With a dither u, uniform on the odd multiples of 2⁻¹⁶ below 1,
//!
//! ```text
//! code = ⌊(y − lo)/step + u⌋          value = lo + (code + ½ − u) · step
//! ```
//!
//! Then value − y is uniform within half a step about zero, whatever y is, up to a rounding of y to a multiple of
//! step/2¹⁵ and to f32: the mean over u of value is that multiple, and the variance step²/12. A code is never clipped, since lo is
//! rounded down and step up. x = 2 D H y; the product Xᵀ·dZ is turned back once, not each of its rows.
//!
//! All of it is a fixed sequence of single f32 operations, none fused, so that every device and every width of vectors
//! finds the same codes and the same values. The scale 1/2P keeps y within half of the range of x, whose type thus holds
//! every y, every range and every value. The proof is in docs/mathematics.md.

use crate::philox;
use crate::random::Randomness;

/// Elements of a whole group.
pub const GROUP: usize = 128;
/// Elements of the smallest group, which is one word of the narrowest codes.
pub const LEAST_GROUP: usize = 16;
/// Groups that share one block of random bits, a word each.
pub const GROUPS_PER_BLOCK: usize = 4;
/// The smallest step of a group that is not constant: far below what matters to a gradient, and with an inverse.
pub const LEAST_STEP: f32 = f32::from_bits((127 - 100) << 23);

/// Bits of a dither.
const DITHER_BITS: u32 = 15;
/// 2³²/golden ratio: the dithers of a group's elements are a lattice as even as any.
const LATTICE: u32 = 0x9E37_79B9;
/// "wd" and "ws" in ASCII: dithers and signs are apart from each other and from what designs draw.
const DITHER_TAG: u64 = 0x7764;
const SIGN_TAG: u64 = 0x7773;
/// 2²³: added to a number below it, it leaves the number's nearest integer in the low bits.
const ROUNDER: f32 = 8_388_608.0;

/// Bits of an element's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Bits {
    /// 256 lines.
    Bits8,
    /// 16 lines.
    Bits4,
    /// 4 lines.
    Bits2,
}

impl Bits {
    /// b.
    #[inline]
    pub const fn count(self) -> u32 {
        match self {
            Self::Bits8 => 8,
            Self::Bits4 => 4,
            Self::Bits2 => 2,
        }
    }

    /// 2ᵇ − 1, the largest code: steps from the lowest line to the highest.
    #[inline]
    pub const fn steps(self) -> u32 {
        (1 << self.count()) - 1
    }

    /// A little more than 1/(2ᵇ − 1): the excess, 2⁻²⁰, outweighs the roundings between a range and its last code.
    #[inline]
    const fn share(self) -> f32 {
        (1.0 + 1.0 / 1_048_576.0) / self.steps() as f32
    }
}

/// How a row is cut into groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    columns: usize,
}

impl Groups {
    /// The groups of a row of so many elements.
    #[inline]
    pub const fn new(columns: usize) -> Self {
        Self { columns }
    }

    /// Elements of the row.
    #[inline]
    pub const fn columns(self) -> usize {
        self.columns
    }

    /// How many there are.
    #[inline]
    pub const fn count(self) -> usize {
        self.columns.div_ceil(GROUP)
    }

    /// Elements of a group with those that fill it up: a power of two from [`LEAST_GROUP`] to [`GROUP`].
    #[inline]
    pub const fn size(self, group: usize) -> usize {
        let left = self.columns - group * GROUP;
        if left >= GROUP {
            GROUP
        } else if left <= LEAST_GROUP {
            LEAST_GROUP
        } else {
            left.next_power_of_two()
        }
    }

    /// Elements of all groups.
    #[inline]
    pub const fn padded(self) -> usize {
        match self.count() {
            0 => 0,
            count => (count - 1) * GROUP + self.size(count - 1),
        }
    }

    /// Words of a row's codes. Group g begins at word g · 4b.
    #[inline]
    pub const fn words(self, bits: Bits) -> usize {
        self.padded() / 32 * bits.count() as usize + self.padded() % 32 * bits.count() as usize / 32
    }
}

/// Where the code of element `j` of a group of `size` lies: the word of the group, and the lowest bit in it. Words next
/// to each other hold elements next to each other, so that vectors of words are vectors of elements.
#[inline]
pub const fn place(size: usize, bits: Bits, j: usize) -> (usize, u32) {
    let words = size * bits.count() as usize / 32;
    (j % words, (j / words) as u32 * bits.count())
}

/// The random bits of one packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackingBits {
    seed: u64,
    offset: u64,
    stream: u32,
}

impl PackingBits {
    /// From a seed's block `offset` on, for item `stream` of a batch. A matrix of n rows uses the offsets of n blocks.
    #[inline]
    pub const fn new(randomness: Randomness, stream: u32) -> Self {
        Self { seed: randomness.seed, offset: randomness.offset, stream }
    }

    /// The signs of a group's elements, the same for all groups and rows: element j is turned where bit j % 32 of word
    /// j / 32 is set.
    #[inline]
    pub const fn signs(&self) -> [u32; 4] {
        self.block(SIGN_TAG << 16, 0)
    }

    /// The words of groups 4·`quad` to 4·`quad` + 3 of row `index`, from which their dithers follow. After 2¹⁶ such blocks a
    /// row's words repeat.
    #[inline]
    pub const fn words(&self, index: u64, quad: u32) -> [u32; 4] {
        self.block(DITHER_TAG << 16 | (quad & 0xffff) as u64, index)
    }

    /// The counter is (offset + index, stream, tag).
    #[inline]
    const fn block(&self, tag: u64, index: u64) -> [u32; 4] {
        let low = self.offset.wrapping_add(index);
        let counter = [low as u32, (low >> 32) as u32, self.stream, tag as u32];
        philox::block(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }
}

/// The dither U of element `j` of a group, below 2¹⁵: u = (U + ½)/2¹⁵.
#[inline]
pub const fn dither(word: u32, j: u32) -> u32 {
    word.wrapping_add(j.wrapping_mul(LATTICE)) >> (32 - DITHER_BITS)
}

/// An element of a group of `size` before its rotation: with its sign, over 2P.
#[inline]
pub const fn signed(x: f32, signs: &[u32; 4], size: usize, j: usize) -> f32 {
    let turned = f32::from_bits(x.to_bits() ^ (signs[j / 32] >> (j % 32) & 1) << 31);
    turned * prescale(size)
}

/// 1/2P, a power of two.
#[inline]
pub const fn prescale(size: usize) -> f32 {
    f32::from_bits((126 - size.trailing_zeros()) << 23)
}

/// Multiplies a group by the Hadamard matrix: sums and differences of elements 1, 2, 4, … apart, in this order.
#[inline]
pub const fn butterflies(group: &mut [f32]) {
    let mut apart = 1;
    while apart < group.len() {
        let mut i = 0;
        while i < group.len() {
            if i & apart == 0 {
                let (a, b) = (group[i], group[i + apart]);
                group[i] = a + b;
                group[i + apart] = a - b;
            }
            i += 1;
        }
        apart *= 2;
    }
}

/// The lines on which a group's values lie before the dither moves them: lo + code · step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Not above the group's smallest element; a bf16.
    pub lo: f32,
    /// 0 if all elements are `lo`, else at least [`LEAST_STEP`]; a bf16.
    pub step: f32,
}

impl Grid {
    /// The grid of a group whose smallest and largest elements these are.
    #[inline]
    pub const fn new(smallest: f32, largest: f32, bits: Bits) -> Self {
        // Adding 0 turns -0 into 0: which of the two a minimum is depends on the device.
        let low = (smallest + 0.0).to_bits();
        let lo = f32::from_bits(low.wrapping_add((low >> 31) * 0xffff) & 0xffff_0000);
        let range = largest - lo;
        let share = range * bits.share();
        let up = f32::from_bits(share.to_bits().wrapping_add(0xffff) & 0xffff_0000);
        let step = if range == 0.0 {
            0.0
        } else if up < LEAST_STEP {
            LEAST_STEP
        } else {
            up
        };
        Self { lo, step }
    }

    /// Both numbers in one word: lo below, step above.
    #[inline]
    pub const fn word(self) -> u32 {
        self.lo.to_bits() >> 16 | self.step.to_bits()
    }

    /// The grid that [`Self::word`] was made of.
    #[inline]
    pub const fn from_word(word: u32) -> Self {
        Self { lo: f32::from_bits(word << 16), step: f32::from_bits(word & 0xffff_0000) }
    }

    /// 2¹⁵/step, or 0 without a step: what [`code`] multiplies by.
    #[inline]
    pub const fn density(self) -> f32 {
        if self.step == 0.0 { 0.0 } else { 32_768.0 / self.step }
    }

    /// step/2¹⁶: what [`value`] multiplies by.
    #[inline]
    pub const fn fine(self) -> f32 {
        self.step * (1.0 / 65_536.0)
    }
}

/// The code of `y` on a grid that covers it, with [`Grid::density`].
#[inline]
pub const fn code(y: f32, lo: f32, density: f32, dither: u32) -> u32 {
    let nearest = ((y - lo) * density + ROUNDER).to_bits() & 0x7f_ffff;
    (nearest + dither) >> DITHER_BITS
}

/// What a code stands for, with [`Grid::fine`].
#[inline]
pub const fn value(code: u32, dither: u32, lo: f32, fine: f32) -> f32 {
    // (code + ½ − u) · 2¹⁶, an integer of at most 24 bits.
    let sixteenth = (code << 16) as i32 + (1 << 15) - (2 * dither + 1) as i32;
    sixteenth as f32 * fine + lo
}

/// A row has an element that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

/// Packs row `index`: its codes, [`Groups::words`] of them, and a grid for each group. This is the definition; devices do
/// the same with vectors.
///
/// # Errors
///
/// If an element is not finite.
///
/// # Panics
///
/// If an output has another length.
pub fn pack_row(
    x: &[f32],
    bits: Bits,
    random: &PackingBits,
    index: u64,
    codes: &mut [u32],
    grids: &mut [u32],
) -> Result<(), NotFinite> {
    let groups = Groups::new(x.len());
    assert!(codes.len() == groups.words(bits) && grids.len() == groups.count(), "outputs have the row's size");
    let signs = random.signs();
    let mut words_of = codes.chunks_mut(4 * bits.count() as usize);
    for (group, (x, grid)) in x.chunks(GROUP).zip(grids).enumerate() {
        let size = groups.size(group);
        let mut held = [0.0; GROUP];
        let y = &mut held[..size];
        for (j, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            *y = signed(x, &signs, size, j);
        }
        butterflies(y);
        // Every rotated element is a sum of all elements, none of which is too large for it.
        if !y[0].is_finite() {
            return Err(NotFinite);
        }
        let (smallest, largest) = y.iter().fold((y[0], y[0]), |(least, most), &y| (least.min(y), most.max(y)));
        let lines = Grid::new(smallest, largest, bits);
        *grid = lines.word();
        let random = random.words(index, (group / GROUPS_PER_BLOCK) as u32)[group % GROUPS_PER_BLOCK];
        let words = words_of.next().unwrap_or_default();
        words.fill(0);
        for (j, &y) in y.iter().enumerate() {
            let (word, bit) = place(size, bits, j);
            words[word] |= code(y, lines.lo, lines.density(), dither(random, j as u32)) << bit;
        }
    }
    Ok(())
}

/// The rotated values of row `index`, [`Groups::padded`] of them, from its codes and grids.
///
/// # Panics
///
/// If a slice has another length.
pub fn unpack_row(
    columns: usize,
    bits: Bits,
    random: &PackingBits,
    index: u64,
    codes: &[u32],
    grids: &[u32],
    y: &mut [f32],
) {
    let groups = Groups::new(columns);
    assert!(codes.len() == groups.words(bits) && grids.len() == groups.count(), "inputs have the row's size");
    assert_eq!(y.len(), groups.padded(), "the output has the groups' size");
    for (group, (y, &grid)) in y.chunks_mut(GROUP).zip(grids).enumerate() {
        let (lines, size) = (Grid::from_word(grid), y.len());
        let words = &codes[group * 4 * bits.count() as usize..];
        let random = random.words(index, (group / GROUPS_PER_BLOCK) as u32)[group % GROUPS_PER_BLOCK];
        for (j, y) in y.iter_mut().enumerate() {
            let (word, bit) = place(size, bits, j);
            let code = words[word] >> bit & bits.steps();
            *y = value(code, dither(random, j as u32), lines.lo, lines.fine());
        }
    }
}

/// Turns rotated values (all groups of a row) back, in place: x = 2 D H y. The first [`Groups::columns`] are the row.
pub fn turn_back(y: &mut [f32], signs: &[u32; 4]) {
    for group in y.chunks_mut(GROUP) {
        butterflies(group);
        for (j, y) in group.iter_mut().enumerate() {
            *y = f32::from_bits(y.to_bits() ^ (signs[j / 32] >> (j % 32) & 1) << 31) * 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const ALL: [Bits; 3] = [Bits::Bits8, Bits::Bits4, Bits::Bits2];

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let block = |i: usize| philox::bits(i as u128, seed);
        (0..count).map(|i| (block(i) as i32 as f32 / 2e9) * (1 + block(i) as u8 % 7) as f32).collect()
    }

    fn random(seed: u64) -> PackingBits {
        PackingBits::new(Randomness::new(seed, 100), 3)
    }

    #[test]
    fn groups_cover_a_row() {
        let sizes = |columns| {
            let groups = Groups::new(columns);
            (0..groups.count()).map(|group| groups.size(group)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), []);
        assert_eq!(sizes(1), [16]);
        assert_eq!(sizes(17), [32]);
        assert_eq!(sizes(64), [64]);
        assert_eq!(sizes(65), [128]);
        assert_eq!(sizes(384), [128; 3]);
        assert_eq!(sizes(300), [128, 128, 64]);
        for columns in 0..600 {
            let groups = Groups::new(columns);
            assert_eq!(groups.padded(), sizes(columns).iter().sum::<usize>());
            for bits in ALL {
                assert_eq!(groups.words(bits) * 32, groups.padded() * bits.count() as usize);
            }
        }
    }

    #[test]
    fn every_element_has_a_place_of_its_own() {
        for bits in ALL {
            for size in [16, 32, 64, 128] {
                let mut seen = vec![0_u32; size * bits.count() as usize / 32];
                for j in 0..size {
                    let (word, bit) = place(size, bits, j);
                    assert_eq!(seen[word] & bits.steps() << bit, 0);
                    seen[word] |= bits.steps() << bit;
                }
                assert!(seen.iter().all(|&word| word == u32::MAX));
            }
        }
    }

    #[test]
    fn the_rotation_is_the_hadamard_matrix_and_turns_back() {
        let signs = random(1).signs();
        for size in [16, 64, 128] {
            let x: Vec<f32> = (0..size).map(|j| (j * 37 % 19) as f32 - 9.0).collect();
            let mut y: Vec<f32> = x.iter().enumerate().map(|(j, &x)| signed(x, &signs, size, j)).collect();
            butterflies(&mut y);
            for (i, &y) in y.iter().enumerate() {
                let turned = |j: usize| if signs[j / 32] >> (j % 32) & 1 == 1 { -x[j] } else { x[j] };
                let entry = |j: usize| if (i & j).count_ones() % 2 == 1 { -turned(j) } else { turned(j) };
                // Small integers over a power of two: exact.
                assert_eq!(y, (0..size).map(entry).sum::<f32>() / (2 * size) as f32);
            }
            turn_back(&mut y, &signs);
            assert_eq!(y, x);
        }
    }

    #[test]
    fn values_lie_within_half_a_step() {
        for bits in ALL {
            for columns in [1, 15, 16, 40, 128, 200, 384] {
                let (x, groups) = (numbers(columns, 5), Groups::new(columns));
                let mut codes = vec![0; groups.words(bits)];
                let mut grids = vec![0; groups.count()];
                let random = random(9);
                pack_row(&x, bits, &random, 7, &mut codes, &mut grids).expect("finite");
                let mut found = vec![0.0; groups.padded()];
                unpack_row(columns, bits, &random, 7, &codes, &grids, &mut found);
                let signs = random.signs();
                for (group, x) in x.chunks(GROUP).enumerate() {
                    let size = groups.size(group);
                    let mut y = vec![0.0; size];
                    y.iter_mut().zip(x).enumerate().for_each(|(j, (y, &x))| *y = signed(x, &signs, size, j));
                    butterflies(&mut y);
                    let step = Grid::from_word(grids[group]).step;
                    for (found, y) in found[group * GROUP..].iter().zip(y) {
                        assert!((found - y).abs() <= 0.5001 * step, "{found} {y} {step}");
                    }
                }
            }
        }
    }

    /// Grids cover all that lies between their ends, whatever the roundings.
    #[test]
    fn codes_are_never_clipped() {
        let edges = [0.0, -0.0, 1.0, -1.0, 1e-38, -1e-38, 1e-45, 1e30, 3.3e38, 1.0 + f32::EPSILON, 255.0 / 256.0];
        let mut ends: Vec<f32> = edges.to_vec();
        ends.extend(numbers(300, 8).iter().flat_map(|&v| [v, v * 1e-20, v * 1e37, -v * 1.001]));
        for &a in &ends {
            for &b in &ends {
                let (low, high) = (a.min(b) / 2.0, a.max(b) / 2.0);
                for bits in ALL {
                    let grid = Grid::new(low, high, bits);
                    assert!(grid.lo <= low && grid.step.is_finite(), "{low} {high}");
                    assert_eq!(grid, Grid::from_word(grid.word()));
                    for y in [low, high, low + (high - low) * 0.3] {
                        assert!(code(y, grid.lo, grid.density(), 0) <= bits.steps());
                        assert!(code(y, grid.lo, grid.density(), 32_767) <= bits.steps(), "{low} {high} {y}");
                    }
                    if low == high && grid.lo == low {
                        let found = value(code(low, grid.lo, grid.density(), 12_345), 12_345, grid.lo, grid.fine());
                        assert_eq!(found, low, "a constant is exact");
                    }
                }
            }
        }
    }

    /// Over all dithers, the mean is y on a grid 2¹⁵ times finer, and the variance that of the uniform law.
    #[test]
    fn the_mean_over_all_dithers_is_the_number() {
        for bits in ALL {
            let grid = Grid::new(-0.7, 1.9, bits);
            for y in [-0.7, -0.699_99, 0.0, 0.123_456, 1.0, 1.899_99, 1.9] {
                let of = |u| f64::from(value(code(y, grid.lo, grid.density(), u), u, grid.lo, grid.fine()));
                let mean = (0..1 << 15).map(of).sum::<f64>() / f64::from(1 << 15);
                let step = f64::from(grid.step);
                // Half of the finer step, and f32's roundings of differences, quotients and values.
                assert!((mean - f64::from(y)).abs() <= step / 65_536.0 + 2.6 * 2.0_f64.powi(-22), "{y} {mean}");
                let variance = (0..1 << 15).map(|u| (of(u) - mean).powi(2)).sum::<f64>() / f64::from(1 << 15);
                assert!((variance / (step * step / 12.0) - 1.0).abs() < 1e-3, "{y} {variance}");
            }
        }
    }

    #[test]
    fn dithers_of_a_group_are_even() {
        for word in [0, 12_345_678, u32::MAX] {
            let mut found: Vec<u32> = (0..128).map(|j| dither(word, j)).collect();
            found.sort_unstable();
            let gaps = found.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.clone().max() <= Some(2 * 32_768 / 128) && gaps.min() >= Some(32_768 / 128 / 2));
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 127, 128, 191] {
                let mut x = numbers(192, 3);
                x[at] = bad;
                let mut codes = [0; 24];
                assert_eq!(pack_row(&x, Bits::Bits4, &random(0), 0, &mut codes, &mut [0; 2]), Err(NotFinite));
            }
        }
        // All that is finite is not.
        let mut codes = [0; 24];
        for x in [[f32::MAX; 192], [f32::MIN; 192]] {
            pack_row(&x, Bits::Bits4, &random(0), 0, &mut codes, &mut [0; 2]).expect("finite");
            let mut y = [0.0; 192];
            unpack_row(192, Bits::Bits4, &random(0), 0, &codes, &[0x7f7f_0000; 2], &mut y);
        }
    }

    #[test]
    fn counters_are_apart() {
        let random = random(4);
        assert_eq!(random.signs(), philox::block([100, 0, 3, 0x7773_0000], [4, 0]));
        assert_eq!(random.words(5, 2), philox::block([105, 0, 3, 0x7764_0002], [4, 0]));
    }
}
