//! dW = Hᵀ dZ from packed rows of H.
//!
//! The product is taken in rotated space, tile by tile of dW. For each tile, a block of kept rows at a time is unpacked
//! into the cache beside the same rows of dZ, times their scales, and multiplied. So neither the unpacked rows nor the
//! scaled ones are ever in memory as a whole. The rotation is turned back once, on dW.

use super::unpack::{CUT, Unpack};
use super::view::PackedView;
use crate::element::{Accumulator, Element};
use crate::lanes::on_widest_vectors;
use crate::parallel;
use crate::product::weight_gradient::{LEAST_TILE, Scratch, Update, for_each_tile};
use crate::product::{Kept, ShapeError, check_size};
use core::ops::Range;
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, Zip, aview2, s};
use rayon::prelude::*;
use wtacrs_exact::packing::{GROUP, Groups};

// Tiles are cut where codes are.
const _: () = assert!(LEAST_TILE.is_multiple_of(CUT));

/// Rows that are unpacked at a time.
const ROWS: usize = 256;
/// Columns of dW that are turned back at a time.
const COLUMNS: usize = 64;

/// Numbers of the accumulator's type that [`PackedView::weight_gradient_within`] works in: the rotated product.
pub const fn packed_workspace_len(in_features: usize, out_features: usize) -> usize {
    Groups::new(in_features).padded() * out_features
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
    /// of any value. Each thread allocates less than a MiB beside it.
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
        rotated: &mut [U::Accumulator],
    ) {
        if self.kept.is_empty() || rotated.is_empty() {
            if update == Update::Overwrite {
                let mut dw = dw;
                dw.fill(U::Accumulator::ZERO);
            }
            return;
        }
        let padded = Groups::new(self.columns).padded();
        let shape = (padded, dz.ncols());
        let mut rotated = ArrayViewMut2::from_shape(shape, rotated).expect("as many numbers as the shape has");
        for_each_tile(rotated.view_mut(), Blocks::default, |blocks, row, column, tile| {
            self.multiply(dz, blocks, row, column, tile);
        });
        turn_back(rotated.view(), &self.random.signs(), dw, update);
    }

    /// One tile of the rotated product.
    fn multiply<A: Accumulator, U: Element<Accumulator = A>>(
        &self,
        dz: ArrayView2<'_, U>,
        blocks: &mut Blocks<A>,
        row: usize,
        column: usize,
        mut tile: ArrayViewMut2<'_, A>,
    ) {
        let (height, width) = tile.dim();
        let dz = dz.slice_move(s![.., column..column + width]);
        let mut beta = A::zero();
        for first in (0..self.kept.len()).step_by(ROWS) {
            let rows = first..self.kept.len().min(first + ROWS);
            let shape = (rows.len(), height);
            let left = block(&mut blocks.left, shape);
            on_widest_vectors(Unpack { packed: self, rows: rows.clone(), columns: row..row + height, values: left });
            let left = ArrayView2::from_shape(shape, left).expect("as many numbers as the shape has");
            let right = self.scaled(&dz, rows, &mut blocks.right);
            general_mat_mul(A::one(), &left.t(), &right, beta, &mut tile);
            beta = A::one();
        }
    }

    /// The rows of dZ that belong to some of these rows, times their scales: in `memory`, or as they are.
    fn scaled<'a, A: Accumulator, U: Element<Accumulator = A>>(
        &self,
        dz: &'a ArrayView2<'_, U>,
        rows: Range<usize>,
        memory: &'a mut Vec<A>,
    ) -> CowArray<'a, A, Ix2> {
        if U::IS_ACCUMULATOR && matches!(self.kept, Kept::All(_)) {
            return U::widen_view(dz.slice(s![rows, ..]));
        }
        let shape = (rows.len(), dz.ncols());
        let scaled = block(memory, shape);
        for (at, to) in rows.zip(scaled.chunks_exact_mut(dz.ncols())) {
            let scale = A::from_f64(self.kept.scale(at));
            let from = dz.row(self.kept.index(at));
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
        ArrayView2::from_shape(shape, scaled).expect("as many numbers as the shape has").into()
    }
}

/// A thread's blocks of H and of dZ.
struct Blocks<A> {
    left: Vec<A>,
    right: Vec<A>,
}

impl<A> Default for Blocks<A> {
    fn default() -> Self {
        Self { left: Vec::new(), right: Vec::new() }
    }
}

fn block<A: Accumulator>(memory: &mut Vec<A>, (rows, columns): (usize, usize)) -> &mut [A] {
    if memory.len() < rows * columns {
        memory.resize(rows * columns, A::ZERO);
    }
    &mut memory[..rows * columns]
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
