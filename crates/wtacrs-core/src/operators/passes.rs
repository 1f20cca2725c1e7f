//! Forward, backward and restoring passes: operands are checked, and rows shared out among threads.

use super::layout::Layout;
use super::operands::{Backward, Forward, InOut};
use super::operation::{Operation, Operator, OperatorError};
use super::stages::Saved;
use super::{norms, pointwise, softmax};
use crate::element::Element;
use crate::parallel;
use crate::rows::rows_per_task;
use rayon::prelude::*;
use wtacrs_exact::random::Randomness;

impl Operator {
    /// Writes y, and to `saved` what the backward pass needs: [`Self::saved_words`] of them. Arithmetic is in f32.
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
    /// saved. What is packed makes them estimates without bias; else they are exact up to rounding.
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
            let saved = Saved::new(self.layout(shape), saved, first);
            match self.operation() {
                Operation::Softmax => softmax::restore(self, columns, first, y, randomness, saved),
                _ => pointwise::restore(self, columns, first, y, randomness, saved),
            }
        });
        Ok(())
    }
}

/// Some rows of a forward pass.
pub(super) struct ForwardTask<'a, T> {
    pub(super) operator: &'a Operator,
    pub(super) columns: usize,
    /// The number of its first row.
    pub(super) first: usize,
    pub(super) x: InOut<'a, T>,
    pub(super) gate: Option<&'a [T]>,
    pub(super) weight: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) randomness: Randomness,
    pub(super) saved: Sections<'a>,
}

/// Some rows of a backward pass.
pub(super) struct BackwardTask<'a, T> {
    pub(super) operator: &'a Operator,
    pub(super) columns: usize,
    /// The number of its first row.
    pub(super) first: usize,
    pub(super) dy: InOut<'a, T>,
    pub(super) dgate: Option<&'a mut [T]>,
    pub(super) x: Option<&'a [T]>,
    pub(super) gate: Option<&'a [T]>,
    pub(super) y: Option<&'a [T]>,
    pub(super) weight: Option<&'a [f32]>,
    /// Whether the gradients of weight and bias are asked for.
    pub(super) wants: [bool; 2],
    pub(super) randomness: Randomness,
    pub(super) saved: Saved<'a>,
}

/// What a forward pass saves of some rows, to be written.
pub(super) struct Sections<'a> {
    layout: Layout,
    pub(super) codes: [&'a mut [u32]; 2],
    pub(super) grids: [&'a mut [u32]; 2],
    pub(super) statistics: &'a mut [u32],
}

impl<'a> Sections<'a> {
    fn new(layout: Layout, saved: &'a mut [u32]) -> Self {
        let [codes, second_codes, grids, second_grids, _] = layout.sections();
        let (codes, rest) = saved.split_at_mut(codes);
        let (second_codes, rest) = rest.split_at_mut(second_codes);
        let (grids, rest) = rest.split_at_mut(grids);
        let (second_grids, statistics) = rest.split_at_mut(second_grids);
        Self { layout, codes: [codes, second_codes], grids: [grids, second_grids], statistics }
    }

    /// The first rows, and the others.
    fn split(self, rows: usize) -> (Self, Self) {
        let layout = self.layout;
        let [codes, second_codes] = self.codes;
        let [grids, second_grids] = self.grids;
        let (codes, codes_rest) = codes.split_at_mut(rows * layout.codes[0]);
        let (second_codes, second_codes_rest) = second_codes.split_at_mut(rows * layout.codes[1]);
        let (grids, grids_rest) = grids.split_at_mut(rows * layout.grids[0]);
        let (second_grids, second_grids_rest) = second_grids.split_at_mut(rows * layout.grids[1]);
        let (statistics, statistics_rest) = self.statistics.split_at_mut(rows * layout.statistics);
        let first = Self { layout, codes: [codes, second_codes], grids: [grids, second_grids], statistics };
        let codes = [codes_rest, second_codes_rest];
        let grids = [grids_rest, second_grids_rest];
        (first, Self { layout, codes, grids, statistics: statistics_rest })
    }

    /// Codes and grids of array `field` for row `row` of these.
    pub(super) fn row(&mut self, field: usize, row: usize) -> (&mut [u32], &mut [u32]) {
        let (codes, grids) = (self.layout.codes[field], self.layout.grids[field]);
        (&mut self.codes[field][row * codes..][..codes], &mut self.grids[field][row * grids..][..grids])
    }

    /// The numbers of row `row` of these.
    pub(super) fn statistics(&mut self, row: usize) -> &mut [u32] {
        let count = self.layout.statistics;
        &mut self.statistics[row * count..][..count]
    }
}

fn split_in_out<T>(data: InOut<'_, T>, length: usize) -> (InOut<'_, T>, InOut<'_, T>) {
    match data {
        InOut::Apart { from, to } => {
            let (from, from_rest) = from.split_at(length);
            let (to, to_rest) = to.split_at_mut(length);
            (InOut::Apart { from, to }, InOut::Apart { from: from_rest, to: to_rest })
        }
        InOut::InPlace(data) => {
            let (one, rest) = data.split_at_mut(length);
            (InOut::InPlace(one), InOut::InPlace(rest))
        }
        InOut::Read(data) => {
            let (one, rest) = data.split_at(length);
            (InOut::Read(one), InOut::Read(rest))
        }
    }
}

fn split_option<T>(data: Option<&[T]>, length: usize) -> (Option<&[T]>, Option<&[T]>) {
    data.map_or((None, None), |data| {
        let (one, rest) = data.split_at(length);
        (Some(one), Some(rest))
    })
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

/// An operand that may be missing unless it is required, and must be unless it has a meaning.
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
