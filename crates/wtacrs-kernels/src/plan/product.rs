//! The product at the end of every backward pass: Σ_r left[r,:]ᵀ right[r,:] over kept rows, in one launch or two.

use super::engine::{DensePlan, EngineSettings};
use super::error::{ExecuteError, PlanError};
use super::factors::{Factors, ProductSettings};
use super::memory::{Layout, Memory, Part};
use super::settings::{Engine, Precision};
use super::tiling::{Multiplier, ProductSizes, Tiling, tiling};
use crate::device::Device;
use crate::kernel::matrix::{DataType, Spacing};
use crate::kernel::{self, column_sums, gather_gemm, split_reduce};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::product::Update;

/// The arguments of a backward pass.
#[derive(Clone, Copy, Debug)]
pub struct BackwardBuffers {
    /// The memory that the forward pass saved.
    pub saved: Memory,
    /// The gradient of the layer's output: the batch × tokens × out_features elements of dZ.
    pub gradient: *const u8,
    /// Receives the norms of dZ's rows, batch × tokens in f32, for a cache or a predictor; null if they are not wanted, which
    /// saves the launch.
    pub gradient_norms: *mut f32,
    /// The batch × in_features × out_features elements of dW.
    pub weight_gradient: *mut u8,
    /// Receives the exact sums of dZ's rows, batch × out_features in f32, if the plan was made for them; null if they are not
    /// wanted.
    pub bias_gradient: *mut f32,
    /// Whether dW and the bias gradient are overwritten or added to.
    pub update: Update,
    /// As many bytes as the plan's backward pass needs.
    pub scratch: Memory,
}

/// How a product is computed: its kernel and launch, and whether partial products are added up behind it.
#[derive(Clone, Debug)]
pub(super) struct ProductPlan {
    settings: ProductSettings,
    tiling: Tiling,
    /// None: a kernel computes it.
    dense: Option<DensePlan>,
}

impl ProductPlan {
    pub(super) fn new(settings: ProductSettings, engine: &EngineSettings, device: &Device) -> Result<Self, PlanError> {
        let ProductSettings { batch, rows, left, right, types: [input, gradient, product], precision } = settings;
        let multiplier = match (input, precision) {
            (DataType::F32, Precision::Exact) => Multiplier::F32,
            (DataType::F32, Precision::Tf32) => Multiplier::Tf32,
            (DataType::F16, _) => Multiplier::F16,
            (DataType::Bf16, _) => Multiplier::Bf16,
        };
        if input != gradient || !(product == DataType::F32 || product == input) {
            let allowed = "both must be of one type, and the product of that or f32";
            return Err(PlanError::DataTypes { input, gradient, product, allowed });
        }
        // All were checked to fit.
        let [in_features, out_features, rows, batch] = [left, right, rows, batch].map(|size| size as u32);
        let sizes = ProductSizes { in_features, out_features, rows, batch };
        let tiling = tiling(multiplier, sizes, device.multiprocessors);
        Ok(Self { settings, tiling, dense: DensePlan::new(settings, engine, device)? })
    }

    /// The same by this library's kernels, whichever program computes this one.
    pub(super) fn by_kernels(&self) -> Self {
        Self { dense: None, ..self.clone() }
    }

    /// Which program computes it: the vendor's library, from rows that lie one behind the other, or this one.
    pub(super) fn engine(&self) -> Engine {
        if self.dense.is_some() { Engine::CublasLt } else { Engine::Own }
    }

    /// Into how many ranges the rows are cut, by this library.
    pub(super) fn splits(&self) -> u32 {
        if self.dense.is_some() { 1 } else { self.tiling.splits }
    }

    /// Adds what [`Self::run`] needs: the partial products, or the vendor's workspace.
    pub(super) fn scratch(&self, layout: &mut Layout) -> Result<Part, PlanError> {
        match &self.dense {
            Some(dense) => layout.part("the workspace of the product", &[dense.workspace_bytes]),
            None => layout.part("the partial products", &[self.tiling.partial_bytes]),
        }
    }

