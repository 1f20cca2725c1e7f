//! The kernels. Each file holds one: its arguments, which a launch passes by value, and its body, generic over element
//! types where they differ. The table below makes entry points of PTX and values of [`Kernel`] out of them.
//!
//! A new kernel is a file and a line of the table.

pub mod alias;
pub mod column_norms;
pub mod gather_columns;
pub mod gather_gemm;
pub mod gather_rows;
pub mod predictor_update;
pub mod row_norms;
pub mod select;
pub mod split_reduce;
mod team;

use crate::element::{Bf16, F16, F32};
#[cfg(not(target_arch = "nvptx64"))]
use crate::launch::Kernel;
use gather_gemm::{Full, Half, Tf32};

/// `entry_point CONSTANT = body, arguments;`
macro_rules! kernels {
    ($($(#[$doc:meta])* $entry:ident $constant:ident = $body:path, $args:ty;)*) => {
        #[cfg(target_arch = "nvptx64")]
        mod entry {
            use super::*;
            $(
                $(#[$doc])*
                #[unsafe(no_mangle)]
                unsafe extern "ptx-kernel" fn $entry(args: $args) {
                    // SAFETY: whoever launches keeps the promises of the body.
                    unsafe { $body(&args) }
                }
            )*
        }

        $(
            $(#[$doc])*
            #[cfg(not(target_arch = "nvptx64"))]
            pub const $constant: Kernel<$args> = Kernel::new(stringify!($entry), $body);
        )*

        /// The names of all entry points.
        #[cfg(not(target_arch = "nvptx64"))]
        pub const ENTRY_POINTS: &[&str] = &[$(stringify!($entry)),*];
    };
}

kernels! {
    /// [`row_norms`] of f32.
    row_norms_f32 ROW_NORMS_F32 = row_norms::row_norms::<F32>, row_norms::Args;
    /// [`row_norms`] of f16.
    row_norms_f16 ROW_NORMS_F16 = row_norms::row_norms::<F16>, row_norms::Args;
    /// [`row_norms`] of bf16.
    row_norms_bf16 ROW_NORMS_BF16 = row_norms::row_norms::<Bf16>, row_norms::Args;
    /// [`column_norms`] of f32.
    column_norms_f32 COLUMN_NORMS_F32 = column_norms::column_norms::<F32>, column_norms::Args;
    /// [`column_norms`] of f16.
    column_norms_f16 COLUMN_NORMS_F16 = column_norms::column_norms::<F16>, column_norms::Args;
    /// [`column_norms`] of bf16.
    column_norms_bf16 COLUMN_NORMS_BF16 = column_norms::column_norms::<Bf16>, column_norms::Args;
    /// [`gather_columns`] of f32.
    gather_columns_f32 GATHER_COLUMNS_F32 = gather_columns::gather_columns::<F32>, gather_columns::Args;
    /// [`gather_columns`] of f16.
    gather_columns_f16 GATHER_COLUMNS_F16 = gather_columns::gather_columns::<F16>, gather_columns::Args;
    /// [`gather_columns`] of bf16.
    gather_columns_bf16 GATHER_COLUMNS_BF16 = gather_columns::gather_columns::<Bf16>, gather_columns::Args;
    /// [`gather_rows`] of f32.
    gather_rows_f32 GATHER_ROWS_F32 = gather_rows::gather_rows::<F32>, gather_rows::Args;
    /// [`gather_rows`] of f16.
    gather_rows_f16 GATHER_ROWS_F16 = gather_rows::gather_rows::<F16>, gather_rows::Args;
    /// [`gather_rows`] of bf16.
    gather_rows_bf16 GATHER_ROWS_BF16 = gather_rows::gather_rows::<Bf16>, gather_rows::Args;
    /// The first launch of [`predictor_update`], for rows of f32.
    predictor_features_f32 PREDICTOR_FEATURES_F32 =
        predictor_update::predictor_features::<F32>, predictor_update::Args;
    /// The first launch of [`predictor_update`], for rows of f16.
    predictor_features_f16 PREDICTOR_FEATURES_F16 =
        predictor_update::predictor_features::<F16>, predictor_update::Args;
    /// The first launch of [`predictor_update`], for rows of bf16.
    predictor_features_bf16 PREDICTOR_FEATURES_BF16 =
        predictor_update::predictor_features::<Bf16>, predictor_update::Args;
    /// The second launch of [`predictor_update`].
    predictor_sums PREDICTOR_SUMS = predictor_update::predictor_sums, predictor_update::Args;
    /// The third launch of [`predictor_update`].
    predictor_apply PREDICTOR_APPLY = predictor_update::predictor_apply, predictor_update::Args;
    /// [`select`]: every source and design.
    select SELECT = select::select, select::Args;
    /// [`alias`]: builds tables.
    alias_build ALIAS_BUILD = alias::alias_build, alias::BuildArgs;
    /// [`alias`]: draws from them.
    alias_sample ALIAS_SAMPLE = alias::alias_sample, alias::SampleArgs;
    /// [`gather_gemm`] of bf16, 128 × 256.
    gather_gemm_bf16_wide GATHER_GEMM_BF16_WIDE =
        gather_gemm::gather_gemm::<Half<Bf16, 256, 256>, true>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, 128 × 128.
    gather_gemm_bf16_square GATHER_GEMM_BF16_SQUARE =
        gather_gemm::gather_gemm::<Half<Bf16, 128, 128>, true>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, any alignment.
    gather_gemm_bf16_any GATHER_GEMM_BF16_ANY =
        gather_gemm::gather_gemm::<Half<Bf16, 128, 256>, false>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 128 × 256.
    gather_gemm_f16_wide GATHER_GEMM_F16_WIDE =
        gather_gemm::gather_gemm::<Half<F16, 256, 256>, true>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 128 × 128.
    gather_gemm_f16_square GATHER_GEMM_F16_SQUARE =
        gather_gemm::gather_gemm::<Half<F16, 128, 128>, true>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, any alignment.
    gather_gemm_f16_any GATHER_GEMM_F16_ANY =
        gather_gemm::gather_gemm::<Half<F16, 128, 256>, false>, gather_gemm::Args;
    /// [`gather_gemm`] of f32.
    gather_gemm_f32 GATHER_GEMM_F32 = gather_gemm::gather_gemm::<Full, true>, gather_gemm::Args;
    /// [`gather_gemm`] of f32, of any alignment.
    gather_gemm_f32_any GATHER_GEMM_F32_ANY = gather_gemm::gather_gemm::<Full, false>, gather_gemm::Args;
    /// [`gather_gemm`] of f32 by tf32.
    gather_gemm_tf32 GATHER_GEMM_TF32 = gather_gemm::gather_gemm::<Tf32, true>, gather_gemm::Args;
    /// [`gather_gemm`] of f32 by tf32, of any alignment.
    gather_gemm_tf32_any GATHER_GEMM_TF32_ANY = gather_gemm::gather_gemm::<Tf32, false>, gather_gemm::Args;
    /// [`split_reduce`].
    split_reduce SPLIT_REDUCE = split_reduce::split_reduce, split_reduce::Args;
}
