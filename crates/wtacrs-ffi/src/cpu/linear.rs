//! A linear layer's passes and single steps on the CPU.

use super::expected_error::expected_error;
use super::kept_block::{KeptBlock, KeptRows, check_finite};
use super::norm_predictor::CpuNormPredictor;
use super::threads;
use crate::arguments::heap::{self, PER_PACKING_THREAD, PER_TOKEN};
use crate::arguments::{Array, Number, Precision, Source, Stream, Tensor, known_norms, with_element, with_elements};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, poisoned};
use crate::device::{
    Backward, Estimate, ExpectedError, Forward, FurtherOffset, Gather, GivenNorms, LinearDescription, LinearPlan,
    LinearSizes, NormPredictorObject, Select, SelectionArrays, WeightGradient,
};
use core::any::Any;
use ndarray::{ArrayView2, ArrayViewMut1, ArrayViewMut2};
use std::sync::Arc;
use wtacrs_core::element::Element;
use wtacrs_core::guesses::NormGuess;
use wtacrs_core::parallel::{self, Threads};
use wtacrs_core::product::{self, Kept, Packing, Rows, Update};
use wtacrs_core::sampling::{Design, PhiloxChance};
use wtacrs_core::{Randomness, Selection, Weights};
use wtacrs_kernels::plan::Engine;

#[derive(Debug)]
pub(super) struct CpuLinear {
    layer: LinearDescription,
    threads: Arc<dyn Threads>,
    /// The layout of saved memory.
    block: KeptBlock,
    /// The layout of the rows of a product in one call, which are native whatever the packing.
    native: KeptBlock,
}

impl CpuLinear {
    pub(super) fn new(layer: &LinearDescription, threads: Arc<dyn Threads>) -> Outcome<Self> {
        let kept = layer.budget.get();
        let block = |packing| KeptBlock::new(packing, layer.h, layer.tokens, layer.in_features, kept);
        let (block, native) = (block(layer.linear.packing)?, block(Packing::Native)?);
        Ok(Self { layer: *layer, threads, block, native })
    }

    /// Refuses a call for whose tokens there is no memory.
    fn check_heap(&self) -> Outcome {
        let packing = if self.layer.linear.packing.is_packed() { self.threads.count() } else { 0 };
        let per_thread = PER_PACKING_THREAD.saturating_add(self.layer.in_features.saturating_mul(size_of::<f32>()));
        heap::check("a pass over all tokens", &[(self.layer.tokens, PER_TOKEN), (packing, per_thread)])
    }

    /// Refuses a call for whose product there is no memory.
    fn check_heap_for_product(&self) -> Outcome {
        let product = product::product_memory(self.layer.dw_shape(), self.layer.budget.get(), self.threads.count());
        let parts = [(self.layer.tokens, PER_TOKEN), (product, self.layer.dw.bytes())];
        heap::check("a pass over all tokens", &parts)
    }

    /// What a forward pass chooses rows by.
    ///
    /// # Safety
    ///
    /// The caller's arrays, as for every call.
    unsafe fn weigh<T: Element>(&self, h: ArrayView2<'_, T>, call: &Forward) -> Outcome<Weights> {
        let predictor = call.predictor.as_deref().map(CpuNormPredictor::of).transpose()?;
        let predictor = predictor.map(|predictor| predictor.get().read().map_err(poisoned)).transpose()?;
        // SAFETY: the caller has it.
        let norms = call.guess.as_ref().map(|guess| unsafe { guess.get() });
        let cached;
        let guess = match (self.layer.source, &predictor, norms) {
            (Source::Norms, _, Some(norms)) => NormGuess::Norms(norms),
            (Source::Cached, _, Some(norms)) => {
                cached = known_norms(norms);
                NormGuess::Cached(&cached)
            }
            (Source::Predicted, Some(predictor), None) => NormGuess::Predicted(predictor),
            (Source::Predicted, Some(predictor), Some(norms)) => {
                cached = known_norms(norms);
                NormGuess::PredictedAndCached(predictor, &cached)
            }
            _ => NormGuess::Unknown,
        };
        Ok(self.layer.linear.weigh(h, guess)?)
    }

    /// # Safety
    ///
    /// The caller's arrays, as for every call.
    unsafe fn given_weights(&self, norms: GivenNorms) -> Outcome<Weights> {
        self.check_heap()?;
        // SAFETY: the caller has it.
        let (input, guess) = unsafe { (norms.input.get(), norms.guess.map(|guess| guess.get())) };
        Ok(match (self.layer.source, guess) {
            (Source::Norms, Some(guess)) => Weights::from_norms(input, guess)?,
            (Source::Cached, Some(guess)) => Weights::from_cache(input, &known_norms(guess), self.layer.linear.mix)?,
            _ => Weights::from_input(input)?,
        })
    }

