//! The public functions' bodies.

pub(crate) mod atomic;
pub(crate) mod cp_async;
pub(crate) mod index;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
pub(crate) mod shared;
pub(crate) mod sync;
pub(crate) mod warp;
