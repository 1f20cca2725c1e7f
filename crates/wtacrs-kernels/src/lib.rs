//! The GPU kernels of column-row sampling, one source for NVIDIA GPUs and for the emulator of [`wtacrs_simt`].
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | the launches that a layer needs, in order, with their memory |
//! | [`launch`] | a launch, and the launchers: the CUDA driver, the emulator |
//! | [`kernel`] | the kernels: arguments and launch shapes of each, the table of all, and in `body` what their threads do |
//! | [`device`] | a GPU's properties |
//!
//! docs/kernels.md describes each kernel's idea, its memory traffic and its limit.
//!
//! # Features
//!
//! - `emulator`: the kernels' bodies on the host, and the launcher that runs them there. Without it the crate has plans,
//!   arguments, the CUDA driver and the PTX, which is all that a GPU needs.
//! - `sanitizer`: the emulator in builds with AddressSanitizer.
#![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx, asm_experimental_arch))]

#[cfg(not(target_arch = "nvptx64"))]
pub mod device;
pub mod kernel;
pub mod launch;
#[cfg(not(target_arch = "nvptx64"))]
pub mod plan;

wtacrs_simt::shared_memory!();

#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wtacrs_simt::sync::trap()
}
