//! The product at the end of every plan: Σ_r left[r,:]ᵀ right[r,:] over kept rows, in one launch or two.

use super::data_type::{DataType, Precision};
use super::error::{ExecuteError, PlanError};
use super::kernels::Multiplication;
use super::memory::Memory;
use super::settings::Matrices;
use crate::device::Device;
use crate::kernel::{column_sums, gather_gemm};
use crate::launch::Launcher;
use wtacrs_core::product::Update;

/// What a backward pass reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct BackwardBuffers {
    /// What the forward pass saved.
    pub saved: Memory,
    /// The gradient of the layer's output: the batch × tokens × out_features elements of dZ.
    pub gradient: *const u8,
    /// Where the norms of dZ's rows go, batch × tokens in f32, for a cache or a predictor; null if nobody wants them,
    /// which saves the launch.
    pub gradient_norms: *mut f32,
    /// The batch × in_features × out_features elements of dW.
    pub weight_gradient: *mut u8,
    /// Where the exact sums of dZ's rows go, batch × out_features in f32, if the plan was made for them; null if nobody
    /// wants them.
    pub bias_gradient: *mut f32,
    /// What becomes of old values of dW and of the bias gradient.
    pub update: Update,
    /// As many bytes as the plan's backward pass needs.
    pub scratch: Memory,
}

/// A batch of products of `rows` pairs of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProductSettings {
    pub(super) batch: usize,
    pub(super) rows: usize,
    /// Columns of the left factor: rows of the product.
    pub(super) left: usize,
    /// Columns of the right factor and of the product.
    pub(super) right: usize,
    /// Types of both factors and of the product.
    pub(super) types: [DataType; 3],
    pub(super) precision: Precision,
}

#[derive(Clone, Debug)]
pub(super) struct ProductPlan {
    settings: ProductSettings,
    multiplication: Multiplication,
}

/// One run's factors and product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    pub(super) left: *const u8,
    pub(super) left_matrices: Matrices,
    pub(super) right: *const u8,
    pub(super) right_matrices: Matrices,
    /// Null: row r of the left factor goes with row r of the right one.
    pub(super) indices: *const u32,
    pub(super) count: *const u32,
    pub(super) product: *mut u8,
    pub(super) product_matrices: Matrices,
    pub(super) update: Update,
    pub(super) partials: *mut f32,
}

impl ProductPlan {
    pub(super) fn new(settings: ProductSettings, device: &Device) -> Result<Self, PlanError> {
        let multiplication = Multiplication::new(&settings, device)?;
        Ok(Self { settings, multiplication })
    }

    /// Into how many ranges of rows it is cut.
    pub(super) fn splits(&self) -> u32 {
        self.multiplication.tiling.splits
    }

    /// Bytes of the partial products.
    pub(super) fn partial_bytes(&self) -> u64 {
        self.multiplication.tiling.partial_bytes
    }

    /// `sums` end in the last launch.
    ///
    /// # Safety
    ///
    /// Factors, product and partial products are as large as the settings tell, and their indices lie within; the sums as
    /// large as they tell.
    pub(super) unsafe fn run<L: Launcher>(
        &self,
        launcher: &mut L,
        factors: &Factors,
        sums: Option<column_sums::FinishArgs>,
    ) -> Result<(), ExecuteError<L::Error>> {
        let ProductSettings { rows, left, right, .. } = self.settings;
        let adds_nothing = rows == 0 && factors.update == Update::Accumulate;
        if adds_nothing || (left == 0 || right == 0) && sums.is_none() {
            return Ok(());
        }
        let args = gather_gemm::Args {
            saved: factors.left,
            saved_leading: factors.left_matrices.row,
            saved_spacing: factors.left_matrices.spacing,
            dz: factors.right,
            dz_leading: factors.right_matrices.row,
            dz_spacing: factors.right_matrices.spacing,
            indices: factors.indices,
            count: factors.count,
            rows: rows as u32,
            in_features: left as u32,
            out_features: right as u32,
            // Without rows the product is the sum of no partial products.
            splits: if rows > 0 { self.multiplication.tiling.splits } else { 0 },
            accumulate: u32::from(factors.update == Update::Accumulate),
            output: self.multiplication.output(),
            dw: factors.product,
            dw_leading: factors.product_matrices.row,
            dw_spacing: factors.product_matrices.spacing,
            partials: factors.partials,
        };
        // SAFETY: the caller's promise.
        unsafe { self.multiplication.run(launcher, &args, sums) }.map_err(ExecuteError::Launch)
    }
}
