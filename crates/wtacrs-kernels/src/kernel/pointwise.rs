//! Operators that work on each element by itself: activation functions, gated units, dropout alone, packing alone.
//!
//! ```text
//! forward    y = f(x) · gate · mask               saves f′(x), or f(x) and gate · f′(x), or signs, or x
//! backward   dx = dy · mask · gate · f′(x)        dgate = dy · mask · f(x)
//! ```
//!
//! Groups are shared out among lanes as those of packed rows are, whether they are packed or not. Function, gate, packing and
//! dropout are arguments: all threads of a launch take the same branches.

use super::operator::{SavedValues, Start};
use crate::launch::Shape;

/// The arguments of a forward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs {
    /// rows × columns elements.
    pub x: *const u8,
    /// As many, or null: the output is not multiplied by a gate.
    pub gate: *const u8,
    /// As many; null: the output is not written.
    pub y: *mut u8,
    /// A [`Function`](super::operator::Function).
    pub function: u32,
    /// Receives what is saved.
    pub saved: SavedValues,
    /// The random bits.
    pub start: Start,
}

/// The arguments of a backward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardArgs {
    /// rows × columns elements, if the slope is computed again; else null.
    pub x: *const u8,
    /// As many, if the slope is computed again and there is a gate; else null.
    pub gate: *const u8,
    /// As many.
    pub dy: *const u8,
    /// As many.
    pub dx: *mut u8,
    /// As many; null without a gate.
    pub dgate: *mut u8,
    /// A [`Function`](super::operator::Function).
    pub function: u32,
    /// What the forward pass saved.
    pub saved: SavedValues,
}

/// The launch of either.
pub const fn shape(saved: &SavedValues) -> Shape {
    saved.shares.shape(1, 0)
}
