//! Runs a grid on the CPU and names what a GPU would only get wrong.
//!
//! Every GPU thread is a stackful coroutine. The threads of a block run on one OS thread, one at a time, each until it
//! waits in a collective operation or ends; blocks run in parallel, or, in a cooperative launch, all interleaved on one
//! OS thread. The last thread to arrive at a collective operation does its work for all, and goes on.
//!
//! # What it promises
//!
//! A launch that returns `Ok` has, in the order of threads that [`Launch::seed`] gave,
//!
//! - met at every barrier with all threads of the block, at one place of the source, and at every operation of a warp
//!   with all lanes of the mask, each naming the same mask and the same operation, at one place where it is one of the matrix
//!   units', which PTX calls aligned;
//! - named no lane in a mask that had ended, and shuffled from no lane outside of it;
//! - accessed shared memory within its windows and the launch's bytes, aligned, after it was written and after every
//!   copy into it had landed; ended no thread with a copy under way;
//! - accessed no byte of shared memory from two threads, one of them writing, without a barrier of the block or a chain
//!   of barriers of the warp between (shuffles and votes order nothing), atomic operations among themselves excepted;
//! - loaded from and stored to global memory at addresses that the access's size divides;
//! - waited for other blocks only where all blocks are resident, and for something that came: where only spinning
//!   threads are left and nothing has changed for a thousand rounds, nothing will; nor where a thread has looked at one word
//!   65,536 times while no other thread changed anything or came to a barrier with it, or 16,777,216 times.
//!
//! What went wrong is a [`Fault`], which names the block, the threads and lanes, and the places in the source. The same
//! seed gives the same order of a block's threads on every machine, and the same fault, unless blocks change what others
//! do; 0 is the order of indices, and
//! other seeds are its reverse, random orders that pause at atomic operations too, and orders that drive one warp as
//! far as it goes. Asynchronous copies read their source when they land, at the last moment allowed.
//!
//! Global memory is ordinary memory in ordinary accesses, so AddressSanitizer sees a stray one, on every thread's stack
//! too (feature `sanitizer`; the command is in `tests/sanitizer.rs`). Arithmetic rounds as on the GPU, bit for bit, but
//! for the order of sums inside of a matrix unit: here products are exact and are added one after another in f32.
//!
//! # What it cannot show
//!
//! - Races on global memory: no access of it is recorded. Some seed may show one in the result.
//! - The GPU's weak memory: here a write is visible at once to all that run on the same OS thread, so a missing fence
//!   rarely shows. A fence, an acquire or a release also stops the search for races on shared memory among accesses
//!   before and after it.
//! - Interleavings within a stretch between two calls of this crate's functions, where a thread runs alone.
//! - Caches: a [`load_constant`](crate::memory::load_constant) of what the launch has written gives the new value here.
//! - Bits of NaNs, which conversions and sums may choose; the rounding inside of matrix units.
//! - Time, registers, occupancy, bank conflicts, coalescing.
//! - Kernels of more than 24,576 threads that must be resident together, and frames of more than 200 KiB.
//!
//! # What it costs
//!
//! A thread's call of a barrier or a shuffle is two switches of stacks, 10 to 20 ns, and up to twice that under orders
//! that leap from warp to warp; an access of shared memory is 5 to 20 ns, one of global memory 1 ns
//! (`cargo run -p wtacrs-simt --example speed`).

mod fault;
mod lanes;
mod machine;
mod order;
mod schedule;
mod shadow;
mod shape;
mod stack;

pub(crate) mod body;

pub use self::fault::{Culprit, Doing, Fault, MaskMisuse, Operation, Place, Stand};
pub use self::schedule::{count, launch};
pub use self::shape::{Counts, Launch};
