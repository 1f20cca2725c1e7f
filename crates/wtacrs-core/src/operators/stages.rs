//! The stages of passes: conversion to and from f32, dropout's masks, packing and unpacking, sums. Each stage works on a part of
//! one row, with the widest vectors.

use super::operands::InOut;
use crate::element::Element;
use crate::groups::{Aligned, fold_codes, least, spread_codes};
use crate::lanes::vectorised;
use wtacrs_exact::operators::dropout::{self, Mask};
use wtacrs_exact::operators::functions::{LANES, total};
use wtacrs_exact::operators::values::{self, Dithers, NOT_FINITE, ValueBits};
use wtacrs_exact::packing::{self, Bits, GROUP, Grid, Groups};
use wtacrs_exact::philox;
use wtacrs_exact::random::Randomness;

/// Blocks of random bits side by side.
const BLOCKS: usize = 16;

/// Reads elements from number `first` on in f32.
pub(super) fn load<T: Element>(from: &[T], first: usize, to: &mut [f32]) {
    T::to_singles(&from[first..][..to.len()], to);
}

/// Writes elements from number `first` on.
pub(super) fn store<T: Element>(values: &[f32], to: &mut [T], first: usize) {
    T::from_singles(values, &mut to[first..][..values.len()]);
}

impl<T: Element> InOut<'_, T> {
    /// Writes elements from number `first` on, unless this is only read.
    pub(super) fn write(&mut self, first: usize, values: &[f32]) {
        match self {
            Self::Apart { to, .. } => store(values, to, first),
            Self::InPlace(data) => store(values, data, first),
            Self::Read(_) => {}
        }
    }
}

/// Multiplies a part of a row, from column `first` on, by dropout's factors. `first` is a multiple of 4.
pub(super) fn drop_out(mask: Mask, randomness: Randomness, row: usize, columns: usize, first: usize, x: &mut [f32]) {
    if mask.drops() {
        apply_mask(mask, randomness, row as u64 * dropout::blocks(columns) + first as u64 / 4, x);
    }
}

vectorised! {
    /// The first element is that of block `first`.
    fn apply_mask<'a>(mask: Mask, randomness: Randomness, first: u64, x: &'a mut [f32]) {
        for (at, x) in x.chunks_mut(4 * BLOCKS).enumerate() {
            let [low, high] = dropout::counter(randomness, first + (at * BLOCKS) as u64);
            let words = philox::words::<BLOCKS>(high, low, randomness.seed);
            let mut factors = [0.0; 4 * BLOCKS];
            for (factors, words) in factors.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *factors = words.map(|word| mask.factor(word));
            }
            x.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
        }
    }

    /// Packs values on a `fixed` grid, or on those of their groups, whose words are written to `grids`. Codes and grids are those of
    /// the whole row.
    pub(super) fn pack<'a>(place: Place<'a>, values: &'a [f32], codes: &'a mut [u32], grids: &'a mut [u32], fixed: Option<Grid>) {
        match place.bits {
            Bits::Bits8 => place.pack_groups::<8>(values, codes, grids, fixed),
            Bits::Bits4 => place.pack_groups::<4>(values, codes, grids, fixed),
            Bits::Bits2 => place.pack_groups::<2>(values, codes, grids, fixed),
        }
    }

    /// Values from their codes and grids.
    pub(super) fn unpack<'a>(place: Place<'a>, codes: &'a [u32], grids: &'a [u32], fixed: Option<Grid>, values: &'a mut [f32]) {
        match place.bits {
            Bits::Bits8 => place.unpack_groups::<8>(codes, grids, fixed, values),
            Bits::Bits4 => place.unpack_groups::<4>(codes, grids, fixed, values),
            Bits::Bits2 => place.unpack_groups::<2>(codes, grids, fixed, values),
        }
    }
}

/// A part of a row that begins with a group, and how it is packed.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) random: &'a ValueBits,
    pub(super) bits: Bits,
    pub(super) row: usize,
    /// Columns of the whole row.
    pub(super) columns: usize,
    /// The first group of the part.
    pub(super) group: usize,
}

