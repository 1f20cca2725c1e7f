//! Recorded training steps in a safetensors file, read one step at a time.
//!
//! H is steps × tokens × in_features, the norms of dZ's rows are steps × tokens, and ‖dW‖_F is one number for each
//! step. Opening reads and checks only the header, which says where each step is. So a file of any size takes the memory
//! of one step. No bytes make the reader panic.

use super::safetensors::{Header, check_type, read_values};
use super::tensor::{Described, Values};
use super::{InputError, Matrix};
use safetensors::Dtype;
use std::io::{Read, Seek, SeekFrom};

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
    /// Reading failed, or a header, or a tensor as the header describes it, is refused.
    #[error(transparent)]
    Input(#[from] InputError),
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
    steps: usize,
    /// The part of one step. Its place is where step 0 begins in the file.
    step: Described<u64>,
    dtype: Dtype,
    step_bytes: usize,
}

impl<R: Read + Seek> Recording<R> {
    /// Reads the header, and checks that it describes a recording and fits the file.
    ///
    /// # Errors
    ///
    /// Every [`RecordingError`] except those about values, which are not read yet.
    pub fn open(mut file: R, keys: &RecordingKeys) -> Result<Self, RecordingError> {
        let header = Header::read(&mut file)?;
        let h = StepTensor::find(&header, &keys.h, 3, "steps × tokens × in_features")?;
        let dz_norm = StepTensor::find(&header, &keys.dz_norm, 2, "steps × tokens")?;
        let g_norm = StepTensor::find(&header, &keys.g_norm, 1, "one norm for each step")?;
        let (expected, tokens, in_features) = (h.steps, h.step.shape[0], h.step.shape[1]);
        for tensor in [&dz_norm, &g_norm] {
            if tensor.steps != expected {
                let (tensor, found) = (tensor.step.name.clone(), tensor.steps);
                return Err(RecordingError::StepMismatch { tensor, found, expected });
            }
        }
        if dz_norm.step.shape[0] != tokens {
            let (tensor, found) = (dz_norm.step.name, dz_norm.step.shape[0]);
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

    /// Bytes of an element of H.
    pub fn element_bytes(&self) -> usize {
        self.h.step_bytes / self.h.step.len()
    }

    /// Reads one step, counted from 0, into new memory.
    ///
    /// # Errors
    ///
    /// The file cannot be read there, or a value is refused: see [`RecordingError`].
    pub fn read_step(&mut self, step: usize) -> Result<Step, RecordingError> {
        let refused = |source| RecordingError::Step { step, source };
        let g_norm = self.g_norm.read(&mut self.file, step)?.into_f32()[0];
        if !(g_norm.is_finite() && g_norm > 0.0) {
            let tensor = self.g_norm.step.name.clone();
            return Err(RecordingError::InvalidGradientNorm { step, tensor, value: g_norm });
        }
        let dz_norms = self.dz_norm.read(&mut self.file, step)?;
        let dz_norms = self.dz_norm.step.norms(dz_norms).map_err(refused)?;
        let h = self.h.read(&mut self.file, step)?;
        let h = self.h.step.matrix(h).map_err(refused)?;
        Ok(Step { h, dz_norms, g_norm })
    }
}

impl StepTensor {
    fn find(header: &Header, key: &str, dimensions: usize, expected: &'static str) -> Result<Self, InputError> {
        let (info, start) = header.find(key)?;
        let (name, shape) = (format!("tensor '{key}'"), info.shape.clone());
        if shape.len() != dimensions {
            return Err(InputError::WrongShape { tensor: name, shape, expected });
        }
        if shape.contains(&0) {
            return Err(InputError::Empty { tensor: name, shape });
        }
        check_type(&name, info.dtype)?;
        let (first, last) = info.data_offsets;
        let step = Described { name, shape: shape[1..].to_vec(), column_major: false, place: start };
        Ok(Self { steps: shape[0], step, dtype: info.dtype, step_bytes: (last - first) / shape[0] })
    }

    fn read<R: Read + Seek>(&self, file: &mut R, step: usize) -> Result<Values, InputError> {
        file.seek(SeekFrom::Start(self.step.place + step as u64 * self.step_bytes as u64))?;
        read_values(file, &self.step.name, self.dtype, self.step.len())
    }
}
