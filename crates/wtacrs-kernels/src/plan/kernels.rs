//! Chooses kernels by element types, and their launches by sizes.

use super::error::PlanError;
use crate::kernel::matrix::DataType;
use crate::kernel::packed_rows::PackedRows;
use crate::kernel::{
    self, column_norms, column_sums, gather_columns, gather_pack, gather_rows, norm, norm_cache, pointwise,
    predictor_update, row_norms, select, softmax, unpack_rows, unpack_values,
};
use crate::launch::{Kernel, Shape};
use wtacrs_core::sampling::design::BuiltIn;

/// The kernel of a type, from the constants of its three types.
macro_rules! by_type {
    ($of:expr, $f32:ident, $f16:ident, $bf16:ident) => {
        match $of {
            DataType::F32 => &kernel::$f32,
            DataType::F16 => &kernel::$f16,
            DataType::Bf16 => &kernel::$bf16,
        }
    };
}

/// A kernel and the shape of its launch.
type Ready<A> = (&'static Kernel<A>, Shape);

pub(super) fn row_norms(of: DataType, batch: u32, args: &row_norms::Args) -> Ready<row_norms::Args> {
    let bytes = of.bytes() as u32;
    let kernel = if args.is_aligned(bytes) {
        by_type!(of, ROW_NORMS_F32, ROW_NORMS_F16, ROW_NORMS_BF16)
    } else {
        by_type!(of, ROW_NORMS_F32_ANY, ROW_NORMS_F16_ANY, ROW_NORMS_BF16_ANY)
    };
    (kernel, row_norms::shape(args.rows, args.columns, batch, bytes))
}

pub(super) fn row_norms_sums(of: DataType, rows: u32, columns: u32, batch: u32) -> Ready<column_sums::Args> {
    let kernel = by_type!(of, ROW_NORMS_SUMS_F32, ROW_NORMS_SUMS_F16, ROW_NORMS_SUMS_BF16);
    (kernel, column_sums::shape(rows, columns, batch, of.bytes() as u32))
}

pub(super) fn row_norms_gather(
    of: DataType,
    batch: u32,
    args: &column_sums::GatherArgs,
) -> Ready<column_sums::GatherArgs> {
    let kernel = by_type!(of, ROW_NORMS_GATHER_F32, ROW_NORMS_GATHER_F16, ROW_NORMS_GATHER_BF16);
    let column_sums::Args { rows, columns, .. } = args.of;
    (kernel, column_sums::gather_shape(rows, columns, batch, of.bytes() as u32))
}

pub(super) fn column_norms(of: DataType, columns: u32, batch: u32) -> Ready<column_norms::Args> {
    let kernel = by_type!(of, COLUMN_NORMS_F32, COLUMN_NORMS_F16, COLUMN_NORMS_BF16);
    (kernel, column_norms::shape(columns, batch))
}

pub(super) fn gather_rows(of: DataType, batch: u32, args: &gather_rows::Args) -> Ready<gather_rows::Args> {
    let bytes = of.bytes() as u32;
    let kernel = if args.are_aligned(bytes) == [true; 2] {
        by_type!(of, GATHER_ROWS_F32, GATHER_ROWS_F16, GATHER_ROWS_BF16)
    } else {
        by_type!(of, GATHER_ROWS_F32_ANY, GATHER_ROWS_F16_ANY, GATHER_ROWS_BF16_ANY)
    };
    (kernel, gather_rows::shape(args.rows, args.columns, batch, bytes))
}

pub(super) fn gather_pack(of: DataType, packed: &PackedRows, batch: u32) -> Ready<gather_pack::Args> {
    let kernel = by_type!(of, GATHER_PACK_F32, GATHER_PACK_F16, GATHER_PACK_BF16);
    (kernel, gather_pack::shape(packed, batch))
}

pub(super) fn unpack_rows(of: DataType, packed: &PackedRows, batch: u32) -> Ready<unpack_rows::Args> {
    let kernel = by_type!(of, UNPACK_ROWS_F32, UNPACK_ROWS_F16, UNPACK_ROWS_BF16);
    (kernel, unpack_rows::shape(packed, batch))
}

pub(super) fn gather_columns(of: DataType, kept: u32, rows: u32, batch: u32) -> Ready<gather_columns::Args> {
    let kernel = by_type!(of, GATHER_COLUMNS_F32, GATHER_COLUMNS_F16, GATHER_COLUMNS_BF16);
    (kernel, gather_columns::shape(kept, rows, batch))
}

pub(super) fn predictor_features(of: DataType, args: &predictor_update::Args) -> Ready<predictor_update::Args> {
    let kernel = by_type!(of, PREDICTOR_FEATURES_F32, PREDICTOR_FEATURES_F16, PREDICTOR_FEATURES_BF16);
    let &predictor_update::Args { budget, rows_per_update, in_features, features, .. } = args;
    (kernel, predictor_update::features_shape(budget, rows_per_update, in_features, features))
}

pub(super) fn predictor_features_packed(args: &predictor_update::PackedArgs) -> Ready<predictor_update::PackedArgs> {
    let predictor_update::Args { budget, rows_per_update, in_features, features, .. } = args.update;
    let shape = predictor_update::packed_features_shape(budget, rows_per_update, in_features, features);
    (&kernel::PREDICTOR_FEATURES_PACKED, shape)
}

pub(super) fn predictor_sums(args: &predictor_update::Args) -> Ready<predictor_update::Args> {
    (&kernel::PREDICTOR_SUMS, predictor_update::sums_shape(args.in_features, args.features))
}

pub(super) fn predictor_apply() -> Ready<predictor_update::Args> {
    (&kernel::PREDICTOR_APPLY, predictor_update::apply_shape())
}

pub(super) fn norm_cache_fetch(args: &norm_cache::Args) -> Ready<norm_cache::Args> {
    (&kernel::NORM_CACHE_FETCH, norm_cache::fetch_shape(args.count, args.sample_tokens))
}

pub(super) fn norm_cache_store(args: &norm_cache::Args) -> Ready<norm_cache::Args> {
    (&kernel::NORM_CACHE_STORE, norm_cache::store_shape(args.count, args.sample_tokens))
}

pub(super) fn pointwise_forward(args: &pointwise::ForwardArgs) -> Ready<pointwise::ForwardArgs> {
    (&kernel::POINTWISE_FORWARD, pointwise::shape(&args.saved))
}

pub(super) fn pointwise_backward(args: &pointwise::BackwardArgs) -> Ready<pointwise::BackwardArgs> {
    (&kernel::POINTWISE_BACKWARD, pointwise::shape(&args.saved))
}

pub(super) fn softmax_forward(args: &softmax::ForwardArgs) -> Ready<softmax::ForwardArgs> {
    (&kernel::SOFTMAX_FORWARD, softmax::shape(&args.saved))
}

pub(super) fn softmax_backward(args: &softmax::BackwardArgs) -> Ready<softmax::BackwardArgs> {
    (&kernel::SOFTMAX_BACKWARD, softmax::shape(&args.saved))
}

pub(super) fn norm_forward(args: &norm::ForwardArgs) -> Ready<norm::ForwardArgs> {
    (&kernel::NORM_FORWARD, norm::forward_shape(&args.saved))
}

pub(super) fn norm_backward(args: &norm::BackwardArgs) -> Ready<norm::BackwardArgs> {
    (&kernel::NORM_BACKWARD, norm::backward_shape(&args.saved, args.ranges))
}

pub(super) fn unpack_values(args: &unpack_values::Args) -> Ready<unpack_values::Args> {
    (&kernel::UNPACK_VALUES, unpack_values::shape(&args.saved))
}

/// The design as the kernel knows it.
pub(super) fn design(design: BuiltIn) -> Result<select::Design, PlanError> {
    Ok(match design {
        BuiltIn::Uniform => select::Design::Uniform,
        BuiltIn::Crs => select::Design::Crs,
        BuiltIn::TopK => select::Design::TopK,
        BuiltIn::WtaIid => select::Design::WtaIid,
        BuiltIn::WtaStratified => select::Design::WtaStratified,
        BuiltIn::WtaPivotal => select::Design::WtaPivotal,
        _ => return Err(PlanError::Unsupported { what: "this design: no kernel selects by it" }),
    })
}

/// Bytes that a problem's selection needs while it runs.
pub(super) fn select_scratch_bytes(design: select::Design, pairs: u32, budget: u32) -> u64 {
    select::scratch_bytes(pairs, budget, design)
}

/// One launch on a device that holds at least so many blocks of the largest size at once.
pub(super) fn select(design: select::Design, pairs: u32, batch: u32, resident_blocks: u32) -> Ready<select::Args> {
    (kernel::select_kernel(design), select::shape(pairs, batch, design, resident_blocks))
}

pub(super) fn weights(pairs: u32, batch: u32) -> Ready<select::WeightsArgs> {
    (&kernel::SELECT_WEIGHTS, select::weights_shape(pairs, batch))
}