    /// # Safety
    ///
    /// The caller's arrays, as for every call.
    unsafe fn selection(&self, given: &SelectionArrays) -> Outcome<Selection> {
        // SAFETY: the caller has it.
        let (indices, scales) = unsafe { (given.indices.get(), given.scales.as_ref().map(|scales| scales.get())) };
        let scales = scales.map_or_else(|| vec![1.0; indices.len()], <[f64]>::to_vec);
        Ok(Selection::new(self.layer.tokens, 0, indices.to_vec(), scales)?)
    }
}

impl LinearPlan for CpuLinear {
    fn sizes(&self) -> LinearSizes {
        LinearSizes {
            saved: self.block.bytes(),
            forward: 0,
            // Products take a little memory of their own on each thread.
            backward: 0,
            estimate: self.native.bytes(),
            weight_gradient: 0,
            status: None,
        }
    }

    fn saved_layout(&self) -> &dyn Any {
        &self.block
    }

    unsafe fn forward(&self, call: Forward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        self.check_heap()?;
        // SAFETY: the caller has it.
        let randomness = unsafe { started(call.randomness, self.layer.further_offset) };
        with_element!(self.layer.h, T => {
            // SAFETY: the caller has it.
            let h = unsafe { call.h.view::<T>() };
            let keeps_all = self.layer.keeps_all();
            if keeps_all {
                check_finite(h)?;
            }
            let weights = match keeps_all && call.weights.is_none() {
                true => None,
                // SAFETY: as above.
                false => Some(unsafe { self.weigh(h, &call) }?),
            };
            let selection = weights.as_ref().filter(|_| !keeps_all).map(|weights| {
                self.layer.linear.design.select_seeded(weights, self.layer.budget, randomness)
            });
            let kept = selection.as_ref().map_or(Kept::All(self.layer.tokens), Kept::Selected);
            // SAFETY: `saved` has the block's size and alignment; the caller has the rest.
            unsafe { self.block.write::<T>(call.saved.as_ptr(), h, kept, (randomness, 0)) }?;
            if let (Some(weights), Some(output)) = (&weights, &call.weights) {
                // SAFETY: as above.
                write_values(weights, unsafe { output.get_mut() });
            }
            Ok(())
        })
    }

    unsafe fn backward(&self, call: Backward) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let Backward { saved, dz, dw, update, dz_norms, bias_gradient, .. } = call;
        self.check_heap_for_product()?;
        with_elements!(self.layer.h, self.layer.dz, T, U => {
            // SAFETY: the caller has it.
            let (read, dz, dw, bias) = unsafe {
                (
                    self.block.read::<T>(saved.as_ptr())?,
                    dz.view::<U>(),
                    dw.view_mut::<<T as Element>::Accumulator>(),
                    bias_gradient.map(|bias| bias.view_mut::<<T as Element>::Accumulator>()),
                )
            };
            // SAFETY: as above.
            let norms = dz_norms.map(|norms| unsafe { norms.get_mut() });
            let product = move || gradient::<T, U>(&read, dz, dw, update, self.layer.precision);
            let sums = move || norms_and_bias(dz, norms, bias, update);
            // The product waits for the cores, the rest for memory.
            let (product, sums) = parallel::join(product, sums);
            product.and(sums)
        })
    }

    unsafe fn estimate(&self, call: Estimate) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let Estimate { x, y, out, randomness, scratch, .. } = call;
        self.check_heap_for_product()?;
        // SAFETY: the caller has it.
        let randomness = unsafe { started(randomness, self.layer.further_offset) };
        with_elements!(self.layer.h, self.layer.dz, T, U => {
            // SAFETY: the caller has it.
            let (x, y) = unsafe { (x.view::<T>(), y.view::<U>()) };
            let weights = Weights::from_norms(&product::row_norms(x), &product::row_norms(y))?;
            let selection = self.layer.linear.design.select_seeded(&weights, self.layer.budget, randomness);
            // SAFETY: as above; the scratch has the block's size and alignment.
            let (rows, out) = unsafe {
                self.native.write::<T>(scratch.as_ptr(), x, Kept::Selected(&selection), (randomness, 0))?;
                (self.native.read::<T>(scratch.as_ptr())?, out.view_mut::<<T as Element>::Accumulator>())
            };
            gradient::<T, U>(&rows, y, out, Update::Overwrite, self.layer.precision)
        })
    }

    unsafe fn saved_selection(&self, saved: &Array<u8>) -> Outcome<Selection> {
        // SAFETY: the caller has it.
        unsafe { self.block.selection(saved.as_ptr()) }
    }

    unsafe fn weights(&self, norms: GivenNorms, weights: &Array<f64>, _stream: Stream) -> Outcome {
        // SAFETY: the caller has it.
        let (found, output) = unsafe { (self.given_weights(norms)?, weights.get_mut()) };
        write_values(&found, output);
        Ok(())
    }

    unsafe fn select(&self, call: Select) -> Outcome {
        let Select { norms, randomness, item, selection: output, .. } = call;
        // SAFETY: the caller has it.
        let (randomness, weights) =
            unsafe { (started(randomness, self.layer.further_offset), self.given_weights(norms)?) };
        let mut chance = PhiloxChance::with_stream(randomness, item);
        let selection = self.layer.linear.design.select(&weights, self.layer.budget, &mut chance);
        // SAFETY: as above; indices and scales have room for the budget.
        unsafe {
            output.indices.get_mut()[..selection.len()].copy_from_slice(selection.indices());
            if let Some(scales) = output.scales {
                scales.get_mut()[..selection.len()].copy_from_slice(selection.scales());
            }
            for (output, value) in [(output.kept, selection.len()), (output.winners, selection.winners())] {
                if let Some(output) = output {
                    output.set(value as u64);
                }
            }
        }
        Ok(())
    }

    unsafe fn selected_rows(&self, kept: &Array<u64>) -> Outcome<usize> {
        // SAFETY: the caller has it: an array of one number.
        let kept = unsafe { kept.get() }[0];
        let budget = self.layer.budget.get();
        usize::try_from(kept).ok().filter(|&kept| kept <= budget).ok_or_else(|| {
            Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, format!("{kept} rows where the budget is {budget}"))
        })
    }

    unsafe fn gather(&self, call: Gather) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let Gather { h, selection, rows, .. } = call;
        // SAFETY: the caller has it.
        let selection = unsafe { self.selection(&selection) }?;
        with_element!(self.layer.h, T => {
            // SAFETY: as above.
            let (h, rows) = unsafe { (h.view::<T>(), rows.view_mut::<T>()) };
            Ok(product::gather_into(h, &selection, rows)?)
        })
    }

    unsafe fn weight_gradient(&self, call: WeightGradient) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let WeightGradient { rows, selection, dz, dw, update, .. } = call;
        self.check_heap_for_product()?;
        // SAFETY: the caller has it.
        let selection = unsafe { self.selection(&selection) }?;
        with_elements!(self.layer.h, self.layer.dz, T, U => {
            // SAFETY: as above.
            let (rows, dz, dw) =
                unsafe { (rows.view::<T>(), dz.view::<U>(), dw.view_mut::<<T as Element>::Accumulator>()) };
            let precision = self.layer.precision.on_cpu();
            Ok(product::weight_gradient_into(rows, dz, &selection, dw, update, precision)?)
        })
    }

    fn engine(&self) -> Engine {
        Engine::Own
    }

    unsafe fn expected_error(
        &self,
        h: &Tensor<2>,
        dz: &Tensor<2>,
        weights: Option<Array<f64>>,
    ) -> Outcome<ExpectedError> {
        let _entered = threads::enter(&self.threads);
        self.check_heap()?;
        // SAFETY: the caller has it.
        unsafe { expected_error(&self.layer, h, dz, weights) }
    }
}

