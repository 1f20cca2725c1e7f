//! Norms of rows: x̂ = (x − mean)/σ, y = x̂ · weight + bias. With g = dY · weight, dX = (g − mean g − x̂ · mean(g x̂))/σ. RMS norms have
//! neither mean. The last term contains products of two normalised elements. When packed, these have errors of variance step²/12 and
//! without covariance, so the mean of x̂_j Σ g_k x̂_k is too large by step²/12 · g_j, which is corrected.

use super::operation::Operation;
use super::stages::{Place, add_variances, drop_out, load, pack, sum, unpack};
use super::tasks::{BackwardTask, ForwardTask};
use crate::element::Element;
use crate::lanes::vectorised;
use wtacrs_exact::operators::values::ValueBits;

/// A norm's weight or bias; empty where there is none.
type Columns<'a> = &'a [f32];

/// A row in the backward pass.
struct Normalised<'a> {
    /// x̂.
    row: &'a [f32],
    weight: Columns<'a>,
    /// 1/σ.
    inverse: f32,
    has_mean: bool,
    /// The grids that x̂ was packed on; empty if it was not packed.
    grids: &'a [u32],
}

vectorised! {
    /// The mean of a row, or 0 without one, and 1/σ.
    fn statistics<'a>(row: &'a [f32], has_mean: bool, epsilon: f32) -> [f32; 2] {
        let count = row.len() as f32;
        let mean = if has_mean { sum(row.len(), |j| row[j]) / count } else { 0.0 };
        let variance = sum(row.len(), |j| (row[j] - mean) * (row[j] - mean)) / count;
        [mean, 1.0 / (variance + epsilon).sqrt()]
    }

    fn normalise<'a>(row: &'a mut [f32], mean: f32, inverse: f32) {
        row.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
    }

    /// x̂ · weight + bias.
    fn scale<'a>(row: &'a mut [f32], weight: Columns<'a>, bias: Columns<'a>) {
        row.iter_mut().zip(weight).for_each(|(x, weight)| *x *= weight);
        row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }

    /// Turns dY into g, adds it to the sums, and writes dX.
    fn gradient<'a>(of: Normalised<'a>, sums: [&'a mut [f32]; 2], g: &'a mut [f32], dx: &'a mut [f32]) {
        let Normalised { row, weight, inverse, has_mean, grids } = of;
        let [of_weight, of_bias] = sums;
        for ((sum, g), x) in of_weight.iter_mut().zip(&*g).zip(row) {
            *sum += g * x;
        }
        of_bias.iter_mut().zip(&*g).for_each(|(sum, g)| *sum += g);
        g.iter_mut().zip(weight).for_each(|(g, weight)| *g *= weight);
        let length = row.len();
        let (g, dx, count) = (&g[..length], &mut dx[..length], length as f32);
        let along = sum(length, |j| g[j] * row[j]) / count;
        let mean = if has_mean { sum(length, |j| g[j]) / count } else { 0.0 };
        for ((dx, g), x) in dx.iter_mut().zip(g).zip(row) {
            *dx = (g - mean) - x * along;
        }
        add_variances(grids, 1.0 / count, g, dx);
        dx.iter_mut().for_each(|dx| *dx *= inverse);
    }
}

pub(super) fn forward<T: Element>(mut task: ForwardTask<'_, T>) {
    let (operator, columns, randomness) = (task.operator, task.columns, task.randomness);
    let has_mean = operator.operation() == Operation::LayerNorm;
    let random = ValueBits::new(randomness, 0);
    let mut row = vec![0.0; columns];
    for at in 0..task.x.read().len() / columns {
        let number = task.first + at;
        load(task.x.read(), at * columns, &mut row);
        let found = statistics(&row, has_mean, operator.epsilon());
        normalise(&mut row, found[0], found[1]);
        let saved = task.saved.statistics(at);
        let places = saved.len();
        for (saved, found) in saved.iter_mut().zip(&found[2 - places..]) {
            *saved = found.to_bits();
        }
        if let Some(bits) = operator.packing().bits() {
            let (codes, grids) = task.saved.row(0, at);
            pack(Place { random: &random, bits, row: number, columns, group: 0 }, &row, codes, grids, None);
        }
        scale(&mut row, task.weight.unwrap_or_default(), task.bias.unwrap_or_default());
        drop_out(operator.mask(), randomness, number, columns, 0, &mut row);
        task.x.write(at * columns, &row);
    }
}

/// Writes dX, and returns these rows' sums for the gradients of weight and bias, empty if they are not asked for.
pub(super) fn backward<T: Element>(mut task: BackwardTask<'_, T>) -> [Vec<f32>; 2] {
    let (operator, columns, randomness) = (task.operator, task.columns, task.randomness);
    let has_mean = operator.operation() == Operation::LayerNorm;
    let random = ValueBits::new(randomness, 0);
    let (mut row, mut g, mut dx) = (vec![0.0; columns], vec![0.0; columns], vec![0.0; columns]);
    let [mut of_weight, mut of_bias] = task.wants.map(|wants| if wants { vec![0.0; columns] } else { Vec::new() });
    for at in 0..task.dy.read().len() / columns {
        let number = task.first + at;
        load(task.dy.read(), at * columns, &mut g);
        drop_out(operator.mask(), randomness, number, columns, 0, &mut g);
        let saved = task.saved.statistics(at);
        let inverse = saved.last().map_or(0.0, |&bits| f32::from_bits(bits));
        let (codes, grids) = task.saved.row(0, at);
        match (operator.packing().bits(), task.x) {
            (Some(bits), _) => {
                let place = Place { random: &random, bits, row: number, columns, group: 0 };
                unpack(place, codes, grids, None, &mut row);
            }
            (None, Some(x)) => {
                load(x, at * columns, &mut row);
                let mean = if has_mean { f32::from_bits(saved[0]) } else { 0.0 };
                normalise(&mut row, mean, inverse);
            }
            (None, None) => {}
        }
        let of = Normalised { row: &row, weight: task.weight.unwrap_or_default(), inverse, has_mean, grids };
        gradient(of, [&mut of_weight, &mut of_bias], &mut g, &mut dx);
        task.dy.write(at * columns, &dx);
    }
    [of_weight, of_bias]
}
