//! The interface: what kernels call. Each function hands its call to the body of the target.

pub mod atomic;
pub mod cp_async;
pub mod index;
pub mod math;
pub mod matrix;
pub mod memory;
pub mod shared;
pub mod sync;
pub mod warp;
