//! dW = Hᵀ dZ from packed rows of H.
//!
//! The product is taken in rotated space, a block of kept rows at a time: its rows of H are unpacked and its rows of dZ
//! scaled, both into the cache, and multiplied tile by tile of dW. So neither the unpacked rows nor the scaled ones are ever
//! in memory as a whole. The rotation is turned back once, on dW.

use super::unpack::Unpack;
use super::view::PackedView;
use crate::element::{Accumulator, Element};
use crate::lanes::on_widest_vectors;
use crate::parallel;
use crate::product::weight_gradient::{Scratch, Update, for_each_tile};
use crate::product::{Kept, ShapeError, check_size};
use crate::rows::for_each_row;
use core::ops::Range;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, Zip, aview2, s};
use rayon::prelude::*;
use wtacrs_exact::packing::{GROUP, Groups};

/// Rows of a block.
const ROWS: usize = 128;
/// Columns of dW that are turned back at a time.
const COLUMNS: usize = 32;

/// Numbers of the accumulator's type that [`PackedView::weight_gradient_within`] works in: the rotated product, and a block
/// of rows of H and of dZ.
pub const fn packed_workspace_len(in_features: usize, out_features: usize) -> usize {
    let padded = Groups::new(in_features).padded();
    padded * out_features + ROWS * (padded + out_features)
}

impl PackedView<'_> {
    /// The estimate of dW = Hᵀ dZ (in_features × out_features) from these rows of H; `dz` is pairs × out_features.
    ///
    /// # Errors
    ///
    /// If a shape does not fit; `dw` is then untouched.
    pub fn weight_gradient_into<U: Element>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, U::Accumulator>,
        update: Update,
        scratch: &mut Scratch<U::Accumulator>,
    ) -> Result<(), ShapeError> {
        self.check(&dz, &dw)?;
        self.run(dz, dw, update, scratch.numbers(packed_workspace_len(self.columns, dz.ncols())));
        Ok(())
    }

    /// [`Self::weight_gradient_into`] in memory of the caller's: `workspace` holds at least [`packed_workspace_len`] numbers
    /// of any value.
    ///
    /// # Errors
    ///
    /// If a shape does not fit or the workspace is too small; `dw` is then untouched.
    pub fn weight_gradient_within<U: Element>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, U::Accumulator>,
        update: Update,
        workspace: &mut [U::Accumulator],
    ) -> Result<(), ShapeError> {
        self.check(&dz, &dw)?;
        let needed = packed_workspace_len(self.columns, dz.ncols());
        if workspace.len() < needed {
            return Err(ShapeError { what: "numbers of workspace", expected: needed, found: workspace.len() });
        }
        self.run(dz, dw, update, &mut workspace[..needed]);
        Ok(())
    }

    fn check<U: Element>(
        &self,
        dz: &ArrayView2<'_, U>,
        dw: &ArrayViewMut2<'_, U::Accumulator>,
    ) -> Result<(), ShapeError> {
        check_size("rows of dz", dz.nrows(), self.kept.pairs())?;
        check_size("rows of dw (in_features)", dw.nrows(), self.columns)?;
        check_size("columns of dw (out_features)", dw.ncols(), dz.ncols())
    }

    fn run<U: Element>(
        &self,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, U::Accumulator>,
        update: Update,
        workspace: &mut [U::Accumulator],
    ) {
        let (padded, outputs) = (Groups::new(self.columns).padded(), dz.ncols());
        if self.kept.is_empty() || padded * outputs == 0 {
            if update == Update::Overwrite {
                let mut dw = dw;
                dw.fill(U::Accumulator::ZERO);
            }
            return;
        }
        let (rotated, blocks) = workspace.split_at_mut(padded * outputs);
        let (left, right) = blocks.split_at_mut(ROWS * padded);
        let mut rotated = matrix(rotated, padded, outputs);
        self.multiply(dz, rotated.view_mut(), left, right);
        turn_back(rotated.view(), &self.random.signs(), dw, update);
    }

    /// The rotated product, in memory for a block of rows of H and of dZ.
    fn multiply<A: Accumulator, U: Element<Accumulator = A>>(
        &self,
        dz: ArrayView2<'_, U>,
        mut rotated: ArrayViewMut2<'_, A>,
        left: &mut [A],
        right: &mut [A],
    ) {
        let (padded, _) = rotated.dim();
        let mut beta = A::zero();
        for first in (0..self.kept.len()).step_by(ROWS) {
            let rows = first..self.kept.len().min(first + ROWS);
            let mut left = matrix(&mut *left, rows.len(), padded);
            let unpack = || {
                for_each_row(left.view_mut(), |at, row| {
                    let values = row.into_slice().unwrap_or_default();
                    on_widest_vectors(Unpack { packed: self, at: first + at, values });
                });
            };
            let ((), right) = parallel::join(unpack, || self.scaled(&dz, rows, &mut *right));
            for_each_tile(
                rotated.view_mut(),
                || (),
                |(), row, column, mut tile| {
                    let left = left.slice(s![.., row..row + tile.nrows()]);
                    let right = right.slice(s![.., column..column + tile.ncols()]);
                    general_mat_mul(A::one(), &left.t(), &right, beta, &mut tile);
                },
            );
            beta = A::one();
        }
    }

    /// The rows of dZ that belong to some of these rows, times their scales: in `memory`, or as they are.
    fn scaled<'a, A: Accumulator, U: Element<Accumulator = A>>(
        &self,
        dz: &'a ArrayView2<'_, U>,
        rows: Range<usize>,
        memory: &'a mut [A],
    ) -> CowArray<'a, A, Ix2> {
        if U::IS_ACCUMULATOR && matches!(self.kept, Kept::All(_)) {
            return U::widen_view(dz.slice(s![rows, ..]));
        }
        let first = rows.start;
        let mut scaled = matrix(&mut *memory, rows.len(), dz.ncols());
        for_each_row(scaled.view_mut(), |at, to| {
            let scale = A::from_f64(self.kept.scale(first + at));
            scale_row(dz.row(self.kept.index(first + at)), scale, to.into_slice().unwrap_or_default());
        });
        let scaled = &memory[..rows.len() * dz.ncols()];
        ArrayView2::from_shape((rows.len(), dz.ncols()), scaled).expect("as many numbers as the shape has").into()
    }
}

