//! Recorded training steps in a safetensors file, read one step at a time.
//!
//! H is steps × tokens × in_features, the norms of dZ's rows are steps × tokens, and ‖dW‖_F is one number for each
//! step. Opening reads and checks only the header, which says where each step is. So a file of any size takes the memory
//! of one step. No bytes make the reader panic.

use super::safetensors::{decode_values, unsupported};
use super::{InputError, Matrix, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that hold the length of the header.
const LENGTH_BYTES: u64 = 8;
/// Longer headers are refused. At a hundred bytes for each tensor, this allows over a hundred thousand.
const LONGEST_HEADER: u64 = 1 << 24;

/// The names under which a safetensors file holds recorded steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingKeys {
    /// Of H, steps × tokens × in_features.
    pub h: String,
    /// Of ‖dZ_i‖, steps × tokens.
    pub dz_norm: String,
    /// Of ‖dW‖_F, one for each step.
    pub g_norm: String,
}

impl Default for RecordingKeys {
    fn default() -> Self {
        Self { h: "h".to_owned(), dz_norm: "dz_norm".to_owned(), g_norm: "g_norm".to_owned() }
    }
}

/// Recorded steps of one layer, read in any order.
#[derive(Debug)]
pub struct Recording<R> {
    file: R,
    h: StepTensor,
    dz_norm: StepTensor,
    g_norm: StepTensor,
    steps: usize,
    tokens: usize,
    in_features: usize,
}

/// One training step of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The layer's input H, tokens × in_features, finite.
    pub h: Matrix,
    /// ‖dZ_i‖ of every token, finite and ≥ 0.
    pub dz_norms: Vec<f32>,
    /// ‖dW‖_F, finite and > 0.
    pub g_norm: f32,
}

/// Why a recording is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// Reading or seeking failed.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A header, or a tensor as the header describes it, that is refused.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A header longer than any recording needs.
    #[error("its header is {length} bytes long: at most {LONGEST_HEADER} are read")]
    HeaderTooLong {
        /// The length in the file.
        length: u64,
    },
    /// A file that is shorter or longer than its header says.
    #[error("the file is {found} bytes long, but by its header it must be {expected}")]
    WrongFileLength {
        /// The length by the header.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// Not one entry for each step of H.
    #[error("{tensor} is for {found} steps, but H has {expected}")]
    StepMismatch {
        /// The offending tensor.
        tensor: String,
        /// How many steps it is for.
        found: usize,
        /// How many steps H has.
        expected: usize,
    },
    /// A step whose values are refused.
    #[error("step {step}: {source}")]
    Step {
        /// The step, from 0.
        step: usize,
        /// The reason.
        source: InputError,
    },
    /// A gradient norm that errors cannot be relative to.
    #[error("step {step}: {tensor} is {value}: ‖dW‖ must be finite and more than 0")]
    InvalidGradientNorm {
        /// The step, from 0.
        step: usize,
        /// The tensor of the norms.
        tensor: String,
        /// The norm.
        value: f32,
    },
}

/// A tensor with an equal part for each step.
#[derive(Debug)]
struct StepTensor {
    name: String,
    dtype: Dtype,
    /// Of the part of one step.
    shape: Vec<usize>,
    /// Where step 0 begins in the file.
    start: u64,
    step_bytes: usize,
}

impl<R: Read + Seek> Recording<R> {
    /// Reads the header, and checks that it describes a recording and fits the file.
    ///
    /// # Errors
    ///
    /// Every [`RecordingError`] except those about values, which are not read yet.
    pub fn open(mut file: R, keys: &RecordingKeys) -> Result<Self, RecordingError> {
        let (header, data_start) = read_header(&mut file)?;
        let h = StepTensor::find(&header, &keys.h, data_start, 3, "steps × tokens × in_features")?;
        let dz_norm = StepTensor::find(&header, &keys.dz_norm, data_start, 2, "steps × tokens")?;
        let g_norm = StepTensor::find(&header, &keys.g_norm, data_start, 1, "one norm for each step")?;
        let steps = |key: &str| header.info(key).and_then(|info| info.shape.first()).copied().unwrap_or(0);
        let (expected, tokens, in_features) = (steps(&keys.h), h.shape[0], h.shape[1]);
        for (tensor, key) in [(&dz_norm, &keys.dz_norm), (&g_norm, &keys.g_norm)] {
            let found = steps(key);
            if found != expected {
                return Err(RecordingError::StepMismatch { tensor: tensor.name.clone(), found, expected });
            }
        }
        if dz_norm.shape[0] != tokens {
            let (tensor, found) = (dz_norm.name, dz_norm.shape[0]);
            return Err(InputError::TokenMismatch { tensor, found, expected: tokens }.into());
        }
        Ok(Self { file, h, dz_norm, g_norm, steps: expected, tokens, in_features })
    }

