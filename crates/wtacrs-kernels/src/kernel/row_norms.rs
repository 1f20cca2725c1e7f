//! ‖row‖₂ of a matrix, and optionally each row's dot product with a vector, in one pass.

/// What a launch is given. One grid.z for each matrix of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × columns elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Elements from one matrix of the batch to the next.
    pub batch_stride: u64,
    /// Rows of each matrix.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// The vector of `columns` f32 that rows are multiplied with, or null.
    pub theta: *const f32,
    /// batch × rows norms.
    pub norms: *mut f32,
    /// batch × rows dot products divided by the row's norm (0 where the norm is 0 or the quotient not finite); not
    /// written if `theta` is null.
    pub directions: *mut f32,
}
