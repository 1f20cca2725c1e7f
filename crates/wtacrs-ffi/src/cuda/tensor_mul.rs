//! A batched product's passes on a GPU.

use super::gpu::Gpu;
use super::linear::status_words;
use super::matrices::{bytes, data_type, memory, precision, unsupported};
use crate::arguments::{Array, Tensor};
use crate::boundary::{Failure, Outcome};
use crate::device::{
    StatusWords, TensorMulBackward, TensorMulDescription, TensorMulForward, TensorMulPlan, TensorMulSizes,
};
use core::num::NonZeroU32;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::Keep;
use wtacrs_core::layers::{Contraction, Side, TensorMul};
use wtacrs_core::sampling::BuiltIn;
use wtacrs_kernels::plan::{
    BackwardBuffers, DeviceRandomness, Engine, ForwardBuffers, MatmulPlan, MatmulSettings, Memory, SavedParts, Spacing,
    Strides, WeightSource,
};

/// Both gradients' launches. Each has a plan of its own, for their designs may differ.
#[derive(Debug)]
pub(super) struct CudaTensorMul {
    gpu: Arc<Gpu>,
    description: TensorMulDescription,
    settings: MatmulSettings,
    /// What is saved for dA, then for dB.
    saved: [SavedParts; 2],
    engines: [Engine; 2],
    sizes: TensorMulSizes,
}

impl CudaTensorMul {
    pub(super) fn new(gpu: &Arc<Gpu>, description: &TensorMulDescription) -> Outcome<Self> {
        let &TensorMulDescription { batch, heads, rows, inner, columns, product, operands, gradient, .. } = description;
        let mut settings = MatmulSettings::new([batch, heads, rows, inner, columns]);
        settings.design = product.design;
        settings.input = data_type(operands)?;
        settings.gradient = data_type(gradient)?;
        settings.result = data_type(operands.accumulator())?;
        settings.precision = precision(description.precision, &[operands, gradient])?;
        settings.engine = description.engine;
        let of = |side| MatmulPlan::new(&of_side(&settings, &product, side, false), gpu.properties());
        let (left, right) = (of(Side::Left)?, of(Side::Right)?);
        let (Some(left), Some(right)) = (left.left(), right.right()) else {
            return Err(no_side());
        };
        let saved = [*left.saved(), *right.saved()];
        let engines = [left.engine(), right.engine()];
        let sizes = TensorMulSizes {
            saved: bytes(saved[0].bytes + saved[1].bytes)?,
            forward: bytes(left.forward_scratch_bytes().max(right.forward_scratch_bytes()))?,
            backward: bytes(left.backward_scratch_bytes().max(right.backward_scratch_bytes()))?,
        };
        Ok(Self { gpu: Arc::clone(gpu), description: *description, settings, saved, engines, sizes })
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

    fn plan(&self, side: Side, is_guessed: bool, strided: &MatmulSettings) -> Outcome<MatmulPlan> {
        let mut settings = of_side(strided, &self.description.product, side, is_guessed);
        // As the sizes were reported for.
        settings.engine = self.engine(side);
        Ok(MatmulPlan::new(&settings, self.gpu.properties())?)
    }
}

impl TensorMulPlan for CudaTensorMul {
    fn sizes(&self) -> TensorMulSizes {
        self.sizes
    }

    fn engine(&self, side: Side) -> Engine {
        let [left, right] = self.engines;
        if side == Side::Left { left } else { right }
    }

    fn status(&self, side: Side) -> Option<StatusWords> {
        let [left, right] = &self.saved;
        Some(match side {
            Side::Left => status_words(left),
            Side::Right => {
                let StatusWords { offset, words } = status_words(right);
                StatusWords { offset: left.bytes as usize + offset, words }
            }
        })
    }

    unsafe fn forward(&self, call: TensorMulForward) -> Outcome {
        let TensorMulForward { a, b, row_guess, column_guess, randomness, saved, scratch, stream } = call;
        let mut strided = self.settings.clone();
        strided.a_strides = Some(strides(&a, [2, 3])?);
        strided.b_transposed_strides = Some(strides(&b, [3, 2])?);
        let left = self.plan(Side::Left, column_guess.is_some(), &strided)?;
        let right = self.plan(Side::Right, row_guess.is_some(), &strided)?;
        let (Some(left), Some(right)) = (left.left(), right.right()) else { return Err(no_side()) };
        let buffers = |input: Tensor<4>, guess: Option<Tensor<4>>, side| ForwardBuffers {
            input: input.lowest(),
            guess: guess.map_or(ptr::null(), |guess| guess.lowest().cast_const().cast()),
            placement: ptr::null(),
            cached: ptr::null(),
            saved: self.part(&saved, side),
            scratch: memory(&scratch),
        };
        let further_offset = self.description.further_offset.as_ptr();
        let randomness = DeviceRandomness { start: randomness, further_offset };
        let mut launcher = self.gpu.on(stream)?;
        // SAFETY: the caller has it. Both use the scratch in turn.
        unsafe {
            left.forward(&mut launcher, &buffers(b, column_guess, Side::Left), randomness)?;
            Ok(right.forward(&mut launcher, &buffers(a, row_guess, Side::Right), randomness)?)
        }
    }

    unsafe fn backward(&self, call: TensorMulBackward) -> Outcome {
        let TensorMulBackward { saved, g, da, db, update, row_norms, column_norms, scratch, stream } = call;
        let mut strided = self.settings.clone();
        strided.gradient_strides = Some(strides(&g, [2, 3])?);
        strided.da_strides = Some(strides(&da, [2, 3])?);
        strided.db_strides = Some(strides(&db, [2, 3])?);
        let left = self.plan(Side::Left, false, &strided)?;
        let right = self.plan(Side::Right, false, &strided)?;
        let (Some(left), Some(right)) = (left.left(), right.right()) else { return Err(no_side()) };
        let buffers = |side, to: Tensor<4>, norms: Option<Tensor<4>>| BackwardBuffers {
            saved: self.part(&saved, side),
            gradient: g.lowest(),
            gradient_norms: norms.map_or(ptr::null_mut(), |norms| norms.lowest().cast()),
            weight_gradient: to.lowest(),
            bias_gradient: ptr::null_mut(),
            update,
            scratch: memory(&scratch),
        };
        let mut launcher = self.gpu.on(stream)?;
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

/// The settings of one gradient's own plan. An exact one keeps all pairs, whatever their weights.
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
    settings.packing = product.packing_of(side);
    (settings.left, settings.right, settings.design, settings.weights) = (left, right, design, weights);
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
