//! Norms of rows or columns alone: one launch, without a plan.

use super::error::{ExecuteError, PlanError};
use super::kernels;
use super::memory::{MOST_OF_A_BATCH, check_count, check_most, check_pointer};
use super::settings::{Matrices, MatrixNames, Strides};
use crate::kernel::matrix::DataType;
use crate::kernel::{column_norms, row_norms};
use crate::launch::Launcher;
use core::ptr;

/// A batch of matrices in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// The first element.
    pub at: *const u8,
    /// Type of the elements.
    pub data_type: DataType,
    /// How many matrices.
    pub batch: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub columns: usize,
    /// Where the rows lie, in elements.
    pub strides: Strides,
}

impl Matrix {
    /// Refuses a matrix whose elements kernels cannot count.
    ///
    /// # Errors
    ///
    /// A size that is too large, a batch of none; rows that overlap.
    pub fn check(&self) -> Result<(), PlanError> {
        check_count("the number of rows", self.rows)?;
        check_count("the number of columns", self.columns)?;
        check_most("the batch", self.batch, MOST_OF_A_BATCH)?;
        let names = MatrixNames {
            matrix: "x",
            rows: "the rows of x",
            row: "the length of a row of x",
            matrices: "the matrices x",
        };
        let sizes = [self.batch, self.rows, self.columns];
        Matrices::read(names, sizes, self.data_type.bytes(), Some(self.strides)).map(|_| ())
    }

    /// Its sizes as kernels count them, if the pointers are valid.
    fn launched<E>(&self, norms: *const f32) -> Result<[u32; 3], ExecuteError<E>> {
        if self.rows > 0 && self.columns > 0 {
            check_pointer("the matrix", self.at, self.data_type.bytes())?;
        }
        check_pointer("the norms", norms, 4)?;
        Ok([self.batch, self.rows, self.columns].map(|size| size as u32))
    }
}

/// The Euclidean norms of all rows, batch × rows numbers.
///
/// # Errors
///
/// An invalid pointer, before anything is launched; or the launcher's error.
///
/// # Safety
///
/// The matrix was [checked](Matrix::check); matrix and norms lie in memory of the launcher's device, alive and otherwise
/// unused until the launch has run, and do not overlap.
pub unsafe fn launch_row_norms<L: Launcher>(
    launcher: &mut L,
    matrix: &Matrix,
    norms: *mut f32,
) -> Result<(), ExecuteError<L::Error>> {
    if matrix.rows == 0 {
        return Ok(());
    }
    let [batch, rows, columns] = matrix.launched(norms)?;
    // Without columns, addresses of rows could lie outside of all memory.
    let Strides { row, matrices } = if columns > 0 { matrix.strides } else { Strides::even(0, 0) };
    let args = row_norms::Args {
        x: matrix.at,
        leading: row as u64,
        spacing: matrices,
        rows,
        columns,
        theta: ptr::null(),
        norms,
        directions: ptr::null_mut(),
        cached: ptr::null(),
        placement: ptr::null(),
        clamp: 0.0,
        exchange: ptr::null_mut(),
        exchange_words: 0,
    };
    let (kernel, shape) = kernels::row_norms(matrix.data_type, batch, &args);
    // SAFETY: the caller's promise.
    unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
}

/// The Euclidean norms of all columns, batch × columns numbers. Of a layers × tokens matrix of norms they are the joint
/// norms of layers that share their input.
///
/// # Errors
///
/// As for [`launch_row_norms`].
///
/// # Safety
///
/// As for [`launch_row_norms`].
pub unsafe fn launch_column_norms<L: Launcher>(
    launcher: &mut L,
    matrix: &Matrix,
    norms: *mut f32,
) -> Result<(), ExecuteError<L::Error>> {
    if matrix.columns == 0 {
        return Ok(());
    }
    let [batch, rows, columns] = matrix.launched(norms)?;
    let args = column_norms::Args {
        x: matrix.at,
        leading: matrix.strides.row as u64,
        spacing: matrix.strides.matrices,
        rows,
        columns,
        norms,
    };
    let (kernel, shape) = kernels::column_norms(matrix.data_type, columns, batch);
    // SAFETY: the caller's promise.
    unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
}
