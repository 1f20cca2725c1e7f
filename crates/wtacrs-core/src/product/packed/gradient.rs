//! dW = Hᵀ dZ from packed rows of H.
//!
//! The product is taken in rotated space, a block of kept rows at a time: its rows of H are unpacked and its rows of dZ
//! scaled, both into the cache, and multiplied tile by tile of dW. So neither the unpacked rows nor the scaled ones are ever
//! in memory as a whole. The rotation is turned back once, on dW.

use super::view::PackedView;
use crate::element::{Accumulator, Element};
use crate::groups::{Aligned, butterflies};
use crate::lanes::on_widest_vectors;
use crate::parallel;
use crate::product::gather::gather_scaled_from;
use crate::product::weight_gradient::{Scratch, Update, matrix, multiply};
use crate::product::{Kept, ShapeError, check_size};
use crate::rows::{for_each_row, walsh_hadamard};
use ndarray::{ArrayView2, ArrayViewMut2, Axis, Zip, aview2, s};
use pulp::{Simd, WithSimd};
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
        let signs = self.random.signs();
        if dw.strides()[0] != 1 {
            let mut rotated = matrix(rotated, padded, outputs);
            self.multiply(dz, rotated.view_mut(), left, right);
            return turn_back(rotated.view(), &signs, dw, update);
        }
        // A weight that is stored as out_features × in_features: its groups lie in rows.
        let mut rows = dw.reversed_axes();
        if update == Update::Overwrite && padded == self.columns {
            self.multiply(dz, rows.view_mut().reversed_axes(), left, right);
            return turn_rows_back(rows, &signs);
        }
        let mut rotated = matrix(rotated, outputs, padded);
        self.multiply(dz, rotated.view_mut().reversed_axes(), left, right);
        turn_rows_back(rotated.view_mut(), &signs);
        let found = rotated.slice(s![.., ..self.columns]);
        match update {
            Update::Overwrite => rows.assign(&found),
            Update::Accumulate => rows += &found,
        }
    }

    /// The rotated product, in memory for a block of rows of H and of dZ.
    fn multiply<A: Accumulator, U: Element<Accumulator = A>>(
        &self,
        dz: ArrayView2<'_, U>,
        mut rotated: ArrayViewMut2<'_, A>,
        left: &mut [A],
        right: &mut [A],
    ) {
        let (padded, outputs) = rotated.dim();
        // No scale and no other type: rows of dZ serve as they are.
        let as_it_is = matches!(self.kept, Kept::All(_)) && U::IS_ACCUMULATOR;
        let mut update = Update::Overwrite;
        for first in (0..self.kept.len()).step_by(ROWS) {
            let rows = ROWS.min(self.kept.len() - first);
            let mut left = matrix(left, rows, padded);
            let mut right = matrix(right, rows, outputs);
            let scale = || {
                if !as_it_is {
                    gather_scaled_from(dz, self.kept, first, right.view_mut());
                }
            };
            parallel::join(|| self.rotated_into(first, left.view_mut()), scale);
            let of_dz =
                if as_it_is { U::widen_view(dz.slice(s![first..first + rows, ..])) } else { right.view().into() };
            multiply(left.view(), of_dz.view(), rotated.view_mut(), update);
            update = Update::Accumulate;
        }
    }
}

/// Each row ← 2 D H · row, group by group; the elements of a row lie side by side.
fn turn_rows_back<A: Accumulator>(rows: ArrayViewMut2<'_, A>, signs: &[u32; 4]) {
    let factors = core::array::from_fn(|j| factor(signs, j));
    for_each_row(rows, |_, row| {
        let row = row.into_slice().unwrap_or_default();
        on_widest_vectors(TurnBack { row, factors: &factors });
    });
}

struct TurnBack<'a, A> {
    row: &'a mut [A],
    factors: &'a [A; GROUP],
}

impl<A: Accumulator> WithSimd for TurnBack<'_, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for group in self.row.chunks_mut(GROUP) {
            match group.len() {
                128 => turn_group_back::<A, 128>(group, self.factors),
                64 => turn_group_back::<A, 64>(group, self.factors),
                32 => turn_group_back::<A, 32>(group, self.factors),
                _ => turn_group_back::<A, 16>(group, self.factors),
            }
        }
    }
}

#[inline(always)]
fn turn_group_back<A: Accumulator, const P: usize>(group: &mut [A], factors: &[A; GROUP]) {
    let mut y = Aligned([A::ZERO; P]);
    y.0.copy_from_slice(group);
    let y = butterflies(y);
    for ((value, &turned), &factor) in group.iter_mut().zip(&y.0).zip(factors) {
        *value = turned * factor;
    }
}

/// What turns element j of a group back.
fn factor<A: Accumulator>(signs: &[u32; 4], j: usize) -> A {
    A::from_f64(if signs[j / 32] >> (j % 32) & 1 == 1 { -2.0 } else { 2.0 })
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
        walsh_hadamard(held[..height].as_flattened_mut(), COLUMNS);
        for (j, row) in held[..dw.nrows()].iter_mut().enumerate() {
            let factor = factor(signs, j);
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
