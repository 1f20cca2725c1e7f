//! Plans: the kernels that a layer launches, in order, with their memory. A plan is made once and runs on any launcher.
//!
//! ```text
//! forward    H ── row_norms ── select ── gather_rows ── saved                          3 launches
//! backward   dZ ── row_norms        saved, dZ ── gather_gemm ── split_reduce ── dW     3 launches at most
//! cuBLASLt   dZ ── row_norms_gather   saved, kept rows of dZ ── cublasLtMatmul ── dW   2 launches, 3 with bias
//! with bias  dZ ── row_norms_sums   saved, dZ ── gather_gemm ── split_reduce_sums ── dW   3 launches
//! for dA     G ── column_norms      G, saved ── gather_columns ── gather_gemm ── split_reduce ── dA  4 at most
//! update     saved, norms of dZ ── predictor_features ── predictor_sums ── predictor_apply  3 launches
//!
//! packed     H ── row_norms ── select ── gather_pack ── saved                          3 launches
//! all rows   H ── gather_pack ── saved                                                 1 launch
//! backward   dZ ── row_norms        saved, dZ ── unpack_rows ── gather_gemm ── turn_back_down ── dW  4 launches
//! for dA     G ── column_norms      G, saved ── unpack_rows ── gather_columns ── gather_gemm ── turn_back_along ── dA  5
//!
//! operators  x ── pointwise_forward, softmax_forward or norm_forward ── y, saved       1 launch
//! backward   dY, saved ── pointwise_backward, softmax_backward or norm_backward ── dX  1 launch
//!            partial sums ── split_reduce_sums ── gradient of a norm's weight or bias  1 launch each
//! ```
//!
//! | plan | of |
//! |---|---|
//! | [`LinearPlan`] | a linear layer Z = H·W, or a batch of them |
//! | [`MatmulPlan`], [`ColumnsPlan`] | the products of attention |
//! | [`PredictorPlan`], [`NormCachePlan`] | the guesses of ‖dZ‖ |
//! | [`OperatorPlan`] | an activation function, a gated unit, dropout, softmax or a norm |
//!
//! A plan is immutable, `Send` and `Sync`. Scratch and saved memory belong to the caller, one of each for every call in
//! flight. Scratch is dead when the launches of one call have run; saved memory lives from forward to backward.
//!
//! Settings grow: make them with `new`, then assign their public fields.

mod columns;
mod engine;
mod error;
mod factors;
mod gradient;
mod kernels;
mod linear;
mod matmul;
mod memory;
mod norm_cache;
mod norms;
mod operator;
mod packed;
mod predictor;
mod product;
mod sample;
mod saved;
mod settings;
mod steps;
pub mod tiling;

pub use self::columns::ColumnsPlan;
pub use self::error::{ExecuteError, PlanError};
pub use self::linear::LinearPlan;
pub use self::matmul::{MatmulPlan, MatmulSettings};
pub use self::memory::{ALIGNMENT, Layout, Memory, Part};
pub use self::norm_cache::{CacheBatch, CacheMisfit, NormCachePlan};
pub use self::norms::{Matrix, launch_column_norms, launch_row_norms};
pub use self::operator::{OperatorBackward, OperatorForward, OperatorParts, OperatorPlan, OperatorSettings};
pub use self::predictor::{PredictorPlan, UpdateBuffers};
pub use self::product::BackwardBuffers;
pub use self::sample::{DeviceRandomness, ForwardBuffers};
pub use self::saved::SavedParts;
pub use self::settings::{Engine, LinearSettings, Precision, Strides, WeightSource};
pub use self::steps::{GatherBuffers, GradientBuffers, SelectBuffers};
pub use crate::kernel::matrix::{DataType, Spacing};
