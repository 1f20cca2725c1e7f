//! A linear layer's passes on a GPU.

use super::steps::matrix;
use super::{bytes, data_type, memory, strides};
use crate::array::{Array, check_disjoint, device_block, regions};
use crate::device::Gpu;
use crate::dtype::Source;
use crate::guard::{Failure, Outcome};
use crate::layer::Layer;
use crate::linear::{norm_guess, update};
use crate::plan::{Plan, Sizes};
use crate::predictor::{device_predictor, wtacrs_norm_predictor};
use crate::status::*;
use crate::tensor::Tensor;
use core::ffi::c_void;
use core::ptr;
use wtacrs_core::guesses::PredictorSettings;
use wtacrs_core::sampling::{Budget, Keep, Selection};
use wtacrs_kernels::plan::{
    BackwardBuffers, DeviceRandomness, ForwardBuffers, Layout, LinearPlan, LinearSettings, Memory, Part, WeightSource,
    launch_row_norms,
};

/// A layer's launches.
#[derive(Debug)]
pub(crate) struct CudaLayer {
    pub(crate) linear: LinearPlan,
    /// The same with exact norms, for products in one call.
    exact: LinearPlan,
    /// How the scratch of such a product is cut.
    estimate: Estimate,
    pub(crate) sizes: Sizes,
}

/// Parts of the scratch of a product in one call.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    saved: Part,
    norms: Part,
    forward: Part,
    backward: Part,
}

/// The memory and the stream of a pass, as they were given.
pub(crate) struct Pass {
    pub(crate) saved: *mut c_void,
    pub(crate) saved_bytes: usize,
    pub(crate) scratch: *mut c_void,
    pub(crate) scratch_bytes: usize,
    pub(crate) stream: *mut c_void,
}

impl CudaLayer {
    pub(crate) fn new(
        gpu: &Gpu,
        layer: &Layer,
        [tokens, in_features, out_features]: [usize; 3],
        budget: Budget,
    ) -> Outcome<Self> {
        let weights = match layer.source {
            Source::Input => WeightSource::Input,
            Source::Norms => WeightSource::Norms,
            Source::Cached => WeightSource::Cached { mix: layer.mix },
            // Each predictor brings a clamp of its own.
            Source::Predicted => WeightSource::Predicted { clamp: PredictorSettings::default().clamp },
        };
        let keep = if tokens == 0 { Keep::Fraction(1.0) } else { Keep::Rows(budget.get()) };
        let mut settings = LinearSettings::new(tokens, in_features, out_features, keep);
        settings.design = layer.design;
        settings.weights = weights;
        settings.input = data_type(layer.h)?;
        settings.gradient = data_type(layer.dz)?;
        settings.weight_gradient = data_type(layer.dw)?;
        settings.precision = layer.precision;
        settings.bias_gradient = true;
        let mut exact = settings.clone();
        exact.weights = WeightSource::Norms;
        exact.bias_gradient = false;
        let (linear, exact) = (LinearPlan::new(settings, gpu.properties())?, LinearPlan::new(exact, gpu.properties())?);
        let mut layout = Layout::default();
        let what = "the scratch of a product in one call";
        let estimate = Estimate {
            saved: layout.part(what, &[exact.saved().bytes])?,
            norms: layout.part(what, &[4, tokens as u64])?,
            forward: layout.part(what, &[exact.forward_scratch_bytes()])?,
            backward: layout.part(what, &[exact.backward_scratch_bytes()])?,
        };
        let sizes = Sizes {
            saved: bytes(linear.saved().bytes)?,
            forward: bytes(linear.forward_scratch_bytes())?,
            backward: bytes(linear.backward_scratch_bytes())?,
            estimate: bytes(layout.bytes())?,
            weight_gradient: bytes(linear.gradient_scratch_bytes()?)?,
        };
        Ok(Self { linear, exact, estimate, sizes })
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_forward`.
    pub(crate) unsafe fn forward(
        &self,
        plan: &Plan,
        gpu: &Gpu,
        h: Tensor<2>,
        guess: *const f32,
        predictor: *const wtacrs_norm_predictor,
        randomness: DeviceRandomness,
        pass: &Pass,
    ) -> Outcome {
        let saved = device_block(pass.saved, pass.saved_bytes, self.sizes.saved, "saved")?;
        let scratch = device_block(pass.scratch, pass.scratch_bytes, self.sizes.forward, "scratch")?;
        let guess = match plan.source {
            // Norms that a cache remembers, if there are any.
            Source::Predicted => Array::optional(guess, plan.tokens, "guess")?,
            _ => norm_guess(plan, guess)?,
        };
        let inputs = regions([Some(h.region()), guess.as_ref().map(Array::region)]);
        check_disjoint(&[saved.region(), scratch.region()], &inputs)?;
        let mut linear = self.linear.with_strides([Some(strides(&h)?), None, None])?;
        let predictor = match (plan.source, predictor.is_null()) {
            (Source::Predicted, _) => Some(device_predictor(predictor, &plan.context)?),
            (_, true) => None,
            _ => return Err(Failure::new(WTACRS_INVALID_ARGUMENT, "a predictor, but the plan's source is another")),
        };
        if let Some(predictor) = &predictor {
            predictor.check_columns(plan.in_features)?;
            linear = linear.with_clamp(predictor.settings().clamp)?;
        }
        let norms = guess.map_or(ptr::null(), |guess| guess.as_ptr().cast_const());
        let (guess, placement, cached) = match &predictor {
            Some(predictor) => (predictor.theta(), predictor.placement(), norms),
            None => (norms, ptr::null(), ptr::null()),
        };
        let (input, saved, scratch) = (h.lowest(), memory(&saved), memory(&scratch));
        let buffers = ForwardBuffers { input, guess, placement, cached, saved, scratch };
        // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
        Ok(unsafe { linear.forward(&mut gpu.on(pass.stream)?, &buffers, randomness) }?)
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_backward`.
    pub(crate) unsafe fn backward(
        &self,
        plan: &Plan,
        gpu: &Gpu,
        [dz, dw]: [Tensor<2>; 2],
        accumulate: i32,
        dz_norms: *mut f32,
        bias_gradient: *mut c_void,
        pass: &Pass,
    ) -> Outcome {
        let dw = dw.writable()?;
        let update = update(accumulate)?;
        let saved = device_block(pass.saved, pass.saved_bytes, self.sizes.saved, "saved")?;
        let scratch = device_block(pass.scratch, pass.scratch_bytes, self.sizes.backward, "scratch")?;
        let dz_norms = Array::optional(dz_norms, plan.tokens, "dz_norms")?;
        // Like dW it is in f32 there: plans have no other.
        let bias_gradient = Array::<f32>::optional(bias_gradient.cast(), plan.out_features, "bias_gradient")?;
        let outputs = regions([
            Some(dw.region()),
            Some(scratch.region()),
            dz_norms.as_ref().map(Array::region),
            bias_gradient.as_ref().map(Array::region),
        ]);
        check_disjoint(&outputs, &[saved.region(), dz.region()])?;
        let linear = self.linear.with_strides([None, Some(strides(&dz)?), Some(strides(&dw)?)])?;
        let buffers = BackwardBuffers {
            saved: memory(&saved),
            gradient: dz.lowest(),
            gradient_norms: dz_norms.map_or(ptr::null_mut(), |norms| norms.as_ptr()),
            weight_gradient: dw.lowest(),
            bias_gradient: bias_gradient.map_or(ptr::null_mut(), |bias| bias.as_ptr()),
            update,
            scratch: memory(&scratch),
        };
        // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
        Ok(unsafe { linear.backward(&mut gpu.on(pass.stream)?, &buffers) }?)
    }

    /// # Safety
    ///
    /// The contract of `wtacrs_estimate`, of which `scratch` was checked.
    pub(crate) unsafe fn estimate(
        &self,
        plan: &Plan,
        gpu: &Gpu,
        [x, y, out]: [Tensor<2>; 3],
        randomness: DeviceRandomness,
        scratch: &Array<u8>,
        stream: *mut c_void,
    ) -> Outcome {
        let out = out.writable()?;
        check_disjoint(&[out.region(), scratch.region()], &[x.region(), y.region()])?;
        let matrix = matrix(&y, plan.dz)?;
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
            update: wtacrs_core::product::Update::Overwrite,
            scratch: of(self.estimate.backward),
        };
        let mut launcher = gpu.on(stream)?;
        // SAFETY: checked for NULL, size, alignment and overlap; the parts of the scratch lie apart.
        unsafe {
            launch_row_norms(&mut launcher, &matrix, norms)?;
            exact.forward(&mut launcher, &forward, randomness)?;
            Ok(exact.backward(&mut launcher, &backward)?)
        }
    }

