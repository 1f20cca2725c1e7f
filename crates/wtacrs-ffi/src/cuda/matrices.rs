//! Matrices, memory and sizes as launch plans take them.

use crate::arguments::{Array, Dtype, Precision, Tensor};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use wtacrs_kernels::plan::{self, DataType, Matrix, Memory, Strides};

/// A dtype that kernels have.
pub(super) fn data_type(dtype: Dtype) -> Outcome<DataType> {
    match dtype {
        Dtype::F32 => Ok(DataType::F32),
        Dtype::F16 => Ok(DataType::F16),
        Dtype::Bf16 => Ok(DataType::Bf16),
        Dtype::F64 => Err(unsupported("no kernel takes WTACRS_F64: it is for references on the CPU")),
    }
}

/// How kernels multiply factors of these dtypes.
pub(super) fn precision(precision: Precision, factors: &[Dtype]) -> Outcome<plan::Precision> {
    match precision {
        Precision::F32 => Ok(plan::Precision::Exact),
        Precision::Tf32 => Ok(plan::Precision::Tf32),
        Precision::Wide if factors.iter().all(|&dtype| dtype == Dtype::F32) => Ok(plan::Precision::Exact),
        Precision::Wide => {
            Err(unsupported("kernels multiply 16-bit dtypes as they are, without WTACRS_PRECISION_WIDE"))
        }
    }
}

pub(super) fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(WTACRS_STATUS_UNSUPPORTED, format!("on a GPU: {}", message.into()))
}

/// Where the rows of a matrix lie. Kernels walk along rows: only their distance may vary.
pub(super) fn strides(matrix: &Tensor<2>) -> Outcome<Strides> {
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
pub(super) fn memory(block: &Array<u8>) -> Memory {
    let bytes = block.region().bytes;
    Memory { at: block.as_ptr(), bytes: bytes as u64 }
}

/// A size of a launch plan, as C counts.
pub(super) fn bytes(bytes: u64) -> Outcome<usize> {
    let size = usize::try_from(bytes).ok().filter(|&size| isize::try_from(size).is_ok());
    size.ok_or_else(|| Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("{bytes} bytes cannot be addressed")))
}

/// A matrix as kernels take it.
pub(super) fn matrix(x: &Tensor<2>) -> Outcome<Matrix> {
    let ([rows, columns], strides) = (x.shape(), strides(x)?);
    let matrix = Matrix { at: x.lowest(), data_type: data_type(x.dtype())?, batch: 1, rows, columns, strides };
    matrix.check()?;
    Ok(matrix)
}
