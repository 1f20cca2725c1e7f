//! The forms that a factor's rows come in.

use crate::element::{Accumulator, Element};
use crate::product::Kept;
use core::ops::Range;
use half::bf16;
use ndarray::{ArrayView2, Axis};

/// A factor of a product over pairs: one row for each kept pair, in any form.
pub(in crate::product) trait Factor<A: Accumulator>: Sync {
    /// How many rows it has.
    fn rows(&self) -> usize;

    /// Elements of a row.
    fn columns(&self) -> usize;

    /// Some elements of row `at`: in `buffer`, which is as long, unless they lie so in memory.
    fn row<'a>(&'a self, at: usize, columns: Range<usize>, buffer: &'a mut [A]) -> &'a [A];

    /// Whether the elements are bf16, or may be rounded to it.
    fn fits_bf16(&self) -> bool;

    /// Some elements of row `at` where they lie in memory, if they are bf16 and unscaled.
    fn bf16_row(&self, _at: usize, _columns: Range<usize>) -> Option<&[bf16]> {
        None
    }

    /// The signs by which rows were rotated, if they were.
    fn rotation(&self) -> Option<[u32; 4]> {
        None
    }
}

/// A matrix as it is.
pub(in crate::product) struct Plain<'a, T>(pub(in crate::product) ArrayView2<'a, T>);

impl<T: Element> Factor<T::Accumulator> for Plain<'_, T> {
    fn rows(&self) -> usize {
        self.0.nrows()
    }

    fn columns(&self) -> usize {
        self.0.ncols()
    }

    fn row<'a>(&'a self, at: usize, columns: Range<usize>, buffer: &'a mut [T::Accumulator]) -> &'a [T::Accumulator] {
        widened(self.0, at, columns, buffer)
    }

    fn fits_bf16(&self) -> bool {
        T::as_bf16(&[]).is_some()
    }

    fn bf16_row(&self, at: usize, columns: Range<usize>) -> Option<&[bf16]> {
        bf16_in_memory(self.0, at, columns)
    }
}

/// The kept rows of a matrix times their scales. Scales are rounded to the accumulator's type; a product beyond its range
/// is infinite.
pub(in crate::product) struct Scaled<'a, T> {
    /// All rows.
    pub(in crate::product) x: ArrayView2<'a, T>,
    /// Which of them, with their scales.
    pub(in crate::product) kept: Kept<'a>,
}

impl<T: Element> Factor<T::Accumulator> for Scaled<'_, T> {
    fn rows(&self) -> usize {
        self.kept.len()
    }

    fn columns(&self) -> usize {
        self.x.ncols()
    }

    fn row<'a>(&'a self, at: usize, columns: Range<usize>, buffer: &'a mut [T::Accumulator]) -> &'a [T::Accumulator] {
        let (index, scale) = (self.kept.index(at), self.kept.scale(at));
        if scale == 1.0 {
            return widened(self.x, index, columns, buffer);
        }
        let (row, first, scale) = (self.x.row(index), columns.start, T::Accumulator::from_f64(scale));
        match row.to_slice() {
            Some(row) => T::scale_block(&row[columns], scale, buffer),
            None => buffer.iter_mut().enumerate().for_each(|(j, to)| *to = row[first + j].widen() * scale),
        }
        buffer
    }

    fn fits_bf16(&self) -> bool {
        T::as_bf16(&[]).is_some()
    }

    fn bf16_row(&self, at: usize, columns: Range<usize>) -> Option<&[bf16]> {
        if self.kept.scale(at) == 1.0 { bf16_in_memory(self.x, self.kept.index(at), columns) } else { None }
    }
}

/// Some elements of a row in the accumulator's type.
fn widened<'a, T: Element>(
    x: ArrayView2<'a, T>,
    at: usize,
    columns: Range<usize>,
    buffer: &'a mut [T::Accumulator],
) -> &'a [T::Accumulator] {
    let row = x.index_axis_move(Axis(0), at);
    if let Some(row) = row.to_slice() {
        return T::widen_block(&row[columns], buffer);
    }
    let first = columns.start;
    buffer.iter_mut().enumerate().for_each(|(j, to)| *to = row[first + j].widen());
    buffer
}

fn bf16_in_memory<T: Element>(x: ArrayView2<'_, T>, at: usize, columns: Range<usize>) -> Option<&[bf16]> {
    x.index_axis_move(Axis(0), at).to_slice().and_then(|row| T::as_bf16(&row[columns]))
}
