//! Rotations of packed rows, turned back in a tile of the product: 2 D H, group by group.

use crate::element::Accumulator;
use crate::groups::{Aligned, butterflies};
use crate::lanes::on_widest_vectors;
use crate::rows::walsh_hadamard;
use pulp::{Simd, WithSimd};
use wtacrs_exact::packing::GROUP;

/// Columns that are turned back at a time.
const COLUMNS: usize = 32;

/// Turns the groups of each row back.
pub(super) fn turn_rows_back<A: Accumulator>(rows: &mut [&mut [A]], signs: &[u32; 4]) {
    let factors = core::array::from_fn(|j| factor(signs, j));
    for row in rows {
        on_widest_vectors(TurnBack { row, factors: &factors });
    }
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

/// Turns the groups of each column back.
pub(super) fn turn_columns_back<A: Accumulator>(rows: &mut [&mut [A]], signs: &[u32; 4]) {
    let width = rows.first().map_or(0, |row| row.len());
    for group in rows.chunks_mut(GROUP) {
        for first in (0..width).step_by(COLUMNS) {
            let columns = first..width.min(first + COLUMNS);
            let mut held = [[A::ZERO; COLUMNS]; GROUP];
            let held = &mut held[..group.len()];
            for (held, row) in held.iter_mut().zip(&*group) {
                held[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
            walsh_hadamard(held.as_flattened_mut(), COLUMNS);
            for (j, (held, row)) in held.iter().zip(&mut *group).enumerate() {
                let factor = factor(signs, j);
                row[columns.clone()].iter_mut().zip(held).for_each(|(to, &turned)| *to = turned * factor);
            }
        }
    }
}

/// What turns element j of a group back.
fn factor<A: Accumulator>(signs: &[u32; 4], j: usize) -> A {
    A::from_f64(if signs[j / 32] >> (j % 32) & 1 == 1 { -2.0 } else { 2.0 })
}
