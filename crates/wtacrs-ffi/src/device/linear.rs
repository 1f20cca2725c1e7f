//! A linear layer's plan on a device, and what its calls work on.

use super::norm_predictor::NormPredictorObject;
use crate::arguments::{Array, Stream, Tensor};
use crate::boundary::Outcome;
use core::any::Any;
use core::fmt::Debug;
use std::sync::Arc;
use wtacrs_core::product::Update;
use wtacrs_core::{Randomness, Selection};
use wtacrs_kernels::plan::Engine;

/// A linear layer's forward pass.
pub(crate) struct Forward {
    pub(crate) h: Tensor<2>,
    pub(crate) guess: Option<Array<f32>>,
    pub(crate) predictor: Option<Arc<dyn NormPredictorObject>>,
    pub(crate) weights: Option<Array<f64>>,
    pub(crate) randomness: Randomness,
    pub(crate) saved: Array<u8>,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// A linear layer's backward pass.
pub(crate) struct Backward {
    pub(crate) saved: Array<u8>,
    pub(crate) dz: Tensor<2>,
    pub(crate) dw: Tensor<2>,
    pub(crate) update: Update,
    pub(crate) dz_norms: Option<Array<f32>>,
    pub(crate) bias_gradient: Option<Tensor<1>>,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// A product in one call.
pub(crate) struct Estimate {
    pub(crate) x: Tensor<2>,
    pub(crate) y: Tensor<2>,
    pub(crate) out: Tensor<2>,
    pub(crate) randomness: Randomness,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// What weights are made from.
pub(crate) struct GivenNorms {
    pub(crate) input: Array<f32>,
    pub(crate) guess: Option<Array<f32>>,
}

/// A selection in the memory of the plan's device: room for the budget, or as many entries as are kept.
pub(crate) struct SelectionArrays {
    pub(crate) indices: Array<u32>,
    pub(crate) scales: Option<Array<f64>>,
    pub(crate) kept: Option<Array<u64>>,
    pub(crate) winners: Option<Array<u64>>,
}

/// Chooses rows from norms alone.
pub(crate) struct Select {
    pub(crate) norms: GivenNorms,
    pub(crate) randomness: Randomness,
    pub(crate) item: u32,
    pub(crate) selection: SelectionArrays,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// Copies rows of H.
pub(crate) struct Gather {
    pub(crate) h: Tensor<2>,
    pub(crate) selection: SelectionArrays,
    pub(crate) rows: Tensor<2>,
    pub(crate) stream: Stream,
}

/// dW from rows that the caller keeps.
pub(crate) struct WeightGradient {
    pub(crate) rows: Tensor<2>,
    pub(crate) selection: SelectionArrays,
    pub(crate) dz: Tensor<2>,
    pub(crate) dw: Tensor<2>,
    pub(crate) update: Update,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// Bytes of the memory of a plan's calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinearSizes {
    pub(crate) saved: usize,
    pub(crate) forward: usize,
    pub(crate) backward: usize,
    pub(crate) estimate: usize,
    pub(crate) weight_gradient: usize,
    /// Where in saved memory a forward pass leaves the index of an invalid row, if it does.
    pub(crate) status: Option<StatusWords>,
}

/// Words of saved memory of which the first that is not 0 is 1 + the index of an invalid row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusWords {
    pub(crate) offset: usize,
    /// How many each item has.
    pub(crate) words: usize,
}

impl StatusWords {
    /// As the interface reports them: where they begin, and how many there are.
    pub(crate) fn reported(status: Option<Self>) -> (usize, usize) {
        status.map_or((usize::MAX, 0), |status| (status.offset, status.words))
    }
}

/// A linear layer's passes and single steps on one device.
pub(crate) trait LinearPlan: Debug + Send + Sync {
    fn sizes(&self) -> LinearSizes;

    /// The layout of saved memory, as a type of the device's own, from which its predictors learn.
    fn saved_layout(&self) -> &dyn Any;

    /// # Safety
    ///
    /// See the module.
    unsafe fn forward(&self, call: Forward) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn backward(&self, call: Backward) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn estimate(&self, call: Estimate) -> Outcome;

    /// The selection in saved memory, on the host.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn saved_selection(&self, saved: &Array<u8>) -> Outcome<Selection>;

    /// Writes the weights of norms.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn weights(&self, norms: GivenNorms, weights: &Array<f64>, stream: Stream) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn select(&self, call: Select) -> Outcome;

    /// How many entries the arrays of a selection have, of which `kept` holds the number.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn selected_rows(&self, kept: &Array<u64>) -> Outcome<usize>;

    /// # Safety
    ///
    /// See the module.
    unsafe fn gather(&self, call: Gather) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn weight_gradient(&self, call: WeightGradient) -> Outcome;

    /// The program that multiplies: never [`Engine::Auto`].
    fn engine(&self) -> Engine;

    /// The expected squared error of estimates, for weights or for exact ones.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn expected_error(
        &self,
        h: &Tensor<2>,
        dz: &Tensor<2>,
        weights: Option<Array<f64>>,
    ) -> Outcome<ExpectedError>;
}

/// The mean of |dW' - dW|^2 over estimates dW', or a bound of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpectedError {
    pub(crate) squared_error: f64,
    /// Whether it is the mean, and not an upper bound.
    pub(crate) is_exact: bool,
    /// |dW|^2.
    pub(crate) squared_norm: f64,
}
