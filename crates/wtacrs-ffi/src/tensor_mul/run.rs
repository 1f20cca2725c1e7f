//! A batched product's two passes.

use super::plan::{Plan, plan, wtacrs_tensor_mul_plan};
use crate::array::{block, check_disjoint, regions};
use crate::cuda::{Gradients, Operands, Pass};
use crate::dlpack::{shaped, wtacrs_dltensor};
use crate::dtype::{Dtype, Number, with_element, with_elements};
use crate::guard::{Outcome, guard};
use crate::linear::{gradient, known, update, workspace};
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use ndarray::ArrayView2;
use rayon::prelude::*;
use wtacrs_core::Randomness;
use wtacrs_core::Selection;
use wtacrs_core::element::Element;
use wtacrs_core::layers::Side;
use wtacrs_core::product;
use wtacrs_kernels::plan::DeviceRandomness;

/// The forward pass: chooses and saves what both gradients need of A (batch x heads x rows x inner) and B (batch x heads
/// x inner x columns), of the plan's dtype, row by row without gaps. Every (batch, head) has draws of its own.
///
/// `row_guess` (batch x heads x rows) and `column_guess` (batch x heads x columns) are guesses of the norms of the rows and
/// columns of G, those that wtacrs_tensor_mul_backward gave in an earlier step; NULL if there are none, and negative
/// where one is not known. Otherwise as wtacrs_forward; `saved` is as wtacrs_tensor_mul_plan_memory tells.
///
/// On CUDA six kernels are launched. dA sums over the columns of B, of which the kernels want the elements side by side:
/// give B as the transpose of a columns x inner matrix, to wtacrs_tensor_mul_forward_dl; here it is WTACRS_UNSUPPORTED
/// unless inner is 1.
///
/// Errors: WTACRS_INVALID_WEIGHTS; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_SIZE_OVERFLOW,
/// WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP. `saved` is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_forward(
    plan: *const wtacrs_tensor_mul_plan,
    a: *const c_void,
    b: *const c_void,
    row_guess: *const f32,
    column_guess: *const f32,
    seed: u64,
    offset: u64,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_forward", || {
        let plan = &*self::plan(plan)?;
        let a = Tensor::contiguous(a, plan.operands, plan.a(), "a")?;
        let b = Tensor::contiguous(b, plan.operands, plan.b(), "b")?;
        let memory = Pass { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { forward(plan, Operands { a, b, row_guess, column_guess }, seed, offset, &memory) }
    })
}

/// wtacrs_tensor_mul_forward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the last
/// axis of A and the third of B have stride 1, and no stride is negative: WTACRS_UNSUPPORTED otherwise. So the views
/// (batch, heads, rows, inner) of a (batch, rows, heads, inner) buffer need no copies.
///
/// Errors: as for wtacrs_tensor_mul_forward; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_forward_dl(
    plan: *const wtacrs_tensor_mul_plan,
    a: *const wtacrs_dltensor,
    b: *const wtacrs_dltensor,
    row_guess: *const f32,
    column_guess: *const f32,
    seed: u64,
    offset: u64,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_forward_dl", || {
        let plan = &*self::plan(plan)?;
        let memory = Pass { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe {
            let a = shaped(a, plan.device(), plan.operands, plan.a(), "a")?;
            let b = shaped(b, plan.device(), plan.operands, plan.b(), "b")?;
            forward(plan, Operands { a, b, row_guess, column_guess }, seed, offset, &memory)
        }
    })
}

impl Plan {
    fn a(&self) -> [usize; 4] {
        [self.batch, self.heads, self.rows, self.inner]
    }

    fn b(&self) -> [usize; 4] {
        [self.batch, self.heads, self.inner, self.columns]
    }

    fn c(&self) -> [usize; 4] {
        [self.batch, self.heads, self.rows, self.columns]
    }

    /// Norms of rows or columns, of which each item has a column.
    fn norms(&self, norms: *const f32, tokens: usize, what: &'static str) -> Outcome<Option<Tensor<4>>> {
        let shape = [self.batch, self.heads, tokens, 1];
        let tensor = || Tensor::contiguous(norms.cast(), Dtype::F32, shape, what);
        if norms.is_null() { Ok(None) } else { tensor().map(Some) }
    }

    fn at(&self, item: usize) -> [usize; 2] {
        [item / self.heads, item % self.heads]
    }
}

