//! The plan of a sum over columns: dA = G·Bᵀ from a few columns of G and of B.

use super::engine::EngineSettings;
use super::error::{ExecuteError, PlanError};
use super::factors::{Factors, ProductSettings};
use super::kernels;
use super::memory::{Layout, Part, check_pointer};
use super::packed::{OtherFactor, PackedFactors, PackedProduct, Side};
use super::product::{BackwardBuffers, ProductPlan};
use super::sample::{DeviceRandomness, ForwardBuffers, SamplePlan};
use super::saved::SavedParts;
use super::settings::{Engine, Matrices, Precision};
use crate::device::Device;
use crate::kernel::matrix::DataType;
use crate::kernel::{column_norms, gather_columns};
use crate::launch::Launcher;
use core::ptr;

/// How dA = G·Bᵀ (rows × inner) is estimated for every problem of a batch, with the columns of G (rows × columns) and of
/// B (inner × columns) as pairs.
///
/// B is given as its transpose, columns × inner, as attention has it: for scores = Q·Kᵀ it is K. Kept columns of G become
/// rows in the scratch, and the product is then one over rows.
///
/// Immutable, `Send` and `Sync`, as [`super::LinearPlan`].
#[derive(Clone, Debug)]
pub struct ColumnsPlan {
    sample: SamplePlan,
    rows: usize,
    gradient: DataType,
    result: DataType,
    g: Matrices,
    da: Matrices,
    product: ProductPlan,
    /// The product of packed rows.
    packed: Option<PackedProduct>,
    gathered: Part,
    gathered_matrices: Matrices,
    /// The scratch of the product of native rows.
    product_scratch: Part,
    backward_bytes: u64,
}

/// The settings of a sum over columns, besides those of its sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnsSettings {
    pub(super) rows: usize,
    pub(super) gradient: DataType,
    pub(super) result: DataType,
    pub(super) g: Matrices,
    pub(super) da: Matrices,
    pub(super) precision: Precision,
    pub(super) engine: Engine,
}

impl ColumnsPlan {
    pub(super) fn new(sample: SamplePlan, settings: &ColumnsSettings, device: &Device) -> Result<Self, PlanError> {
        let &ColumnsSettings { rows, gradient, result, g, da, precision, engine } = settings;
        let (batch, kept) = (sample.settings.batch, sample.budget.get());
        let of_product = ProductSettings {
            batch,
            rows: kept,
            left: rows,
            right: sample.settings.columns,
            types: [gradient, sample.settings.data_type, result],
            precision,
        };
        let row = (rows as u64).next_multiple_of(16 / gradient.bytes());
        let gathered_matrices = Matrices::even(row, row * kept as u64);
        let mut layout = Layout::default();
        let gathered = layout.part("the kept columns of G", &[batch as u64, kept as u64, row, gradient.bytes()])?;
        let packed = match sample.packed {
            Some(rows) => {
                let other = OtherFactor { engine, gathers: false, matrices: gathered_matrices };
                PackedProduct::new(rows, Side::Right, of_product, other, &mut layout, device)?
            }
            None => None,
        };
        let engine = EngineSettings {
            engine: if packed.is_some() { Engine::Own } else { engine },
            gathers: false,
            matrices: [gathered_matrices, sample.saved.matrices(kept), da],
        };
        let product = ProductPlan::new(of_product, &engine, device)?;
        let product_scratch = if packed.is_some() { Part::default() } else { product.scratch(&mut layout)? };
        let backward_bytes = layout.bytes();
        Ok(Self {
            sample,
            rows,
            gradient,
            result,
            g,
            da,
            product,
            packed,
            gathered,
            gathered_matrices,
            product_scratch,
            backward_bytes,
        })
    }

    /// k: how many columns are kept for each problem.
    pub fn kept_columns(&self) -> usize {
        self.sample.budget.get()
    }

    /// How far a forward pass advances the offset of its randomness.
    pub fn draws(&self) -> u64 {
        self.sample.draws()
    }

    /// The parts of the saved memory; [`SavedParts::bytes`] is its size.
    pub fn saved(&self) -> &SavedParts {
        &self.sample.saved
    }

    /// Bytes that a forward pass needs while it runs.
    pub fn forward_scratch_bytes(&self) -> u64 {
        self.sample.scratch.bytes
    }

    /// Where a forward pass leaves the norms of B's columns (batch × columns, f32) in its scratch; empty if all
    /// columns are packed.
    pub fn input_norms(&self) -> Part {
        self.sample.scratch.norms
    }

    /// Bytes that a backward pass needs while it runs.
    pub fn backward_scratch_bytes(&self) -> u64 {
        self.backward_bytes
    }

