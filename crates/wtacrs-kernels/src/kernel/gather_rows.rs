//! Kept rows, scaled and side by side: what is saved from the forward to the backward pass.

/// What a launch is given. One grid.z for each matrix of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// pairs × columns elements.
    pub x: *const u8,
    /// Elements from one row to the next.
    pub leading: u64,
    /// Elements from one matrix of the batch to the next.
    pub batch_stride: u64,
    /// Columns.
    pub columns: u32,
    /// Rows of `out`: the budget.
    pub rows: u32,
    /// batch × rows indices into the rows of `x`, of which the first `count` are used.
    pub indices: *const u32,
    /// batch × rows factors, or null for 1.
    pub scales: *const f64,
    /// For each of the batch, how many rows were selected; `out`'s other rows become zero. Null: all.
    pub count: *const u32,
    /// rows × columns elements.
    pub out: *mut u8,
    /// Elements from one row of `out` to the next.
    pub out_leading: u64,
    /// Elements from one matrix of `out` to the next.
    pub out_batch_stride: u64,
}
