//! A batched product's passes on the CPU.

use super::kept_block::KeptBlock;
use super::linear::{gradient, started};
use super::memory::{workspace, workspace_bytes};
use super::threads;
use crate::arguments::heap::{self, PER_TOKEN};
use crate::arguments::{Number, Tensor, known_norms, with_element, with_elements};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use crate::device::{
    TensorMulBackward, TensorMulDescription, TensorMulForward, TensorMulPlan, TensorMulSizes, budget_of,
};
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::sync::Arc;
use wtacrs_core::Selection;
use wtacrs_core::element::Element;
use wtacrs_core::layers::{Contraction, Side};
use wtacrs_core::parallel::{self, Threads};
use wtacrs_core::product;

/// Parts of the items that a backward pass works on side by side, each with scratch memory of its own.
const TASKS: usize = 16;

#[derive(Debug)]
pub(super) struct CpuTensorMul {
    product: TensorMulDescription,
    threads: Arc<dyn Threads>,
    /// The layout of what one item saves for dA, and for dB.
    left: KeptBlock,
    right: KeptBlock,
    saved_bytes: usize,
    task_scratch: usize,
}

impl CpuTensorMul {
    pub(super) fn new(product: &TensorMulDescription, threads: Arc<dyn Threads>) -> Outcome<Self> {
        let &TensorMulDescription { rows, inner, columns, operands, .. } = product;
        let block = |contraction: Contraction, pairs| -> Outcome<KeptBlock> {
            KeptBlock::new(operands, pairs, inner, budget_of(contraction, pairs)?.get())
        };
        let (left, right) = (block(product.product.left, columns)?, block(product.product.right, rows)?);
        let workspace = |block: &KeptBlock, out| workspace_bytes(operands, block.capacity(), inner, out);
        let task_scratch = workspace(&left, rows)?.max(workspace(&right, columns)?);
        let overflow = || Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, "the saved memory overflows");
        let fits = |bytes: &usize| isize::try_from(*bytes).is_ok();
        let item = left.bytes().checked_add(right.bytes());
        let saved_bytes =
            item.and_then(|bytes| bytes.checked_mul(product.items())).filter(fits).ok_or_else(overflow)?;
        task_scratch.checked_mul(TASKS).filter(fits).ok_or_else(overflow)?;
        Ok(Self { product: *product, threads, left, right, saved_bytes, task_scratch })
    }

    fn tasks(&self) -> usize {
        self.product.items().min(TASKS)
    }

    /// Batch item and head of a matrix.
    fn at(&self, item: usize) -> [usize; 2] {
        [item / self.product.heads, item % self.product.heads]
    }

    /// Refuses a pass for whose selections there is no memory.
    fn check_heap(&self) -> Outcome {
        let items = self.product.items();
        let pairs = self.left.capacity() + self.right.capacity();
        let selections = (items, size_of::<[Selection; 2]>() + pairs * (size_of::<u32>() + size_of::<f64>()));
        let at_work = self.threads.count().min(items);
        let longest = self.product.rows.max(self.product.columns);
        heap::check("a pass over all items", &[selections, (at_work * longest, PER_TOKEN)])
    }
}

impl TensorMulPlan for CpuTensorMul {
    fn sizes(&self) -> TensorMulSizes {
        TensorMulSizes { saved: self.saved_bytes, forward: 0, backward: self.task_scratch * self.tasks() }
    }

    fn status_offset(&self, _side: Side) -> Option<usize> {
        None
    }