    /// Bytes of the vendor's workspace.
    pub(super) fn workspace_bytes(&self) -> u64 {
        self.dense.as_ref().map_or(0, |dense| dense.workspace_bytes)
    }

    /// Launches the product, and in its last launch the end of column sums, if there are some.
    ///
    /// # Safety
    ///
    /// Factors, product and partial products have the sizes of the settings, and their indices lie within; so do the sums.
    pub(super) unsafe fn run<L: Launcher>(
        &self,
        launcher: &mut L,
        factors: &Factors,
        sums: Option<column_sums::FinishArgs>,
    ) -> Result<(), ExecuteError<L::Error>> {
        let ProductSettings { batch, rows, left, right, .. } = self.settings;
        let adds_nothing = rows == 0 && factors.update == Update::Accumulate;
        let has_product = left > 0 && right > 0;
        if adds_nothing || !has_product && sums.is_none() {
            return Ok(());
        }
        let args = self.args(factors);
        if has_product && rows > 0 {
            // SAFETY: the caller's promise.
            unsafe { self.multiply(launcher, factors) }?;
        }
        let batch = batch as u32;
        let is_cut = args.splits != 1;
        let reduce = (is_cut && has_product).then(|| split_reduce::shape(args.in_features, args.out_features, batch));
        let reduce_args = split_reduce::Args::of_product(&args);
        let launched = match (reduce, sums) {
            (reduce, Some(sums)) => {
                let (args, shape) = split_reduce::SumsArgs::launch(reduce_args, reduce, sums, batch);
                // SAFETY: as above.
                unsafe { launcher.launch(&kernel::SPLIT_REDUCE_SUMS, shape, &args) }
            }
            // SAFETY: as above.
            (Some(shape), None) => unsafe { launcher.launch(&kernel::SPLIT_REDUCE, shape, &reduce_args) },
            (None, None) => Ok(()),
        };
        launched.map_err(ExecuteError::Launch)
    }

    /// The arguments of the product's launch.
    pub(super) fn args(&self, factors: &Factors) -> gather_gemm::Args {
        let ProductSettings { rows, left, right, types: [_, _, product], .. } = self.settings;
        gather_gemm::Args {
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
            splits: if rows > 0 { self.splits() } else { 0 },
            accumulate: u32::from(factors.update == Update::Accumulate),
            output: product as u32,
            dw: factors.product,
            dw_leading: factors.product_matrices.row,
            dw_spacing: factors.product_matrices.spacing,
            partials: factors.partials,
        }
    }

    /// Launches the product alone: if it is cut, its partial products are to be added up.
    ///
    /// # Safety
    ///
    /// As for [`Self::run`].
    pub(super) unsafe fn multiply<L: Launcher>(
        &self,
        launcher: &mut L,
        factors: &Factors,
    ) -> Result<(), ExecuteError<L::Error>> {
        if let Some(dense) = &self.dense {
            // SAFETY: the caller's promise. Gathers and unpacking leave zeros in rows that do not count.
            return unsafe { dense.run(launcher, factors) };
        }
        let ([input, ..], args) = (self.settings.types, self.args(factors));
        let (kernel, shape) = self.tiling.launch(args.row_layout(input.bytes() as u32));
        // SAFETY: as above.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }
}

/// Makes some words zero, as the sum of no partial products.
///
/// # Safety
///
/// So many words are writable.
pub(super) unsafe fn zero<L: Launcher>(
    launcher: &mut L,
    at: *mut u32,
    words: u32,
) -> Result<(), ExecuteError<L::Error>> {
    let args = split_reduce::Args {
        partials: ptr::null(),
        splits: 0,
        in_features: 1,
        out_features: words,
        accumulate: 0,
        output: DataType::F32 as u32,
        dw: at.cast(),
        dw_leading: u64::from(words),
        dw_spacing: Spacing::even(0),
    };
    // SAFETY: the caller's promise.
    unsafe { launcher.launch(&kernel::SPLIT_REDUCE, split_reduce::shape(1, words, 1), &args) }
        .map_err(ExecuteError::Launch)
}
