//! dW (+)= Σ_r saved[r,:]ᵀ dZ[index_r,:]: the estimate, with dZ's rows gathered as they are loaded.

/// What a launch is given. One grid.z for each (batch, split).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// rows × in_features elements: the scaled, gathered rows.
    pub saved: *const u8,
    /// Elements from one row of `saved` to the next.
    pub saved_leading: u64,
    /// Elements from one matrix of the batch to the next.
    pub saved_batch_stride: u64,
    /// tokens × out_features elements.
    pub dz: *const u8,
    /// Elements from one row of `dz` to the next.
    pub dz_leading: u64,
    /// Elements from one matrix of the batch to the next.
    pub dz_batch_stride: u64,
    /// batch × rows indices into the rows of `dz`; null: row r is row r.
    pub indices: *const u32,
    /// For each of the batch, how many of the rows count; null: all.
    pub count: *const u32,
    /// Rows of `saved`: the budget.
    pub rows: u32,
    /// Rows of `dw`.
    pub in_features: u32,
    /// Columns of `dw`.
    pub out_features: u32,
    /// Into how many ranges of rows the sum is cut; each has its own partial product if there is more than one.
    pub splits: u32,
    /// Whether `dw` is added to.
    pub accumulate: u32,
    /// in_features × out_features elements.
    pub dw: *mut u8,
    /// Elements from one row of `dw` to the next.
    pub dw_leading: u64,
    /// Elements from one matrix of `dw` to the next.
    pub dw_batch_stride: u64,
    /// splits × batch × in_features × out_features sums, if `splits` > 1.
    pub partials: *mut f32,
}
