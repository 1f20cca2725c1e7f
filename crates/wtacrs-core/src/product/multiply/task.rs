//! One task of a product: blocks of pairs, panels, and the micro-kernel.

use super::factor::Factor;
use crate::element::{Accumulator, Element};
use crate::lanes::{Lanes, Of};
use core::marker::PhantomData;
use core::ops::Range;

/// Words of a panel for each of its rows or columns: as many pairs as are summed before the sum is added to the tile.
/// A panel of Y then fits the first cache beside one of X, and the tile's panels the second.
pub(super) const BLOCK: usize = 128;

/// What is packed for an element of a factor in `A`: its value, or those of several pairs.
pub(super) trait Word<A>: Copy + Default {
    /// Pairs that a word has values of.
    const PAIRS: usize;

    /// Some columns of word row `at` of a factor, which has those of the pairs from `at · PAIRS` on: in `words`, which is as long,
    /// unless they lie so in memory. `numbers` has room for a row of each of two pairs.
    fn pack<'a>(
        factor: &'a dyn Factor<A>,
        at: usize,
        columns: Range<usize>,
        numbers: &mut [Vec<A>; 2],
        words: &'a mut [Self],
    ) -> &'a [Self];
}

/// A micro-kernel's arithmetic: vectors of sums, to which it adds products of packed words.
pub(super) trait Multiplier: Copy {
    /// What sums are taken in.
    type Number: Accumulator;
    /// What is packed.
    type Word: Word<Self::Number>;
    /// Words for as many columns as there are sums in a vector.
    type Words: Copy;
    /// A vector of sums.
    type Sums: Copy;
    /// Sums of a vector.
    const LANES: usize;
    /// Vectors that registers have room for.
    const REGISTERS: usize;

    /// Sums of nothing.
    fn zeros(self) -> Self::Sums;
    /// One word for all columns.
    fn splat(self, word: Self::Word) -> Self::Words;
    /// sums + a·b, lane by lane.
    fn add_product(self, sums: Self::Sums, a: Self::Words, b: Self::Words) -> Self::Sums;
    /// a + b.
    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// Whole vectors of a slice.
    fn words(slice: &[Self::Word]) -> &[Self::Words];
    /// Whole vectors of a slice, to be written.
    fn sums_mut(slice: &mut [Self::Number]) -> &mut [Self::Sums];
}

/// Memory for a row of each of two pairs, and for their words.
struct Buffers<A, W> {
    numbers: [Vec<A>; 2],
    words: Vec<W>,
}

/// [`Task`] of any numbers.
pub(super) struct OfTask<'a, 'b>(PhantomData<&'a &'b ()>);

impl<'a, 'b> Of for OfTask<'a, 'b> {
    type With<A: Lanes + 'static> = Task<'a, 'b, A>;
}

/// Sums to be made: tile ← (tile +) Σ left · right.
pub(super) struct Task<'a, 'b, A> {
    pub(super) left: &'a dyn Factor<A>,
    pub(super) right: &'a dyn Factor<A>,
    /// Columns of `left`: the tile's rows.
    pub(super) rows: Range<usize>,
    /// Columns of `right`: the tile's columns.
    pub(super) columns: Range<usize>,
    /// The tile's rows.
    pub(super) tile: &'a mut [&'b mut [A]],
    /// Whether the first block replaces what the tile holds.
    pub(super) overwrite: bool,
}

impl<A: Accumulator> Task<'_, '_, A> {
    /// Makes the sums. The micro-kernel's sums and operands fill the registers.
    #[inline(always)]
    pub(super) fn run<M: Multiplier<Number = A>>(self, multiplier: M) {
        if M::REGISTERS >= 32 {
            self.by_blocks::<M, 9, 3>(multiplier);
        } else {
            self.by_blocks::<M, 6, 2>(multiplier);
        }
    }

    #[inline(always)]
    fn by_blocks<M: Multiplier<Number = A>, const ROWS: usize, const VECTORS: usize>(self, multiplier: M) {
        let Self { left, right, rows, columns, tile, overwrite } = self;
        let width = VECTORS * M::LANES;
        let words = left.rows().div_ceil(M::Word::PAIRS);
        let longest = rows.len().max(columns.len());
        let numbers = || vec![A::ZERO; longest];
        let mut buffers = Buffers { numbers: [numbers(), numbers()], words: vec![M::Word::default(); longest] };
        let panels =
            |columns: usize, width: usize| vec![M::Word::default(); columns.next_multiple_of(width) * BLOCK.min(words)];
        let (mut of_left, mut of_right) = (panels(rows.len(), ROWS), panels(columns.len(), width));
        // No wider than it must be.
        let last = (columns.len() % width).next_multiple_of(M::LANES);
        for first in (0..words).step_by(BLOCK) {
            let block = first..words.min(first + BLOCK);
            let count = block.len();
            pack(left, block.clone(), rows.clone(), [ROWS; 2], &mut of_left, &mut buffers);
            pack(right, block, columns.clone(), [width, last], &mut of_right, &mut buffers);
            let overwrite = overwrite && first == 0;
            let of_left = &of_left[..rows.len().next_multiple_of(ROWS) * count];
            for (column, right) in (0..columns.len()).step_by(width).zip(of_right.chunks(width * count)) {
                let vectors = if columns.len() - column < width { last / M::LANES } else { VECTORS };
                let right = &right[..vectors * M::LANES * count];
                match vectors {
                    1 => by_panels::<M, ROWS, 1>(multiplier, of_left, right, tile, column, overwrite),
                    2 => by_panels::<M, ROWS, 2>(multiplier, of_left, right, tile, column, overwrite),
                    _ => by_panels::<M, ROWS, VECTORS>(multiplier, of_left, right, tile, column, overwrite),
                }
            }
        }
    }
}

