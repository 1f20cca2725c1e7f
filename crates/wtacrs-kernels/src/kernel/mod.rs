//! The kernels. Each has a module here with its arguments, which a launch passes by value, and the shapes of its launches.
//! The module of the same name in `body` has the code of its threads, generic over element types where they differ. The
//! table below defines an entry point of the PTX and a [`Kernel`] for each.

pub mod alias;
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
pub mod body;
pub mod column_norms;
pub mod column_sums;
pub mod gather_columns;
pub mod gather_gemm;
pub mod gather_pack;
pub mod gather_rows;
pub mod matrix;
pub mod norm;
pub mod norm_cache;
pub mod operator;
pub mod packed_rows;
pub mod pointwise;
pub mod predictor_update;
pub mod row_norms;
pub mod row_team;
pub mod select;
pub mod softmax;
pub mod split_reduce;
pub mod team;
pub mod turn_back;
pub mod unpack_rows;
pub mod unpack_values;

#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
use self::body::{ANY, Bf16, F16, F32, Full, Half, RAGGED, Tf32, WHOLE};
use crate::launch::{Entry, Kernel};
use core::marker::PhantomData;

/// `entry_point CONSTANT [most threads of a block] = body, arguments;`
macro_rules! kernels {
    ($($(#[$doc:meta])* $entry:ident $constant:ident [$threads:literal] = $body:path, $args:ty;)*) => {
        #[cfg(target_arch = "nvptx64")]
        mod entry {
            use super::*;
            $(
                $(#[$doc])*
                #[unsafe(no_mangle)]
                unsafe extern "ptx-kernel" fn $entry(args: $args) {
                    wtacrs_simt::index::at_most::<$threads>();
                    // SAFETY: the launch keeps the promises of the body.
                    unsafe { $body(&args) }
                }
            )*
        }

        // Functions that are not generic are compiled with this crate, and not again with every user of it.
        #[cfg(feature = "emulator")]
        mod entry {
            use super::*;
            $(
                pub(super) unsafe fn $entry(args: &$args) {
                    // SAFETY: the launch keeps the promises of the body.
                    unsafe { $body(args) }
                }
            )*
        }

        $(
            $(#[$doc])*
            pub const $constant: Kernel<$args> = Kernel {
                entry: Entry { name: stringify!($entry), number: Place::$entry as usize },
                most_threads: $threads,
                args: PhantomData,
                #[cfg(feature = "emulator")]
                body: entry::$entry,
            };
        )*

        /// The places of entry points in the table.
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Place {
            $($entry),*
        }

        /// The names of all entry points.
        pub const ENTRY_POINTS: &[&str] = &[$(stringify!($entry)),*];
    };
}

kernels! {
    /// [`row_norms`] of f32, aligned.
    row_norms_f32 ROW_NORMS_F32 [256] = body::row_norms::row_norms::<F32, true>, row_norms::Args;
    /// [`row_norms`] of f32, any alignment.
    row_norms_f32_any ROW_NORMS_F32_ANY [256] = body::row_norms::row_norms::<F32, false>, row_norms::Args;
    /// [`row_norms`] of f16, aligned.
    row_norms_f16 ROW_NORMS_F16 [256] = body::row_norms::row_norms::<F16, true>, row_norms::Args;
    /// [`row_norms`] of f16, any alignment.
    row_norms_f16_any ROW_NORMS_F16_ANY [256] = body::row_norms::row_norms::<F16, false>, row_norms::Args;
    /// [`row_norms`] of bf16, aligned.
    row_norms_bf16 ROW_NORMS_BF16 [256] = body::row_norms::row_norms::<Bf16, true>, row_norms::Args;
    /// [`row_norms`] of bf16, any alignment.
    row_norms_bf16_any ROW_NORMS_BF16_ANY [256] = body::row_norms::row_norms::<Bf16, false>, row_norms::Args;
    /// The first launch of [`column_sums`], of f32.
    row_norms_sums_f32 ROW_NORMS_SUMS_F32 [256] = body::column_sums::row_norms_sums::<F32>, column_sums::Args;
    /// The first launch of [`column_sums`], of f16.
    row_norms_sums_f16 ROW_NORMS_SUMS_F16 [256] = body::column_sums::row_norms_sums::<F16>, column_sums::Args;
    /// The first launch of [`column_sums`], of bf16.
    row_norms_sums_bf16 ROW_NORMS_SUMS_BF16 [256] = body::column_sums::row_norms_sums::<Bf16>, column_sums::Args;
    /// The same with copies of some rows, of f32.
    row_norms_gather_f32 ROW_NORMS_GATHER_F32 [256] = body::column_sums::row_norms_gather::<F32>, column_sums::GatherArgs;
    /// The same with copies of some rows, of f16.
    row_norms_gather_f16 ROW_NORMS_GATHER_F16 [256] = body::column_sums::row_norms_gather::<F16>, column_sums::GatherArgs;
    /// The same with copies of some rows, of bf16.
    row_norms_gather_bf16 ROW_NORMS_GATHER_BF16 [256] = body::column_sums::row_norms_gather::<Bf16>, column_sums::GatherArgs;
    /// [`column_norms`] of f32.
    column_norms_f32 COLUMN_NORMS_F32 [256] = body::column_norms::column_norms::<F32>, column_norms::Args;
    /// [`column_norms`] of f16.
    column_norms_f16 COLUMN_NORMS_F16 [256] = body::column_norms::column_norms::<F16>, column_norms::Args;
    /// [`column_norms`] of bf16.
    column_norms_bf16 COLUMN_NORMS_BF16 [256] = body::column_norms::column_norms::<Bf16>, column_norms::Args;
    /// [`gather_columns`] of f32.
    gather_columns_f32 GATHER_COLUMNS_F32 [256] = body::gather_columns::gather_columns::<F32>, gather_columns::Args;
    /// [`gather_columns`] of f16.
    gather_columns_f16 GATHER_COLUMNS_F16 [256] = body::gather_columns::gather_columns::<F16>, gather_columns::Args;
    /// [`gather_columns`] of bf16.
    gather_columns_bf16 GATHER_COLUMNS_BF16 [256] = body::gather_columns::gather_columns::<Bf16>, gather_columns::Args;
    /// [`gather_rows`] of f32, aligned.
    gather_rows_f32 GATHER_ROWS_F32 [256] = body::gather_rows::gather_rows::<F32, true>, gather_rows::Args;
    /// [`gather_rows`] of f32, any alignment.
    gather_rows_f32_any GATHER_ROWS_F32_ANY [256] = body::gather_rows::gather_rows::<F32, false>, gather_rows::Args;
    /// [`gather_rows`] of f16, aligned.
    gather_rows_f16 GATHER_ROWS_F16 [256] = body::gather_rows::gather_rows::<F16, true>, gather_rows::Args;
    /// [`gather_rows`] of f16, any alignment.
    gather_rows_f16_any GATHER_ROWS_F16_ANY [256] = body::gather_rows::gather_rows::<F16, false>, gather_rows::Args;
    /// [`gather_rows`] of bf16, aligned.
    gather_rows_bf16 GATHER_ROWS_BF16 [256] = body::gather_rows::gather_rows::<Bf16, true>, gather_rows::Args;
    /// [`gather_rows`] of bf16, any alignment.
    gather_rows_bf16_any GATHER_ROWS_BF16_ANY [256] = body::gather_rows::gather_rows::<Bf16, false>, gather_rows::Args;
    /// [`gather_pack`] of f32.
    gather_pack_f32 GATHER_PACK_F32 [256] = body::gather_pack::gather_pack::<F32>, gather_pack::Args;
    /// [`gather_pack`] of f16.
    gather_pack_f16 GATHER_PACK_F16 [256] = body::gather_pack::gather_pack::<F16>, gather_pack::Args;
    /// [`gather_pack`] of bf16.
    gather_pack_bf16 GATHER_PACK_BF16 [256] = body::gather_pack::gather_pack::<Bf16>, gather_pack::Args;
    /// [`unpack_rows`] to f32.
    unpack_rows_f32 UNPACK_ROWS_F32 [256] = body::unpack_rows::unpack_rows::<F32>, unpack_rows::Args;
    /// [`unpack_rows`] to f16.
    unpack_rows_f16 UNPACK_ROWS_F16 [256] = body::unpack_rows::unpack_rows::<F16>, unpack_rows::Args;
    /// [`unpack_rows`] to bf16.
    unpack_rows_bf16 UNPACK_ROWS_BF16 [256] = body::unpack_rows::unpack_rows::<Bf16>, unpack_rows::Args;
    /// The forward pass of [`pointwise`] operators.
    pointwise_forward POINTWISE_FORWARD [256] = body::pointwise::pointwise_forward, pointwise::ForwardArgs;
    /// The backward pass of [`pointwise`] operators.
    pointwise_backward POINTWISE_BACKWARD [256] = body::pointwise::pointwise_backward, pointwise::BackwardArgs;
    /// The forward pass of a [`softmax`].
    softmax_forward SOFTMAX_FORWARD [128] = body::softmax::softmax_forward, softmax::ForwardArgs;
    /// The backward pass of a [`softmax`].
    softmax_backward SOFTMAX_BACKWARD [128] = body::softmax::softmax_backward, softmax::BackwardArgs;
    /// The forward pass of a [`norm`].
    norm_forward NORM_FORWARD [128] = body::norm::norm_forward, norm::ForwardArgs;
    /// The first launch of the backward pass of a [`norm`].
    norm_backward NORM_BACKWARD [128] = body::norm::norm_backward, norm::BackwardArgs;
    /// [`unpack_values`].
    unpack_values UNPACK_VALUES [256] = body::unpack_values::unpack_values, unpack_values::Args;
    /// The first launch of [`predictor_update`], for rows of f32.
    predictor_features_f32 PREDICTOR_FEATURES_F32 [256] =
        body::predictor_update::predictor_features::<F32>, predictor_update::Args;
    /// The first launch of [`predictor_update`], for rows of f16.
    predictor_features_f16 PREDICTOR_FEATURES_F16 [256] =
        body::predictor_update::predictor_features::<F16>, predictor_update::Args;
    /// The first launch of [`predictor_update`], for rows of bf16.
    predictor_features_bf16 PREDICTOR_FEATURES_BF16 [256] =
        body::predictor_update::predictor_features::<Bf16>, predictor_update::Args;
    /// The first launch of [`predictor_update`], for packed rows.
    predictor_features_packed PREDICTOR_FEATURES_PACKED [256] =
        body::predictor_update::predictor_features_packed, predictor_update::PackedArgs;
    /// The second launch of [`predictor_update`].
    predictor_sums PREDICTOR_SUMS [64] = body::predictor_update::predictor_sums, predictor_update::Args;
    /// The third launch of [`predictor_update`].
    predictor_apply PREDICTOR_APPLY [512] = body::predictor_update::predictor_apply, predictor_update::Args;
    /// The fetch of a [`norm_cache`].
    norm_cache_fetch NORM_CACHE_FETCH [256] = body::norm_cache::norm_cache_fetch, norm_cache::Args;
    /// The store of a [`norm_cache`].
    norm_cache_store NORM_CACHE_STORE [256] = body::norm_cache::norm_cache_store, norm_cache::Args;
    /// [`select`] by `Uniform`.
    select_uniform SELECT_UNIFORM [512] = body::select::select::<{ select::Design::Uniform as u32 }>, select::Args;
    /// [`select`] by `Crs`.
    select_crs SELECT_CRS [512] = body::select::select::<{ select::Design::Crs as u32 }>, select::Args;
    /// [`select`] by `TopK`.
    select_top_k SELECT_TOP_K [512] = body::select::select::<{ select::Design::TopK as u32 }>, select::Args;
    /// [`select`] by `WtaIid`.
    select_wta_iid SELECT_WTA_IID [512] = body::select::select::<{ select::Design::WtaIid as u32 }>, select::Args;
    /// [`select`] by `WtaStratified`.
    select_wta_stratified SELECT_WTA_STRATIFIED [512] = body::select::select::<{ select::Design::WtaStratified as u32 }>, select::Args;
    /// [`select`] by `WtaPivotal`.
    select_wta_pivotal SELECT_WTA_PIVOTAL [512] = body::select::select::<{ select::Design::WtaPivotal as u32 }>, select::Args;
    /// [`select`]: the weights alone.
    select_weights SELECT_WEIGHTS [512] = body::select::select_weights, select::WeightsArgs;
    /// [`alias`]: builds tables.
    alias_build ALIAS_BUILD [1024] = body::alias::alias_build, alias::BuildArgs;
    /// [`alias`]: draws from them.
    alias_sample ALIAS_SAMPLE [1024] = body::alias::alias_sample, alias::SampleArgs;
    /// [`gather_gemm`] of bf16, 128 × 256.
    gather_gemm_bf16_wide GATHER_GEMM_BF16_WIDE [256] =
        body::gather_gemm::gather_gemm::<Half<Bf16, 128, 256, 256>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, 128 × 128.
    gather_gemm_bf16_square GATHER_GEMM_BF16_SQUARE [128] =
        body::gather_gemm::gather_gemm::<Half<Bf16, 128, 128, 128>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, 128 × 64.
    gather_gemm_bf16_narrow GATHER_GEMM_BF16_NARROW [128] =
        body::gather_gemm::gather_gemm::<Half<Bf16, 128, 64, 128>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, 64 × 128.
    gather_gemm_bf16_flat GATHER_GEMM_BF16_FLAT [128] =
        body::gather_gemm::gather_gemm::<Half<Bf16, 64, 128, 128>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, 128 × 128, of rows that end within a chunk.
    gather_gemm_bf16_ragged GATHER_GEMM_BF16_RAGGED [128] =
        body::gather_gemm::gather_gemm::<Half<Bf16, 128, 128, 128>, RAGGED>, gather_gemm::Args;
    /// [`gather_gemm`] of bf16, any alignment.
    gather_gemm_bf16_any GATHER_GEMM_BF16_ANY [256] =
        body::gather_gemm::gather_gemm::<Half<Bf16, 128, 128, 256>, ANY>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 128 × 256.
    gather_gemm_f16_wide GATHER_GEMM_F16_WIDE [256] =
        body::gather_gemm::gather_gemm::<Half<F16, 128, 256, 256>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 128 × 128.
    gather_gemm_f16_square GATHER_GEMM_F16_SQUARE [128] =
        body::gather_gemm::gather_gemm::<Half<F16, 128, 128, 128>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 128 × 64.
    gather_gemm_f16_narrow GATHER_GEMM_F16_NARROW [128] =
        body::gather_gemm::gather_gemm::<Half<F16, 128, 64, 128>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 64 × 128.
    gather_gemm_f16_flat GATHER_GEMM_F16_FLAT [128] =
        body::gather_gemm::gather_gemm::<Half<F16, 64, 128, 128>, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, 128 × 128, of rows that end within a chunk.
    gather_gemm_f16_ragged GATHER_GEMM_F16_RAGGED [128] =
        body::gather_gemm::gather_gemm::<Half<F16, 128, 128, 128>, RAGGED>, gather_gemm::Args;
    /// [`gather_gemm`] of f16, any alignment.
    gather_gemm_f16_any GATHER_GEMM_F16_ANY [256] =
        body::gather_gemm::gather_gemm::<Half<F16, 128, 128, 256>, ANY>, gather_gemm::Args;
    /// [`gather_gemm`] of f32.
    gather_gemm_f32 GATHER_GEMM_F32 [256] = body::gather_gemm::gather_gemm::<Full, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of f32, of any alignment.
    gather_gemm_f32_any GATHER_GEMM_F32_ANY [256] = body::gather_gemm::gather_gemm::<Full, ANY>, gather_gemm::Args;
    /// [`gather_gemm`] of f32 by tf32.
    gather_gemm_tf32 GATHER_GEMM_TF32 [256] = body::gather_gemm::gather_gemm::<Tf32, WHOLE>, gather_gemm::Args;
    /// [`gather_gemm`] of f32 by tf32, of any alignment.
    gather_gemm_tf32_any GATHER_GEMM_TF32_ANY [256] = body::gather_gemm::gather_gemm::<Tf32, ANY>, gather_gemm::Args;
    /// [`split_reduce`].
    split_reduce SPLIT_REDUCE [256] = body::split_reduce::split_reduce, split_reduce::Args;
    /// [`split_reduce`] beside the second launch of [`column_sums`].
    split_reduce_sums SPLIT_REDUCE_SUMS [256] = body::split_reduce::split_reduce_sums, split_reduce::SumsArgs;
    /// [`turn_back`] of groups of rows.
    turn_back_down TURN_BACK_DOWN [256] = body::turn_back::turn_back_down, turn_back::DownArgs;
    /// [`turn_back`] of groups of columns.
    turn_back_along TURN_BACK_ALONG [256] = body::turn_back::turn_back_along, turn_back::AlongArgs;
}

/// The selection's kernel of a design.
pub fn select_kernel(design: select::Design) -> &'static Kernel<select::Args> {
    use select::Design;
    match design {
        Design::Uniform => &SELECT_UNIFORM,
        Design::Crs => &SELECT_CRS,
        Design::TopK => &SELECT_TOP_K,
        Design::WtaIid => &SELECT_WTA_IID,
        Design::WtaStratified => &SELECT_WTA_STRATIFIED,
        Design::WtaPivotal => &SELECT_WTA_PIVOTAL,
    }
}
