//! A batched product's passes on the CPU.

use super::kept_block::{KeptBlock, check_finite};
use super::linear::{gradient, started};
use super::threads;
use crate::arguments::heap::{self, PER_PACKING_THREAD, PER_TOKEN};
use crate::arguments::{Tensor, known_norms, with_element, with_elements};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use crate::device::{
    StatusWords, TensorMulBackward, TensorMulDescription, TensorMulForward, TensorMulPlan, TensorMulSizes, budget_of,
};
use ndarray::ArrayView2;
use rayon::prelude::*;
use std::sync::Arc;
use wtacrs_core::Selection;
use wtacrs_core::element::Element;
use wtacrs_core::layers::Side;
use wtacrs_core::parallel::{self, Threads};
use wtacrs_core::product::{self, Kept};
use wtacrs_kernels::plan::Engine;

#[derive(Debug)]
pub(super) struct CpuTensorMul {
    product: TensorMulDescription,
    threads: Arc<dyn Threads>,
    /// The layout of what one item saves for dA, and for dB.
    left: KeptBlock,
    right: KeptBlock,
    saved_bytes: usize,
}

impl CpuTensorMul {
    pub(super) fn new(product: &TensorMulDescription, threads: Arc<dyn Threads>) -> Outcome<Self> {
        let &TensorMulDescription { rows, inner, columns, operands, .. } = product;
        let side = |side, pairs| -> Outcome<KeptBlock> {
            let packing = product.product.packing_of(side);
            let budget = budget_of(product.product.contraction(side), pairs)?.get();
            KeptBlock::new(packing, operands, pairs, inner, budget)
        };
        let (left, right) = (side(Side::Left, columns)?, side(Side::Right, rows)?);
        let overflow = || Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, "the saved memory overflows");
        let fits = |bytes: &usize| isize::try_from(*bytes).is_ok();
        let item = left.bytes().checked_add(right.bytes());
        let saved_bytes =
            item.and_then(|bytes| bytes.checked_mul(product.items())).filter(fits).ok_or_else(overflow)?;
        Ok(Self { product: *product, threads, left, right, saved_bytes })
    }

    /// The layout of what one item saves for a side.
    fn block(&self, side: Side) -> &KeptBlock {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    /// Batch item and head of a matrix.
    fn at(&self, item: usize) -> [usize; 2] {
        [item / self.product.heads, item % self.product.heads]
    }

    /// Refuses a pass for whose selections there is no memory, or for so many bytes on each thread.
    fn check_heap(&self, per_thread: usize) -> Outcome {
        let items = self.product.items();
        let pairs = self.left.capacity() + self.right.capacity();
        let selections = (items, size_of::<[Selection; 2]>() + pairs * (size_of::<u32>() + size_of::<f64>()));
        let threads = self.threads.count();
        let tokens = (threads.min(items) * self.longest(), PER_TOKEN);
        heap::check("a pass over all items", &[selections, tokens, (threads, per_thread)])
    }

    /// Bytes that packing takes on each thread.
    fn packing_memory(&self) -> usize {
        match self.product.product.packing.is_packed() {
            true => PER_PACKING_THREAD.saturating_add(self.product.inner.saturating_mul(size_of::<f32>())),
            false => 0,
        }
    }

    /// Bytes that products take on each thread: of several items, or parts of one.
    fn product_memory(&self) -> usize {
        let pairs = self.left.capacity().max(self.right.capacity());
        let numbers = product::product_memory([self.product.inner, self.longest()], pairs, 1);
        numbers.saturating_mul(self.product.operands.accumulator().bytes())
    }

    fn longest(&self) -> usize {
        self.product.rows.max(self.product.columns)
    }
}

impl TensorMulPlan for CpuTensorMul {
    fn sizes(&self) -> TensorMulSizes {
        TensorMulSizes { saved: self.saved_bytes, forward: 0, backward: 0 }
    }

    fn engine(&self, _side: Side) -> Engine {
        Engine::Own
    }

    fn status(&self, _side: Side) -> Option<StatusWords> {
        None
    }

