//! Runs a grid on the CPU, and reports the mistakes that a GPU hides behind a wrong result.
//!
//! Every GPU thread is a stackful coroutine. The threads of a block run on one OS thread, one at a time, each until it
//! waits in a collective operation or ends. Blocks run in parallel, or, in a cooperative launch, all interleaved on one OS
//! thread. The last thread to arrive at a collective operation does its work for all, and goes on.
//!
//! # What it promises
//!
//! If a launch returns `Ok`, then in the order of threads of its [seed](Launch::seed):
//!
//! - All threads of a block came to every barrier, at one place of the source. All lanes of a mask came to every operation of
//!   the warp, with the same mask and the same operation; and at one place where the operation is a matrix unit's, which PTX
//!   calls aligned.
//! - No mask named a lane that had ended, and no shuffle read from a lane outside of its mask.
//! - Every access to shared memory was aligned, within its window and the launch's bytes, after the bytes were written, and
//!   after every copy into them had landed. No thread ended with a copy under way.
//! - No two threads accessed the same byte of shared memory, one of them writing, without a barrier of the block or a chain
//!   of barriers of the warp between. Shuffles and votes order nothing; atomic operations need no order among themselves.
//! - Loads and stores of global memory had addresses that the access's size divides.
//! - Threads waited for other blocks only where all blocks are resident, and not in vain. A wait is in vain if only spinning
//!   threads are left and nothing has changed for a thousand rounds; if a thread has read one word 65,536 times while no other
//!   thread changed anything or came to a barrier with it; or if it has read the word 16,777,216 times.
//!
//! A mistake is reported as a [`Fault`], which names the block, the threads and lanes, and the places in the source. A seed
//! gives one order of a block's threads on every machine, and one fault, unless blocks depend on one another. Seed 0 is the
//! order of indices. Other seeds are its reverse, random orders that also pause at atomic operations, and orders that run
//! one warp as far as it goes. Asynchronous copies read their source when they land, at the last moment allowed.
//!
//! Global memory is ordinary memory in ordinary accesses, so AddressSanitizer sees a stray one, on every thread's stack
//! too (feature `sanitizer`; the command is in `tests/sanitizer.rs`). Arithmetic rounds as on the GPU, bit for bit, except
//! for the order of sums inside of a matrix unit: here products are exact and are added one after another in f32.
//!
//! # What it cannot show
//!
//! - Races on global memory: accesses to it are not recorded. Some seed may show one in the result.
//! - The GPU's weak memory: here a write is visible at once to all threads on the same OS thread, so a missing fence rarely
//!   shows. A fence, an acquire or a release also ends the search for races on shared memory between accesses before and
//!   after it.
//! - Interleavings between two calls of this crate's functions: a thread runs alone there.
//! - Caches: a [`load_constant`](crate::memory::load_constant) of memory that the launch has written returns the new value.
//! - Bits of NaNs, which conversions and sums may choose; the rounding inside of matrix units.
//! - Time, registers, occupancy, bank conflicts, coalescing.
//! - Kernels of more than 24,576 threads that must be resident together, and frames of more than 200 KiB.
//!
//! # What it costs
//!
//! A thread's call of a barrier or a shuffle takes two switches of stacks, 10 to 20 ns, and up to twice that in orders that
//! change from warp to warp. An access to shared memory takes 5 to 20 ns, one to global memory 1 ns
//! (`cargo run -p wtacrs-simt --features emulator --example speed`).

mod fault;
mod lanes;
mod machine;
mod order;
mod schedule;
mod shadow;
mod shape;
mod stack;

pub(crate) mod body;

pub use self::fault::{Activity, Culprit, Fault, MaskMisuse, Operation, Place, ThreadGroup};
pub use self::schedule::{count, launch};
pub use self::shape::{Counts, Launch};
