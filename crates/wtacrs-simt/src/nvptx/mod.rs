//! The API's body on NVIDIA GPUs: LLVM's NVPTX intrinsics where lanes act together, inline PTX elsewhere.
//!
//! Why not inline PTX everywhere: rustc does not mark `asm!` as *convergent*, so LLVM may copy a barrier or a shuffle into
//! both arms of a branch that lanes take differently, and the kernel hangs or is wrong. LLVM's own intrinsics are marked.
//! Two collectives are inline PTX all the same and rely on the flags that `cargo xtask ptx` passes: mma on f16, whose intrinsic
//! takes vectors of f16, which Rust cannot pass, and ldmatrix, whose intrinsics cost moves.
//!
//! Loads are `pure, readonly`: they may be merged and dropped, but not moved across stores, barriers or fences.

pub(crate) mod atomic;
pub(crate) mod cp_async;
pub(crate) mod index;
mod llvm;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod memory;
pub(crate) mod shared;
pub(crate) mod sync;
pub(crate) mod warp;
