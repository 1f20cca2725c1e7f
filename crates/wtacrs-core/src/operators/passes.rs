//! The forward, backward and restoring passes, which check operands and share rows out among threads.

use super::operands::{Backward, Forward, InOut};
use super::operation::{Operation, Operator, OperatorError};
use super::stages::{Place, drop_out, store, unpack};
use super::tasks::{BackwardTask, ForwardTask, Saved, Sections, split_in_out, split_option};
use super::{norms, pointwise, softmax};
use crate::element::Element;
use crate::parallel;
use crate::rows::rows_per_task;
use rayon::prelude::*;
use wtacrs_exact::operators::values::ValueBits;
use wtacrs_exact::random::Randomness;

impl Operator {
    /// Writes y, and to `saved` the [`Self::saved_words`] words that the backward pass needs. Arithmetic is in f32.
    ///
    /// # Errors
    ///
    /// If the settings do not go together, or an operand is missing, has no meaning, or has another size.
    pub fn forward<T: Element>(
        &self,
        shape: [usize; 2],
        operands: Forward<'_, T>,
        randomness: Randomness,
        saved: &mut [u32],
    ) -> Result<(), OperatorError> {
        self.check()?;
        let Forward { x, gate, weight, bias } = operands;
        let [rows, columns] = shape;
        check_in_out("x", "y", &x, rows * columns)?;
        check_size("saved", saved.len(), self.saved_words(shape))?;
        check_option("gate", gate.map(<[T]>::len), self.is_gated(), self.is_gated(), rows * columns)?;
        check_option("weight", weight.map(<[f32]>::len), false, self.operation().is_norm(), columns)?;
        check_option("bias", bias.map(<[f32]>::len), false, self.operation() == Operation::LayerNorm, columns)?;
        if rows * columns == 0 {
            return Ok(());
        }
        let task_rows = rows_per_task(columns);
        let mut rest = (x, gate, Sections::new(self.layout(shape), saved));
        let mut tasks = Vec::with_capacity(rows.div_ceil(task_rows));
        for first in (0..rows).step_by(task_rows) {
            let count = task_rows.min(rows - first);
            let (x, gate, saved) = rest;
            let ((x, x_rest), (gate, gate_rest)) =
                (split_in_out(x, count * columns), split_option(gate, count * columns));
            let (saved, saved_rest) = saved.split(count);
            rest = (x_rest, gate_rest, saved_rest);
            tasks.push(ForwardTask { operator: self, columns, first, x, gate, weight, bias, randomness, saved });
        }
        parallel::for_each(tasks.into_par_iter(), |task| match self.operation() {
            Operation::Softmax => softmax::forward(task),
            Operation::LayerNorm | Operation::RmsNorm => norms::forward(task),
            _ => pointwise::forward(task),
        });
        Ok(())
    }

    /// Writes dX, and the gradients of the gate, the weight and the bias, from what the forward pass with the same randomness
    /// saved. From packed arrays they are unbiased estimates; else they are exact up to rounding.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`]. Operands that [`Self::keeps`] names are required.
    pub fn backward<T: Element>(
        &self,
        shape: [usize; 2],
        operands: Backward<'_, T>,
        randomness: Randomness,
        saved: &[u32],
    ) -> Result<(), OperatorError> {
        self.check()?;
        let Backward { dy, x, gate, y, weight, dgate, mut dweight, mut dbias } = operands;
        let ([rows, columns], keeps) = (shape, self.keeps());
        let size = rows * columns;
        check_in_out("dy", "dx", &dy, size)?;
        check_size("saved", saved.len(), self.saved_words(shape))?;
        check_option("x", x.map(<[T]>::len), keeps.input, keeps.input, size)?;
        check_option("gate", gate.map(<[T]>::len), keeps.gate, keeps.gate, size)?;
        check_option("y", y.map(<[T]>::len), keeps.output, keeps.output, size)?;
        check_option("dgate", dgate.as_ref().map(|d| d.len()), self.is_gated(), self.is_gated(), size)?;
        let is_norm = self.operation().is_norm();
        check_option("weight", weight.map(<[f32]>::len), false, is_norm, columns)?;
        check_option("dweight", dweight.as_ref().map(|d| d.len()), false, is_norm, columns)?;
        let has_bias = self.operation() == Operation::LayerNorm;
        check_option("dbias", dbias.as_ref().map(|d| d.len()), false, has_bias, columns)?;
        let wants = [dweight.is_some(), dbias.is_some()];
        if let Some(sums) = dweight.as_deref_mut() {
            sums.fill(0.0);
        }
        if let Some(sums) = dbias.as_deref_mut() {
            sums.fill(0.0);
        }
        if size == 0 {
            return Ok(());
        }
        let task_rows = rows_per_task(columns);
        let mut rest = (dy, dgate, x, gate, y);
        let mut tasks = Vec::with_capacity(rows.div_ceil(task_rows));
        for first in (0..rows).step_by(task_rows) {
            let count = task_rows.min(rows - first);
            let length = count * columns;
            let (dy, dgate, x, gate, y) = rest;
            let (dy, dy_rest) = split_in_out(dy, length);
            let (dgate, dgate_rest) = match dgate.map(|d| d.split_at_mut(length)) {
                Some((one, rest)) => (Some(one), Some(rest)),
                None => (None, None),
            };
            let ((x, x_rest), (gate, gate_rest), (y, y_rest)) =
                (split_option(x, length), split_option(gate, length), split_option(y, length));
            rest = (dy_rest, dgate_rest, x_rest, gate_rest, y_rest);
            let saved = Saved::new(self.layout(shape), saved, first);
            tasks.push(BackwardTask {
                operator: self,
                columns,
                first,
                dy,
                dgate,
                x,
                gate,
                y,
                weight,
                wants,
                randomness,
                saved,
            });
        }
        let sums = parallel::map(tasks.into_par_iter(), |task| match self.operation() {
            Operation::Softmax => {
                softmax::backward(task);
                None
            }
            Operation::LayerNorm | Operation::RmsNorm => Some(norms::backward(task)),
            _ => {
                pointwise::backward(task);
                None
            }
        });
        // In the tasks' order, which is that of the rows whatever the threads.
        for [of_weight, of_bias] in sums.into_iter().flatten() {
            for (total, sums) in [(&mut dweight, of_weight), (&mut dbias, of_bias)] {
                if let Some(total) = total {
                    total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
                }
            }
        }
        Ok(())
    }

