//! Rotated values of packed rows.

use super::PackedView;
use crate::element::Accumulator;
use core::ops::Range;
use pulp::{Simd, WithSimd};
use wtacrs_exact::packing::{self, Bits, GROUP, GROUPS_PER_BLOCK, Grid, Groups};

/// Elements at whose multiples columns may be cut: all codes of a group's word below the cut are below it.
pub(super) const CUT: usize = 32;

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
    #[inline(always)]
    fn unpack<A: Accumulator, const P: usize, const BITS: usize>(&self, values: &mut [A]) {
        let words = P * BITS / 32;
        let (lo, fine) = (self.grid.lo, self.grid.fine());
        let codes = &self.codes[..words];
        let mut j = self.first;
        for values in values.chunks_exact_mut(words) {
            let bit = j / words * BITS;
            for (w, (value, &code)) in values.iter_mut().zip(codes).enumerate() {
                let code = code >> bit & ((1 << BITS) - 1);
                let dither = packing::dither(self.word, (j + w) as u32);
                *value = A::from_f32(packing::value(code, dither, lo, fine));
            }
            j += words;
        }
    }
}
