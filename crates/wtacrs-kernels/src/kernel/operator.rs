//! What the kernels of operators share: an array's rows and groups, where its saved part lies, and its random bits.
//!
//! ```text
//! codes       rows × row_words words      Groups::words of each row, then zeros up to 16 bytes; of signs a bit an element
//! grids       rows × Groups::count words  the word of each group's grid
//! statistics  rows × 1 or 2 numbers       of a norm: the mean, if it is native and has one, and 1/σ
//! origin      seed, offset                of the random bits; the offset is the one at which the kernel ran
//! ```
//!
//! They are those of [`wtacrs_exact::operators`], to the bit. Arrays are dense, and arithmetic on them is in f32:
//! their element type is an argument, since it decides nothing but how elements are loaded and stored. Every element
//! is read and written by one lane, which reads before it writes. So the array that is read may be the one that is written.

use super::packed_rows::GroupShares;
use crate::launch::Shape;
use wtacrs_simt::WARP;

/// A function of each element: a bit for each, so that compilers make no table of branches of the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Function {
    /// x.
    Identity = 0,
    /// [`relu`](wtacrs_exact::operators::functions::relu).
    Relu = 1,
    /// [`gelu`](wtacrs_exact::operators::functions::gelu).
    Gelu = 2,
    /// [`gelu_tanh`](wtacrs_exact::operators::functions::gelu_tanh).
    GeluTanh = 4,
    /// [`silu`](wtacrs_exact::operators::functions::silu).
    Silu = 8,
}

/// [`SavedValues::bits`] of signs: whether elements are above 0.
pub const SIGNS: u32 = 1;

/// What an operator saves of an array, and its dropout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SavedValues {
    /// Rows and columns of the array.
    pub shares: GroupShares,
    /// The element type of arrays: a [`DataType`](super::matrix::DataType).
    pub element: u32,
    /// Bits of an element's code: 8, 4 or 2; [`SIGNS`]; 0 if nothing is packed.
    pub bits: u32,
    /// The codes, aligned to 16, of one array or two; else null.
    pub codes: [*mut u32; 2],
    /// Words from one row of codes to the next: a multiple of 4, unless they are signs.
    pub row_words: u64,
    /// The grids of each array; null where codes are on the slopes' grid, or where nothing is packed.
    pub grids: [*mut u32; 2],
    /// The numbers of rows.
    pub statistics: *mut f32,
    /// Two numbers; null if nothing is drawn.
    pub origin: *mut u64,
    /// Random words below it drop their element; 0: there is no dropout.
    pub threshold: u32,
    /// What a kept element is multiplied by.
    pub scale: f32,
}

/// The random bits of a forward pass.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Their seed.
    pub seed: u64,
    /// Their first block.
    pub offset: u64,
    /// A number that is added to the offset when the kernel runs; null for none.
    pub further_offset: *const u64,
}

/// Lanes that share a row of a softmax or a norm.
pub(super) const ROW_LANES: u32 = 8;
/// Rows of a warp.
pub(super) const WARP_ROWS: u32 = WARP / ROW_LANES;
/// Threads of a block that takes rows: few, so that a few thousand rows occupy all multiprocessors.
pub(super) const ROW_THREADS: u32 = 128;

/// The launch of a kernel whose blocks take [`ROW_THREADS`]/[`ROW_LANES`] rows each.
pub(super) const fn rows_shape(rows: u32) -> Shape {
    let blocks = rows.div_ceil(ROW_THREADS / ROW_LANES);
    let blocks = if blocks == 0 { 1 } else { blocks };
    Shape { grid: [blocks, 1, 1], block: ROW_THREADS, shared_bytes: 0, cooperative: false }
}