    /// Writes y again, from what the forward pass with the same randomness saved.
    ///
    /// # Errors
    ///
    /// If what is saved does not contain it ([`Self::restores`]), or a size does not fit.
    pub fn restore<T: Element>(
        &self,
        shape: [usize; 2],
        randomness: Randomness,
        saved: &[u32],
        y: &mut [T],
    ) -> Result<(), OperatorError> {
        if !self.restores() {
            return Err(OperatorError::NotRestored);
        }
        let [rows, columns] = shape;
        check_size("y", y.len(), rows * columns)?;
        check_size("saved", saved.len(), self.saved_words(shape))?;
        if y.is_empty() {
            return Ok(());
        }
        let task_rows = rows_per_task(columns);
        let tasks = y.par_chunks_mut(task_rows * columns).enumerate();
        parallel::for_each(tasks, |(task, y)| {
            let first = task * task_rows;
            self.restore_rows(columns, first, randomness, Saved::new(self.layout(shape), saved, first), y);
        });
        Ok(())
    }

    /// Writes the rows from number `first` on.
    fn restore_rows<T: Element>(
        &self,
        columns: usize,
        first: usize,
        randomness: Randomness,
        saved: Saved<'_>,
        y: &mut [T],
    ) {
        let random = ValueBits::new(randomness, 0);
        let mut row = vec![0.0; columns];
        for at in 0..y.len() / columns {
            let (codes, grids) = saved.row(0, at);
            if let Some(bits) = self.packing().bits() {
                let place = Place { random: &random, bits, row: first + at, columns, group: 0 };
                unpack(place, codes, grids, None, &mut row);
            }
            if self.operation() == Operation::Softmax {
                softmax::squares(&mut row, grids);
            }
            drop_out(self.mask(), randomness, first + at, columns, 0, &mut row);
            store(&row, y, at * columns);
        }
    }
}

fn check_size(operand: &'static str, given: usize, needed: usize) -> Result<(), OperatorError> {
    if given == needed { Ok(()) } else { Err(OperatorError::Size { operand, given, needed }) }
}

fn check_in_out<T>(
    from_name: &'static str,
    to_name: &'static str,
    data: &InOut<'_, T>,
    size: usize,
) -> Result<(), OperatorError> {
    check_size(from_name, data.read().len(), size)?;
    match data {
        InOut::Apart { to, .. } => check_size(to_name, to.len(), size),
        _ => Ok(()),
    }
}

/// An operand may be missing unless it is `required`, and must be missing unless it `has_meaning`.
fn check_option(
    operand: &'static str,
    given: Option<usize>,
    required: bool,
    has_meaning: bool,
    needed: usize,
) -> Result<(), OperatorError> {
    match given {
        None if required => Err(OperatorError::Missing { operand }),
        Some(_) if !has_meaning => Err(OperatorError::Unused { operand }),
        Some(given) => check_size(operand, given, needed),
        None => Ok(()),
    }
}