    unsafe fn forward(&self, call: TensorMulForward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let TensorMulForward { a, b, row_guess, column_guess, randomness, saved, .. } = call;
        self.check_heap(self.packing_memory())?;
        // SAFETY: the caller has it.
        let randomness = unsafe { started(randomness, self.product.further_offset) };
        with_element!(self.product.operands, T => {
            // SAFETY: checked for NULL and alignment; nobody writes to inputs, and `saved` does not overlap them.
            let pairs = |item: usize| unsafe {
                (b.matrix(self.at(item)).view::<T>().reversed_axes(), a.matrix(self.at(item)).view::<T>())
            };
            // None if all are kept.
            let select = |side, pairs: ArrayView2<'_, T>, guess: Option<Tensor<4>>, item: usize| -> Outcome<Option<Selection>> {
                if self.block(side).keeps_all() {
                    return check_finite(pairs).map(|()| None);
                }
                // SAFETY: as above.
                let guess = guess.map(|guess| known_norms(unsafe { guess.matrix(self.at(item)).view::<f32>() }));
                Ok(Some(self.product.product.select(side, pairs, guess.as_deref(), randomness, item as u32)?))
            };
            // All are chosen before any is written.
            let selections = parallel::map((0..self.product.items()).into_par_iter(), |item| {
                let (left, right) = pairs(item);
                Ok((select(Side::Left, left, column_guess, item)?, select(Side::Right, right, row_guess, item)?))
            });
            let selections = selections.into_iter().collect::<Outcome<Vec<(Option<Selection>, Option<Selection>)>>>()?;
            // SAFETY: checked for size and alignment; the caller has the rest.
            let saved = unsafe { saved.get_mut() };
            let (left_bytes, item_bytes) = (self.left.bytes(), self.left.bytes() + self.right.bytes());
            let blocks = saved.par_chunks_mut(item_bytes).zip(&selections).enumerate();
            parallel::try_for_each(blocks, |(item, (saved, selected))| {
                let (left, right) = pairs(item);
                let (for_left, for_right) = saved.split_at_mut(left_bytes);
                let write = |side, to: &mut [u8], pairs: ArrayView2<'_, T>, selection: &Option<Selection>| {
                    let kept = selection.as_ref().map_or(Kept::All(pairs.nrows()), Kept::Selected);
                    let stream = stream(side, item);
                    // SAFETY: blocks are multiples of 64 bytes, so each is aligned, and has its size.
                    unsafe { self.block(side).write::<T>(to.as_mut_ptr(), pairs, kept, (randomness, stream)) }
                };
                write(Side::Left, for_left, left, &selected.0)?;
                write(Side::Right, for_right, right, &selected.1)
            })
        })
    }

    unsafe fn backward(&self, call: TensorMulBackward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let TensorMulBackward { saved, g, da, db, update, row_norms, column_norms, .. } = call;
        self.check_heap(self.product_memory())?;
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
            let precision = self.product.precision;
            parallel::try_for_each(items.par_iter().enumerate(), |(item, (left, right))| {
                let at = self.at(item);
                // SAFETY: checked for NULL, alignment and overlap; items are apart, as outputs are writable.
                let (g, da, db) = unsafe {
                    (
                        g.matrix(at).view::<U>(),
                        da.matrix(at).view_mut::<<T as Element>::Accumulator>(),
                        db.matrix(at).view_mut::<<T as Element>::Accumulator>(),
                    )
                };
                gradient::<T, U>(left, g.t(), da.reversed_axes(), update, precision)?;
                gradient::<T, U>(right, g, db, update, precision)?;
                // SAFETY: as above.
                unsafe {
                    fill(row_norms, at, || product::row_norms(g));
                    fill(column_norms, at, || product::column_norms(g));
                }
                Ok(())
            })
        })
    }
}

/// The stream of randomness of one side of an item: that of core's product. Items are below 2^31.
fn stream(side: Side, item: usize) -> u32 {
    2 * item as u32 + u32::from(side == Side::Right)
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