fn scale_row<A: Accumulator, U: Element<Accumulator = A>>(from: ArrayView1<'_, U>, scale: A, to: &mut [A]) {
    match from.to_slice() {
        Some(from) if U::IS_ACCUMULATOR => {
            let from = U::widen_block(from, &mut []);
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from * scale);
        }
        Some(from) => {
            U::widen_block(from, to);
            to.iter_mut().for_each(|value| *value = *value * scale);
        }
        None => to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen() * scale),
    }
}

fn matrix<A>(numbers: &mut [A], rows: usize, columns: usize) -> ArrayViewMut2<'_, A> {
    let numbers = &mut numbers[..rows * columns];
    ArrayViewMut2::from_shape((rows, columns), numbers).expect("as many numbers as the shape has")
}

/// dw ← (dw +) 2 D H · rotated, group by group of its rows.
fn turn_back<A: Accumulator>(
    rotated: ArrayView2<'_, A>,
    signs: &[u32; 4],
    mut dw: ArrayViewMut2<'_, A>,
    update: Update,
) {
    let mut parts = Vec::new();
    for (group, rows) in dw.axis_chunks_iter_mut(Axis(0), GROUP).enumerate() {
        let mut rest = rows;
        let mut first = 0;
        while rest.ncols() > 0 {
            let columns = COLUMNS.min(rest.ncols());
            let (part, behind) = rest.split_at(Axis(1), columns);
            parts.push((group * GROUP, first, part));
            (first, rest) = (first + columns, behind);
        }
    }
    parallel::for_each(parts.into_par_iter().with_min_len(4), |(row, column, mut dw)| {
        let height = GROUP.min(rotated.nrows() - row);
        let mut held = [[A::ZERO; COLUMNS]; GROUP];
        for (held, row) in held.iter_mut().zip(rotated.slice(s![row..row + height, column..column + dw.ncols()]).rows())
        {
            held.iter_mut().zip(row).for_each(|(to, &from)| *to = from);
        }
        butterflies(&mut held[..height]);
        for (j, row) in held[..dw.nrows()].iter_mut().enumerate() {
            let factor = A::from_f64(if signs[j / 32] >> (j % 32) & 1 == 1 { -2.0 } else { 2.0 });
            row.iter_mut().for_each(|value| *value = *value * factor);
        }
        let found = aview2(&held);
        let found = found.slice(s![..dw.nrows(), ..dw.ncols()]);
        match update {
            Update::Overwrite => Zip::from(&mut dw).and(&found).for_each(|to, &from| *to = from),
            Update::Accumulate => Zip::from(&mut dw).and(&found).for_each(|to, &from| *to += from),
        }
    });
}

/// Sums and differences of rows 1, 2, 4, … apart.
fn butterflies<A: Accumulator>(rows: &mut [[A; COLUMNS]]) {
    let mut apart = 1;
    while apart < rows.len() {
        for pair in rows.chunks_exact_mut(2 * apart) {
            let (left, right) = pair.split_at_mut(apart);
            for (left, right) in left.iter_mut().zip(right) {
                for (a, b) in left.iter_mut().zip(right) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
        apart *= 2;
    }
}
