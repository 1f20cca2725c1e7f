//! The arithmetic that decides which column-row pairs are kept, shared bit for bit by CPUs and GPUs.
//!
//! Selections must not depend on the device, the number of threads or the shape of a launch. So every decision is made
//! in integers, in counter-based random bits, or in a fixed sequence of f64 operations, and each of them stands here
//! once. `wtacrs-core` builds the CPU path on it and re-exports what its users need; `wtacrs-kernels` compiles the same
//! functions for `nvptx64-nvidia-cuda`. The crate needs neither `std` nor an allocator.
//!
//! | module | settles |
//! |---|---|
//! | [`weighing`] | one pair's weight, in f64 |
//! | [`fixed_point`] | weights as integers whose sum fits 62 bits |
//! | [`threshold`] | winners and the tail's mass, without a sort |
//! | [`philox`] | 128 random bits for each counter |
//! | [`random`] | (seed, offset), streams of bits, and integers made of them |
//! | [`duel`] | one duel of pivotal sampling |
//! | [`alias`] | one slot of an alias table |
//! | [`scales`] | what a kept pair counts |
//! | [`packing`] | rows in 8, 4 or 2 bits an element: groups, rotation, grids, dithers, codes |
//! | [`operators`] | activation functions, values in few bits, dropout's masks |
//! | [`predictor`] | which rows a norm predictor learns from, on which grid, and where its sums and its state lie |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub mod alias;
pub mod duel;
pub mod fixed_point;
pub mod operators;
pub mod packing;
pub mod philox;
pub mod predictor;
pub mod random;
pub mod scales;
pub mod threshold;
pub mod weighing;
