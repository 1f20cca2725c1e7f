//! A SIMT machine: one interface for kernels, with a GPU and a CPU emulator behind it.
//!
//! A kernel is a plain Rust function. Whatever a block of GPU threads has and a CPU thread lacks, it takes from this
//! crate: indices, shared memory, barriers, shuffles, atomics, asynchronous copies, matrix units.
//!
//! | target | feature `emulator` | each call is |
//! |---|---|---|
//! | `nvptx64-nvidia-cuda` | | one instruction or a few |
//! | any other | on | a step of `emulator`, which runs a grid on the CPU and reports the mistakes that a GPU hides |
//! | any other | off | absent: only [`WARP`] is left, for programs that launch kernels and do not run them |
//!
//! | module | holds |
//! |---|---|
//! | `index` | thread, lane, warp, block: which one calls, and how many there are |
//! | `memory` | loads and stores of global memory, 1 to 16 bytes wide |
//! | `shared` | windows of a block's dynamic shared memory |
//! | `sync` | block and warp barriers, fences |
//! | `warp` | shuffles, votes, reductions |
//! | `atomic` | atomic operations on global and shared memory |
//! | `cp_async` | copies from global to shared memory that land at their wait |
//! | `matrix` | ldmatrix and mma.sync |
//! | `math` | conversions and fused operations that round alike everywhere |
//!
//! Blocks are one-dimensional and have a whole number of warps; grids have up to three dimensions.
#![cfg_attr(
    target_arch = "nvptx64",
    no_std,
    expect(internal_features, reason = "LLVM's intrinsics are the only convergent way to the collective instructions"),
    feature(abi_ptx, abi_unadjusted, asm_experimental_arch, core_float_math, link_llvm_intrinsics, stdarch_nvptx)
)]

#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
mod api;
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
#[doc(hidden)]
pub mod checks;
#[cfg(feature = "emulator")]
pub mod emulator;
#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
mod types;

#[cfg(feature = "emulator")]
use emulator::body;
#[cfg(target_arch = "nvptx64")]
use nvptx as body;

#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
pub use api::{atomic, cp_async, index, math, matrix, memory, shared, sync, warp};

/// Threads of a warp.
pub const WARP: u32 = 32;

/// Declares a block's dynamic shared memory, once in every crate that has entry points. Nothing on hosts.
#[macro_export]
macro_rules! shared_memory {
    () => {
        #[cfg(target_arch = "nvptx64")]
        core::arch::global_asm!(".extern .shared .align 1024 .b8 wtacrs_shared[];");
    };
}
