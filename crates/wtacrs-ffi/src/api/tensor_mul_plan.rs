//! A batched product's plan and its two passes.

use super::context::{device, wtacrs_context};
use super::tensor_mul::{description, wtacrs_tensor_mul};
use crate::arguments::enums::{self, wtacrs_engine};
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{
    Array, Dtype, PassMemory, Place, Tensor, check_disjoint, regions, shaped, update, wtacrs_dltensor,
};
use crate::boundary::status::*;
use crate::boundary::{Outcome, Registry, guard};
use crate::device::{Device, StatusWords, TensorMulBackward, TensorMulDescription, TensorMulForward, TensorMulPlan};
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::Randomness;
use wtacrs_core::layers::Side;

/// A batched product's settled plan. It never changes: any number of threads may use one at the same time, each with saved
/// and scratch memory of its own.
pub struct wtacrs_tensor_mul_plan {
    _opaque: (),
}

#[derive(Debug)]
struct Plan {
    device: Arc<dyn Device>,
    product: TensorMulDescription,
    calls: Box<dyn TensorMulPlan>,
}

static PLANS: Registry<Plan> = Registry::new("batched product's plan");

fn plan(handle: *const wtacrs_tensor_mul_plan) -> Outcome<Arc<Plan>> {
    PLANS.get(handle)
}

impl Plan {
    fn place(&self) -> Place {
        self.device.place()
    }

    fn result(&self) -> Dtype {
        self.product.operands.accumulator()
    }

    /// Norms of rows or columns, of which each item has a column.
    fn norms(&self, norms: *const f32, pairs: usize, what: &'static str) -> Outcome<Option<Tensor<4>>> {
        let shape = [self.product.batch, self.product.heads, pairs, 1];
        let tensor = || Tensor::contiguous(norms.cast(), Dtype::F32, shape, what);
        if norms.is_null() { Ok(None) } else { tensor().map(Some) }
    }
}

/// What a batched product's passes need. Every size is in bytes. All memory is the caller's; it is aligned to `alignment`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_tensor_mul_plan_info {
    /// [in] sizeof(wtacrs_tensor_mul_plan_info). The other fields are outputs.
    pub size: usize,
    /// How far a forward pass advances the offset of its randomness: see wtacrs_plan_info.
    pub draws: u64,
    /// Alignment of saved and scratch memory: 64, on CUDA 256.
    pub alignment: usize,
    /// Saved memory, which lives from the forward to the backward pass.
    pub saved_bytes: usize,
    /// What the exact product keeps in its place: A and B.
    pub exact_bytes: usize,
    /// Scratch memory of the forward pass; 0 on the CPU.
    pub forward_scratch_bytes: usize,
    /// Scratch memory of the backward pass; 0 on the CPU.
    pub backward_scratch_bytes: usize,
    /// Where in saved memory on CUDA a forward pass leaves the status words of dA and of dB: for each (batch, head) as many
    /// 32-bit words as left_status_words and right_status_words say, as in wtacrs_plan_info. SIZE_MAX on the CPU.
    pub left_status_offset: usize,
    /// See left_status_offset.
    pub right_status_offset: usize,
    /// Words of the status of each (batch, head): see saved_status_words in wtacrs_plan_info.
    pub left_status_words: usize,
    /// See left_status_words.
    pub right_status_words: usize,
    /// The program that multiplies for dA: see wtacrs_plan_info.
    pub left_engine: wtacrs_engine,
    /// The same for dB.
    pub right_engine: wtacrs_engine,
}

// SAFETY: repr(C), begins with its size, and has numbers alone.
unsafe impl SizedStruct for wtacrs_tensor_mul_plan_info {
    const FIRST_BYTES: usize = offset_of!(Self, left_status_words);
}

