//! A linear layer's passes and single steps on a GPU.

use super::gpu::Gpu;
use super::matrices::{bytes, data_type, matrix, memory, precision, strides};
use super::norm_predictor::{CudaNormPredictor, SavedByCuda};
use crate::arguments::{Array, Source, Stream, Tensor};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use crate::device::{
    Backward, Estimate, ExpectedError, Forward, Gather, GivenNorms, LinearDescription, LinearPlan, LinearSizes, Select,
    SelectionArrays, StatusWords, WeightGradient,
};
use core::any::Any;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::guesses::PredictorSettings;
use wtacrs_core::product::{Packing, Update};
use wtacrs_core::{Keep, Randomness, Selection};
use wtacrs_kernels::plan::{
    self as launches, BackwardBuffers, DeviceRandomness, Engine, ForwardBuffers, GatherBuffers, GradientBuffers,
    Layout, LinearSettings, Memory, Part, SavedParts, SelectBuffers, WeightSource, launch_row_norms,
};

/// A layer's launches.
#[derive(Debug)]
pub(super) struct CudaLinear {
    layer: LinearDescription,
    plan: SavedByCuda,
    /// The launches with exact norms, for products in one call.
    exact: launches::LinearPlan,
    /// How the scratch of such a product is cut.
    estimate: EstimateParts,
    sizes: LinearSizes,
}

/// Parts of the scratch of a product in one call.
#[derive(Clone, Copy, Debug)]
struct EstimateParts {
    saved: Part,
    norms: Part,
    forward: Part,
    backward: Part,
}

impl CudaLinear {
    pub(super) fn new(gpu: &Arc<Gpu>, layer: &LinearDescription) -> Outcome<Self> {
        let &LinearDescription { tokens, in_features, out_features, budget, .. } = layer;
        let keep = if tokens == 0 { Keep::Fraction(1.0) } else { Keep::Rows(budget.get()) };
        let mut settings = LinearSettings::new(tokens, in_features, out_features, keep);
        settings.design = layer.linear.design;
        settings.packing = layer.linear.packing;
        settings.weights = match layer.source {
            Source::Input => WeightSource::Input,
            Source::Norms => WeightSource::Norms,
            Source::Cached => WeightSource::Cached { mix: layer.linear.mix },
            // Each predictor brings a clamp of its own.
            Source::Predicted => WeightSource::Predicted { clamp: PredictorSettings::default().clamp },
        };
        settings.input = data_type(layer.h)?;
        settings.gradient = data_type(layer.dz)?;
        settings.weight_gradient = data_type(layer.dw)?;
        settings.precision = precision(layer.precision, &[layer.h, layer.dz])?;
        settings.engine = layer.engine;
        settings.bias_gradient = true;
        let mut exact = settings.clone();
        exact.weights = WeightSource::Norms;
        exact.packing = Packing::Native;
        exact.bias_gradient = false;
        let linear = launches::LinearPlan::new(settings, gpu.properties())?;
        let exact = launches::LinearPlan::new(exact, gpu.properties())?;
        let mut layout = Layout::default();
        let what = "the scratch of a product in one call";
        let estimate = EstimateParts {
            saved: layout.part(what, &[exact.saved().bytes])?,
            norms: layout.part(what, &[4, tokens as u64])?,
            forward: layout.part(what, &[exact.forward_scratch_bytes()])?,
            backward: layout.part(what, &[exact.backward_scratch_bytes()])?,
        };
        let sizes = LinearSizes {
            saved: bytes(linear.saved().bytes)?,
            forward: bytes(linear.forward_scratch_bytes())?,
            backward: bytes(linear.backward_scratch_bytes())?,
            estimate: bytes(layout.bytes())?,
            // The caller's rows are native: see the entry point.
            weight_gradient: if layer.linear.packing.is_packed() {
                0
            } else {
                bytes(linear.gradient_scratch_bytes()?)?
            },
            status: Some(status_words(linear.saved())),
        };
        Ok(Self { layer: *layer, plan: SavedByCuda { gpu: Arc::clone(gpu), linear }, exact, estimate, sizes })
    }

    fn randomness(&self, start: Randomness) -> DeviceRandomness {
        DeviceRandomness { start, further_offset: self.layer.further_offset.as_ptr() }
    }
}

/// Where the status of a plan's rows lies.
pub(super) fn status_words(saved: &SavedParts) -> StatusWords {
    StatusWords { offset: saved.status.offset as usize, words: saved.status_words as usize }
}

/// A pointer to an array that may be missing.
fn pointer<T: Copy>(array: Option<Array<T>>) -> *mut T {
    array.map_or(ptr::null_mut(), |array| array.as_ptr())
}

/// The count of a selection: the lower word, as GPUs count from the lowest byte. The upper word is a status.
fn count(selection: &SelectionArrays) -> Outcome<*mut u32> {
    let kept =
        selection.kept.ok_or_else(|| Failure::new(WTACRS_STATUS_NULL_POINTER, "kept is NULL: a GPU writes it"))?;
    Ok(kept.as_ptr().cast())
}

