//! The product from packed rows: unpack, multiply, turn back.

use super::engine::EngineSettings;
use super::error::{ExecuteError, PlanError};
use super::factors::{Factors, ProductSettings};
use super::kernels;
use super::memory::{Layout, Memory, Part};
use super::product::ProductPlan;
use super::saved::{PackedPlan, SavedParts, Streams, check_groups};
use super::settings::{Engine, Matrices};
use crate::device::Device;
use crate::kernel::matrix::DataType;
use crate::kernel::turn_back::{AlongArgs, DownArgs, Rotation};
use crate::kernel::{self, column_sums, gather_gemm, split_reduce, unpack_rows};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::product::Update;

/// The rotated side of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The product's rows: groups lie down its columns.
    Left,
    /// The product's columns: groups lie along its rows.
    Right,
}

/// A product with packed rows on one side.
#[derive(Clone, Debug)]
pub(super) struct PackedProduct {
    rows: PackedPlan,
    side: Side,
    settings: ProductSettings,
    product: ProductPlan,
    unpacked: Part,
    counted: Part,
    partials: Part,
    workspace: Part,
}

/// The other factor of a product with packed rows, as a plan knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OtherFactor {
    pub(super) engine: Engine,
    /// Whether only some of its rows are multiplied, and lie apart.
    pub(super) gathers: bool,
    /// Where it lies, or its rows when they are gathered.
    pub(super) matrices: Matrices,
}

/// The operands of a product with packed rows, besides those.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedFactors {
    pub(super) saved: Memory,
    pub(super) parts: SavedParts,
    /// The other factor, and the row of it for each packed row; null: the same row.
    pub(super) other: *const u8,
    pub(super) other_matrices: Matrices,
    pub(super) indices: *const u32,
    pub(super) product: *mut u8,
    pub(super) product_matrices: Matrices,
    pub(super) update: Update,
    pub(super) scratch: Memory,
}

impl PackedProduct {
    /// The product of these settings, whose rotated side has as many columns as the rows; none where there is nothing to
    /// multiply. Its parts of the scratch are added to the layout.
    pub(super) fn new(
        rows: PackedPlan,
        side: Side,
        settings: ProductSettings,
        other: OtherFactor,
        layout: &mut Layout,
        device: &Device,
    ) -> Result<Option<Self>, PlanError> {
        let ProductSettings { batch, left, right, types: [left_type, right_type, _], .. } = settings;
        if settings.rows == 0 || left == 0 || right == 0 {
            return Ok(None);
        }
        if side == Side::Right {
            check_groups(left, right)?;
        }
        let padded = rows.groups().padded();
        let element = match side {
            Side::Left => left_type,
            Side::Right => right_type,
        };
        let types = [left_type, right_type, DataType::F32];
        let of_product = match side {
            Side::Left => ProductSettings { left: padded, types, ..settings },
            Side::Right => ProductSettings { right: padded, types, ..settings },
        };
        let OtherFactor { engine, gathers, matrices: of_other } = other;
        let [of_rows, of_turned] = turned(&rows, side, &settings);
        let matrices = match side {
            Side::Left => [of_rows, of_other, of_turned],
            Side::Right => [of_other, of_rows, of_turned],
        };
        let product = ProductPlan::new(of_product, &EngineSettings { engine, gathers, matrices }, device)?;
        let sizes = [batch as u64, settings.rows as u64, padded as u64, element.bytes()];
        let unpacked = layout.part("the unpacked rows", &sizes)?;
        let counted = layout.part("the counts of unpacked rows", &[batch as u64, 4])?;
        let [down, along] = match side {
            Side::Left => [padded as u64, gather_gemm::partial_leading(right as u32)],
            Side::Right => [left as u64, padded as u64],
        };
        let sizes = [u64::from(product.splits()), batch as u64, down, along, 4];
        let partials = layout.part("the partial products", &sizes)?;
        let workspace = layout.part("the workspace of the product", &[product.workspace_bytes()])?;
        Ok(Some(Self { rows, side, settings, product, unpacked, counted, partials, workspace }))
    }

    /// Which program computes it.
    pub(super) fn engine(&self) -> Engine {
        self.product.engine()
    }

    /// Into how many ranges the rows are cut.
    pub(super) fn splits(&self) -> u32 {
        self.product.splits()
    }

    /// How many rows of each problem count, where [`Self::unpack`] writes it.
    pub(super) fn counted(&self, scratch: Memory) -> *const u32 {
        scratch.of::<u32>(self.counted)
    }

