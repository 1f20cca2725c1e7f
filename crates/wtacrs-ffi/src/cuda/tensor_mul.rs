//! A batched product's passes on a GPU.

use super::{bytes, data_type, memory, unsupported};
use crate::array::{Array, check_disjoint, device_block, regions};
use crate::device::Gpu;
use crate::dtype::Dtype;
use crate::guard::{Failure, Outcome};
use crate::tensor::Tensor;
use core::ffi::c_void;
use core::num::NonZeroU32;
use core::ptr;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, Side, TensorMul};
use wtacrs_core::product::Update;
use wtacrs_core::sampling::design::BuiltIn;
use wtacrs_kernels::plan::{
    BackwardBuffers, DeviceRandomness, ForwardBuffers, MatmulPlan, MatmulSettings, Memory, Precision, SavedParts,
    Spacing, Strides, WeightSource,
};

/// Both gradients' launches. Each has a plan of its own, for their designs may differ.
#[derive(Debug)]
pub(crate) struct CudaTensorMul {
    product: TensorMul,
    settings: MatmulSettings,
    /// What is saved for dA, then for dB.
    saved: [SavedParts; 2],
    pub(crate) saved_bytes: usize,
    pub(crate) forward_bytes: usize,
    pub(crate) backward_bytes: usize,
}

/// A forward pass's matrices and guesses.
pub(crate) struct Operands {
    pub(crate) a: Tensor<4>,
    pub(crate) b: Tensor<4>,
    pub(crate) row_guess: *const f32,
    pub(crate) column_guess: *const f32,
}

/// A backward pass's matrices and norms.
pub(crate) struct Gradients {
    pub(crate) g: Tensor<4>,
    pub(crate) da: Tensor<4>,
    pub(crate) db: Tensor<4>,
    pub(crate) update: Update,
    pub(crate) row_norms: *mut f32,
    pub(crate) column_norms: *mut f32,
}

impl CudaTensorMul {
    pub(crate) fn new(
        gpu: &Gpu,
        product: TensorMul,
        sizes: [usize; 5],
        [operands, gradient]: [Dtype; 2],
        precision: Precision,
    ) -> Outcome<Self> {
        let mut settings = MatmulSettings::new(sizes);
        settings.design = product.design;
        settings.input = data_type(operands)?;
        settings.gradient = data_type(gradient)?;
        settings.result = data_type(operands.accumulator())?;
        settings.precision = precision;
        let of = |side| MatmulPlan::new(&of_side(&settings, &product, side, false), gpu.properties());
        let (left, right) = (of(Side::Left)?, of(Side::Right)?);
        let (Some(left), Some(right)) = (left.left(), right.right()) else {
            return Err(no_side());
        };
        let saved = [*left.saved(), *right.saved()];
        Ok(Self {
            product,
            saved_bytes: bytes(saved[0].bytes + saved[1].bytes)?,
            forward_bytes: bytes(left.forward_scratch_bytes().max(right.forward_scratch_bytes()))?,
            backward_bytes: bytes(left.backward_scratch_bytes().max(right.backward_scratch_bytes()))?,
            saved,
            settings,
        })
    }

    /// Where a side's status words lie in saved memory.
    pub(crate) fn status_offset(&self, side: Side) -> u64 {
        match side {
            Side::Left => self.saved[0].status.offset,
            Side::Right => self.saved[0].bytes + self.saved[1].status.offset,
        }
    }

    /// The saved memory of a side.
    fn part(&self, saved: &Array<u8>, side: Side) -> Memory {
        let all = memory(saved);
        let first = self.saved[0].bytes;
        match side {
            Side::Left => Memory { at: all.at, bytes: first },
            Side::Right => Memory { at: all.at.wrapping_add(first as usize), bytes: self.saved[1].bytes },
        }
    }

