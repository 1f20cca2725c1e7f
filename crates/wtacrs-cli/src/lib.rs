//! The parts of the `wtacrs` command: reading layers, and measuring on them what each design's estimate of a weight
//! gradient costs and how far off it is.

pub mod args;
pub mod command;
pub mod compare;
pub mod formats;
pub mod input;
mod numbers;
pub mod plot;
pub mod report;
pub mod statistics;
pub mod table;