/// # Safety
///
/// The contract of `wtacrs_tensor_mul_forward`.
unsafe fn forward(plan: &Plan, operands: Operands, seed: u64, offset: u64, memory: &Pass) -> Outcome {
    if let Some((gpu, cuda)) = plan.on_gpu() {
        let randomness =
            DeviceRandomness { start: Randomness::new(seed, offset), further_offset: plan.further_offset.as_ptr() };
        let &Pass { saved, saved_bytes, scratch, scratch_bytes, stream } = memory;
        // SAFETY: the caller has it.
        return unsafe {
            cuda.forward(gpu, &operands, randomness, (saved, saved_bytes), (scratch, scratch_bytes), stream)
        };
    }
    // SAFETY: as documented, the number is on the host.
    let offset = unsafe { plan.further_offset.added_to(offset) };
    let Operands { a, b, row_guess, column_guess } = operands;
    let saved = block(memory.saved, memory.saved_bytes, plan.saved_bytes, "saved")?;
    block(memory.scratch, memory.scratch_bytes, 0, "scratch")?;
    let rows = plan.norms(row_guess, plan.rows, "row_guess")?;
    let columns = plan.norms(column_guess, plan.columns, "column_guess")?;
    let guesses = [rows.as_ref().map(Tensor::region), columns.as_ref().map(Tensor::region)];
    let inputs = regions([Some(a.region()), Some(b.region()), guesses[0], guesses[1]]);
    check_disjoint(&[saved.region()], &inputs)?;
    plan.check_heap()?;
    with_element!(plan.operands, T => {
        // SAFETY: checked for NULL and alignment; nobody writes to inputs, and `saved` does not overlap them.
        let pairs = |item: usize| unsafe {
            (b.matrix(plan.at(item)).view::<T>().reversed_axes(), a.matrix(plan.at(item)).view::<T>())
        };
        let select = |side, pairs: ArrayView2<'_, T>, guess: Option<Tensor<4>>, item: usize| -> Outcome<Selection> {
            // SAFETY: as above.
            let guess = guess.map(|guess| known(unsafe { guess.matrix(plan.at(item)).view::<f32>() }));
            Ok(plan.product.select(side, pairs, guess.as_deref(), Randomness::new(seed, offset), item as u32)?)
        };
        // All are chosen before any is written.
        let selections = (0..plan.items()).into_par_iter().map(|item| {
            let (left, right) = pairs(item);
            Ok((select(Side::Left, left, columns, item)?, select(Side::Right, right, rows, item)?))
        });
        let selections = selections.collect::<Outcome<Vec<(Selection, Selection)>>>()?;
        // SAFETY: checked for size and alignment; the caller has the rest.
        let saved = unsafe { saved.get_mut() };
        let (left_bytes, item_bytes) = (plan.left.bytes(), plan.left.bytes() + plan.right.bytes());
        saved.par_chunks_mut(item_bytes).zip(&selections).enumerate().try_for_each(|(item, (saved, selected))| {
            let (left, right) = pairs(item);
            let (for_left, for_right) = saved.split_at_mut(left_bytes);
            // SAFETY: blocks are multiples of 64 bytes, so each is aligned, and has its size.
            unsafe {
                plan.left.write::<T>(for_left.as_mut_ptr(), &selected.0, |to| Ok(product::gather_into(left, &selected.0, to)?))?;
                plan.right.write::<T>(for_right.as_mut_ptr(), &selected.1, |to| Ok(product::gather_into(right, &selected.1, to)?))
            }
        })
    })
}

/// The backward pass: both gradients from G = dC (batch x heads x rows x columns): dA (batch x heads x rows x inner) and
/// dB (batch x heads x inner x columns), in WTACRS_F32 (WTACRS_F64 for WTACRS_F64), all row by row without gaps.
/// `accumulate` is 0 to write them or 1 to add to them.
///
/// `row_norms` (batch x heads x rows) and `column_norms` (batch x heads x columns), if not NULL, become the norms of the
/// rows and columns of G: the next step's guesses. Otherwise as wtacrs_backward.
///
/// Errors: as for wtacrs_backward. Outputs are then as they were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_backward(
    plan: *const wtacrs_tensor_mul_plan,
    saved: *const c_void,
    saved_bytes: usize,
    g: *const c_void,
    da: *mut c_void,
    db: *mut c_void,
    accumulate: i32,
    row_norms: *mut f32,
    column_norms: *mut f32,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_backward", || {
        let plan = &*self::plan(plan)?;
        let g = Tensor::contiguous(g, plan.gradient, plan.c(), "g")?;
        let da = Tensor::contiguous(da, plan.operands.accumulator(), plan.a(), "da")?;
        let db = Tensor::contiguous(db, plan.operands.accumulator(), plan.b(), "db")?;
        let memory = Pass { saved: saved.cast_mut(), saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { backward(plan, [g, da, db], accumulate, row_norms, column_norms, &memory) }
    })
}

