//! A batched product's plan on a device, and what its calls work on.

use super::linear::StatusWords;
use crate::arguments::{Array, Stream, Tensor};
use crate::boundary::Outcome;
use core::fmt::Debug;
use wtacrs_core::Randomness;
use wtacrs_core::layers::Side;
use wtacrs_core::product::Update;
use wtacrs_kernels::plan::Engine;

/// A batched product's forward pass.
pub(crate) struct TensorMulForward {
    pub(crate) a: Tensor<4>,
    pub(crate) b: Tensor<4>,
    /// Guesses, batch x heads x rows x 1 and batch x heads x columns x 1.
    pub(crate) row_guess: Option<Tensor<4>>,
    pub(crate) column_guess: Option<Tensor<4>>,
    pub(crate) randomness: Randomness,
    pub(crate) saved: Array<u8>,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// A batched product's backward pass.
pub(crate) struct TensorMulBackward {
    pub(crate) saved: Array<u8>,
    pub(crate) g: Tensor<4>,
    pub(crate) da: Tensor<4>,
    pub(crate) db: Tensor<4>,
    pub(crate) update: Update,
    /// Shaped as the guesses of the forward pass.
    pub(crate) row_norms: Option<Tensor<4>>,
    pub(crate) column_norms: Option<Tensor<4>>,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// Bytes of the memory of a batched product's passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorMulSizes {
    pub(crate) saved: usize,
    pub(crate) forward: usize,
    pub(crate) backward: usize,
}

/// A batched product's passes on one device.
pub(crate) trait TensorMulPlan: Debug + Send + Sync {
    fn sizes(&self) -> TensorMulSizes;

    /// The program that multiplies for a side: never [`Engine::Auto`].
    fn engine(&self, side: Side) -> Engine;

    /// Where in saved memory a forward pass leaves the indices of a side's invalid rows, if it does.
    fn status(&self, side: Side) -> Option<StatusWords>;

    /// # Safety
    ///
    /// See the module.
    unsafe fn forward(&self, call: TensorMulForward) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn backward(&self, call: TensorMulBackward) -> Outcome;
}