    unsafe fn forward(&self, call: TensorMulForward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let TensorMulForward { a, b, row_guess, column_guess, randomness, saved, .. } = call;
        self.check_heap()?;
        // SAFETY: the caller has it.
        let randomness = unsafe { started(randomness, self.product.further_offset) };
        with_element!(self.product.operands, T => {
            // SAFETY: checked for NULL and alignment; nobody writes to inputs, and `saved` does not overlap them.
            let pairs = |item: usize| unsafe {
                (b.matrix(self.at(item)).view::<T>().reversed_axes(), a.matrix(self.at(item)).view::<T>())
            };
            let select = |side, pairs: ArrayView2<'_, T>, guess: Option<Tensor<4>>, item: usize| -> Outcome<Selection> {
                // SAFETY: as above.
                let guess = guess.map(|guess| known_norms(unsafe { guess.matrix(self.at(item)).view::<f32>() }));
                Ok(self.product.product.select(side, pairs, guess.as_deref(), randomness, item as u32)?)
            };
            // All are chosen before any is written.
            let selections = parallel::map((0..self.product.items()).into_par_iter(), |item| {
                let (left, right) = pairs(item);
                Ok((select(Side::Left, left, column_guess, item)?, select(Side::Right, right, row_guess, item)?))
            });
            let selections = selections.into_iter().collect::<Outcome<Vec<(Selection, Selection)>>>()?;
            // SAFETY: checked for size and alignment; the caller has the rest.
            let saved = unsafe { saved.get_mut() };
            let (left_bytes, item_bytes) = (self.left.bytes(), self.left.bytes() + self.right.bytes());
            let blocks = saved.par_chunks_mut(item_bytes).zip(&selections).enumerate();
            parallel::try_for_each(blocks, |(item, (saved, selected))| {
                let (left, right) = pairs(item);
                let (for_left, for_right) = saved.split_at_mut(left_bytes);
                // SAFETY: blocks are multiples of 64 bytes, so each is aligned, and has its size.
                unsafe {
                    self.left.write::<T>(for_left.as_mut_ptr(), &selected.0, |to| Ok(product::gather_into(left, &selected.0, to)?))?;
                    self.right.write::<T>(for_right.as_mut_ptr(), &selected.1, |to| Ok(product::gather_into(right, &selected.1, to)?))
                }
            })
        })
    }

    unsafe fn backward(&self, call: TensorMulBackward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let TensorMulBackward { saved, g, da, db, update, row_norms, column_norms, scratch, .. } = call;
        self.check_heap()?;
        with_elements!(self.product.operands, self.product.gradient, T, U => {
            // SAFETY: checked for size and alignment; nobody writes to it, and no output overlaps it.
            let saved = unsafe { saved.get() };
            let left_bytes = self.left.bytes();
            // All are read before anything is written.
            let items = parallel::map(saved.par_chunks(left_bytes + self.right.bytes()), |saved| {
                let (left, right) = saved.split_at(left_bytes);
                // SAFETY: blocks are multiples of 64 bytes, so each is aligned, and has its size.
                unsafe { Ok((self.left.read::<T>(left.as_ptr())?, self.right.read::<T>(right.as_ptr())?)) }
            });
            let items = items.into_iter().collect::<Outcome<Vec<_>>>()?;
            // SAFETY: checked for size and alignment, and overlaps nothing.
            let mut workspaces = split(unsafe { workspace::<<T as Element>::Accumulator>(&scratch) }, self.tasks());
            let per_task = items.len().div_ceil(self.tasks().max(1)).max(1);
            let tasks = items.par_chunks(per_task).zip(workspaces.par_iter_mut()).enumerate();
            parallel::try_for_each(tasks, |(task, (items, workspace))| {
                items.iter().enumerate().try_for_each(|(i, ((left, left_rows), (right, right_rows)))| {
                    let at = self.at(task * per_task + i);
                    // SAFETY: checked for NULL, alignment and overlap; items are apart, as outputs are writable.
                    let (g, da, db) = unsafe {
                        (
                            g.matrix(at).view::<U>(),
                            da.matrix(at).view_mut::<<T as Element>::Accumulator>(),
                            db.matrix(at).view_mut::<<T as Element>::Accumulator>(),
                        )
                    };
                    gradient::<T, U>(left_rows.view(), g.t(), left, da.reversed_axes(), update, workspace)?;
                    gradient::<T, U>(right_rows.view(), g, right, db, update, workspace)?;
                    // SAFETY: as above.
                    unsafe {
                        fill(row_norms, at, || product::row_norms(g));
                        fill(column_norms, at, || product::column_norms(g));
                    }
                    Ok(())
                })
            })
        })
    }
}

/// Writes an item's norms, if they are wanted.
///
/// # Safety
///
/// They must be writable and used by nobody else.
unsafe fn fill(norms: Option<Tensor<4>>, at: [usize; 2], of: impl FnOnce() -> Vec<f32>) {
    if let Some(norms) = norms {
        // SAFETY: the caller has it.
        let mut column = unsafe { norms.matrix(at).view_mut::<f32>() };
        column.column_mut(0).assign(&ndarray::aview1(&of()));
    }
}

/// Cuts scratch memory into equal parts.
fn split<A: Number>(mut rest: &mut [A], parts: usize) -> Vec<&mut [A]> {
    let each = rest.len() / parts.max(1);
    (0..parts)
        .map(|_| {
            let (part, behind) = core::mem::take(&mut rest).split_at_mut(each);
            rest = behind;
            part
        })
        .collect()
}
