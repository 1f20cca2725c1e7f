//! Which program computes a product: this library's kernels, or the vendor's library.
//!
//! The vendor's library reads dense rows. So kept rows of dZ are gathered first, which pays where its product is enough faster:
//! docs/kernels.md has the arithmetic.

use super::error::{ExecuteError, PlanError};
use super::factors::{Factors, ProductSettings};
use super::settings::{Engine, Matrices, Precision};
use crate::device::Device;
use crate::kernel::matrix::DataType;
use crate::launch::Launcher;
use crate::launch::dense::{DenseLayout, DenseOperands, DenseProduct};
use wtacrs_core::product::Update;

/// Bytes of workspace, as NVIDIA recommends them for Hopper and later, and for GPUs before it. All plans reserve them, because
/// the strides of a call must not change the size of scratch.
const WORKSPACE_BYTES: [u64; 2] = [32 << 20, 4 << 20];
/// From so many elements of a product and so many rows on, the launches of a library's product are worth their time.
const LEAST_ELEMENTS: usize = 1 << 20;
const LEAST_ROWS: usize = 512;
/// From so many columns of the left factor on, the gain pays for gathering the right one.
const LEAST_COLUMNS_TO_GATHER: usize = 1024;
/// The widest access of a thread has so many bytes: a larger alignment would gain nothing.
const MOST_ALIGNMENT: u32 = 16;

/// What the decision depends on beside the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct EngineSettings {
    pub(super) engine: Engine,
    /// Whether rows of the right factor would have to be gathered.
    pub(super) gathers: bool,
    /// Where left factors, right factors and products are expected.
    pub(super) matrices: [Matrices; 3],
}

/// A product by the vendor's library.
#[derive(Clone, Debug)]
pub(super) struct DensePlan {
    product: ProductSettings,
    pub(super) workspace_bytes: u64,
}

impl DensePlan {
    /// The plan if the library is to compute the product.
    ///
    /// # Errors
    ///
    /// It must, and cannot.
    pub(super) fn new(
        product: ProductSettings,
        settings: &EngineSettings,
        device: &Device,
    ) -> Result<Option<Self>, PlanError> {
        let is_empty = product.rows == 0 || product.left == 0 || product.right == 0;
        let wanted = match settings.engine {
            Engine::Own => false,
            Engine::CublasLt => true,
            Engine::Auto => gains(&product, settings.gathers, device),
        };
        if is_empty || !wanted {
            return Ok(None);
        }
        match (Self::prepare(product, settings, device), settings.engine) {
            (Err(_), Engine::Auto) => Ok(None),
            (prepared, _) => prepared.map(Some),
        }
    }

    fn prepare(product: ProductSettings, settings: &EngineSettings, device: &Device) -> Result<Self, PlanError> {
        let none = PlanError::Unsupported { what: "products by cuBLASLt on this device" };
        let library = device.dense.as_ref().ok_or(none)?;
        let [recent, older] = WORKSPACE_BYTES;
        let workspace_bytes = if device.compute_capability.0 >= 9 { recent } else { older };
        let plan = Self { product, workspace_bytes };
        for (batch, first) in batches(product.batch, &settings.matrices) {
            let aligned = [MOST_ALIGNMENT as usize; 3];
            library.prepare(&plan.dense(
                batch,
                plan.first_of(aligned, first, &settings.matrices),
                &settings.matrices,
            ))?;
        }
        Ok(plan)
    }

    /// Launches the product of these factors, whose rows lie one behind the other.
    ///
    /// # Safety
    ///
    /// As for [`ProductPlan::run`](super::product::ProductPlan::run). Rows beyond a matrix's count are read, too: for their products
    /// to be zero, they are zero in one factor and finite in the other.
    pub(super) unsafe fn run<L: Launcher>(
        &self,
        launcher: &mut L,
        factors: &Factors,
    ) -> Result<(), ExecuteError<L::Error>> {
        debug_assert!(factors.indices.is_null(), "gathered rows");
        let matrices = [factors.left_matrices, factors.right_matrices, factors.product_matrices];
        for (batch, first) in batches(self.product.batch, &matrices) {
            let [left, right, product] = self.first_of([0; 3], first, &matrices);
            let operands = DenseOperands {
                left: factors.left.wrapping_add(left),
                right: factors.right.wrapping_add(right),
                product: factors.product.wrapping_add(product),
                accumulate: factors.update == Update::Accumulate,
                workspace: factors.workspace,
            };
            let addresses = [operands.left.addr(), operands.right.addr(), operands.product.addr()];
            // SAFETY: the caller's promise.
            unsafe { launcher.multiply(&self.dense(batch, addresses, &matrices), &operands) }
                .map_err(ExecuteError::Launch)?;
        }
        Ok(())
    }