impl LinearPlan for CudaLinear {
    fn sizes(&self) -> LinearSizes {
        self.sizes
    }

    fn saved_layout(&self) -> &dyn Any {
        &self.plan
    }

    unsafe fn forward(&self, call: Forward) -> Outcome {
        let Forward { h, guess, predictor, weights, randomness, saved, scratch, stream } = call;
        let SavedByCuda { gpu, linear } = &self.plan;
        if weights.is_some() && linear.keeps_all() {
            let message = "weights of a plan that packs all rows: on a GPU it makes none";
            return Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message));
        }
        let mut linear = linear.with_strides([Some(strides(&h)?), None, None])?;
        let norms = pointer(guess).cast_const();
        let (guess, placement, cached) = match &predictor {
            Some(predictor) => {
                let predictor = CudaNormPredictor::of(&**predictor, gpu)?;
                predictor.check_columns(self.layer.in_features)?;
                linear = linear.with_clamp(predictor.settings().clamp)?;
                (predictor.theta(), predictor.placement(), norms)
            }
            None => (norms, ptr::null(), ptr::null()),
        };
        let (input, saved, scratch) = (h.lowest(), memory(&saved), memory(&scratch));
        let buffers = ForwardBuffers { input, guess, placement, cached, saved, scratch };
        let mut launcher = gpu.on(stream)?;
        // SAFETY: the caller has it.
        unsafe { linear.forward(&mut launcher, &buffers, self.randomness(randomness)) }?;
        let Some(weights) = weights else { return Ok(()) };
        // SAFETY: the caller has it; the pass was launched above.
        Ok(unsafe { linear.weights_of_forward(&mut launcher, scratch, norms, weights.as_ptr()) }?)
    }

    unsafe fn backward(&self, call: Backward) -> Outcome {
        let Backward { saved, dz, dw, update, dz_norms, bias_gradient, scratch, stream } = call;
        let SavedByCuda { gpu, linear } = &self.plan;
        let linear = linear.with_strides([None, Some(strides(&dz)?), Some(strides(&dw)?)])?;
        let buffers = BackwardBuffers {
            saved: memory(&saved),
            gradient: dz.lowest(),
            gradient_norms: pointer(dz_norms),
            weight_gradient: dw.lowest(),
            // Like dW it is in f32: plans of a GPU have no other.
            bias_gradient: bias_gradient.map_or(ptr::null_mut(), |bias| bias.lowest().cast()),
            update,
            scratch: memory(&scratch),
        };
        // SAFETY: the caller has it.
        Ok(unsafe { linear.backward(&mut gpu.on(stream)?, &buffers) }?)
    }

    unsafe fn estimate(&self, call: Estimate) -> Outcome {
        let Estimate { x, y, out, randomness, scratch, stream } = call;
        let matrix = matrix(&y)?;
        let exact = self.exact.with_strides([Some(strides(&x)?), Some(matrix.strides), Some(strides(&out)?)])?;
        let of = |part: Part| Memory { at: scratch.as_ptr().wrapping_add(part.offset as usize), bytes: part.bytes };
        let norms = of(self.estimate.norms).at.cast::<f32>();
        let forward = ForwardBuffers {
            input: x.lowest(),
            guess: norms,
            placement: ptr::null(),
            cached: ptr::null(),
            saved: of(self.estimate.saved),
            scratch: of(self.estimate.forward),
        };
        let backward = BackwardBuffers {
            saved: of(self.estimate.saved),
            gradient: y.lowest(),
            gradient_norms: ptr::null_mut(),
            weight_gradient: out.lowest(),
            bias_gradient: ptr::null_mut(),
            update: Update::Overwrite,
            scratch: of(self.estimate.backward),
        };
        let mut launcher = self.plan.gpu.on(stream)?;
        // SAFETY: the caller has it; the parts of the scratch lie apart.
        unsafe {
            launch_row_norms(&mut launcher, &matrix, norms)?;
            exact.forward(&mut launcher, &forward, self.randomness(randomness))?;
            Ok(exact.backward(&mut launcher, &backward)?)
        }
    }

    unsafe fn saved_selection(&self, saved: &Array<u8>) -> Outcome<Selection> {
        let parts = self.plan.linear.saved();
        let read = |part: Part, len: usize| -> Outcome<Vec<u8>> {
            let mut bytes = vec![0; len];
            // SAFETY: a part of the saved memory, which has at least as many bytes.
            unsafe { self.plan.gpu.download(saved.as_ptr().wrapping_add(part.offset as usize), &mut bytes) }?;
            Ok(bytes)
        };
        let numbers = |part: Part, len: usize| -> Outcome<Vec<u32>> {
            Ok(words::<4>(&read(part, 4 * len)?).map(u32::from_le_bytes).collect())
        };
        let keeps_all = self.plan.linear.keeps_all();
        let status: u32 = parts.statuses(&numbers(parts.status, parts.status_words as usize)?).iter().sum();
        if status != 0 && status as usize <= self.layer.tokens {
            let row = status as usize - 1;
            let message = match keeps_all {
                true => format!("row {row} of H has an element that is not finite"),
                false => format!("the norm of row {row} of H, or its guess, is negative or not finite"),
            };
            return Err(Failure::new(WTACRS_STATUS_INVALID_WEIGHTS, message).at(Some(row)));
        }
        let corrupted = |what: String| Failure::new(WTACRS_STATUS_CORRUPTED, format!("the saved memory {what}"));
        if keeps_all && status == 0 {
            // The tokens are below 2^32.
            return Ok(Selection::everything(self.layer.tokens as u32));
        }
        let count = if keeps_all { 0 } else { numbers(parts.count, 1)?.iter().sum::<u32>() as usize };
        if status != 0 || count > self.layer.budget.get() {
            return Err(corrupted("was not written by a forward pass of such a plan".to_owned()));
        }
        let winners: u64 = words::<8>(&read(parts.winners, 8)?).map(u64::from_le_bytes).sum();
        if winners > count as u64 {
            return Err(corrupted(format!("has {winners} winners among {count} rows")));
        }
        let indices = words::<4>(&read(parts.indices, 4 * count)?).map(u32::from_le_bytes).collect();
        let scales = words::<8>(&read(parts.scales, 8 * count)?).map(f64::from_le_bytes).collect();
        Selection::new(self.layer.tokens, winners as usize, indices, scales)
            .map_err(|error| corrupted(format!("has no selection: {error}")))
    }

    unsafe fn weights(&self, norms: GivenNorms, weights: &Array<f64>, stream: Stream) -> Outcome {
        let SavedByCuda { gpu, linear } = &self.plan;
        let norms = [norms.input.as_ptr().cast_const(), pointer(norms.guess).cast_const()];
        // SAFETY: the caller has it.
        Ok(unsafe { linear.weights(&mut gpu.on(stream)?, norms, weights.as_ptr()) }?)
    }

    unsafe fn select(&self, call: Select) -> Outcome {
        let Select { norms, randomness, item, selection, scratch, stream } = call;
        let SavedByCuda { gpu, linear } = &self.plan;
        let count = count(&selection)?;
        let buffers = SelectBuffers {
            input_norms: norms.input.as_ptr(),
            guess: pointer(norms.guess).cast_const(),
            indices: selection.indices.as_ptr(),
            scales: pointer(selection.scales),
            count,
            status: count.wrapping_add(1),
            winners: pointer(selection.winners),
            scratch: memory(&scratch),
        };
        // SAFETY: the caller has it.
        Ok(unsafe { linear.select(&mut gpu.on(stream)?, &buffers, self.randomness(randomness), item) }?)
    }

    unsafe fn selected_rows(&self, _kept: &Array<u64>) -> Outcome<usize> {
        // What the number is, only the GPU knows; arrays have room for the budget.
        Ok(self.layer.budget.get())
    }

    unsafe fn gather(&self, call: Gather) -> Outcome {
        let Gather { h, selection, rows, stream } = call;
        let SavedByCuda { gpu, linear } = &self.plan;
        let linear = linear.with_strides([Some(strides(&h)?), None, None])?;
        let buffers = GatherBuffers {
            input: h.lowest(),
            indices: selection.indices.as_ptr(),
            count: count(&selection)?,
            rows: rows.lowest(),
            row_elements: strides(&rows)?.row,
        };
        // SAFETY: the caller has it.
        Ok(unsafe { linear.gather(&mut gpu.on(stream)?, &buffers) }?)
    }

    unsafe fn weight_gradient(&self, call: WeightGradient) -> Outcome {
        let WeightGradient { rows, selection, dz, dw, update, scratch, stream } = call;
        let SavedByCuda { gpu, linear } = &self.plan;
        let linear = linear.with_strides([None, Some(strides(&dz)?), Some(strides(&dw)?)])?;
        let buffers = GradientBuffers {
            rows: rows.lowest(),
            row_elements: strides(&rows)?.row,
            indices: selection.indices.as_ptr(),
            scales: pointer(selection.scales),
            count: count(&selection)?,
            gradient: dz.lowest(),
            weight_gradient: dw.lowest(),
            update,
            scratch: memory(&scratch),
        };
        // SAFETY: the caller has it.
        Ok(unsafe { linear.gradient(&mut gpu.on(stream)?, &buffers) }?)
    }

    fn engine(&self) -> Engine {
        self.plan.linear.engine()
    }

    unsafe fn expected_error(
        &self,
        _h: &Tensor<2>,
        _dz: &Tensor<2>,
        _weights: Option<Array<f64>>,
    ) -> Outcome<ExpectedError> {
        Err(Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, "the plan is a GPU's: make one of the CPU for expected errors"))
    }
}

/// Bytes as words of N; what is left over is dropped.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}
