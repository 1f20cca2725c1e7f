//! An operator's plan on a device, and what its calls work on.
//!
//! Arrays are dense and of the plan's shape and dtype; weight, bias and their gradients are f32, one for each column.

use crate::arguments::{Array, Stream};
use crate::boundary::Outcome;
use core::fmt::Debug;
use wtacrs_core::Randomness;

/// An operator's forward pass.
pub(crate) struct OperatorForward {
    pub(crate) x: Array<u8>,
    pub(crate) gate: Option<Array<u8>>,
    pub(crate) weight: Option<Array<f32>>,
    pub(crate) bias: Option<Array<f32>>,
    /// None if only what is saved is written; at the place of x if that is replaced.
    pub(crate) y: Option<Array<u8>>,
    pub(crate) randomness: Randomness,
    pub(crate) saved: Array<u8>,
    pub(crate) stream: Stream,
}

/// An operator's backward pass.
pub(crate) struct OperatorBackward {
    pub(crate) x: Option<Array<u8>>,
    pub(crate) gate: Option<Array<u8>>,
    pub(crate) y: Option<Array<u8>>,
    pub(crate) weight: Option<Array<f32>>,
    pub(crate) dy: Array<u8>,
    /// At the place of dY if that is replaced.
    pub(crate) dx: Array<u8>,
    pub(crate) dgate: Option<Array<u8>>,
    pub(crate) dweight: Option<Array<f32>>,
    pub(crate) dbias: Option<Array<f32>>,
    pub(crate) saved: Array<u8>,
    pub(crate) scratch: Array<u8>,
    pub(crate) stream: Stream,
}

/// Whether a pass replaces an array by its result.
pub(crate) fn in_place(from: &Array<u8>, to: &Array<u8>) -> bool {
    from.as_ptr() == to.as_ptr()
}

/// Bytes of the memory of an operator's passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperatorSizes {
    pub(crate) saved: usize,
    pub(crate) backward: usize,
}

/// An operator's passes on one device.
pub(crate) trait OperatorPlan: Debug + Send + Sync {
    fn sizes(&self) -> OperatorSizes;

    /// # Safety
    ///
    /// See the module.
    unsafe fn forward(&self, call: OperatorForward) -> Outcome;

    /// # Safety
    ///
    /// See the module.
    unsafe fn backward(&self, call: OperatorBackward) -> Outcome;

    /// Writes y again, from what an operator has saved that restores it.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn restore(&self, saved: Array<u8>, y: Array<u8>, stream: Stream) -> Outcome;
}
