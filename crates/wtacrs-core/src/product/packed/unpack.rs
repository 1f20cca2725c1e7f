//! Rotated values of packed rows.

use super::view::PackedView;
use crate::element::Accumulator;
use crate::groups::spread_codes;
use crate::lanes::on_widest_vectors;
use crate::rows::for_each_row;
use ndarray::{Array2, s};
use pulp::{Simd, WithSimd};
use wtacrs_exact::packing::{self, Bits, GROUP, GROUPS_PER_BLOCK, Grid, Groups};

impl PackedView<'_> {
    /// All rows as they are read back: kept × columns, unscaled.
    pub fn unpack(&self) -> Array2<f32> {
        let mut rows = self.rotated();
        let signs = self.random.signs();
        for_each_row(rows.view_mut(), |_, row| packing::turn_back(row.into_slice().unwrap_or_default(), &signs));
        rows.slice_move(s![.., ..self.columns])
    }

    /// All rows as the product reads them: rotated values, kept × [`Groups::padded`], unscaled.
    pub fn rotated(&self) -> Array2<f32> {
        let columns = Groups::new(self.columns).padded();
        let mut rows = Array2::zeros((self.kept.len(), columns));
        for_each_row(rows.view_mut(), |at, row| {
            let values = row.into_slice().unwrap_or_default();
            on_widest_vectors(Unpack { packed: self, at, first: 0, values });
        });
        rows
    }
}

/// Writes rotated values of the kept row `at`, unscaled: those of whole groups, from column `first` on.
pub(super) struct Unpack<'a, 'b, A> {
    pub(super) packed: &'a PackedView<'a>,
    pub(super) at: usize,
    pub(super) first: usize,
    pub(super) values: &'b mut [A],
}

impl<A: Accumulator> WithSimd for Unpack<'_, '_, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        match self.packed.bits {
            Bits::Bits8 => self.unpack::<8>(),
            Bits::Bits4 => self.unpack::<4>(),
            Bits::Bits2 => self.unpack::<2>(),
        }
    }
}

impl<A: Accumulator> Unpack<'_, '_, A> {
    #[inline(always)]
    fn unpack<const BITS: usize>(self) {
        let Self { packed, at, first, values } = self;
        let (codes, grids) = packed.row(at);
        let index = packed.kept.index(at) as u64;
        let mut random = [0; GROUPS_PER_BLOCK];
        let first = first / GROUP;
        let groups = codes.chunks(GROUP / 32 * BITS).zip(grids).enumerate().skip(first);
        for (values, (group, (codes, &grid))) in values.chunks_mut(GROUP).zip(groups) {
            if group == first || group.is_multiple_of(GROUPS_PER_BLOCK) {
                random = packed.random.words(index, (group / GROUPS_PER_BLOCK) as u32);
            }
            let (grid, word) = (Grid::from_word(grid), random[group % GROUPS_PER_BLOCK]);
            match values.len() {
                128 => unpack_group::<A, 128, BITS>(codes, grid, word, values),
                64 => unpack_group::<A, 64, BITS>(codes, grid, word, values),
                32 => unpack_group::<A, 32, BITS>(codes, grid, word, values),
                _ => unpack_group::<A, 16, BITS>(codes, grid, word, values),
            }
        }
    }
}

/// Unpacks a group of P elements. Its loops have a constant length, so that they become vectors.
#[inline(always)]
fn unpack_group<A: Accumulator, const P: usize, const BITS: usize>(
    codes: &[u32],
    grid: Grid,
    word: u32,
    values: &mut [A],
) {
    let held = spread_codes::<P, BITS>(codes).0;
    let (lo, fine) = (grid.lo, grid.fine());
    for (j, (value, code)) in values[..P].iter_mut().zip(held).enumerate() {
        let dither = packing::dither(word, j as u32);
        *value = A::from_f32(packing::value(code & ((1 << BITS) - 1), dither, lo, fine));
    }
}