    /// The selection in saved memory, copied to the host after all that was launched.
    ///
    /// # Safety
    ///
    /// `saved` was checked, and is memory of the GPU.
    pub(crate) unsafe fn selection(&self, plan: &Plan, gpu: &Gpu, saved: &Array<u8>) -> Outcome<Selection> {
        let parts = self.linear.saved();
        let read = |part: Part, len: usize| -> Outcome<Vec<u8>> {
            let mut bytes = vec![0; len];
            // SAFETY: a part of the saved memory, which has at least as many bytes.
            unsafe { gpu.download(saved.as_ptr().wrapping_add(part.offset as usize), &mut bytes) }?;
            Ok(bytes)
        };
        let word = |part: Part| Ok::<_, Failure>(words::<4>(&read(part, 4)?).map(u32::from_le_bytes).sum::<u32>());
        let status = word(parts.status)?;
        if status != 0 && status as usize <= plan.tokens {
            let message = format!("the norm of row {} of H, or its guess, is negative or not finite", status - 1);
            return Err(Failure::new(WTACRS_INVALID_WEIGHTS, message));
        }
        let corrupted = |what: String| Failure::new(WTACRS_CORRUPTED, format!("the saved memory {what}"));
        let count = word(parts.count)? as usize;
        if status != 0 || count > plan.budget.get() {
            return Err(corrupted("was not written by a forward pass of such a plan".to_owned()));
        }
        let winners: u64 = words::<8>(&read(parts.winners, 8)?).map(u64::from_le_bytes).sum();
        if winners > count as u64 {
            return Err(corrupted(format!("tells {winners} winners of {count} rows")));
        }
        let indices = words::<4>(&read(parts.indices, 4 * count)?).map(u32::from_le_bytes).collect();
        let scales = words::<8>(&read(parts.scales, 8 * count)?).map(f64::from_le_bytes).collect();
        Selection::new(plan.tokens, winners as usize, indices, scales)
            .map_err(|error| corrupted(format!("has no selection: {error}")))
    }
}

/// Bytes as words of N; what is left over is none.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}