/// What a forward pass may be given. Zeros, and NULL in place of the struct, stand for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_tensor_mul_forward_options {
    /// sizeof(wtacrs_tensor_mul_forward_options)
    pub size: usize,
    /// [in] Guesses of the norms of the rows of G, batch x heads x rows: those that wtacrs_tensor_mul_plan_backward wrote in
    /// an earlier step; negative where one is unknown.
    pub row_guess: *const f32,
    /// [in] The same for its columns, batch x heads x columns.
    pub column_guess: *const f32,
}

impl Default for wtacrs_tensor_mul_forward_options {
    fn default() -> Self {
        Self { size: size_of::<Self>(), row_guess: ptr::null(), column_guess: ptr::null() }
    }
}

// SAFETY: repr(C), begins with its size, and has pointers alone.
unsafe impl SizedStruct for wtacrs_tensor_mul_forward_options {}

/// What a backward pass may be asked for. Zeros, and NULL in place of the struct, stand for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_tensor_mul_backward_options {
    /// sizeof(wtacrs_tensor_mul_backward_options)
    pub size: usize,
    /// 0 to write the gradients, whose old values are then never read; 1 to add to them.
    pub accumulate: i32,
    /// [out] Norms of the rows of G, batch x heads x rows: the next step's guesses.
    pub row_norms: *mut f32,
    /// [out] Norms of its columns, batch x heads x columns.
    pub column_norms: *mut f32,
}

impl Default for wtacrs_tensor_mul_backward_options {
    fn default() -> Self {
        Self { size: size_of::<Self>(), accumulate: 0, row_norms: ptr::null_mut(), column_norms: ptr::null_mut() }
    }
}

// SAFETY: repr(C), begins with its size, and has numbers and pointers alone.
unsafe impl SizedStruct for wtacrs_tensor_mul_backward_options {}

/// Freezes a description into a plan for a device. Later changes of the description do not touch the plan.
///
/// On CUDA no size may be 0, and WTACRS_DTYPE_F64 is not served: WTACRS_STATUS_UNSUPPORTED.
///
/// plan      [out]
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT if the shape or a side was not set; _INVALID_BUDGET if a budget does not fit;
/// _UNSUPPORTED, _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_create(
    context: *const wtacrs_context,
    tensor_mul: *const wtacrs_tensor_mul,
    plan: *mut *mut wtacrs_tensor_mul_plan,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_create", || {
        let output = Array::new(plan.cast_const(), 1, "plan")?;
        let (device, product) = (device(context)?, description(tensor_mul)?);
        let calls = device.tensor_mul(&product)?;
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(PLANS.insert(Plan { device, product, calls })) };
        Ok(())
    })
}

/// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_destroy(plan: *mut wtacrs_tensor_mul_plan) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_destroy", || PLANS.remove(plan))
}

/// What a plan's passes need: sizes of memory, its alignment, and the advance of the randomness.
///
/// info      [in, out] with `size` set
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_get_info(
    plan: *const wtacrs_tensor_mul_plan,
    info: *mut wtacrs_tensor_mul_plan_info,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_get_info", || {
        let plan = self::plan(plan)?;
        let (product, sizes) = (&plan.product, plan.calls.sizes());
        let status = |side| StatusWords::reported(plan.calls.status(side));
        let ((left_status_offset, left_status_words), (right_status_offset, right_status_words)) =
            (status(Side::Left), status(Side::Right));
        let found = wtacrs_tensor_mul_plan_info {
            size: 0,
            draws: product.product.draws(product.rows, product.columns)?,
            alignment: plan.device.alignment(),
            saved_bytes: sizes.saved,
            // Rows and columns first: where there are none, the inner size may be any.
            exact_bytes: product.items() * (product.rows + product.columns) * product.inner * product.operands.bytes(),
            forward_scratch_bytes: sizes.forward,
            backward_scratch_bytes: sizes.backward,
            left_status_offset,
            right_status_offset,
            left_status_words,
            right_status_words,
            left_engine: enums::number_of_engine(plan.calls.engine(Side::Left)),
            right_engine: enums::number_of_engine(plan.calls.engine(Side::Right)),
        };
        // SAFETY: as documented.
        unsafe { options::write(info, "info", found) }
    })
}