    /// The program that computes the product: see [`super::LinearPlan::engine`].
    pub fn engine(&self) -> Engine {
        self.packed.as_ref().map_or_else(|| self.product.engine(), PackedProduct::engine)
    }

    /// Whether all columns are kept and packed: see [`super::LinearPlan::keeps_all`].
    pub fn keeps_all(&self) -> bool {
        self.sample.keeps_all()
    }

    /// Chooses the columns of B to keep, and saves them as rows: three launches, or one if all columns are packed.
    ///
    /// # Errors
    ///
    /// As for [`super::LinearPlan::forward`].
    ///
    /// # Safety
    ///
    /// As for [`super::LinearPlan::forward`], with Bᵀ as input.
    pub unsafe fn forward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &ForwardBuffers,
        randomness: DeviceRandomness,
    ) -> Result<(), ExecuteError<L::Error>> {
        // SAFETY: the caller's promise.
        unsafe { self.sample.forward(launcher, buffers, randomness) }
    }

    /// Writes or adds the estimate of dA, and the norms of G's columns if they are wanted: at most four launches, or five from
    /// packed columns.
    ///
    /// # Errors
    ///
    /// As for [`super::LinearPlan::backward`].
    ///
    /// # Safety
    ///
    /// As for [`super::LinearPlan::backward`], with G as gradient, the norms of its columns (batch × columns), and dA as
    /// weight gradient.
    pub unsafe fn backward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &BackwardBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &BackwardBuffers { saved, gradient, gradient_norms, weight_gradient, bias_gradient, update, scratch } =
            buffers;
        check_pointer("G", gradient, self.gradient.bytes())?;
        check_pointer("dA", weight_gradient.cast_const(), self.result.bytes())?;
        if !bias_gradient.is_null() {
            return Err(ExecuteError::Unplanned { what: "a bias gradient" });
        }
        saved.check("the saved memory", self.sample.saved.bytes)?;
        scratch.check("the scratch of the backward pass", self.backward_bytes)?;
        let sample = &self.sample.settings;
        let [batch, rows, columns] = [sample.batch, self.rows, sample.pairs].map(|size| size as u32);
        let kept = self.sample.budget.get() as u32;
        if !gradient_norms.is_null() {
            check_pointer("the norms of G's columns", gradient_norms.cast_const(), 4)?;
            let args = column_norms::Args {
                x: gradient,
                leading: self.g.row,
                spacing: self.g.spacing,
                rows,
                columns,
                norms: gradient_norms,
            };
            let (kernel, shape) = kernels::column_norms(self.gradient, columns, batch);
            // SAFETY: the caller's promise.
            unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)?;
        }
        let parts = &self.sample.saved;
        let (mut count, mut indices) =
            (saved.of::<u32>(parts.count).cast_const(), saved.of::<u32>(parts.indices).cast_const());
        if let Some(packed) = &self.packed {
            // SAFETY: the caller's promise.
            unsafe { packed.unpack(launcher, saved, parts, scratch) }?;
            count = packed.counted(scratch);
            if self.keeps_all() {
                indices = ptr::null();
            }
        }
        let gathered = scratch.of::<u8>(self.gathered);
        let args = gather_columns::Args {
            x: gradient,
            leading: self.g.row,
            spacing: self.g.spacing,
            rows,
            kept,
            indices,
            // The saved columns of B hold the scales, or are unpacked with them.
            scales: ptr::null(),
            count,
            out: gathered,
            out_leading: self.gathered_matrices.row,
            out_spacing: self.gathered_matrices.spacing,
        };
        let (kernel, shape) = kernels::gather_columns(self.gradient, kept, rows, batch);
        // SAFETY: the caller's promise; the saved indices lie within G's columns, what is gathered within the scratch.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)?;
        if let Some(packed) = &self.packed {
            let factors = PackedFactors {
                saved,
                parts: *parts,
                other: gathered,
                other_matrices: self.gathered_matrices,
                indices: ptr::null(),
                product: weight_gradient,
                product_matrices: self.da,
                update,
                scratch,
            };
            // SAFETY: as above.
            return unsafe { packed.multiply(launcher, &factors, None) };
        }
        let factors = Factors {
            left: gathered,
            left_matrices: self.gathered_matrices,
            right: saved.of(parts.rows),
            right_matrices: parts.matrices(self.sample.budget.get()),
            indices: ptr::null(),
            count,
            product: weight_gradient,
            product_matrices: self.da,
            update,
            partials: scratch.of(self.product_scratch),
            workspace: scratch.of(self.product_scratch),
        };
        // SAFETY: as above.
        unsafe { self.product.run(launcher, &factors, None) }
    }
}
