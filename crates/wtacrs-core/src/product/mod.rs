//! The steps around a selection: norms before it, the kept rows after it, and the product of what was kept.
//!
//! All of them take strided views of any [`Element`](crate::element::Element), run on all cores of the current rayon
//! pool, and return the same bits for every number of threads: no sum depends on where the work is cut.

mod column_sums;
mod gather;
mod kept;
mod multiply;
mod norms;
mod packed;
mod packing;
mod saved;
mod saved_layout;
mod weight_gradient;

pub use self::column_sums::{column_sums_into, row_norms_and_column_sums_into};
pub use self::gather::{gather, gather_into, gather_scaled, gather_scaled_into};
pub use self::kept::Kept;
pub(crate) use self::multiply::multiply_views;
pub use self::multiply::{Precision, Update, product_memory};
pub(crate) use self::norms::row_norms_and_components;
pub use self::norms::{column_norms, joint_norms, row_norms, row_norms_into};
pub use self::packed::{PackError, PackedView, Rows};
pub use self::packing::{Packing, UnknownPacking};
pub use self::saved::Saved;
pub use self::saved_layout::SavedLayout;
pub use self::weight_gradient::{exact_weight_gradient, weight_gradient, weight_gradient_into};

/// Shapes that do not fit one another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub struct ShapeError {
    /// What does not fit.
    pub what: &'static str,
    /// What its size must be.
    pub expected: usize,
    /// What it is.
    pub found: usize,
}

pub(crate) fn check_size(what: &'static str, found: usize, expected: usize) -> Result<(), ShapeError> {
    if found == expected { Ok(()) } else { Err(ShapeError { what, expected, found }) }
}
