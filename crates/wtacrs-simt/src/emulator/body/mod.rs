//! The interface's body on a host: each function is a step of the running thread.

pub(crate) mod atomic;
pub(crate) mod cp_async;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
mod rendezvous;
pub(crate) mod thread;
pub(crate) mod warp;