/// The forward pass: chooses and saves what both gradients need of A and B. Every (batch, head) has draws of its own.
///
/// a, b      [in] batch x heads x rows x inner and batch x heads x inner x columns, of the plan's dtype, row by row without
///           gaps
/// seed, offset, stream  as in wtacrs_plan_forward
/// options   [in, optional]
/// saved     [out] `saved_bytes` >= the size in wtacrs_tensor_mul_plan_info, aligned as it says
/// scratch   [scratch] `scratch_bytes` >= forward_scratch_bytes, aligned likewise
///
/// On CUDA six kernels are launched: three for each side, or one for a side that packs all of its pairs. dA sums over the
/// columns of B, whose elements the kernels need side by side: pass B as the transpose of a columns x inner matrix to
/// wtacrs_tensor_mul_plan_forward_dl. Here it is WTACRS_STATUS_UNSUPPORTED unless inner is 1.
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS, _UNSUPPORTED, _BUFFER_TOO_SMALL, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER,
/// _INVALID_HANDLE, _MISALIGNED. `saved` is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_forward(
    plan: *const wtacrs_tensor_mul_plan,
    a: *const c_void,
    b: *const c_void,
    seed: u64,
    offset: u64,
    options: *const wtacrs_tensor_mul_forward_options,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_forward", || {
        let plan = &*self::plan(plan)?;
        let a = Tensor::contiguous(a, plan.product.operands, plan.product.a_shape(), "a")?;
        let b = Tensor::contiguous(b, plan.product.operands, plan.product.b_shape(), "b")?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { forward(plan, [a, b], Randomness::new(seed, offset), options, memory) }
    })
}

