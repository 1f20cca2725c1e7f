//! Codes and grids of rows.

use crate::element::Element;
use crate::lanes::on_widest_vectors;
use crate::parallel;
use crate::product::{Kept, ShapeError};
use crate::rows::rows_per_task;
use ndarray::{ArrayView1, ArrayView2};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use wtacrs_exact::packing::{self, Bits, GROUP, GROUPS_PER_BLOCK, Grid, Groups, PackingBits};

/// Why rows are not packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A shape does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A row has an element that is not finite.
    #[error("row {row} has an element that is not finite, or that is beyond f32's range")]
    NotFinite {
        /// The row's number in the whole matrix; of several such rows, the first.
        row: usize,
    },
}

/// Packs the kept rows of `x`; all sizes fit.
pub(super) fn pack<T: Element>(
    x: ArrayView2<'_, T>,
    kept: Kept<'_>,
    bits: Bits,
    random: &PackingBits,
    codes: &mut [u32],
    grids: &mut [u32],
) -> Result<(), PackError> {
    let groups = Groups::new(x.ncols());
    if codes.is_empty() {
        return Ok(());
    }
    let rows = rows_per_task(x.ncols());
    let masks = masks(&random.signs());
    let tasks = codes.par_chunks_mut(rows * groups.words(bits)).zip(grids.par_chunks_mut(rows * groups.count()));
    let buffer = || vec![0.0; x.ncols()];
    let bad = parallel::map_with(tasks.enumerate(), buffer, |buffer, (task, (codes, grids))| {
        let outputs = codes.chunks_exact_mut(groups.words(bits)).zip(grids.chunks_exact_mut(groups.count()));
        for (i, (codes, grids)) in outputs.enumerate() {
            let index = kept.index(task * rows + i);
            let row = single::<T>(x.row(index), buffer);
            let job = Row { row, bits, masks: &masks, random, index, codes, grids };
            if !on_widest_vectors(job) {
                return Some(index);
            }
        }
        None
    });
    match bad.into_iter().flatten().next() {
        Some(row) => Err(PackError::NotFinite { row }),
        None => Ok(()),
    }
}

/// A row in f32, in `buffer` unless it lies so in memory.
fn single<'a, T: Element>(row: ArrayView1<'a, T>, buffer: &'a mut [f32]) -> &'a [f32] {
    match row.to_slice() {
        Some(row) => T::single_block(row, buffer),
        None => {
            buffer.iter_mut().zip(row).for_each(|(to, from)| *to = from.single());
            buffer
        }
    }
}

/// The signs as masks of the sign bit.
fn masks(signs: &[u32; 4]) -> [u32; GROUP] {
    core::array::from_fn(|j| (signs[j / 32] >> (j % 32) & 1) << 31)
}

/// One row to pack. The result is whether all of it is finite.
struct Row<'a> {
    row: &'a [f32],
    bits: Bits,
    masks: &'a [u32; GROUP],
    random: &'a PackingBits,
    index: usize,
    codes: &'a mut [u32],
    grids: &'a mut [u32],
}

impl WithSimd for Row<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> bool {
        match self.bits {
            Bits::Bits8 => self.pack::<8>(),
            Bits::Bits4 => self.pack::<4>(),
            Bits::Bits2 => self.pack::<2>(),
        }
    }
}

impl Row<'_> {
    #[inline(always)]
    fn pack<const BITS: usize>(self) -> bool {
        let groups = Groups::new(self.row.len());
        let mut random = [0; GROUPS_PER_BLOCK];
        let outputs = self.codes.chunks_mut(GROUP / 32 * BITS).zip(self.grids);
        for (group, (x, (codes, grid))) in self.row.chunks(GROUP).zip(outputs).enumerate() {
            if group.is_multiple_of(GROUPS_PER_BLOCK) {
                random = self.random.words(self.index as u64, (group / GROUPS_PER_BLOCK) as u32);
            }
            let word = random[group % GROUPS_PER_BLOCK];
            let found = match groups.size(group) {
                128 => pack_group::<128, BITS>(x, self.bits, self.masks, word, codes),
                64 => pack_group::<64, BITS>(x, self.bits, self.masks, word, codes),
                32 => pack_group::<32, BITS>(x, self.bits, self.masks, word, codes),
                _ => pack_group::<16, BITS>(x, self.bits, self.masks, word, codes),
            };
            let Some(found) = found else { return false };
            *grid = found.word();
        }
        true
    }
}

/// Packs a group of P elements, of which `x` has the first; none if one of them is not finite.
#[inline(always)]
fn pack_group<const P: usize, const BITS: usize>(
    x: &[f32],
    bits: Bits,
    masks: &[u32; GROUP],
    word: u32,
    codes: &mut [u32],
) -> Option<Grid> {
    let mut y = [0.0_f32; P];
    y[..x.len()].copy_from_slice(x);
    let prescale = packing::prescale(P);
    for (y, mask) in y.iter_mut().zip(masks) {
        *y = f32::from_bits(y.to_bits() ^ mask) * prescale;
    }
    // Elements 1, 2, 4, … apart in turn, but always read as neighbours: each stage moves the bit that it has worked on to
    // the top of the elements' numbers, where vectors are whole.
    for _ in 0..P.trailing_zeros() {
        let before = y;
        for i in 0..P / 2 {
            let (a, b) = (before[2 * i], before[2 * i + 1]);
            y[i] = a + b;
            y[i + P / 2] = a - b;
        }
    }
    if !y[0].is_finite() {
        return None;
    }
    let (mut smallest, mut largest) = (y, y);
    let mut half = P / 2;
    while half > 0 {
        for i in 0..half {
            smallest[i] = if smallest[i + half] < smallest[i] { smallest[i + half] } else { smallest[i] };
            largest[i] = if largest[i + half] > largest[i] { largest[i + half] } else { largest[i] };
        }
        half /= 2;
    }
    let grid = Grid::new(smallest[0], largest[0], bits);
    let (lo, density) = (grid.lo, grid.density());
    let mut found = [0_u32; P];
    for (j, (found, &y)) in found.iter_mut().zip(&y).enumerate() {
        *found = packing::code(y, lo, density, packing::dither(word, j as u32));
    }
    let words = P * BITS / 32;
    let codes = &mut codes[..words];
    codes.copy_from_slice(&found[..words]);
    for (s, found) in found.chunks_exact(words).enumerate().skip(1) {
        for (code, &found) in codes.iter_mut().zip(found) {
            *code |= found << (s * BITS);
        }
    }
    Some(grid)
}
