//! The parts of the `wtacrs` command: reading layers and recorded steps, measuring on layers what each design's estimate of
//! a weight gradient costs and how far off it is, and on recorded steps what each source of weights makes of it.

pub mod args;
mod columns;
pub mod command;
pub mod compare;
pub mod doctor;
pub mod input;
pub mod memory;
mod numbers;
pub mod plot;
pub mod replay;
pub mod statistics;
