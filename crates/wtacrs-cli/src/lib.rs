//! The parts of the `wtacrs` command.
//!
//! | module | holds |
//! |---|---|
//! | [`compare`] | `wtacrs compare`: each design's error and cost on recorded layers |
//! | [`replay`] | `wtacrs replay`: what each source of weights loses on recorded training steps |
//! | [`allocate`] | `wtacrs allocate`: one memory budget shared out among recorded layers |
//! | [`memory`] | `wtacrs memory`: bytes that a model saves from the forward to the backward pass |
//! | [`doctor`] | `wtacrs doctor`: what this machine can run on |
//! | [`input`] | layers and recordings, read from files |
//! | [`estimates`] | estimates of a layer's weight gradient, and the exact gradient that they are compared with |
//! | [`figure`] | figures, drawn as SVG or PNG |
//! | [`labels`] | the labels of all results: sources of weights, budgets, shares of memory |
//! | [`statistics`] | errors of repeated estimates |
//! | [`run`], [`text`] | what the subcommands share: threads and output, tables and CSV |
//!
//! Each subcommand's module has its arguments and `run`, which takes them to its output; below it, the measurement and the
//! report (table, JSON, CSV, figure).

pub mod allocate;
pub mod compare;
pub mod doctor;
pub mod estimates;
pub mod figure;
pub mod input;
pub mod labels;
pub mod memory;
pub mod replay;
pub mod run;
pub mod statistics;
pub mod text;