/// wtacrs_tensor_mul_plan_forward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the
/// last axis of A and the third of B have stride 1, and no stride is negative: WTACRS_STATUS_UNSUPPORTED otherwise. So the
/// views (batch, heads, rows, inner) of a (batch, rows, heads, inner) buffer need no copies.
///
/// Errors: as for wtacrs_tensor_mul_plan_forward; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_forward_dl(
    plan: *const wtacrs_tensor_mul_plan,
    a: *const wtacrs_dltensor,
    b: *const wtacrs_dltensor,
    seed: u64,
    offset: u64,
    options: *const wtacrs_tensor_mul_forward_options,
    saved: *mut c_void,
    saved_bytes: usize,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_forward_dl", || {
        let plan = &*self::plan(plan)?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe {
            let a = shaped(a, plan.place(), plan.product.operands, plan.product.a_shape(), "a")?;
            let b = shaped(b, plan.place(), plan.product.operands, plan.product.b_shape(), "b")?;
            forward(plan, [a, b], Randomness::new(seed, offset), options, memory)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_tensor_mul_plan_forward`.
unsafe fn forward(
    plan: &Plan,
    [a, b]: [Tensor<4>; 2],
    randomness: Randomness,
    options: *const wtacrs_tensor_mul_forward_options,
    memory: PassMemory,
) -> Outcome {
    // SAFETY: the caller has it.
    let options = unsafe { options::read(options, "the forward options") }?;
    let sizes = plan.calls.sizes();
    let (saved, scratch) = memory.check(sizes.saved, sizes.forward, plan.device.alignment())?;
    let row_guess = plan.norms(options.row_guess, plan.product.rows, "row_guess")?;
    let column_guess = plan.norms(options.column_guess, plan.product.columns, "column_guess")?;
    let guesses = [row_guess.as_ref().map(Tensor::region), column_guess.as_ref().map(Tensor::region)];
    let inputs = regions([Some(a.region()), Some(b.region()), guesses[0], guesses[1]]);
    check_disjoint(&[saved.region(), scratch.region()], &inputs)?;
    let stream = memory.stream;
    let call = TensorMulForward { a, b, row_guess, column_guess, randomness, saved, scratch, stream };
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.forward(call) }
}

/// The backward pass: both gradients from G = dC.
///
/// saved     [in] what a forward pass of such a plan wrote
/// g         [in] batch x heads x rows x columns
/// da, db    [out] batch x heads x rows x inner and batch x heads x inner x columns, in WTACRS_DTYPE_F32 (_F64 for _F64),
///           all row by row without gaps; also inputs with options->accumulate
/// options   [in, optional]
/// scratch   [scratch] `scratch_bytes` >= backward_scratch_bytes
/// stream    as in wtacrs_plan_forward
///
/// Errors: as for wtacrs_plan_backward. Outputs are then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_backward(
    plan: *const wtacrs_tensor_mul_plan,
    saved: *const c_void,
    saved_bytes: usize,
    g: *const c_void,
    da: *mut c_void,
    db: *mut c_void,
    options: *const wtacrs_tensor_mul_backward_options,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_backward", || {
        let plan = &*self::plan(plan)?;
        let g = Tensor::contiguous(g, plan.product.gradient, plan.product.c_shape(), "g")?;
        let da = Tensor::contiguous(da, plan.result(), plan.product.a_shape(), "da")?;
        let db = Tensor::contiguous(db, plan.result(), plan.product.b_shape(), "db")?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe { backward(plan, [g, da, db], options, memory) }
    })
}

/// wtacrs_tensor_mul_plan_backward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the
/// last axis of G, dA and dB has stride 1, and no stride is negative: WTACRS_STATUS_UNSUPPORTED otherwise.
///
/// Errors: as for wtacrs_tensor_mul_plan_backward; also WTACRS_STATUS_DEVICE_MISMATCH, _UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_tensor_mul_plan_backward_dl(
    plan: *const wtacrs_tensor_mul_plan,
    saved: *const c_void,
    saved_bytes: usize,
    g: *const wtacrs_dltensor,
    da: *const wtacrs_dltensor,
    db: *const wtacrs_dltensor,
    options: *const wtacrs_tensor_mul_backward_options,
    scratch: *mut c_void,
    scratch_bytes: usize,
    stream: *mut c_void,
) -> wtacrs_status {
    guard("wtacrs_tensor_mul_plan_backward_dl", || {
        let plan = &*self::plan(plan)?;
        let memory = PassMemory { saved, saved_bytes, scratch, scratch_bytes, stream };
        // SAFETY: as documented.
        unsafe {
            let g = shaped(g, plan.place(), plan.product.gradient, plan.product.c_shape(), "g")?;
            let da = shaped(da, plan.place(), plan.result(), plan.product.a_shape(), "da")?;
            let db = shaped(db, plan.place(), plan.result(), plan.product.b_shape(), "db")?;
            backward(plan, [g, da, db], options, memory)
        }
    })
}

/// # Safety
///
/// The contract of `wtacrs_tensor_mul_plan_backward`.
unsafe fn backward(
    plan: &Plan,
    [g, da, db]: [Tensor<4>; 3],
    options: *const wtacrs_tensor_mul_backward_options,
    memory: PassMemory,
) -> Outcome {
    // SAFETY: the caller has it.
    let options = unsafe { options::read(options, "the backward options") }?;
    let (da, db, update) = (da.writable()?, db.writable()?, update(options.accumulate)?);
    let sizes = plan.calls.sizes();
    let (saved, scratch) = memory.check(sizes.saved, sizes.backward, plan.device.alignment())?;
    let row_norms = plan.norms(options.row_norms, plan.product.rows, "row_norms")?;
    let column_norms = plan.norms(options.column_norms, plan.product.columns, "column_norms")?;
    let norms = [row_norms.as_ref().map(Tensor::region), column_norms.as_ref().map(Tensor::region)];
    let outputs = regions([Some(da.region()), Some(db.region()), Some(scratch.region()), norms[0], norms[1]]);
    check_disjoint(&outputs, &[saved.region(), g.region()])?;
    let stream = memory.stream;
    let call = TensorMulBackward { saved, g, da, db, update, row_norms, column_norms, scratch, stream };
    // SAFETY: checked; the caller has the rest.
    unsafe { plan.calls.backward(call) }
}
