//! What stands in for cuBLASLt on the emulator: plain loops.

use super::dense::{Dense, DenseError, DenseLibrary, DenseOperands, DenseProduct};
use crate::kernel::matrix::DataType;
use core::ffi::c_void;
use core::slice;
use half::{bf16, f16};
use std::sync::{Arc, LazyLock};

#[derive(Debug)]
struct StandIn;

impl Dense {
    /// The emulator's: sums in f32, in the order of rows.
    pub fn emulated() -> Self {
        static STAND_IN: LazyLock<Dense> = LazyLock::new(|| Dense::new(Arc::new(StandIn)));
        STAND_IN.clone()
    }
}

impl DenseLibrary for StandIn {
    fn prepare(&self, _product: &DenseProduct) -> Result<(), DenseError> {
        Ok(())
    }

    unsafe fn multiply(
        &self,
        product: &DenseProduct,
        operands: &DenseOperands,
        _stream: *mut c_void,
    ) -> Result<(), DenseError> {
        check(product, operands);
        // As the library may, so that a plan with too little memory is found out.
        // SAFETY: the caller's promise, here and below.
        unsafe { operands.workspace.write_bytes(0xA5, product.workspace_bytes as usize) };
        for matrix in 0..u64::from(product.batch) {
            // SAFETY: a matrix of the batch.
            unsafe { multiply_one(product, operands, matrix) };
        }
        Ok(())
    }
}

/// Ends the process's test where the library would fail, or read beside a matrix.
fn check(product: &DenseProduct, operands: &DenseOperands) {
    let addresses = [operands.left.addr(), operands.right.addr(), operands.product.addr()];
    for ((lies, at), (columns, of)) in product.layouts.iter().zip(addresses).zip(product.matrices()) {
        let (alignment, matrix) = (u64::from(lies.alignment), lies.matrix * of.bytes());
        assert!(lies.row >= u64::from(columns), "rows of {columns} elements that are {} apart", lies.row);
        assert!(alignment.is_power_of_two() && alignment <= 16, "{lies:?}");
        assert!((at as u64 | matrix).is_multiple_of(alignment), "{at:#x} and every {matrix} bytes, not by {alignment}");
    }
    assert!(operands.workspace.addr().is_multiple_of(256), "the workspace");
}

/// # Safety
///
/// As for [`DenseLibrary::multiply`], with a matrix of the batch.
unsafe fn multiply_one(product: &DenseProduct, operands: &DenseOperands, matrix: u64) {
    let [left, right, out] = product.layouts;
    let factors = product.factors;
    let (columns, mut sums) = (product.right as usize, vec![0.0_f32; product.left as usize * product.right as usize]);
    for row in 0..u64::from(product.rows) {
        // SAFETY: rows of the factors.
        let [left, right] = unsafe {
            [
                values(operands.left, matrix * left.matrix + row * left.row, product.left, factors),
                values(operands.right, matrix * right.matrix + row * right.row, product.right, factors),
            ]
        };
        for (sums, left) in sums.chunks_exact_mut(columns).zip(left) {
            sums.iter_mut().zip(&right).for_each(|(sum, right)| *sum += left * right);
        }
    }
    for (row, sums) in (0..).zip(sums.chunks_exact(columns)) {
        let begin = matrix * out.matrix + row * out.row;
        // SAFETY: a row of the product.
        unsafe {
            let mut old = vec![0.0; columns];
            if operands.accumulate {
                old = values(operands.product.cast_const(), begin, product.right, product.product);
            }
            let new = sums.iter().zip(old).map(|(sum, old)| old + sum);
            write(operands.product, begin, new, product.product);
        }
    }
}

/// # Safety
///
/// So many elements of the type lie there.
unsafe fn values(at: *const u8, begin: u64, len: u32, of: DataType) -> Vec<f32> {
    let at = at.wrapping_add((begin * of.bytes()) as usize);
    // SAFETY: the caller's promise.
    unsafe {
        match of {
            DataType::F32 => slice::from_raw_parts(at.cast::<f32>(), len as usize).to_vec(),
            DataType::F16 => slice::from_raw_parts(at.cast::<f16>(), len as usize).iter().map(|x| x.to_f32()).collect(),
            DataType::Bf16 => {
                slice::from_raw_parts(at.cast::<bf16>(), len as usize).iter().map(|x| x.to_f32()).collect()
            }
        }
    }
}

/// # Safety
///
/// There is room for the elements.
unsafe fn write(at: *mut u8, begin: u64, values: impl Iterator<Item = f32>, of: DataType) {
    let at = at.wrapping_add((begin * of.bytes()) as usize);
    for (i, value) in values.enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            match of {
                DataType::F32 => at.cast::<f32>().add(i).write(value),
                DataType::F16 => at.cast::<f16>().add(i).write(f16::from_f32(value)),
                DataType::Bf16 => at.cast::<bf16>().add(i).write(bf16::from_f32(value)),
            }
        }
    }
}
