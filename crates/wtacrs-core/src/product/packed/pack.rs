//! Codes and grids of rows.

use super::view::PackedView;
use crate::element::Element;
use crate::groups::{Aligned, butterflies, fold_codes, least};
use crate::lanes::on_widest_vectors;
use crate::parallel;
use crate::product::{Kept, ShapeError, check_size};
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

impl<'a> PackedView<'a> {
    /// Packs the kept rows of `x` (pairs × columns) into `codes` and `grids`, which have [`Self::sizes`].
    ///
    /// # Errors
    ///
    /// If a shape does not fit, or a kept row has an element that is not finite, or, of an f64, beyond f32's range.
    pub fn pack<T: Element>(
        x: ArrayView2<'_, T>,
        kept: Kept<'a>,
        bits: Bits,
        random: PackingBits,
        codes: &'a mut [u32],
        grids: &'a mut [u32],
    ) -> Result<Self, PackError> {
        let (words, groups) = Self::sizes(kept.len(), x.ncols(), bits);
        check_size("rows to pack from", x.nrows(), kept.pairs())?;
        check_size("words of codes", codes.len(), words)?;
        check_size("words of grids", grids.len(), groups)?;
        pack(x, kept, bits, &random, codes, grids)?;
        Ok(Self { columns: x.ncols(), bits, random, kept, codes, grids })
    }
}

/// Packs the kept rows of `x`; all sizes fit.
fn pack<T: Element>(
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
    let mut y = Aligned([0.0_f32; P]);
    y.0[..x.len()].copy_from_slice(x);
    let prescale = packing::prescale(P);
    for (y, mask) in y.0.iter_mut().zip(masks) {
        *y = f32::from_bits(y.to_bits() ^ mask) * prescale;
    }
    let y = butterflies(y);
    if !y.0[0].is_finite() {
        return None;
    }
    let grid = Grid::new(least(&y, |a, b| a < b), least(&y, |a, b| a > b), bits);
    let (lo, density) = (grid.lo, grid.density());
    let mut found = Aligned([0_u32; P]);
    for (j, (found, &y)) in found.0.iter_mut().zip(&y.0).enumerate() {
        *found = packing::code(y, lo, density, packing::dither(word, j as u32));
    }
    fold_codes::<P, BITS>(found, codes);
    Some(grid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::packed::unpack::Unpack;

    #[test]
    fn every_width_of_vectors_gives_the_same_bits() {
        let row: Vec<f32> = (0..430).map(|j| (((j * 31) % 23) as f32 - 9.7).exp2()).collect();
        let random = PackingBits::new(crate::Randomness::new(5, 9), 1);
        let masks = masks(&random.signs());
        let groups = Groups::new(row.len());
        for bits in [Bits::Bits8, Bits::Bits4, Bits::Bits2] {
            let found = |pack: &dyn Fn(Row<'_>) -> bool, unpack: &dyn Fn(Unpack<'_, '_, f32>)| {
                let (mut codes, mut grids) = (vec![0; groups.words(bits)], vec![0; groups.count()]);
                let outputs = (&mut codes[..], &mut grids[..]);
                let job = Row {
                    row: &row,
                    bits,
                    masks: &masks,
                    random: &random,
                    index: 0,
                    codes: outputs.0,
                    grids: outputs.1,
                };
                assert!(pack(job));
                let packed = PackedView::new(row.len(), Kept::All(1), bits, random, &codes, &grids).expect("fits");
                let mut values = vec![0.0; groups.padded()];
                unpack(Unpack { packed: &packed, at: 0, first: 0, values: &mut values });
                (codes.clone(), grids.clone(), values)
            };
            let mut expected = (vec![0; groups.words(bits)], vec![0; groups.count()], vec![0.0; groups.padded()]);
            let (codes, grids, values) = &mut expected;
            packing::pack_row(&row, bits, &random, 0, codes, grids).expect("finite");
            packing::unpack_row(row.len(), bits, &random, 0, codes, grids, values);
            let scalar = pulp::Scalar128b;
            assert_eq!(found(&|job| job.with_simd(scalar), &|job| job.with_simd(scalar)), expected);
            assert_eq!(found(&|job| on_widest_vectors(job), &|job| on_widest_vectors(job)), expected);
            #[cfg(target_arch = "x86_64")]
            if let Some(simd) = pulp::x86::V3::try_new() {
                assert_eq!(found(&|job| Simd::vectorize(simd, job), &|job| Simd::vectorize(simd, job)), expected);
            }
        }
    }
}
