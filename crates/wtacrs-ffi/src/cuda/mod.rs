//! The GPU's side of plans: the launch plans of wtacrs-kernels, on memory that is checked but never touched.
//!
//! A file has the same name as the one of the CPU's side whose calls it serves.

mod cache;
mod layer;
mod predictor;
mod steps;
mod tensor_mul;

pub(crate) use self::cache::DeviceCache;
pub(crate) use self::layer::{CudaLayer, Pass};
pub(crate) use self::predictor::DevicePredictor;
pub(crate) use self::steps::{DeviceSelection, column_norms, gather, row_norms, select, weight_gradient, weights};
pub(crate) use self::tensor_mul::{CudaTensorMul, Gradients, Operands};

use crate::dtype::Dtype;
use crate::guard::{Failure, Outcome};
use crate::status::*;
use crate::tensor::Tensor;
use wtacrs_kernels::plan::{DataType, Memory, Strides};

/// A dtype that kernels have.
pub(crate) fn data_type(dtype: Dtype) -> Outcome<DataType> {
    match dtype {
        Dtype::F32 => Ok(DataType::F32),
        Dtype::F16 => Ok(DataType::F16),
        Dtype::Bf16 => Ok(DataType::Bf16),
        Dtype::F64 => Err(unsupported("no kernel takes WTACRS_F64: it is for references on the CPU")),
    }
}

pub(crate) fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(WTACRS_UNSUPPORTED, format!("on a GPU: {}", message.into()))
}

/// Where the rows of a matrix lie. Kernels walk along rows: only their distance may vary.
pub(crate) fn strides(matrix: &Tensor<2>) -> Outcome<Strides> {
    let ([rows, columns], [row, column]) = (matrix.shape(), matrix.strides());
    if rows == 0 || columns == 0 {
        // No element lies anywhere.
        return Ok(Strides::even(columns, 0));
    }
    let row = if rows > 1 { row } else { columns as isize };
    if (columns > 1 && column != 1) || row < columns as isize {
        let what = matrix.region().what;
        let message = format!(
            "{what} has the strides {row} and {column}: a row's elements must lie side by side, and rows apart"
        );
        return Err(unsupported(message));
    }
    Ok(Strides::even(row as usize, 0))
}

/// A checked block as kernels take it.
pub(crate) fn memory(block: &crate::array::Array<u8>) -> Memory {
    let bytes = block.region().bytes;
    Memory { at: block.as_ptr(), bytes: bytes as u64 }
}

/// A size that a plan tells, as C counts.
pub(crate) fn bytes(bytes: u64) -> Outcome<usize> {
    let size = usize::try_from(bytes).ok().filter(|&size| isize::try_from(size).is_ok());
    size.ok_or_else(|| Failure::new(WTACRS_SIZE_OVERFLOW, format!("{bytes} bytes cannot be addressed")))
}
