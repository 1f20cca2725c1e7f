//! PTX on the CPU: runs the text that a GPU's driver receives, instruction by instruction.
//!
//! The emulator of wtacrs-simt runs the kernels as the host's compiler built them. For a GPU, rustc builds other code:
//! bodies of wtacrs-simt that exist only there, inline assembly, barriers that an optimisation may have moved. All of that
//! is in the PTX, and this crate runs the PTX: each thread of a launch on the emulator interprets the text. Arithmetic,
//! memory and branches follow the PTX ISA here. Barriers, shuffles, asynchronous copies and matrix units are the emulator's,
//! with all its checks.
//!
//! A run also fails where the lanes of a warp meet at different instructions. The emulator cannot see that, because all
//! collective instructions are one place of this crate's source.
//!
//! [`Module::measure`] also counts what a launch asks of global memory.
//!
//! # What it cannot show
//!
//! The code that ptxas generates from the text, and everything that the emulator cannot show. It knows the instructions
//! that the kernels use. Any other instruction is an error when the text is read.

mod arithmetic;
mod error;
mod instruction;
mod module;
mod opcode;
mod parse;
mod thread;
mod traffic;

pub use error::{LaunchError, ReadError, Reason};
pub use module::Module;
pub use traffic::Traffic;
pub use wtacrs_simt::emulator::{Fault, Launch};
