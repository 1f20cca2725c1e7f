//! Saved values → the output that they were saved of: `y = values · mask`, where values of a softmax are squares of what was packed.

use super::operator::SavedValues;
use crate::launch::Shape;

/// The arguments of a launch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// What a forward pass saved: codes of one array, with grids.
    pub saved: SavedValues,
    /// Whether roots were packed.
    pub has_roots: u32,
    /// rows × columns elements.
    pub y: *mut u8,
}

/// The launch.
pub const fn shape(saved: &SavedValues) -> Shape {
    saved.shares.shape(1, 0)
}
