//! What is multiplied: the sizes and types of a batch of products, and where their factors lie.

use super::settings::{Matrices, Precision};
use crate::kernel::matrix::DataType;
use wtacrs_core::product::Update;

/// A batch of products of `rows` pairs of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProductSettings {
    pub(super) batch: usize,
    pub(super) rows: usize,
    /// Columns of the left factor: rows of the product.
    pub(super) left: usize,
    /// Columns of the right factor and of the product.
    pub(super) right: usize,
    /// Types of both factors and of the product.
    pub(super) types: [DataType; 3],
    pub(super) precision: Precision,
}

/// The factors of one product, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    pub(super) left: *const u8,
    pub(super) left_matrices: Matrices,
    pub(super) right: *const u8,
    pub(super) right_matrices: Matrices,
    /// The row of the right factor for each of the left one; null: the same row, as it must be for
    /// plans of the vendor's library.
    pub(super) indices: *const u32,
    pub(super) count: *const u32,
    pub(super) product: *mut u8,
    pub(super) product_matrices: Matrices,
    pub(super) update: Update,
    /// For partial products of this library's kernels.
    pub(super) partials: *mut f32,
    /// For the vendor's library. A product uses one of the two.
    pub(super) workspace: *mut u8,
}
