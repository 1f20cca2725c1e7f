//! The bodies of the kernels: the code of each thread, compiled for GPUs and for hosts with the emulator.
//!
//! | module | holds |
//! |---|---|
//! | [`block`] | the pieces that kernels are built from: reductions, scans, tile loads |
//! | [`element`] | element types of matrices |
//! | `team` | how the blocks of one problem agree on values |
//! | the others | a kernel each; the module of the same name in [`kernel`](crate::kernel) holds its arguments and launches |

pub mod alias;
pub mod block;
pub mod column_norms;
pub mod column_sums;
pub mod element;
pub mod gather_columns;
pub mod gather_gemm;
pub mod gather_pack;
pub mod gather_rows;
pub mod norm;
pub mod norm_cache;
pub mod pointwise;
pub mod predictor_update;
pub mod row_norms;
pub mod select;
pub mod softmax;
pub mod split_reduce;
mod team;
pub mod turn_back;
pub mod unpack_rows;
pub mod unpack_values;

pub use self::block::tile::{ANY, RAGGED, WHOLE};
pub use self::element::{Bf16, F16, F32};
pub use self::gather_gemm::{Full, Half, Tf32};