/// wtacrs_tensor_mul_backward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the last
/// axis of G, dA and dB has stride 1, and no stride is negative: WTACRS_UNSUPPORTED otherwise.
///
/// Errors: as for wtacrs_tensor_mul_backward; also WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_backward_dl(
    plan: *const wtacrs_tensor_mul_plan,
    saved: *const c_void,
    saved_bytes: usize,
    g: *const wtacrs_dltensor,
    da: *const wtacrs_dltensor,
    db: *const wtacrs_dltensor,
    accumulate: i32,
    row_norms: *mut f32,
    column_norms: *mut f32,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_backward_dl", || {
        let plan = &*self::plan(plan)?;
        let memory = Pass { saved: saved.cast_mut(), saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe {
            let g = shaped(g, plan.device(), plan.gradient, plan.c(), "g")?;
            let da = shaped(da, plan.device(), plan.operands.accumulator(), plan.a(), "da")?;
            let db = shaped(db, plan.device(), plan.operands.accumulator(), plan.b(), "db")?;
            backward(plan, [g, da, db], accumulate, row_norms, column_norms, &memory)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_tensor_mul_backward`.
unsafe fn backward(
    plan: &Plan,
    [g, da, db]: [Tensor<4>; 3],
    accumulate: i32,
    row_norms: *mut f32,
    column_norms: *mut f32,
    memory: &Pass,
) -> Outcome {
    let (da, db, update) = (da.writable()?, db.writable()?, update(accumulate)?);
    if let Some((gpu, cuda)) = plan.on_gpu() {
        let gradients = Gradients { g, da, db, update, row_norms, column_norms };
        let &Pass { saved, saved_bytes, scratch, scratch_bytes, stream } = memory;
        // SAFETY: the caller has it.
        return unsafe { cuda.backward(gpu, &gradients, (saved, saved_bytes), (scratch, scratch_bytes), stream) };
    }
    let saved = block(memory.saved, memory.saved_bytes, plan.saved_bytes, "saved")?;
    let scratch = block(memory.scratch, memory.scratch_bytes, plan.scratch_bytes(), "scratch")?;
    let row_norms = plan.norms(row_norms, plan.rows, "row_norms")?;
    let column_norms = plan.norms(column_norms, plan.columns, "column_norms")?;
    let norms = [row_norms.as_ref().map(Tensor::region), column_norms.as_ref().map(Tensor::region)];
    let outputs = regions([Some(da.region()), Some(db.region()), Some(scratch.region()), norms[0], norms[1]]);
    check_disjoint(&outputs, &[saved.region(), g.region()])?;
    plan.check_heap()?;
    with_elements!(plan.operands, plan.gradient, T, U => {
        // SAFETY: checked for size and alignment; nobody writes to it, and no output overlaps it.
        let saved = unsafe { saved.get() };
        let left_bytes = plan.left.bytes();
        // All are read before anything is written.
        let items = saved.par_chunks(left_bytes + plan.right.bytes()).map(|saved| {
            let (left, right) = saved.split_at(left_bytes);
            // SAFETY: blocks are multiples of 64 bytes, so each is aligned, and has its size.
            unsafe { Ok((plan.left.read::<T>(left.as_ptr())?, plan.right.read::<T>(right.as_ptr())?)) }
        });
        let items: Vec<_> = items.collect::<Outcome<_>>()?;
        // SAFETY: checked for size and alignment, and overlaps nothing.
        let mut workspaces = split(unsafe { workspace::<<T as Element>::Accumulator>(&scratch) }, plan.tasks());
        let per_task = items.len().div_ceil(plan.tasks().max(1)).max(1);
        let tasks = items.par_chunks(per_task).zip(workspaces.par_iter_mut()).enumerate();
        tasks.try_for_each(|(task, (items, workspace))| {
            items.iter().enumerate().try_for_each(|(i, ((left, left_rows), (right, right_rows)))| {
                let at = plan.at(task * per_task + i);
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