    fn plan(&self, gpu: &Gpu, side: Side, is_guessed: bool, strides: MatmulSettings) -> Outcome<MatmulPlan> {
        Ok(MatmulPlan::new(&of_side(&strides, &self.product, side, is_guessed), gpu.properties())?)
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_tensor_mul_forward`.
    pub(crate) unsafe fn forward(
        &self,
        gpu: &Gpu,
        operands: &Operands,
        randomness: DeviceRandomness,
        (saved, saved_bytes): (*mut c_void, usize),
        (scratch, scratch_bytes): (*mut c_void, usize),
        stream: *mut c_void,
    ) -> Outcome {
        let &Operands { a, b, row_guess, column_guess } = operands;
        let items = self.settings.batch * self.settings.heads;
        let saved = device_block(saved, saved_bytes, self.saved_bytes, "saved")?;
        let scratch = device_block(scratch, scratch_bytes, self.forward_bytes, "scratch")?;
        let rows = Array::optional(row_guess, items * self.settings.rows, "row_guess")?;
        let columns = Array::optional(column_guess, items * self.settings.columns, "column_guess")?;
        let guesses = [rows.as_ref().map(Array::region), columns.as_ref().map(Array::region)];
        let inputs = regions([Some(a.region()), Some(b.region()), guesses[0], guesses[1]]);
        check_disjoint(&[saved.region(), scratch.region()], &inputs)?;
        let mut strided = self.settings.clone();
        strided.a_strides = Some(strides(&a, [2, 3])?);
        strided.b_transposed_strides = Some(strides(&b, [3, 2])?);
        let left = self.plan(gpu, Side::Left, columns.is_some(), strided.clone())?;
        let right = self.plan(gpu, Side::Right, rows.is_some(), strided)?;
        let (Some(left), Some(right)) = (left.left(), right.right()) else { return Err(no_side()) };
        let buffers = |input: Tensor<4>, guess: *const f32, side| ForwardBuffers {
            input: input.lowest(),
            guess,
            placement: ptr::null(),
            cached: ptr::null(),
            saved: self.part(&saved, side),
            scratch: memory(&scratch),
        };
        let mut launcher = gpu.on(stream)?;
        // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest. Both use the scratch in turn.
        unsafe {
            left.forward(&mut launcher, &buffers(b, column_guess, Side::Left), randomness)?;
            Ok(right.forward(&mut launcher, &buffers(a, row_guess, Side::Right), randomness)?)
        }
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_tensor_mul_backward`.
    pub(crate) unsafe fn backward(
        &self,
        gpu: &Gpu,
        gradients: &Gradients,
        (saved, saved_bytes): (*const c_void, usize),
        (scratch, scratch_bytes): (*mut c_void, usize),
        stream: *mut c_void,
    ) -> Outcome {
        let &Gradients { g, da, db, update, row_norms, column_norms } = gradients;
        let items = self.settings.batch * self.settings.heads;
        let saved = device_block(saved, saved_bytes, self.saved_bytes, "saved")?;
        let scratch = device_block(scratch, scratch_bytes, self.backward_bytes, "scratch")?;
        let rows = Array::optional(row_norms, items * self.settings.rows, "row_norms")?;
        let columns = Array::optional(column_norms, items * self.settings.columns, "column_norms")?;
        let norms = [rows.as_ref().map(Array::region), columns.as_ref().map(Array::region)];
        let outputs = regions([Some(da.region()), Some(db.region()), Some(scratch.region()), norms[0], norms[1]]);
        check_disjoint(&outputs, &[saved.region(), g.region()])?;
        let mut strided = self.settings.clone();
        strided.gradient_strides = Some(strides(&g, [2, 3])?);
        strided.da_strides = Some(strides(&da, [2, 3])?);
        strided.db_strides = Some(strides(&db, [2, 3])?);
        let left = self.plan(gpu, Side::Left, false, strided.clone())?;
        let right = self.plan(gpu, Side::Right, false, strided)?;
        let (Some(left), Some(right)) = (left.left(), right.right()) else { return Err(no_side()) };
        let buffers = |side, to: Tensor<4>, norms: *mut f32| BackwardBuffers {
            saved: self.part(&saved, side),
            gradient: g.lowest(),
            gradient_norms: norms,
            weight_gradient: to.lowest(),
            bias_gradient: ptr::null_mut(),
            update,
            scratch: memory(&scratch),
        };
        let mut launcher = gpu.on(stream)?;
        // SAFETY: as in `forward`.
        unsafe {
            left.backward(&mut launcher, &buffers(Side::Left, da, column_norms))?;
            Ok(right.backward(&mut launcher, &buffers(Side::Right, db, row_norms))?)
        }
    }
}

fn no_side() -> Failure {
    unsupported("there is no plan for this product")
}

/// PredictorSettings of one gradient's own plan. An exact one keeps all pairs, whatever their weights.
fn of_side(settings: &MatmulSettings, product: &TensorMul, side: Side, is_guessed: bool) -> MatmulSettings {
    let contraction = match side {
        Side::Left => product.left,
        Side::Right => product.right,
    };
    let (keep, design, weights) = match contraction {
        Contraction::Exact => (Keep::Fraction(1.0), BuiltIn::Uniform, WeightSource::Input),
        Contraction::Sampled(keep) if is_guessed => (keep, product.design, WeightSource::Cached { mix: product.mix }),
        Contraction::Sampled(keep) => (keep, product.design, WeightSource::Input),
    };
    let (left, right) = match side {
        Side::Left => (Some(keep), None),
        Side::Right => (None, Some(keep)),
    };
    let mut settings = settings.clone();
    settings.left = left;
    settings.right = right;
    settings.design = design;
    settings.weights = weights;
    settings
}

/// Where the matrices of a batch lie, with `row` and `column` the axes of rows and of their elements.
fn strides(tensor: &Tensor<4>, [row, column]: [usize; 2]) -> Outcome<Strides> {
    let (shape, found) = (tensor.shape(), tensor.strides());
    let what = tensor.region().what;
    let columns = shape[column] as isize;
    let rows_apart = if shape[row] > 1 { found[row] } else { columns };
    if (columns > 1 && found[column] != 1) || rows_apart < columns {
        let axis = if column == 3 { "last" } else { "third" };
        let message = format!("{what} has the strides {found:?}: elements along its {axis} axis must lie side by side");
        return Err(unsupported(message));
    }
    let [sample, head, ..] = found.map(u64::try_from);
    let (Ok(sample), Ok(head)) = (sample, head) else {
        let message = format!("{what} has the strides {found:?}: its batch and heads must not be turned around");
        return Err(unsupported(message));
    };
    // More are no plan's.
    let heads = u32::try_from(shape[1]).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    Ok(Strides { row: rows_apart as usize, matrices: Spacing { sample, head, heads } })
}
