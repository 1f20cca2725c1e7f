//! What each thread of a kernel does: compiled for GPUs, and for hosts that have the emulator.
//!
//! | module | holds |
//! |---|---|
//! | [`block`] | the pieces that kernels are built from: reductions, scans, tile loads |
//! | [`element`] | element types of matrices |
//! | `team` | how the blocks of one problem agree on values |
//! | the others | a kernel each, with the name of the module beside this one that holds its arguments and launches |

pub mod alias;
pub mod block;
pub mod column_norms;
pub mod column_sums;
pub mod element;
pub mod gather_columns;
pub mod gather_gemm;
pub mod gather_rows;
pub mod norm_cache;
pub mod predictor_update;
pub mod row_norms;
pub mod select;
pub mod split_reduce;
mod team;

pub use self::block::tile::{ANY, RAGGED, WHOLE};
pub use self::element::{Bf16, F16, F32};
pub use self::gather_gemm::{Full, Half, Tf32};