/// Packs a block of words into panels of `width` columns, and a last one that may be narrower. What lies beyond the last column
/// is any numbers: their sums are not written.
#[inline(always)]
fn pack<A, W: Word<A>>(
    factor: &dyn Factor<A>,
    block: Range<usize>,
    columns: Range<usize>,
    [width, last]: [usize; 2],
    panels: &mut [W],
    buffers: &mut Buffers<A, W>,
) {
    let (first, count) = (block.start, block.len());
    for at in block {
        let words = &mut buffers.words[..columns.len()];
        let row = W::pack(factor, at, columns.clone(), &mut buffers.numbers, words);
        let mut panels = panels.chunks_mut(width * count);
        let whole = row.chunks_exact(width);
        let rest = whole.remainder();
        for (words, panel) in whole.zip(&mut panels) {
            panel[(at - first) * width..][..width].copy_from_slice(words);
        }
        if let Some(panel) = panels.next().filter(|_| !rest.is_empty()) {
            panel[(at - first) * last..][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Adds the sums of all panels of X with one of Y to the tile, from a column on.
#[inline(always)]
fn by_panels<M: Multiplier, const ROWS: usize, const VECTORS: usize>(
    multiplier: M,
    left: &[M::Word],
    right: &[M::Word],
    tile: &mut [&mut [M::Number]],
    column: usize,
    overwrite: bool,
) {
    let count = right.len() / (VECTORS * M::LANES);
    for (rows, left) in tile.chunks_mut(ROWS).zip(left.chunks_exact(ROWS * count)) {
        put(multiplier, sums::<M, ROWS, VECTORS>(multiplier, left, right), rows, column, overwrite);
    }
}

/// The micro-kernel: the sums of a panel of X with one of Y.
#[inline(always)]
fn sums<M: Multiplier, const ROWS: usize, const VECTORS: usize>(
    multiplier: M,
    left: &[M::Word],
    right: &[M::Word],
) -> [[M::Sums; VECTORS]; ROWS] {
    let (left, right) = (left.as_chunks::<ROWS>().0, M::words(right).as_chunks::<VECTORS>().0);
    let mut sums = [[multiplier.zeros(); VECTORS]; ROWS];
    for (left, right) in left.iter().zip(right) {
        for i in 0..ROWS {
            let value = multiplier.splat(left[i]);
            for v in 0..VECTORS {
                sums[i][v] = multiplier.add_product(sums[i][v], value, right[v]);
            }
        }
    }
    sums
}

/// Writes or adds sums to the tile's rows, from a column on. Sums are found by constant numbers alone, since others would move
/// them from registers to memory in the micro-kernel's loop already.
#[inline(always)]
fn put<M: Multiplier, const ROWS: usize, const VECTORS: usize>(
    multiplier: M,
    sums: [[M::Sums; VECTORS]; ROWS],
    rows: &mut [&mut [M::Number]],
    column: usize,
    overwrite: bool,
) {
    let width = VECTORS * M::LANES;
    if let Ok(rows) = <&mut [&mut [M::Number]; ROWS]>::try_from(&mut *rows)
        && rows.iter().all(|row| row.len() >= column + width)
    {
        for i in 0..ROWS {
            let to = M::sums_mut(&mut rows[i][column..column + width]);
            for v in 0..VECTORS {
                to[v] = if overwrite { sums[i][v] } else { multiplier.add(to[v], sums[i][v]) };
            }
        }
        return;
    }
    let mut copied = [[multiplier.zeros(); VECTORS]; ROWS];
    for i in 0..ROWS {
        for v in 0..VECTORS {
            copied[i][v] = sums[i][v];
        }
    }
    put_some(multiplier, &copied, rows, column, overwrite);
}

/// The same at the tile's edges.
#[inline(never)]
fn put_some<M: Multiplier, const ROWS: usize, const VECTORS: usize>(
    multiplier: M,
    sums: &[[M::Sums; VECTORS]; ROWS],
    rows: &mut [&mut [M::Number]],
    column: usize,
    overwrite: bool,
) {
    for (row, sums) in rows.iter_mut().zip(sums) {
        let mut to = row[column..].chunks_mut(M::LANES);
        for (to, &sums) in (&mut to).zip(sums) {
            let mut held = [M::Number::ZERO; 16];
            let held = &mut held[..M::LANES];
            held[..to.len()].copy_from_slice(to);
            let vector = &mut M::sums_mut(held)[0];
            *vector = if overwrite { sums } else { multiplier.add(*vector, sums) };
            to.copy_from_slice(&held[..to.len()]);
        }
    }
}