impl CpuNormPredictor {
    /// The predictor that a plan of the CPU was given.
    fn of(object: &dyn NormPredictorObject) -> Outcome<&Self> {
        let object: &dyn Any = object;
        object.downcast_ref().ok_or_else(|| {
            Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, "the predictor is a GPU's, and the plan is the CPU's")
        })
    }
}

/// Where the bits of a pass begin.
///
/// # Safety
///
/// The further offset, if there is any, is on the host, and nobody writes to it.
pub(super) unsafe fn started(randomness: Randomness, further: FurtherOffset) -> Randomness {
    if further.as_ptr().is_null() {
        return randomness;
    }
    // SAFETY: its alignment was checked when it was set; the caller has the rest.
    randomness.next(unsafe { further.as_ptr().read() })
}

fn write_values(weights: &Weights, output: &mut [f64]) {
    output.iter_mut().enumerate().for_each(|(i, to)| *to = weights.value(i));
}

/// What else a backward pass reads from dZ.
fn norms_and_bias<U: Element>(
    dz: ArrayView2<'_, U>,
    norms: Option<&mut [f32]>,
    bias: Option<ArrayViewMut1<'_, U::Accumulator>>,
    update: Update,
) -> Outcome {
    match (norms, bias) {
        (Some(norms), Some(bias)) => product::row_norms_and_column_sums_into(dz, norms, bias, update)?,
        (Some(norms), None) => product::row_norms_into(dz, norms)?,
        (None, Some(bias)) => product::column_sums_into(dz, bias, update)?,
        (None, None) => {}
    }
    Ok(())
}

/// dW from what a forward pass has saved.
pub(super) fn gradient<T: Number, U: Element<Accumulator = T::Accumulator>>(
    saved: &KeptRows<'_, T>,
    dz: ArrayView2<'_, U>,
    dw: ArrayViewMut2<'_, T::Accumulator>,
    update: Update,
    precision: Precision,
) -> Outcome {
    let precision = precision.on_cpu();
    let written = match (saved.rows()?, saved.kept()) {
        (Rows::Native(rows), Kept::Selected(selection)) => {
            product::weight_gradient_into(rows, dz, selection, dw, update, precision)
        }
        (Rows::Native(_), Kept::All(_)) => unreachable!("native rows have a selection"),
        (Rows::Packed(rows), _) => rows.weight_gradient_into(dz, dw, update, precision),
    };
    Ok(written?)
}
