//! Rotated values of packed rows.

use super::view::PackedView;
use crate::element::Accumulator;
use crate::lanes::on_widest_vectors;
use crate::rows::for_each_row;
use core::ops::Range;
use ndarray::{Array2, s};
use pulp::{Simd, WithSimd};
use wtacrs_exact::packing::{self, Bits, GROUP, GROUPS_PER_BLOCK, Grid, Groups};

/// Elements at whose multiples columns may be cut: all codes of a group's word below the cut are below it.
pub(super) const CUT: usize = 32;

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
            on_widest_vectors(Unpack { packed: self, rows: at..at + 1, columns: 0..columns, values });
        });
        rows
    }
}

/// Writes the rotated values of some columns of some kept rows, unscaled: rows × columns. Columns begin at a multiple of
/// [`CUT`], and end at one or with the last group.
pub(super) struct Unpack<'a, 'b, A> {
    pub(super) packed: &'a PackedView<'a>,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
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
        let Self { packed, rows, columns, values } = self;
        let groups = Groups::new(packed.columns);
        for (at, values) in rows.zip(values.chunks_exact_mut(columns.len())) {
            let (codes, grids) = packed.row(at);
            let index = packed.kept.index(at) as u64;
            let mut random = [0; GROUPS_PER_BLOCK];
            let mut first = columns.start;
            let mut rest = values;
            while first < columns.end {
                let group = first / GROUP;
                if first == columns.start || group.is_multiple_of(GROUPS_PER_BLOCK) {
                    random = packed.random.words(index, (group / GROUPS_PER_BLOCK) as u32);
                }
                let end = columns.end.min((group + 1) * GROUP);
                let (values, behind) = rest.split_at_mut(end - first);
                let part = Part {
                    grid: Grid::from_word(grids[group]),
                    word: random[group % GROUPS_PER_BLOCK],
                    codes: &codes[group * (GROUP / 32 * BITS)..],
                    first: first - group * GROUP,
                };
                match groups.size(group) {
                    128 => part.unpack::<A, 128, BITS>(values),
                    64 => part.unpack::<A, 64, BITS>(values),
                    32 => part.unpack::<A, 32, BITS>(values),
                    _ => part.unpack::<A, 16, BITS>(values),
                }
                (first, rest) = (end, behind);
            }
        }
    }
}

/// Elements of a group from `first` on.
struct Part<'a> {
    grid: Grid,
    word: u32,
    codes: &'a [u32],
    first: usize,
}

impl Part<'_> {
    /// Unpacks the whole group, whose loops are vectors then, and copies the part.
    #[inline(always)]
    fn unpack<A: Accumulator, const P: usize, const BITS: usize>(&self, values: &mut [A]) {
        let words = P * BITS / 32;
        let mut codes = Group([0_u32; P]);
        codes.0[..words].copy_from_slice(&self.codes[..words]);
        // Element j is in word j % words: words are laid out until each element has one whose lowest bits are its code.
        let mut half = words;
        while half < P {
            let (from, to) = codes.0[..2 * half].split_at_mut(half);
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from >> (half / words * BITS);
            }
            half *= 2;
        }
        let (lo, fine) = (self.grid.lo, self.grid.fine());
        let mut found = Group([0_f32; P]);
        for (j, (found, code)) in found.0.iter_mut().zip(codes.0).enumerate() {
            let dither = packing::dither(self.word, j as u32);
            *found = packing::value(code & ((1 << BITS) - 1), dither, lo, fine);
        }
        for (to, &from) in values.iter_mut().zip(&found.0[self.first..]) {
            *to = A::from_f32(from);
        }
    }
}

/// Numbers that begin at a cache line, so that no vector of them lies across two.
#[repr(align(64))]
struct Group<T, const P: usize>([T; P]);
