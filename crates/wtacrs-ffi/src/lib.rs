//! libwtacrs: the C interface. `include/wtacrs.h` is made from this crate's comments; docs/c-abi.md is the guide.
//!
//! A call goes from C to core in four steps: the [guard](guard) that no panic crosses, handles looked up in their
//! [registry], pointers and sizes checked before anything is touched ([array], [tensor], [dlpack]), then core's own
//! functions on typed views; or, for a plan on a GPU, the launches of wtacrs-kernels ([device], [cuda]).
//!
//! # Safety
//!
//! What every `unsafe` function here asks of its caller: a pointer is NULL or points to memory of the documented size
//! that lives, and that no other thread writes to (or, for an output, uses), until the call returns. Everything else is
//! checked.

// The types are C's.
#![allow(non_camel_case_types)]
// Stated once, above, for all of them.
#![allow(clippy::missing_safety_doc)]
// C has no structs that can grow, so functions have many parameters.
#![allow(clippy::too_many_arguments)]

mod array;
mod cuda;
mod device;
mod guard;
mod heap;
mod kept;
mod registry;
mod tensor;

pub mod cache;
pub mod cache_on;
pub mod context;
pub mod dlpack;
pub mod dtype;
pub mod estimate;
pub mod expected_error;
pub mod layer;
pub mod linear;
pub mod norms;
pub mod plan;
pub mod predictor;
pub mod predictor_on;
pub mod saved;
pub mod status;
pub mod steps;
pub mod tensor_mul;
#[cfg(feature = "emulator")]
pub mod testing;
pub mod version;
