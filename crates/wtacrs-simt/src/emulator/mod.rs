//! Runs a grid on the CPU, and reports the mistakes that a GPU hides behind a wrong result.
//!
//! Every GPU thread is a stackful coroutine. The threads of a launch run on one OS thread, one at a time, each until it
//! waits in a collective operation or ends. Blocks run one after another, or, in a cooperative launch, all interleaved. The
//! last thread to arrive at a collective operation does its work for all, and goes on.
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
//! - No two threads accessed the same byte of global memory, one of them writing, with nothing to order them. Threads of a
//!   block are ordered by barriers, and threads of any blocks by fences around an atomic store or change and the load that
//!   reads it, by releases and acquires, and by chains of all these. Operations of a whole warp order earlier reads of its
//!   lanes before later writes. Atomic operations need no order among themselves.
//! - No copy's source was written before the copy had landed, and no load by the read-only path followed a store there.
//! - Threads waited for other blocks only where all blocks are resident, and not in vain. A wait is in vain if only spinning
//!   threads are left and nothing has changed for a thousand rounds; if a thread has read one word 65,536 times while no other
//!   thread changed anything or came to a barrier with it; or if it has read the word 16,777,216 times.
//!
//! A mistake is reported as a [`Fault`], which names the block, the threads and lanes, and the places in the source. A seed
//! gives one order of a launch's threads on every machine, and one fault. Seed 0 is the order of indices. Other seeds are
//! its reverse, random orders that also pause at atomic operations, and orders that run one warp as far as it goes. In random
//! orders, relaxed stores reach other blocks late and out of order, where no fence forbids it. Asynchronous copies read their
//! source when they land, at the last moment allowed (seed 0), at their issue (reverse), or at issue, commit or wait, at random.
//!
//! Global memory is ordinary memory in ordinary accesses, so AddressSanitizer sees a stray one, on every thread's stack
//! too (feature `sanitizer`; the command is in `tests/sanitizer.rs`). Arithmetic rounds as on the GPU, bit for bit, except
//! for the order of sums inside of a matrix unit: here products are exact and are added one after another in f32.
//!
//! # What it cannot show
//!
//! - A lane's read of global memory that a compiler moves behind an operation of the warp because nothing needs its value
//!   before, and behind another lane's write.
//! - Races of plain accesses through pointers (`*pointer`), which are not recorded; of launches of more than 2²⁰ blocks; and of
//!   blocks that have synchronised more than 2²¹ times.
//! - A race with a reader of global memory that two later readers have displaced from the record, or with all but two of the
//!   atomic changes that do not know of one another.
//! - Relaxed loads that a GPU moves before earlier ones.
//! - Atomic changes that a GPU completes in another order than they were issued in: here they are done at once.
//! - Races on shared memory between accesses before and after a fence, an acquire or a release.
//! - Interleavings between two calls of this crate's functions: a thread runs alone there.
//! - A store to memory that the launch has read by [`load_constant`](crate::memory::load_constant), in an order that a barrier
//!   or the thread itself guarantees.
//! - Bits of NaNs, which conversions and sums may choose; the rounding inside of matrix units.
//! - Time, registers, occupancy, bank conflicts, coalescing.
//! - Kernels of more than 24,576 threads that must be resident together, and frames of more than 200 KiB.
//!
//! # What it costs
//!
//! A thread's call of a barrier or a shuffle takes two switches of stacks, 10 to 20 ns, and up to twice that in orders that
//! change from warp to warp. Memory takes ten times the global memory that a launch accesses, and more where accesses are of
//! less than four bytes. An access to shared memory takes 5 to 20 ns, one to global memory 5 to 10 ns
//! (`cargo run -p wtacrs-simt --features emulator --example speed`).

mod access;
mod clocks;
mod fault;
mod global;
mod lanes;
mod machine;
mod order;
mod place;
mod release;
mod schedule;
mod shadow;
mod shape;
mod stack;
mod stores;

pub(crate) mod body;

pub use self::fault::{Activity, Culprit, Fault, MaskMisuse, Operation, Place, ThreadGroup};
pub use self::schedule::{count, launch};
pub use self::shape::{Counts, Launch};
