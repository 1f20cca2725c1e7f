//! The interface's body on NVIDIA GPUs: LLVM's NVPTX intrinsics where lanes act together, inline PTX elsewhere.
//!
//! rustc does not mark `asm!` as *convergent*, so LLVM may copy an inline barrier or shuffle into both arms of a branch
//! that lanes take differently; the kernel then hangs or is wrong. LLVM's own intrinsics of barriers, shuffles, votes and
//! reductions are marked. Those of mma are not, and two collectives are inline PTX: mma on f16, whose intrinsic takes vectors
//! of f16, which Rust cannot pass, and ldmatrix, whose intrinsics cost moves. mma and ldmatrix therefore rely on the flags that
//! `cargo xtask ptx` passes, and it counts them.
//!
//! Loads are `pure, readonly`: they may be merged and dropped, but not moved across stores, barriers or fences.

pub(crate) mod atomic;
pub(crate) mod cp_async;
mod llvm;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
pub(crate) mod thread;
pub(crate) mod warp;
