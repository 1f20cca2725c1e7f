//! Readers of layers (safetensors or .npy files) and of recorded steps (safetensors files larger than memory).
//!
//! Readers accept any bytes: they return a checked layer or an error, and never panic. H is tokens × in_features, dZ is
//! tokens × out_features, both finite and not empty; the previous norms, if there are any, are one finite number ≥ 0 for
//! each token. Of a file, only the header and the tensors that are asked for are read. They are read in pieces and
//! converted on the way, so that a layer is in memory once.

mod error;
mod named;
mod npy;
mod recording;
mod safetensors;
mod source;
mod tensor;

pub use self::{
    error::InputError,
    named::LayerError,
    npy::read_npy,
    recording::{Recording, RecordingError, RecordingKeys, Step},
    safetensors::read_safetensors,
    source::{Bytes, Format, SourceError, open, open_seekable},
};

pub(crate) use self::named::{check_standard_input, file_name, rounded_layer};

use crate::labels::Dtype;
use half::{bf16, f16};
use ndarray::Array2;
use wtacrs_core::element::Element;

/// One linear layer in one training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// The layer's input H, tokens × in_features.
    pub h: Matrix,
    /// The gradient dZ of its output, tokens × out_features.
    pub dz: Matrix,
    /// ‖dZ_i‖ at the previous visit of each token's sample, as a norm cache remembers it.
    pub dz_norm_prev: Option<Vec<f32>>,
}

/// The names under which a safetensors file holds a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Of H.
    pub h: String,
    /// Of dZ.
    pub dz: String,
    /// Of the previous norms, which a file may lack.
    pub dz_norm_prev: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self { h: "h".to_owned(), dz: "dz".to_owned(), dz_norm_prev: "dz_norm_prev".to_owned() }
    }
}

/// A row-major matrix, in the type of its file.
#[derive(Clone, Debug, PartialEq)]
pub enum Matrix {
    /// Of f32, or of f64 rounded to f32.
    F32(Array2<f32>),
    /// Of f16.
    F16(Array2<f16>),
    /// Of bf16.
    Bf16(Array2<bf16>),
}

/// Evaluates one expression for every type of matrix.
macro_rules! with_values {
    ($matrix:expr, $values:ident => $result:expr) => {
        match $matrix {
            $crate::input::Matrix::F32($values) => $result,
            $crate::input::Matrix::F16($values) => $result,
            $crate::input::Matrix::Bf16($values) => $result,
        }
    };
}
pub(crate) use with_values;

impl Matrix {
    /// Rows and columns.
    pub fn dim(&self) -> (usize, usize) {
        with_values!(self, values => values.dim())
    }

    /// The same values rounded to a type; `None` if one is beyond its range.
    fn rounded(self, dtype: Dtype) -> Option<Self> {
        let rounded = match (self, dtype) {
            (matrix @ Self::F32(_), Dtype::F32)
            | (matrix @ Self::F16(_), Dtype::F16)
            | (matrix @ Self::Bf16(_), Dtype::Bf16) => return Some(matrix),
            (matrix, Dtype::F32) => Self::F32(with_values!(matrix, values => values.mapv(|value| value.widen()))),
            (matrix, Dtype::F16) => {
                Self::F16(with_values!(matrix, values => values.mapv(|value| f16::from_f32(value.widen()))))
            }
            (matrix, Dtype::Bf16) => {
                Self::Bf16(with_values!(matrix, values => values.mapv(|value| bf16::from_f32(value.widen()))))
            }
        };
        let is_finite = with_values!(&rounded, values => values.iter().all(|value| value.widen().is_finite()));
        is_finite.then_some(rounded)
    }
}

impl Layer {
    /// The same layer with H and dZ rounded to a type; `None` if a value is beyond its range.
    pub fn rounded(self, dtype: Dtype) -> Option<Self> {
        Some(Self { h: self.h.rounded(dtype)?, dz: self.dz.rounded(dtype)?, dz_norm_prev: self.dz_norm_prev })
    }
}