    /// How many steps were recorded, at least 1.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// How many tokens each step has, at least 1.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many features H has, at least 1.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Reads one step, counted from 0, into new memory.
    ///
    /// # Errors
    ///
    /// The file cannot be read there, or a value is refused: see [`RecordingError`].
    pub fn read_step(&mut self, step: usize) -> Result<Step, RecordingError> {
        let refused = |source| RecordingError::Step { step, source };
        let g_norm = self.g_norm.read(&mut self.file, step)?.values.into_f32()[0];
        if !(g_norm.is_finite() && g_norm > 0.0) {
            let tensor = self.g_norm.name.clone();
            return Err(RecordingError::InvalidGradientNorm { step, tensor, value: g_norm });
        }
        let dz_norms = self.dz_norm.read(&mut self.file, step)?.into_norms().map_err(refused)?;
        let h = self.h.read(&mut self.file, step)?.into_matrix().map_err(refused)?;
        Ok(Step { h, dz_norms, g_norm })
    }
}

/// The header of a safetensors file, and the offset of the data after it.
fn read_header<R: Read + Seek>(file: &mut R) -> Result<(Metadata, u64), RecordingError> {
    let found = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut length = [0; LENGTH_BYTES as usize];
    if found < LENGTH_BYTES {
        return Err(InputError::NotSafetensors(SafeTensorError::HeaderTooSmall).into());
    }
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > found - LENGTH_BYTES {
        return Err(InputError::NotSafetensors(SafeTensorError::InvalidHeaderLength).into());
    }
    if length > LONGEST_HEADER {
        return Err(RecordingError::HeaderTooLong { length });
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| InputError::NotSafetensors(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    let data_start = LENGTH_BYTES + length;
    let expected = data_start.saturating_add(header.data_len() as u64);
    if expected != found {
        return Err(RecordingError::WrongFileLength { expected, found });
    }
    Ok((header, data_start))
}

impl StepTensor {
    fn find(
        header: &Metadata,
        key: &str,
        data_start: u64,
        dimensions: usize,
        expected: &'static str,
    ) -> Result<Self, InputError> {
        let Some(TensorInfo { dtype, shape, data_offsets: (start, end) }) = header.info(key) else {
            return Err(InputError::missing(key, header.offset_keys()));
        };
        let name = format!("tensor '{key}'");
        if shape.len() != dimensions {
            return Err(InputError::WrongShape { tensor: name, shape: shape.clone(), expected });
        }
        if shape.contains(&0) {
            return Err(InputError::Empty { tensor: name, shape: shape.clone() });
        }
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(unsupported(name, *dtype));
        }
        Ok(Self {
            name,
            dtype: *dtype,
            shape: shape[1..].to_vec(),
            start: data_start + *start as u64,
            step_bytes: (end - start) / shape[0],
        })
    }

    fn read<R: Read + Seek>(&self, file: &mut R, step: usize) -> Result<Tensor, RecordingError> {
        file.seek(SeekFrom::Start(self.start + step as u64 * self.step_bytes as u64))?;
        let mut bytes = vec![0; self.step_bytes];
        file.read_exact(&mut bytes)?;
        let values = decode_values(&bytes, self.dtype, &self.name)?;
        Ok(Tensor { name: self.name.clone(), shape: self.shape.clone(), column_major: false, values })
    }
}
