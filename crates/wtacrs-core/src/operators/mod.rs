//! What stands between a model's products, and how little of it training has to keep: activation functions, gated units,
//! dropout, softmax and norms.
//!
//! Training keeps an operator's input or output for its gradient. A packed [`Operator`] keeps instead what the gradient is **linear**
//! in, in few bits and without bias: GELU its slope, a gated unit both factors of its gradients, norms their normalised rows. ReLU
//! keeps one bit an element, dropout nothing. The gradients of softmax and norms are quadratic in what is saved; a known term
//! corrects them, so that every gradient is unbiased.
//!
//! ```
//! use wtacrs_core::Randomness;
//! use wtacrs_core::operators::{Backward, Forward, InOut, Operation, Operator};
//! use wtacrs_core::product::Packing;
//!
//! let gelu = Operator::new(Operation::Gelu).with_packing(Packing::Bits8);
//! let (shape, randomness) = ([4, 256], Randomness::new(42, 0));
//! let x: Vec<f32> = (0..1024).map(|i| (i % 37) as f32 / 8.0 - 2.0).collect();
//! let (mut y, mut saved) = (vec![0.0; 1024], vec![0; gelu.saved_words(shape)]);
//! gelu.forward(shape, Forward::new(InOut::Apart { from: &x, to: &mut y }), randomness, &mut saved)?;
//! assert_eq!(4 * saved.len(), 1024); // one byte an element in place of four
//! let mut gradient = vec![1.0; 1024]; // dY, which becomes dX
//! gelu.backward(shape, Backward::new(InOut::InPlace(&mut gradient)), randomness, &saved)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod layout;
mod norms;
mod operands;
mod operation;
mod passes;
mod pointwise;
mod softmax;
mod stages;
mod tasks;

pub use layout::Layout;
pub use operands::{Backward, Forward, InOut};
pub use operation::{Keeps, Operation, Operator, OperatorError};
