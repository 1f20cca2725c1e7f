//! Layers as pairs of calls: what the forward pass saves, and the gradients from it in the backward pass.
//!
//! [`Linear`] is Z = H·W, with dW estimated; [`TensorMul`] is C = A·B for every (batch, head), with both gradients
//! estimated, as attention needs them.

mod error;
mod linear;
mod tensor_mul;

pub use self::error::ForwardError;
pub use self::linear::Linear;
pub use self::tensor_mul::{Contraction, SavedTensors, Side, TensorGradients, TensorGuess, TensorMul};
#[doc(no_inline)]
pub use crate::product::{Precision, Saved, Update};
