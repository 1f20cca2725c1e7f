//! The interface's body on a host: each function is a step of the running thread.
//!
//! Kernels inline all of their code, because PTX needs it. So a function here that is more than a few instructions is never
//! inlined; otherwise a product of matrices, unrolled, takes the compiler minutes.

pub(crate) mod atomic;
pub(crate) mod cp_async;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
mod rendezvous;
pub(crate) mod thread;
pub(crate) mod warp;
