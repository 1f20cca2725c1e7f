//! Readers of layers (safetensors or .npy files) and of recorded steps (safetensors files larger than memory).
//!
//! Readers accept any bytes: they return a checked layer or an error, and never panic. H is tokens × in_features, dZ is
//! tokens × out_features, both finite and not empty; the previous norms, if there are any, are one finite number ≥ 0 for
//! each token.

mod npy;
mod recording;
mod safetensors;

pub use self::{
    npy::read_npy,
    recording::{Recording, RecordingError, RecordingKeys, Step},
    safetensors::read_safetensors,
};

use crate::text::one_line;
use half::{bf16, f16};
use ndarray::{Array2, ShapeBuilder};
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

/// Why a layer is refused. Tensors are named by their key, or by h, dz and dz_norm_prev for .npy files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Bytes that are not a safetensors file.
    #[error("not a readable safetensors file: {}", one_line(&.0.to_string()))]
    NotSafetensors(#[from] ::safetensors::SafeTensorError),
    /// Bytes that are not a .npy file.
    #[error("{tensor} is not in a readable .npy file: {}", one_line(.reason))]
    NotNpy {
        /// Which of the files.
        tensor: String,
        /// The parser's reason.
        reason: String,
    },
    /// A tensor that the file lacks.
    #[error("there is no tensor '{key}', only {}", listed(.present))]
    MissingTensor {
        /// The name looked for.
        key: String,
        /// The names that the file has.
        present: Vec<String>,
    },
    /// A type that cannot be read.
    #[error("{tensor} is of type {}: {expected} can be read", one_line(.found))]
    UnsupportedType {
        /// The offending tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// The types that this format is read in.
        expected: &'static str,
    },
    /// The wrong number of dimensions.
    #[error("{tensor} has shape {shape:?}: it must be {expected}")]
    WrongShape {
        /// The offending tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The shape expected.
        expected: &'static str,
    },
    /// No tokens, or no features.
    #[error("{tensor} has shape {shape:?}: it is empty")]
    Empty {
        /// The offending tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Less data, or more, than the shape requires.
    #[error("{tensor} has shape {shape:?}, but its data is {found} bytes long")]
    WrongLength {
        /// The offending tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many bytes of data there are.
        found: usize,
    },
    /// Not one row, or one norm, for each token of H.
    #[error("{tensor} is for {found} tokens, but H has {expected}")]
    TokenMismatch {
        /// The offending tensor.
        tensor: String,
        /// How many tokens it is for.
        found: usize,
        /// How many tokens H has.
        expected: usize,
    },
    /// An infinity or a NaN in a matrix.
    #[error("{tensor} is {value} at row {row}, column {column}: all values must be finite")]
    NotFinite {
        /// The offending tensor.
        tensor: String,
        /// The row of the first such value.
        row: usize,
        /// Its column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A previous norm that is negative or not finite.
    #[error("{tensor} is {value} for token {token}: a norm must be finite and not negative")]
    InvalidNorm {
        /// The offending tensor.
        tensor: String,
        /// The first token of such a norm.
        token: usize,
        /// The norm.
        value: f32,
    },
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

fn listed(names: &[String]) -> String {
    match names {
        [] => "an empty file".to_owned(),
        names => names.iter().map(|name| format!("'{}'", one_line(name))).collect::<Vec<_>>().join(", "),
    }
}

impl InputError {
    fn missing<N: ToString>(key: &str, present: impl IntoIterator<Item = N>) -> Self {
        let mut present: Vec<String> = present.into_iter().map(|name| name.to_string()).collect();
        present.sort();
        Self::MissingTensor { key: key.to_owned(), present }
    }
}

impl Matrix {
    /// Rows and columns.
    pub fn dim(&self) -> (usize, usize) {
        with_values!(self, values => values.dim())
    }
}

/// A tensor of a file, in any number of dimensions.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    column_major: bool,
    values: Values,
}

enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Values {
    fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(values) => values,
            Self::F16(values) => values.into_iter().map(f16::to_f32).collect(),
            Self::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
        }
    }
}

impl Tensor {
    fn into_matrix(self) -> Result<Matrix, InputError> {
        let Self { name, shape, column_major, values } = self;
        let &[rows, columns] = shape.as_slice() else {
            return Err(InputError::WrongShape { tensor: name, shape, expected: "tokens × features" });
        };
        if rows == 0 || columns == 0 {
            return Err(InputError::Empty { tensor: name, shape });
        }
        let layout = Layout { name, rows, columns, column_major };
        Ok(match values {
            Values::F32(values) => Matrix::F32(layout.arrange(values)?),
            Values::F16(values) => Matrix::F16(layout.arrange(values)?),
            Values::Bf16(values) => Matrix::Bf16(layout.arrange(values)?),
        })
    }

    fn into_norms(self) -> Result<Vec<f32>, InputError> {
        let Self { name, shape, values, .. } = self;
        if shape.len() != 1 {
            return Err(InputError::WrongShape { tensor: name, shape, expected: "one norm for each token" });
        }
        let norms = values.into_f32();
        match norms.iter().position(|norm| !(norm.is_finite() && *norm >= 0.0)) {
            Some(token) => Err(InputError::InvalidNorm { tensor: name, token, value: norms[token] }),
            None => Ok(norms),
        }
    }
}

/// The name, shape and order of a matrix's values.
struct Layout {
    name: String,
    rows: usize,
    columns: usize,
    column_major: bool,
}

impl Layout {
    fn arrange<T: Element<Accumulator = f32>>(self, values: Vec<T>) -> Result<Array2<T>, InputError> {
        let found = size_of_val(values.as_slice());
        let matrix = Array2::from_shape_vec((self.rows, self.columns).set_f(self.column_major), values);
        let Ok(matrix) = matrix else {
            let shape = vec![self.rows, self.columns];
            return Err(InputError::WrongLength { tensor: self.name, shape, found });
        };
        match matrix.indexed_iter().find(|(_, value)| !value.widen().is_finite()) {
            Some(((row, column), value)) => {
                Err(InputError::NotFinite { tensor: self.name, row, column, value: value.widen() })
            }
            None if self.column_major => Ok(matrix.as_standard_layout().into_owned()),
            None => Ok(matrix),
        }
    }
}

/// Checks the tensors, and that all have the same number of tokens.
fn assemble(h: Tensor, dz: Tensor, norms: Option<Tensor>) -> Result<Layer, InputError> {
    let (dz_name, norms_name) = (dz.name.clone(), norms.as_ref().map(|norms| norms.name.clone()));
    let layer =
        Layer { h: h.into_matrix()?, dz: dz.into_matrix()?, dz_norm_prev: norms.map(Tensor::into_norms).transpose()? };
    let (expected, _) = layer.h.dim();
    let check = |tensor: String, found: usize| {
        if found == expected { Ok(()) } else { Err(InputError::TokenMismatch { tensor, found, expected }) }
    };
    check(dz_name, layer.dz.dim().0)?;
    if let (Some(name), Some(norms)) = (norms_name, &layer.dz_norm_prev) {
        check(name, norms.len())?;
    }
    Ok(layer)
}
