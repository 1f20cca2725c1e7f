//! Runs a grid on the CPU and names what a GPU would only get wrong.
//!
//! Every GPU thread is a stackful coroutine. The threads of a block run on one OS thread, one at a time, until each
//! waits in a collective operation or ends; blocks run in parallel, or, in a cooperative launch, all interleaved on one
//! OS thread. Which of the ready threads goes on is drawn from [`Launch::seed`], so a missing barrier shows under some
//! seed even where no check sees it.

pub(crate) mod body;
mod fault;
mod machine;
mod order;
mod rendezvous;
mod schedule;
mod shadow;
mod stack;

pub use fault::{Culprit, Doing, Fault, MaskMisuse, Operation, Place, Stand};

/// The shape of a launch, and the order in which its threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks: x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block: a multiple of 32, at most 1024.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Whether blocks wait for one another, so that all of them must be resident at once.
    pub cooperative: bool,
    /// Of the order in which ready threads run; 0 is the order of their indices.
    pub seed: u64,
}

/// Runs `kernel` once by every thread of the launch.
///
/// # Errors
///
/// The first mistake that a thread of the lowest faulty block makes. What the kernel has written until then stays.
pub fn launch(launch: Launch, kernel: &(dyn Fn() + Sync)) -> Result<(), Fault> {
    schedule::run(launch, kernel)
}
