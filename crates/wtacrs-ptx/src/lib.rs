//! PTX on the CPU: the text that a GPU's driver gets, run instruction by instruction.
//!
//! The emulator of wtacrs-simt runs the kernels as the host's compiler made them. What rustc made of them for a GPU (the
//! bodies of wtacrs-simt that only exist there, inline assembly, barriers that an optimisation moved) is in the PTX, and
//! that is what this crate runs: each thread of a launch on the emulator interprets the text. Arithmetic, memory and
//! branches are done here, after the PTX ISA; what threads do together (barriers, shuffles, asynchronous copies, matrix
//! units) is the emulator's, with all its checks.
//!
//! Beyond those, a run fails where the lanes of a warp meet at different instructions, which the emulator cannot see
//! since all of them are one place of this crate's source.
//!
//! # What it cannot show
//!
//! What ptxas makes of the text, and all that the emulator cannot show. It knows the instructions that the kernels use;
//! another one is an error when a text is read, never a guess.

mod arithmetic;
mod instruction;
mod parse;
mod thread;

use instruction::Instruction;
use std::collections::BTreeMap;
use std::num::ParseIntError;
use thiserror::Error;
use wtacrs_simt::emulator;
pub use wtacrs_simt::emulator::{Fault, Launch};

/// The kernels of a text.
#[derive(Debug)]
pub struct Module {
    entries: BTreeMap<String, Entry>,
}

/// One kernel.
#[derive(Debug)]
struct Entry {
    /// Of its one parameter.
    parameter_bytes: usize,
    /// The most threads that a block may have, where the text says so.
    most_threads: u32,
    registers: u32,
    instructions: Vec<Instruction>,
}

/// What a launch was given, which all its threads read.
#[derive(Clone, Copy)]
struct Arguments {
    first: *const u8,
    bytes: usize,
}

// SAFETY: it is only read, and outlives the launch.
unsafe impl Sync for Arguments {}

impl Arguments {
    /// So many bytes at an offset, the lowest first.
    ///
    /// # Safety
    ///
    /// A value lies there, not the room between two.
    unsafe fn read(&self, offset: usize, bytes: usize) -> u64 {
        assert!(offset + bytes <= self.bytes, "byte {offset} of {} bytes of arguments", self.bytes);
        let mut value = [0; 8];
        // SAFETY: within the arguments, as was checked; the caller promises that something was written there.
        unsafe { value.as_mut_ptr().copy_from_nonoverlapping(self.first.add(offset), bytes) };
        u64::from_le_bytes(value)
    }
}

/// Why a text cannot be read.
#[derive(Debug, Error)]
#[error("line {line}: {reason}: {statement}")]
pub struct ReadError {
    /// Of the text, from 1.
    pub line: u32,
    /// As it stands there.
    pub statement: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a statement.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Reason {
    /// An instruction, or a form of one, that no kernel had so far.
    #[error("an instruction that is not known here")]
    Unknown,
    /// An operand that is none.
    #[error("an operand that cannot be read ({0})")]
    Operand(String),
    /// A number that is none.
    #[error(transparent)]
    Number(#[from] ParseIntError),
    /// A branch to nowhere.
    #[error("no such label")]
    Label,
    /// Two parameters, or none.
    #[error("a kernel has one parameter")]
    Parameters,
}

/// Why a launch fails.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// No kernel of that name.
    #[error("there is no kernel {0}")]
    NoEntry(String),
    /// Arguments of another size than the kernel's.
    #[error("{entry} takes {expected} bytes of arguments, not {found}")]
    Arguments {
        /// The kernel.
        entry: String,
        /// What it takes.
        expected: usize,
        /// What it was given.
        found: usize,
    },
    /// More threads than the text allows.
    #[error("{entry} takes at most {most} threads in a block, not {found}")]
    Threads {
        /// The kernel.
        entry: String,
        /// What it takes.
        most: u32,
        /// What it was given.
        found: u32,
    },
    /// A mistake of the kernel.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Module {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// The first statement that is not understood.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        Ok(Self { entries: parse::entries(text)? })
    }

    /// Runs a kernel on the emulator.
    ///
    /// # Errors
    ///
    /// A launch that does not fit the kernel, or a mistake that the emulator finds.
    ///
    /// # Safety
    ///
    /// `arguments` is what the kernel takes by value, laid out as in C, and keeps the promises that it asks for: its
    /// pointers lead to memory of this process.
    pub unsafe fn launch<A: Copy>(&self, entry: &str, shape: Launch, arguments: &A) -> Result<(), LaunchError> {
        let kernel = self.entries.get(entry).ok_or_else(|| LaunchError::NoEntry(entry.into()))?;
        let (expected, found) = (kernel.parameter_bytes, size_of::<A>());
        if expected != found {
            return Err(LaunchError::Arguments { entry: entry.into(), expected, found });
        }
        if shape.block > kernel.most_threads {
            return Err(LaunchError::Threads { entry: entry.into(), most: kernel.most_threads, found: shape.block });
        }
        let arguments = Arguments { first: (&raw const *arguments).cast(), bytes: found };
        // SAFETY: the caller's promise is the kernel's.
        emulator::launch(shape, &|| unsafe { thread::run(kernel, shape.shared_bytes, arguments) })?;
        Ok(())
    }
}
