//! What a report holds, in types that are also the JSON that the command writes.

use serde::Serialize;

/// The memory of one model, or of one layer.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// The model's name.
    pub name: String,
    /// Bytes of one element.
    pub element_bytes: usize,
    /// Every input of linear layers.
    pub inputs: Vec<InputReport>,
    /// Σ of all inputs, kept whole.
    pub exact_bytes: u64,
    /// Σ of what is kept of them, for each budget.
    pub saved_bytes: Vec<u64>,
    /// Σ of the states of one norm predictor for each input. They live as long as the model, not from forward to backward.
    pub predictor_bytes: u64,
}

/// A matrix that linear layers read.
#[derive(Clone, Debug, Serialize)]
pub struct InputReport {
    /// Which it is.
    pub name: String,
    /// Linear layers that read it, and share one selection.
    pub layers: usize,
    /// How often the model has it; bytes are those of one.
    pub count: usize,
    /// Its rows.
    pub tokens: usize,
    /// Its columns.
    pub in_features: usize,
    /// The whole of it.
    pub exact_bytes: u64,
    /// What is kept, for each budget.
    pub saved: Vec<SavedReport>,
    /// The state of a norm predictor with default settings.
    pub predictor_bytes: u64,
}

/// What one budget keeps of an input.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SavedReport {
    /// Rows.
    pub budget: usize,
    /// `budget` / tokens.
    pub fraction: f64,
    /// Rows, indices and scales.
    pub bytes: u64,
}