impl Place<'_> {
    #[inline(always)]
    fn pack_groups<const BITS: usize>(self, values: &[f32], codes: &mut [u32], grids: &mut [u32], fixed: Option<Grid>) {
        let groups = Groups::new(self.columns);
        for (i, values) in values.chunks(GROUP).enumerate() {
            let group = self.group + i;
            let dithers = self.random.of_group(self.row as u64, group);
            let words = &mut codes[group * 4 * BITS..];
            let word = match groups.size(group) {
                128 => pack_group::<128, BITS>(values, self.bits, dithers, words, fixed),
                64 => pack_group::<64, BITS>(values, self.bits, dithers, words, fixed),
                32 => pack_group::<32, BITS>(values, self.bits, dithers, words, fixed),
                _ => pack_group::<16, BITS>(values, self.bits, dithers, words, fixed),
            };
            if fixed.is_none() {
                grids[group] = word;
            }
        }
    }

    #[inline(always)]
    fn unpack_groups<const BITS: usize>(self, codes: &[u32], grids: &[u32], fixed: Option<Grid>, values: &mut [f32]) {
        let groups = Groups::new(self.columns);
        for (i, values) in values.chunks_mut(GROUP).enumerate() {
            let group = self.group + i;
            let dithers = self.random.of_group(self.row as u64, group);
            let grid = fixed.unwrap_or_else(|| Grid::from_word(grids[group]));
            let words = &codes[group * 4 * BITS..];
            match groups.size(group) {
                128 => unpack_group::<128, BITS>(words, grid, dithers, values),
                64 => unpack_group::<64, BITS>(words, grid, dithers, values),
                32 => unpack_group::<32, BITS>(words, grid, dithers, values),
                _ => unpack_group::<16, BITS>(words, grid, dithers, values),
            }
        }
    }
}

/// Packs a group of P elements, of which `values` has the first and the others are 0. Returns the word of its grid.
#[inline(always)]
fn pack_group<const P: usize, const BITS: usize>(
    values: &[f32],
    bits: Bits,
    dithers: Dithers,
    words: &mut [u32],
    fixed: Option<Grid>,
) -> u32 {
    let mut y = Aligned([0.0_f32; P]);
    y.0[..values.len()].copy_from_slice(values);
    let grid = fixed.unwrap_or_else(|| {
        let mut exponents = 0;
        for y in &y.0 {
            exponents = u32::max(exponents, y.to_bits() & 0x7f80_0000);
        }
        let all_finite = exponents < 0x7f80_0000;
        let (smallest, largest) = (least(&y, |a, b| a < b), least(&y, |a, b| a > b));
        Grid::from_word(values::grid_word(smallest, largest, all_finite, bits))
    });
    let mut found = Aligned([0_u32; P]);
    if grid.word() != NOT_FINITE {
        let (lo, density) = (grid.lo, grid.density());
        for (j, (found, &y)) in found.0.iter_mut().zip(&y.0).enumerate() {
            *found = packing::code(y, lo, density, dithers.at(j as u32));
        }
    }
    fold_codes::<P, BITS>(found, words);
    grid.word()
}

/// Unpacks the first elements of a group of P.
#[inline(always)]
fn unpack_group<const P: usize, const BITS: usize>(words: &[u32], grid: Grid, dithers: Dithers, values: &mut [f32]) {
    let codes = spread_codes::<P, BITS>(words).0;
    let (lo, fine) = (grid.lo, grid.fine());
    let mut found = Aligned([0.0_f32; P]);
    for (j, (found, code)) in found.0.iter_mut().zip(codes).enumerate() {
        *found = packing::value(code & ((1 << BITS) - 1), dithers.at(j as u32), lo, fine);
    }
    values.copy_from_slice(&found.0[..values.len()]);
}

/// Adds scale · step²/12 · direction to each element, which corrects a product of two packed values of the same row. Inlined into
/// vector code.
#[inline(always)]
pub(super) fn add_variances(grids: &[u32], scale: f32, direction: &[f32], to: &mut [f32]) {
    for ((grid, direction), to) in grids.iter().zip(direction.chunks(GROUP)).zip(to.chunks_mut(GROUP)) {
        let variance = values::variance(Grid::from_word(*grid)) * scale;
        to.iter_mut().zip(direction).for_each(|(to, direction)| *to += variance * direction);
    }
}

/// The sum over a row of what `of` returns for each place, in the order of
/// [`lane_sum`](wtacrs_exact::operators::functions::lane_sum). Inlined into vector code.
#[inline(always)]
pub(super) fn sum(length: usize, of: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let whole = length / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += of(first + lane);
        }
    }
    for (lane, sum) in sums[..length - whole].iter_mut().enumerate() {
        *sum += of(whole + lane);
    }
    total(sums)
}
