//! Why a text cannot be read, and why a launch fails.

use std::num::ParseIntError;
use thiserror::Error;
use wtacrs_simt::emulator::Fault;

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
    /// An operand that cannot be read.
    #[error("an operand that cannot be read ({0})")]
    Operand(String),
    /// A number that cannot be read.
    #[error(transparent)]
    Number(#[from] ParseIntError),
    /// A branch to a label that does not exist.
    #[error("no such label")]
    Label,
    /// A kernel with two parameters, or without one.
    #[error("a kernel has one parameter")]
    Parameters,
}

/// Why a launch fails.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No kernel of that name.
    #[error("there is no kernel {0}")]
    NoEntry(String),
    /// Arguments of another size than the kernel's.
    #[error("{entry} takes {expected} bytes of arguments, not {found}")]
    Arguments {
        /// The kernel.
        entry: String,
        /// Bytes of its parameter.
        expected: usize,
        /// Bytes of the launch's arguments.
        found: usize,
    },
    /// More threads than the text allows.
    #[error("{entry} takes at most {most} threads in a block, not {found}")]
    Threads {
        /// The kernel.
        entry: String,
        /// The most threads that it allows.
        most: u32,
        /// The launch's.
        found: u32,
    },
    /// A mistake of the kernel.
    #[error(transparent)]
    Fault(#[from] Fault),
}
