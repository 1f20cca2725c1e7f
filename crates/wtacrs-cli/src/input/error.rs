//! Why a layer is refused.

use super::source::Format;
use crate::text::one_line;
use std::io;

/// Why a layer is refused. Tensors are named by their key, or by h, dz and dz_norm_prev for .npy files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Reading or seeking failed.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A file of another format.
    #[error("not a safetensors file, but {}", .found.name())]
    OtherFormat {
        /// The format.
        found: Format,
    },
    /// Bytes that are not a safetensors file.
    #[error("not a readable safetensors file: {}", one_line(&.0.to_string()))]
    NotSafetensors(#[from] ::safetensors::SafeTensorError),
    /// A header longer than any file of tensors needs.
    #[error("its header is {length} bytes long: at most {most} are read")]
    HeaderTooLong {
        /// The length in the file.
        length: u64,
        /// The longest that is read.
        most: u64,
    },
    /// A file that is shorter or longer than its header says.
    #[error("the file is {found} bytes long, but by its header it must be {expected}")]
    WrongFileLength {
        /// The length by the header.
        expected: u64,
        /// The file's length.
        found: u64,
    },
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
    #[error("{tensor} is of type {}: {expected} can be read{advice}", one_line(.found))]
    UnsupportedType {
        /// The offending tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// The types that this format is read in.
        expected: &'static str,
        /// How to save the same numbers in one of them; empty if there is nothing to add.
        advice: &'static str,
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
        found: u64,
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
    /// A finite f64 that f32, to which it is rounded, does not have.
    #[error("{tensor} is {value:e} {place}: values of f64 are rounded to f32, whose largest is 3.4e38")]
    BeyondF32 {
        /// The offending tensor.
        tensor: String,
        /// Where the first such value is.
        place: String,
        /// The value.
        value: f64,
    },
    /// Values of f64 that are all zero once they are rounded to f32.
    #[error("{tensor} is zero in f32, to which values of f64 are rounded: its largest value is {largest:e}")]
    BelowF32 {
        /// The offending tensor.
        tensor: String,
        /// The largest absolute value in f64.
        largest: f64,
    },
    /// Values for which there is not enough memory.
    #[error("{tensor} needs {bytes} bytes of memory, more than is available")]
    NotEnoughMemory {
        /// The tensor.
        tensor: String,
        /// Bytes of its values in memory.
        bytes: u64,
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

impl InputError {
    pub(super) fn missing<N: ToString>(key: &str, present: impl IntoIterator<Item = N>) -> Self {
        let mut present: Vec<String> = present.into_iter().map(|name| name.to_string()).collect();
        present.sort();
        Self::MissingTensor { key: key.to_owned(), present }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "an empty file".to_owned(),
        names => names.iter().map(|name| format!("'{}'", one_line(name))).collect::<Vec<_>>().join(", "),
    }
}