    /// Launches the unpacking.
    ///
    /// # Safety
    ///
    /// Saved memory and scratch have the sizes of the plan, and a forward pass wrote the saved memory.
    pub(super) unsafe fn unpack<L: Launcher>(
        &self,
        launcher: &mut L,
        saved: Memory,
        parts: &SavedParts,
        scratch: Memory,
    ) -> Result<(), ExecuteError<L::Error>> {
        let packed = self.rows.rows(saved, parts);
        let ProductSettings { batch, types, .. } = self.settings;
        let padded = self.rows.groups().padded() as u64;
        let is_chosen = !self.rows.keeps_all;
        let args = unpack_rows::Args {
            packed,
            indices: if is_chosen { saved.of(parts.indices) } else { ptr::null_mut() },
            scales: if is_chosen { saved.of(parts.scales) } else { ptr::null_mut() },
            count: if is_chosen { saved.of(parts.count) } else { ptr::null_mut() },
            faults: if is_chosen { ptr::null_mut() } else { saved.of(parts.status) },
            fault_words: parts.status_words,
            counted: scratch.of(self.counted),
            out: scratch.of(self.unpacked),
            out_leading: padded,
            out_matrix: padded * u64::from(packed.shares.rows),
        };
        let data_type = if self.side == Side::Left { types[0] } else { types[1] };
        let (kernel, shape) = kernels::unpack_rows(data_type, &packed, batch as u32);
        // SAFETY: the caller's promise; the outputs are parts of the scratch.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// Launches the product of unpacked rows, and the turn back, which also ends column sums, if there are some.
    ///
    /// # Safety
    ///
    /// As for [`Self::unpack`], which ran before; the other factor, the product and the sums have the sizes of the settings.
    pub(super) unsafe fn multiply<L: Launcher>(
        &self,
        launcher: &mut L,
        factors: &PackedFactors,
        sums: Option<column_sums::FinishArgs>,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &PackedFactors { saved, ref parts, other, other_matrices, scratch, .. } = factors;
        let ProductSettings { batch, left, right, types: [_, _, output], .. } = self.settings;
        let unpacked = scratch.of::<u8>(self.unpacked).cast_const();
        let partials = scratch.of::<f32>(self.partials);
        let [of_rows, of_turned] = turned(&self.rows, self.side, &self.settings);
        let (ends, matrices) = match self.side {
            Side::Left => ([unpacked, other], [of_rows, other_matrices]),
            Side::Right => ([other, unpacked], [other_matrices, of_rows]),
        };
        let multiplied = Factors {
            left: ends[0],
            left_matrices: matrices[0],
            right: ends[1],
            right_matrices: matrices[1],
            indices: factors.indices,
            count: self.counted(scratch),
            // A sum that is not cut goes where the only partial product would be.
            product: partials.cast(),
            product_matrices: of_turned,
            update: Update::Overwrite,
            partials,
            workspace: scratch.of(self.workspace),
        };
        // SAFETY: the caller's promise.
        unsafe { self.product.multiply(launcher, &multiplied) }?;

        let reduce = split_reduce::Args {
            partials,
            splits: self.product.splits(),
            in_features: left as u32,
            out_features: right as u32,
            accumulate: u32::from(factors.update == Update::Accumulate),
            output: output as u32,
            dw: factors.product,
            dw_leading: factors.product_matrices.row,
            dw_spacing: factors.product_matrices.spacing,
        };
        let Streams { first, step } = self.rows.streams;
        let rotation = Rotation { origin: saved.of(parts.origin), first_stream: first, stream_step: step };
        let batch = batch as u32;
        let launched = match self.side {
            Side::Left => {
                let (args, shape) = DownArgs::launch(reduce, rotation, sums, batch);
                // SAFETY: the caller's promise; the partial products are a part of the scratch.
                unsafe { launcher.launch(&kernel::TURN_BACK_DOWN, shape, &args) }
            }
            Side::Right => {
                let (args, shape) = AlongArgs::launch(reduce, rotation, batch);
                // SAFETY: as above.
                unsafe { launcher.launch(&kernel::TURN_BACK_ALONG, shape, &args) }
            }
        };
        launched.map_err(ExecuteError::Launch)
    }
}

/// Where unpacked rows lie, and their product before it is turned back.
fn turned(rows: &PackedPlan, side: Side, settings: &ProductSettings) -> [Matrices; 2] {
    let padded = rows.groups().padded() as u64;
    let (leading, matrix) = match side {
        Side::Left => {
            let leading = gather_gemm::partial_leading(settings.right as u32);
            (leading, padded * leading)
        }
        Side::Right => (padded, settings.left as u64 * padded),
    };
    [Matrices::even(padded, padded * u64::from(rows.shares.rows)), Matrices::even(leading, matrix)]
}
