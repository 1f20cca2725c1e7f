//! An operator's passes on the CPU.

use super::linear::started;
use super::memory::{numbers, numbers_mut};
use super::operator_block::{OperatorBlock, UNUSED};
use super::threads;
use crate::arguments::{Array, Number, Stream, heap, with_element};
use crate::boundary::Outcome;
use crate::device::{OperatorBackward, OperatorDescription, OperatorForward, OperatorPlan, OperatorSizes, in_place};
use std::sync::Arc;
use wtacrs_core::operators::{Backward, Forward, InOut};
use wtacrs_core::parallel::Threads;

#[derive(Debug)]
pub(super) struct CpuOperator {
    description: OperatorDescription,
    threads: Arc<dyn Threads>,
    block: OperatorBlock,
}

impl CpuOperator {
    pub(super) fn new(description: &OperatorDescription, threads: Arc<dyn Threads>) -> Outcome<Self> {
        Ok(Self { description: *description, threads, block: OperatorBlock::new(description)? })
    }

    /// Refuses a pass for whose rows in f32 there is no memory, or for the sums of a norm's gradients.
    fn check_heap(&self, sums: usize) -> Outcome {
        /// Rows in f32 that a thread works on at most.
        const ROWS: usize = 4;
        /// Elements of a task, which has sums of its own.
        const TASK: usize = 1 << 16;
        let [rows, columns] = self.description.shape;
        let of_rows = (self.threads.count() * ROWS, columns.saturating_mul(size_of::<f32>()));
        let tasks = (rows.saturating_mul(columns) / TASK + 1).min(rows);
        heap::check("a pass over all rows", &[of_rows, (tasks * sums, columns.saturating_mul(size_of::<f32>()))])
    }
}

impl OperatorPlan for CpuOperator {
    fn sizes(&self) -> OperatorSizes {
        OperatorSizes { saved: self.block.bytes(), backward: 0 }
    }

    unsafe fn forward(&self, call: OperatorForward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let OperatorForward { x, gate, weight, bias, y, randomness, saved, .. } = call;
        let OperatorDescription { operator, shape, dtype, further_offset } = self.description;
        self.check_heap(0)?;
        let randomness = match self.description.draws() {
            0 => UNUSED,
            // SAFETY: the caller has it.
            _ => unsafe { started(randomness, further_offset) },
        };
        with_element!(dtype, T => {
            // SAFETY: checked for NULL and alignment; nobody writes to inputs, and outputs overlap nothing, but y may be x.
            unsafe {
                let operands = Forward {
                    x: match &y {
                        Some(y) => in_out::<T>(&x, y),
                        None => InOut::Read(numbers(&x)),
                    },
                    gate: gate.as_ref().map(|gate| numbers::<T>(gate)),
                    weight: weight.map(|weight| weight.get()),
                    bias: bias.map(|bias| bias.get()),
                };
                let words = self.block.words_mut(saved.as_ptr());
                if self.description.bytes() == 0 {
                    // No element writes them.
                    words.fill(0);
                }
                operator.forward(shape, operands, randomness, words)?;
                self.block.seal(saved.as_ptr(), randomness);
            }
        });
        Ok(())
    }

    unsafe fn backward(&self, call: OperatorBackward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let OperatorBackward { x, gate, y, weight, dy, dx, dgate, dweight, dbias, saved, .. } = call;
        let OperatorDescription { operator, shape, dtype, .. } = self.description;
        self.check_heap(usize::from(dweight.is_some()) + usize::from(dbias.is_some()))?;
        with_element!(dtype, T => {
            // SAFETY: checked for NULL and alignment; nobody writes to inputs, and outputs overlap nothing, but dX may be dY.
            unsafe {
                let (randomness, words) = self.block.read(saved.as_ptr())?;
                let operands = Backward {
                    dy: in_out::<T>(&dy, &dx),
                    x: x.as_ref().map(|x| numbers(x)),
                    gate: gate.as_ref().map(|gate| numbers(gate)),
                    y: y.as_ref().map(|y| numbers(y)),
                    weight: weight.map(|weight| weight.get()),
                    dgate: dgate.as_ref().map(|dgate| numbers_mut(dgate)),
                    dweight: dweight.map(|dweight| dweight.get_mut()),
                    dbias: dbias.map(|dbias| dbias.get_mut()),
                };
                Ok(operator.backward(shape, operands, randomness, words)?)
            }
        })
    }

    unsafe fn restore(&self, saved: Array<u8>, y: Array<u8>, _stream: Stream) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let OperatorDescription { operator, shape, dtype, .. } = self.description;
        self.check_heap(0)?;
        with_element!(dtype, T => {
            // SAFETY: checked for NULL, alignment and overlap; the caller has the rest.
            unsafe {
                let (randomness, words) = self.block.read(saved.as_ptr())?;
                Ok(operator.restore(shape, randomness, words, numbers_mut::<T>(&y))?)
            }
        })
    }
}

/// What a pass reads and what it writes.
///
/// # Safety
///
/// As for [`numbers`] and [`numbers_mut`]. They are one array, or apart.
unsafe fn in_out<'a, T: Number>(from: &Array<u8>, to: &Array<u8>) -> InOut<'a, T> {
    // SAFETY: the caller has it.
    unsafe {
        if in_place(from, to) {
            InOut::InPlace(numbers_mut(to))
        } else {
            InOut::Apart { from: numbers(from), to: numbers_mut(to) }
        }
    }
}
