//! Operators that work element by element: activation functions, gated units, and the identity with dropout or packing.

use super::operation::{Operation, Operator};
use super::stages::{Place, drop_out, load, pack, store, unpack};
use super::tasks::{BackwardTask, ForwardTask};
use crate::element::Element;
use crate::lanes::vectorised;
use wtacrs_exact::operators::functions::{self, Point};
use wtacrs_exact::operators::values::{self, ValueBits};

/// Columns that are worked on at a time: whole groups, so few that all arrays fit the first cache.
const PART: usize = 1024;

/// How a part of a row is packed, if the operator packs.
fn place<'a>(
    operator: &Operator,
    random: &'a ValueBits,
    columns: usize,
    row: usize,
    first: usize,
) -> Option<Place<'a>> {
    let bits = operator.packing().bits()?;
    Some(Place { random, bits, row, columns, group: first / wtacrs_exact::packing::GROUP })
}

#[inline(always)]
fn each(function: impl Fn(f32) -> Point, x: &[f32], values: &mut [f32], slopes: &mut [f32]) {
    for ((&x, value), slope) in x.iter().zip(values).zip(slopes) {
        let point = function(x);
        (*value, *slope) = (point.value, point.slope);
    }
}

vectorised! {
    /// The values and slopes of the function at some elements.
    fn evaluate<'a>(operation: Operation, x: &'a [f32], values: &'a mut [f32], slopes: &'a mut [f32]) {
        match operation {
            Operation::Relu => each(functions::relu, x, values, slopes),
            Operation::Gelu => each(functions::gelu, x, values, slopes),
            Operation::GeluTanh => each(functions::gelu_tanh, x, values, slopes),
            Operation::Silu => each(functions::silu, x, values, slopes),
            // The identity; nobody reads its slopes.
            _ => values.copy_from_slice(x),
        }
    }

    fn multiply<'a>(by: &'a [f32], to: &'a mut [f32]) {
        to.iter_mut().zip(by).for_each(|(to, by)| *to *= by);
    }
}

/// Bit j % 32 of word j / 32 is whether element j is above 0.
fn pack_signs(x: &[f32], words: &mut [u32]) {
    for (x, word) in x.chunks(32).zip(words) {
        *word = x.iter().enumerate().fold(0, |word, (j, &x)| word | u32::from(x > 0.0) << j);
    }
}

pub(super) fn forward<T: Element>(mut task: ForwardTask<'_, T>) {
    let (operator, columns, randomness) = (task.operator, task.columns, task.randomness);
    let operation = operator.operation();
    let random = [0, 1].map(|field| ValueBits::new(randomness, field));
    let (mut x, mut y, mut slopes, mut gate) = ([0.0; PART], [0.0; PART], [0.0; PART], [0.0; PART]);
    for at in 0..task.x.read().len() / columns {
        let row = task.first + at;
        for first in (0..columns).step_by(PART) {
            let (begin, length) = (at * columns + first, PART.min(columns - first));
            let (x, y, slopes, gate) = (&mut x[..length], &mut y[..length], &mut slopes[..length], &mut gate[..length]);
            load(task.x.read(), begin, x);
            evaluate(operation, x, y, slopes);
            if let Some(gates) = task.gate {
                load(gates, begin, gate);
            }
            let places = [0, 1].map(|field| place(operator, &random[field], columns, row, first));
            let (codes, grids) = task.saved.row(0, at);
            match (operation, operator.is_gated(), places) {
                (Operation::Relu, false, _) => pack_signs(x, &mut codes[first / 32..]),
                (_, true, [Some(of_value), Some(of_slope)]) => {
                    pack(of_value, y, codes, grids, None);
                    multiply(gate, slopes);
                    let (codes, grids) = task.saved.row(1, at);
                    pack(of_slope, slopes, codes, grids, None);
                }
                (Operation::Identity, false, [Some(place), _]) => pack(place, x, codes, grids, None),
                (_, false, [Some(place), _]) => {
                    slopes.iter_mut().for_each(|slope| *slope = values::bounded_slope(*slope));
                    pack(place, slopes, codes, grids, Some(values::slope_grid(place.bits)));
                }
                _ => {}
            }
            if operator.is_gated() {
                multiply(gate, y);
            }
            drop_out(operator.mask(), randomness, row, columns, first, y);
            task.x.write(begin, y);
        }
    }
}

pub(super) fn backward<T: Element>(mut task: BackwardTask<'_, T>) {
    let (operator, columns, randomness) = (task.operator, task.columns, task.randomness);
    let operation = operator.operation();
    let random = [0, 1].map(|field| ValueBits::new(randomness, field));
    let (mut dy, mut x, mut y, mut slopes, mut gate) =
        ([0.0; PART], [0.0; PART], [0.0; PART], [0.0; PART], [0.0; PART]);
    for at in 0..task.dy.read().len() / columns {
        let row = task.first + at;
        for first in (0..columns).step_by(PART) {
            let (begin, length) = (at * columns + first, PART.min(columns - first));
            let (dy, x, y, slopes, gate) =
                (&mut dy[..length], &mut x[..length], &mut y[..length], &mut slopes[..length], &mut gate[..length]);
            load(task.dy.read(), begin, dy);
            drop_out(operator.mask(), randomness, row, columns, first, dy);
            let places = [0, 1].map(|field| place(operator, &random[field], columns, row, first));
            let (codes, grids) = task.saved.row(0, at);
            match (operation, operator.is_gated(), places) {
                (Operation::Identity, ..) => {}
                (Operation::Relu, false, _) => {
                    for (j, slope) in slopes.iter_mut().enumerate() {
                        let column = first + j;
                        *slope = (codes[column / 32] >> (column % 32) & 1) as f32;
                    }
                }
                (_, true, [Some(of_value), Some(of_slope)]) => {
                    unpack(of_value, codes, grids, None, y);
                    let (codes, grids) = task.saved.row(1, at);
                    unpack(of_slope, codes, grids, None, slopes);
                }
                (_, false, [Some(place), _]) => {
                    unpack(place, codes, grids, Some(values::slope_grid(place.bits)), slopes);
                }
                _ => {
                    if let Some(input) = task.x {
                        load(input, begin, x);
                    }
                    evaluate(operation, x, y, slopes);
                    if let Some(gates) = task.gate {
                        load(gates, begin, gate);
                        multiply(gate, slopes);
                    }
                }
            }
            if let Some(dgate) = &mut task.dgate {
                multiply(dy, y);
                store(y, dgate, begin);
            }
            if operation != Operation::Identity {
                multiply(slopes, dy);
            }
            task.dy.write(begin, dy);
        }
    }
}
