//! A SIMT machine in two bodies behind one API.
//!
//! A kernel is a plain Rust function that calls this crate for everything that a block of GPU threads has and a CPU
//! thread has not: indices, shared memory, barriers, shuffles, atomics, asynchronous copies, matrix units. Compiled for
//! `nvptx64-nvidia-cuda` every call is one instruction or a few; on any other target the same calls run on
//! [`emulator`], which executes a grid on the CPU and names what a GPU would only get wrong.
//!
//! | module | gives |
//! |---|---|
//! | [`index`] | who am I: thread, lane, warp, block |
//! | [`memory`] | loads and stores of global memory, 1 to 16 bytes wide |
//! | [`shared`] | windows of a block's dynamic shared memory |
//! | [`sync`] | block and warp barriers, fences |
//! | [`warp`] | shuffles, votes, reductions |
//! | [`atomic`] | atomic operations on global and shared memory |
//! | [`cp_async`] | copies from global to shared memory that land at their wait |
//! | [`matrix`] | ldmatrix and mma.sync |
//! | [`math`] | rounding conversions and fused operations that mean the same on both bodies |
//!
//! Blocks are one-dimensional and have a whole number of warps; grids have up to three dimensions.
#![cfg_attr(
    target_arch = "nvptx64",
    no_std,
    expect(internal_features, reason = "LLVM's intrinsics are the only convergent way to the collective instructions"),
    feature(abi_ptx, abi_unadjusted, asm_experimental_arch, core_float_math, link_llvm_intrinsics, stdarch_nvptx)
)]

#[cfg(not(target_arch = "nvptx64"))]
pub mod emulator;
#[cfg(target_arch = "nvptx64")]
mod nvptx;

#[cfg(not(target_arch = "nvptx64"))]
use emulator::body;
#[cfg(target_arch = "nvptx64")]
use nvptx as body;

pub mod atomic;
#[doc(hidden)]
pub mod checks;
pub mod cp_async;
pub mod index;
pub mod math;
pub mod matrix;
pub mod memory;
pub mod shared;
pub mod sync;
pub mod warp;

/// Declares a block's dynamic shared memory, once in every crate that has entry points. Nothing on hosts.
#[macro_export]
macro_rules! shared_memory {
    () => {
        #[cfg(target_arch = "nvptx64")]
        core::arch::global_asm!(".extern .shared .align 1024 .b8 wtacrs_shared[];");
    };
}