    /// Where a matrix of the batch begins, if the first ones begin at these addresses.
    fn first_of(&self, addresses: [usize; 3], matrix: u32, matrices: &[Matrices; 3]) -> [usize; 3] {
        let bytes = self.product.types.map(DataType::bytes);
        core::array::from_fn(|i| addresses[i].wrapping_add((matrices[i].spacing.of(matrix) * bytes[i]) as usize))
    }

    fn dense(&self, batch: u32, addresses: [usize; 3], matrices: &[Matrices; 3]) -> DenseProduct {
        let ProductSettings { rows, left, right, types: [factors, _, product], precision, .. } = self.product;
        let bytes = [factors, factors, product].map(DataType::bytes);
        let layout = |i: usize| {
            let Matrices { row, spacing } = matrices[i];
            // A matrix of one row may have any distance to the next row.
            let row = row.max([left, right, right][i] as u64);
            let matrix = if batch == 1 { 0 } else { spacing.of(1) };
            // Every matrix of the batch begins at a multiple of both.
            let bits = addresses[i] as u64 | if batch == 1 { 0 } else { matrix * bytes[i] };
            let alignment = 1 << bits.trailing_zeros().min(MOST_ALIGNMENT.trailing_zeros());
            DenseLayout { row, matrix, alignment }
        };
        let [rows, left, right] = [rows, left, right].map(|size| size as u32);
        DenseProduct {
            batch,
            rows,
            left,
            right,
            factors,
            product,
            tf32: factors == DataType::F32 && precision == Precision::Tf32,
            layouts: [layout(0), layout(1), layout(2)],
            workspace_bytes: self.workspace_bytes,
        }
    }
}

/// Whether the library's product is expected to take less time: on GPUs whose tensor cores are only half used by the
/// instructions of [`gather_gemm`](crate::kernel::gather_gemm).
fn gains(product: &ProductSettings, gathers: bool, device: &Device) -> bool {
    let &ProductSettings { rows, left, right, batch, .. } = product;
    let has_faster_instructions = (9..=11).contains(&device.compute_capability.0);
    let is_large = batch.saturating_mul(left).saturating_mul(right) >= LEAST_ELEMENTS && rows >= LEAST_ROWS;
    has_faster_instructions && is_large && (!gathers || left >= LEAST_COLUMNS_TO_GATHER)
}

/// A batch as the fewest batches of matrices that are equally far apart: how many each has, and its first.
fn batches(batch: usize, matrices: &[Matrices; 3]) -> impl Iterator<Item = (u32, u32)> + use<> {
    let batch = batch as u32;
    // Matrices of a dense array are equally far apart, however many heads a sample has.
    let is_even = |of: &Matrices| {
        let (heads, one) = (of.spacing.heads.get(), of.spacing.of(1));
        batch <= heads || heads == 1 || of.spacing.sample == one * u64::from(heads)
    };
    let uneven = matrices.iter().filter(|of| !is_even(of)).map(|of| of.spacing.heads.get()).reduce(common_divisor);
    let each = uneven.unwrap_or(batch).clamp(1, batch.max(1));
    (0..batch.div_ceil(each)).map(move |i| (each.min(batch - i * each), i * each))
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::matrix::Spacing;
    use core::num::NonZeroU32;

    #[test]
    fn batches_are_equally_far_apart() {
        let heads = |sample, heads| {
            let heads = NonZeroU32::new(heads).expect("not 0");
            Matrices { row: 96, spacing: Spacing { sample, head: 32, heads } }
        };
        let even = Matrices::even(8, 64);
        let of = |matrices| batches(6, &matrices).collect::<Vec<_>>();
        assert_eq!(of([even, even, even]), [(6, 0)]);
        // Side by side in rows of 96, samples elsewhere; and the same one behind the other.
        assert_eq!(of([even, heads(9600, 3), even]), [(3, 0), (3, 3)]);
        assert_eq!(of([even, heads(96, 3), even]), [(6, 0)]);
        assert_eq!(batches(1, &[even, heads(9600, 3), even]).collect::<Vec<_>>(), [(1, 0)]);
        assert_eq!(batches(0, &[even; 3]).count(), 0);
        let of_twelve: Vec<_> = batches(12, &[heads(9600, 4), heads(9600, 6), even]).collect();
        assert_eq!(of_twelve, [(2, 0), (2, 2), (2, 4), (2, 6), (2, 8), (2, 10)]);
    }
}
