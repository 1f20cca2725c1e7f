//! Softmax of rows. The roots of the probabilities are packed: most of a row's probabilities are far below the largest, and the noise
//! of a square is in proportion to its root. The gradient, dX_j = P_j (d_j − Σ P_k d_k) with d = dY times dropout's mask, contains
//! products of two probabilities, whose errors have no covariance. So the mean of P̂_j Σ P̂_k d_k is P_j Σ P_k d_k plus the
//! variance of P̂_j times d_j, which is added back.

use super::stages::{Place, drop_out, load, pack, sum, unpack};
use super::tasks::{BackwardTask, ForwardTask};
use crate::element::Element;
use crate::lanes::vectorised;
use wtacrs_exact::operators::functions::exp;
use wtacrs_exact::operators::values::{self, ValueBits};
use wtacrs_exact::packing::{GROUP, Grid};

vectorised! {
    /// Turns a row into its probabilities.
    fn probabilities<'a>(row: &'a mut [f32]) {
        let largest = largest(row);
        row.iter_mut().for_each(|x| *x = exp_below(*x - largest));
        let inverse = 1.0 / sum(row.len(), |j| row[j]);
        row.iter_mut().for_each(|x| *x *= inverse);
    }

    /// Writes P ∘ (d − ΣP d), with the term that makes it unbiased if the roots of P were packed on `grids`.
    fn gradient<'a>(p: &'a [f32], d: &'a [f32], grids: &'a [u32], dx: &'a mut [f32]) {
        let length = p.len();
        let (d, dx) = (&d[..length], &mut dx[..length]);
        let mean = sum(length, |j| p[j] * d[j]);
        for ((dx, p), d) in dx.iter_mut().zip(p).zip(d) {
            *dx = p * (d - mean);
        }
        let groups = dx.chunks_mut(GROUP).zip(p.chunks(GROUP)).zip(d.chunks(GROUP));
        for (((dx, p), d), grid) in groups.zip(grids) {
            let variance = values::variance(Grid::from_word(*grid));
            for ((dx, p), d) in dx.iter_mut().zip(p).zip(d) {
                *dx += values::variance_of_square(*p, variance) * d;
            }
        }
    }

    fn roots<'a>(p: &'a [f32], roots: &'a mut [f32]) {
        roots.iter_mut().zip(p).for_each(|(root, p)| *root = p.sqrt());
    }

    /// Turns roots that were packed on `grids` into probabilities.
    pub(super) fn squares<'a>(roots: &'a mut [f32], grids: &'a [u32]) {
        for (roots, grid) in roots.chunks_mut(GROUP).zip(grids) {
            let variance = values::variance(Grid::from_word(*grid));
            roots.iter_mut().for_each(|root| *root = values::square(*root, variance));
        }
    }
}

/// The largest element, NaN if one is.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 32];
    for part in row.chunks(32) {
        for (largest, &x) in lanes.iter_mut().zip(part) {
            *largest = if x > *largest || x.is_nan() { x } else { *largest };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |largest, x| if x > largest || x.is_nan() { x } else { largest })
}

/// e^x, which is NaN for a NaN.
#[inline(always)]
fn exp_below(x: f32) -> f32 {
    if x.is_nan() { x } else { exp(x) }
}

pub(super) fn forward<T: Element>(mut task: ForwardTask<'_, T>) {
    let (operator, columns, randomness) = (task.operator, task.columns, task.randomness);
    let random = ValueBits::new(randomness, 0);
    let (mut row, mut root) = (vec![0.0; columns], vec![0.0; columns]);
    for at in 0..task.x.read().len() / columns {
        let number = task.first + at;
        load(task.x.read(), at * columns, &mut row);
        probabilities(&mut row);
        if let Some(bits) = operator.packing().bits() {
            let (codes, grids) = task.saved.row(0, at);
            roots(&row, &mut root);
            pack(Place { random: &random, bits, row: number, columns, group: 0 }, &root, codes, grids, None);
        }
        drop_out(operator.mask(), randomness, number, columns, 0, &mut row);
        task.x.write(at * columns, &row);
    }
}

pub(super) fn backward<T: Element>(mut task: BackwardTask<'_, T>) {
    let (operator, columns, randomness) = (task.operator, task.columns, task.randomness);
    let random = ValueBits::new(randomness, 0);
    let (mut row, mut d, mut dx) = (vec![0.0; columns], vec![0.0; columns], vec![0.0; columns]);
    for at in 0..task.dy.read().len() / columns {
        let number = task.first + at;
        load(task.dy.read(), at * columns, &mut d);
        drop_out(operator.mask(), randomness, number, columns, 0, &mut d);
        let (codes, grids) = task.saved.row(0, at);
        match (operator.packing().bits(), task.y) {
            (Some(bits), _) => {
                let place = Place { random: &random, bits, row: number, columns, group: 0 };
                unpack(place, codes, grids, None, &mut row);
                squares(&mut row, grids);
            }
            (None, Some(y)) => load(y, at * columns, &mut row),
            (None, None) => {}
        }
        gradient(&row, &d, grids, &mut dx);
        task.dy.write(at * columns, &dx);
    }
}
