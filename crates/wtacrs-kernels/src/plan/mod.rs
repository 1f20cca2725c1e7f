//! Which kernels a layer needs, in which order, with how much memory: made once, then run on any launcher.
//!
//! ```text
//! forward    H ── row_norms ── select ── gather_rows ── saved                          3 launches
//! backward   dZ ── row_norms        saved, dZ ── gather_gemm ── split_reduce ── dW     3 launches at most
//! with bias  dZ ── row_norms_sums   saved, dZ ── gather_gemm ── split_reduce_sums ── dW   3 launches
//! for dA     G ── column_norms      G, saved ── gather_columns ── gather_gemm ── split_reduce ── dA  4 at most
//! update     saved, norms of dZ ── predictor_features ── predictor_sums ── predictor_apply  3 launches
//! ```
//!
//! A plan is immutable, `Send` and `Sync`; scratch and saved memory are the caller's, one of each for every call in
//! flight. What is scratch is dead when the launches of one call have run; what is saved lives from forward to backward.
//! [`LinearPlan`] is for a layer Z = H·W, [`MatmulPlan`] for the products of attention, [`PredictorPlan`]
//! and [`NormCachePlan`] for what guesses ‖dZ‖.

mod columns;
mod error;
mod kernels;
mod linear;
mod matmul;
mod memory;
mod norm_cache;
mod norms;
mod predictor;
mod product;
mod sample;
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
pub use self::predictor::{PredictorPlan, UpdateBuffers};
pub use self::product::BackwardBuffers;
pub use self::sample::{DeviceRandomness, ForwardBuffers, SavedParts};
pub use self::settings::{LinearSettings, Precision, Strides, WeightSource};
pub use self::steps::{GatherBuffers, GradientBuffers, SelectBuffers};
pub use crate::kernel::matrix::{DataType, Spacing};
