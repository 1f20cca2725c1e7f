//! Softmax of rows.
//!
//! ```text
//! forward    p = e^(x − max x) / Σ e^(x − max x),   y = p · mask         saves √p
//! backward   dx = p · (d − Σ p d) + variance(p̂) · d,   d = dy · mask
//! ```
//!
//! The last term makes the gradient unbiased where √p was packed: see docs/mathematics.md. Eight lanes share a row. Lane m of
//! them has the elements whose numbers are 4m to 4m + 3 modulo 32, and a partial sum for each: those of
//! [`lane_sum`](wtacrs_exact::operators::functions::lane_sum), so that the codes are those of every device.

use super::operator::{SavedValues, Start, rows_shape};
use crate::launch::Shape;

/// The arguments of a forward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs {
    /// rows × columns elements.
    pub x: *const u8,
    /// As many; null: the output is not written.
    pub y: *mut u8,
    /// Receives what is saved.
    pub saved: SavedValues,
    /// The random bits.
    pub start: Start,
}

/// The arguments of a backward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardArgs {
    /// rows × columns probabilities, if they were not packed; else null.
    pub y: *const u8,
    /// As many elements.
    pub dy: *const u8,
    /// As many.
    pub dx: *mut u8,
    /// What the forward pass saved.
    pub saved: SavedValues,
}

/// The launch of either.
pub const fn shape(saved: &SavedValues) -> Shape {
    rows_shape(saved.shares.rows)
}
