//! The GPU kernels of column-row sampling, one source for NVIDIA GPUs and for the emulator of [`wtacrs_simt`].
//!
//! | room | holds |
//! |---|---|
//! | [`kernel`] | the kernels, each with its arguments, and the table of all of them |
//! | [`block`] | what they are built from: reductions, scans, tile loads |
//! | `launch` | who runs a kernel: the emulator, or the CUDA driver |
//! | `plan` | which kernels a layer needs, in which order, with how much memory |
//!
//! docs/kernels.md tells each kernel's idea, its memory traffic and its limit.
#![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx, asm_experimental_arch))]

pub mod block;
#[cfg(not(target_arch = "nvptx64"))]
pub mod device;
pub mod element;
pub mod kernel;
#[cfg(not(target_arch = "nvptx64"))]
pub mod launch;
#[cfg(not(target_arch = "nvptx64"))]
pub mod plan;

wtacrs_simt::shared_memory!();

#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wtacrs_simt::sync::trap()
}
