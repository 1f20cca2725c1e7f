//! The forward half of every plan: chooses the rows of a matrix to keep, and copies them side by side.

use super::error::{ExecuteError, PlanError};
use super::kernels;
use super::memory::{Layout, MOST_OF_A_BATCH, Memory, Part, check_count, check_most, check_pointer};
use super::product::zero;
use super::saved::{PackedPlan, SavedParts, Streams};
use super::settings::{Matrices, MatrixNames, Strides, WeightSource};
use crate::device::Device;
use crate::kernel::matrix::DataType;
use crate::kernel::{self, gather_pack, gather_rows, row_norms, select};
use crate::launch::{Launcher, Shape};
use core::ptr;
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::sampling::{Budget, Keep, Randomness};

/// The matrices to sample, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleSettings {
    pub(super) pairs: usize,
    pub(super) columns: usize,
    pub(super) keep: Keep,
    pub(super) packing: Packing,
    pub(super) design: BuiltIn,
    pub(super) weights: WeightSource,
    pub(super) data_type: DataType,
    pub(super) batch: usize,
    pub(super) names: MatrixNames,
    pub(super) strides: Option<Strides>,
    pub(super) streams: Streams,
}

/// norms → selection → kept rows.
#[derive(Clone, Debug)]
pub(super) struct SamplePlan {
    pub(super) settings: SampleSettings,
    design: select::Design,
    /// The selection's launch.
    select_shape: Shape,
    pub(super) budget: Budget,
    /// How kept rows are packed, unless they are native.
    pub(super) packed: Option<PackedPlan>,
    pub(super) saved: SavedParts,
    pub(super) scratch: SampleScratch,
    matrices: Matrices,
}

/// The parts of a forward pass's scratch.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleScratch {
    pub(super) norms: Part,
    directions: Part,
    pub(super) exchange: Part,
    select: Part,
    pub(super) bytes: u64,
}

/// The arguments of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct ForwardBuffers {
    /// The batch × tokens × in_features elements of H.
    pub input: *const u8,
    /// batch × tokens norms (`Norms`, `Cached`) or in_features numbers θ (`Predicted`) in f32; null for `Input`.
    pub guess: *const f32,
    /// With weights that are `Predicted`: the placement of the predictor's guesses, a part of its state,
    /// [`PredictorPlan::placement`](super::PredictorPlan::placement); else null.
    pub placement: *const f64,
    /// With weights that are `Predicted`: batch × tokens norms from a cache beside the predictor's guess, negative where it has
    /// none; or null.
    pub cached: *const f32,
    /// Receives as many bytes as the plan saves.
    pub saved: Memory,
    /// As many bytes as the plan's forward pass needs.
    pub scratch: Memory,
}

/// The randomness of a forward pass: a [`Randomness`], and a number in device memory that is added to its offset.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRandomness {
    /// Seed and offset, as they are at the launch.
    pub start: Randomness,
    /// The number is added when the kernel runs, so that each replay of a captured graph has bits of its own; null for none.
    pub further_offset: *const u64,
}

impl DeviceRandomness {
    /// From block `offset` of `seed` on, with nothing added.
    pub fn new(seed: u64, offset: u64) -> Self {
        Randomness::new(seed, offset).into()
    }
}

impl From<Randomness> for DeviceRandomness {
    fn from(start: Randomness) -> Self {
        Self { start, further_offset: ptr::null() }
    }
}

impl SamplePlan {
    /// `sizes` names the pairs, the columns and the batch.
    pub(super) fn new(
        settings: SampleSettings,
        [pairs, columns, batch]: [&'static str; 3],
        device: &Device,
    ) -> Result<Self, PlanError> {
        check_count(pairs, settings.pairs)?;
        check_count(columns, settings.columns)?;
        check_most(batch, settings.batch, MOST_OF_A_BATCH)?;
        settings.weights.check()?;
        let budget = settings.keep.budget(settings.pairs)?;
        let sizes = [settings.batch, settings.pairs, settings.columns];
        let matrices = Matrices::read(settings.names, sizes, settings.data_type.bytes(), settings.strides)?;
        let design = kernels::design(settings.design)?;
        let kept = budget.get();
        let keeps_all = settings.pairs > 0 && settings.packing.keeps_all(kept, settings.pairs);
        let sizes = [settings.batch, settings.pairs, kept, settings.columns];
        let packed = settings.packing.bits().map(|bits| PackedPlan::new(bits, sizes, settings.streams, keeps_all));
        let packed = packed.transpose()?;
        let sizes = [settings.batch, kept, settings.columns];
        let saved = SavedParts::new(sizes, settings.data_type, packed.as_ref())?;
        let (_, select_shape) =
            kernels::select(design, settings.pairs as u32, settings.batch as u32, device.multiprocessors);
        let exchange_words = if keeps_all { 0 } else { select::exchange_words(select_shape) };
        let scratch = SampleScratch::new(&settings, design, budget, exchange_words, keeps_all)?;
        Ok(Self { settings, design, select_shape, budget, packed, saved, scratch, matrices })
    }

    pub(super) fn draws(&self) -> u64 {
        let draws = self.settings.design.draws(self.budget);
        if self.packed.is_some() { draws.max(self.settings.pairs as u64) } else { draws }
    }

    /// Whether all rows are packed, and nothing is selected.
    pub(super) fn keeps_all(&self) -> bool {
        self.packed.is_some_and(|packed| packed.keeps_all)
    }

    /// Launches the three kernels of a forward pass, or the one of all rows.
    ///
    /// # Safety
    ///
    /// As for [`super::LinearPlan::forward`].
    pub(super) unsafe fn forward<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &ForwardBuffers,
        randomness: DeviceRandomness,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &ForwardBuffers { input, guess, placement, cached, saved, scratch } = buffers;
        let &SampleSettings { weights, data_type, batch, .. } = &self.settings;
        let is_empty = self.settings.pairs == 0 || self.settings.columns == 0;
        if !is_empty {
            check_pointer("the input", input, data_type.bytes())?;
        }
        let is_weighed = self.settings.pairs > 0 && !self.keeps_all();
        if weights != WeightSource::Input && is_weighed {
            check_pointer("the guess", guess, 4)?;
        }
        let (_, _, clamp) = weights.parts();
        let is_predicted = matches!(weights, WeightSource::Predicted { .. });
        if is_predicted && is_weighed {
            check_pointer("the numbers that place guesses", placement, 8)?;
            if !cached.is_null() {
                check_pointer("the cached norms", cached, 4)?;
            }
        }
        if !randomness.further_offset.is_null() {
            check_pointer("the further offset", randomness.further_offset, 8)?;
        }
        saved.check("the saved memory", self.saved.bytes)?;
        scratch.check("the scratch of the forward pass", self.scratch.bytes)?;
        if self.settings.pairs == 0 {
            // Counts, status and winners are the last parts of the saved memory.
            let words = (self.saved.bytes - self.saved.count.offset) / 4;
            // SAFETY: a part of the saved memory.
            return unsafe { zero(launcher, saved.of(self.saved.count), words as u32) };
        }

        if self.keeps_all() {
            if is_empty {
                // SAFETY: a part of the saved memory.
                return unsafe { zero(launcher, saved.of(self.saved.status), batch as u32) };
            }
            let faults = saved.of(self.saved.status);
            // SAFETY: the caller's buffers have the plan's sizes.
            return unsafe { self.pack(launcher, input, saved, randomness, [ptr::null(); 2], faults) };
        }

        // They were checked to fit when the plan was made.
        let [batch, pairs, columns] = [batch, self.settings.pairs, self.settings.columns].map(|size| size as u32);
        let norms = scratch.of::<f32>(self.scratch.norms);
        let directions = scratch.of::<f32>(self.scratch.directions);
        // Without elements, addresses of rows could lie outside of all memory.
        let Matrices { row: leading, spacing } = if is_empty { Matrices::even(0, 0) } else { self.matrices };
        let args = row_norms::Args {
            x: input,
            leading,
            spacing,
            rows: pairs,
            columns,
            theta: if is_predicted { guess } else { ptr::null() },
            norms,
            directions: if is_predicted { directions } else { ptr::null_mut() },
            cached: if is_predicted { cached } else { ptr::null() },
            placement: if is_predicted { placement } else { ptr::null() },
            clamp,
            exchange: scratch.of(self.scratch.exchange),
            exchange_words: self.exchange_words(),
        };
        let (kernel, shape) = kernels::row_norms(data_type, batch, &args);
        // SAFETY: the caller's buffers have the plan's sizes; the norms are a part of the scratch.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)?;

        let indices = saved.of::<u32>(self.saved.indices);
        let scales = saved.of::<f64>(self.saved.scales);
        let count = saved.of::<u32>(self.saved.count);
        let norms = self.norms_of(scratch, guess);
        let (status, winners) = (saved.of(self.saved.status), saved.of(self.saved.winners));
        let selected = Selected { indices, scales, count, status, winners };
        let streams = self.settings.streams;
        // SAFETY: as above; indices, scales, counts and status are parts of the saved memory.
        unsafe { self.select(launcher, norms, randomness, streams, selected, scratch) }?;
        if is_empty {
            return Ok(());
        }
        if self.packed.is_some() {
            // SAFETY: as above; the selection's indices lie within the input.
            return unsafe { self.pack(launcher, input, saved, randomness, [indices, count], ptr::null_mut()) };
        }
        let rows = KeptRows { at: saved.of(self.saved.rows), matrices: self.saved.matrices(self.budget.get()) };
        // SAFETY: as above; the selection's indices lie within the input, and the rows are a part of the saved memory.
        unsafe { self.gather(launcher, input, selected, rows) }
    }

    /// Launches the packing of selected rows, or of all without a selection.
    ///
    /// # Safety
    ///
    /// Rows are packed, and `saved` was checked; the pointers lead to as many entries as `gather_pack::Args` says.
    unsafe fn pack<L: Launcher>(
        &self,
        launcher: &mut L,
        input: *const u8,
        saved: Memory,
        randomness: DeviceRandomness,
        [indices, count]: [*const u32; 2],
        faults: *mut u32,
    ) -> Result<(), ExecuteError<L::Error>> {
        let Some(packed) = self.packed.map(|packed| packed.rows(saved, &self.saved)) else { return Ok(()) };
        let args = gather_pack::Args {
            x: input,
            leading: self.matrices.row,
            spacing: self.matrices.spacing,
            indices,
            count,
            packed,
            seed: randomness.start.seed,
            offset: randomness.start.offset,
            further_offset: randomness.further_offset,
            faults,
        };
        let (kernel, shape) = kernels::gather_pack(self.settings.data_type, &packed, self.settings.batch as u32);
        // SAFETY: the caller's promise; the outputs are parts of the saved memory.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// Words of each problem's exchange, which is zero before a selection.
    pub(super) fn exchange_words(&self) -> u32 {
        select::exchange_words(self.select_shape)
    }

    /// The norms that a forward pass has left in its scratch, beside the guess that it was given.
    pub(super) fn norms_of(&self, scratch: Memory, guess: *const f32) -> Norms {
        let weights = self.settings.weights;
        let other = match weights {
            WeightSource::Input => ptr::null(),
            WeightSource::Predicted { .. } => scratch.of::<f32>(self.scratch.directions).cast_const(),
            WeightSource::Norms | WeightSource::Cached { .. } => guess,
        };
        Norms { input: scratch.of::<f32>(self.scratch.norms), other, weights }
    }

    /// Launches the selection, whose exchange is zero.
    ///
    /// # Safety
    ///
    /// The pointers lead to as many entries as `select::Args` says, and the scratch was checked.
    pub(super) unsafe fn select<L: Launcher>(
        &self,
        launcher: &mut L,
        norms: Norms,
        randomness: DeviceRandomness,
        streams: Streams,
        selected: Selected,
        scratch: Memory,
    ) -> Result<(), ExecuteError<L::Error>> {
        let (source, mix, clamp) = norms.weights.parts();
        let pairs = self.settings.pairs as u32;
        let args = select::Args {
            input_norms: norms.input,
            other: norms.other,
            source: source as u32,
            pairs,
            budget: self.budget.get() as u32,
            mix,
            clamp,
            seed: randomness.start.seed,
            offset: randomness.start.offset,
            further_offset: randomness.further_offset,
            first_stream: streams.first,
            stream_step: streams.step,
            indices: selected.indices,
            scales: selected.scales,
            count: selected.count,
            status: selected.status,
            winners: selected.winners,
            scratch: scratch.of(self.scratch.select),
            exchange: scratch.of(self.scratch.exchange),
        };
        // SAFETY: the caller's promise.
        unsafe { launcher.launch(kernel::select_kernel(self.design), self.select_shape, &args) }
            .map_err(ExecuteError::Launch)
    }

    /// Launches the copy of kept rows, times their scales unless those are null.
    ///
    /// # Safety
    ///
    /// The pointers lead to as many entries as `gather_rows::Args` says.
    pub(super) unsafe fn gather<L: Launcher>(
        &self,
        launcher: &mut L,
        input: *const u8,
        selected: Selected,
        rows: KeptRows,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &SampleSettings { data_type, batch, columns, .. } = &self.settings;
        let [batch, columns, kept] = [batch, columns, self.budget.get()].map(|size| size as u32);
        let args = gather_rows::Args {
            x: input,
            leading: self.matrices.row,
            spacing: self.matrices.spacing,
            columns,
            rows: kept,
            indices: selected.indices,
            scales: selected.scales,
            count: selected.count,
            out: rows.at,
            out_leading: rows.matrices.row,
            out_spacing: rows.matrices.spacing,
        };
        let (kernel, shape) = kernels::gather_rows(data_type, batch, &args);
        // SAFETY: the caller's promise.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// Sets the strides of the input.
    pub(super) fn set_strides(&mut self, strides: Option<Strides>) -> Result<(), PlanError> {
        let SampleSettings { batch, pairs, columns, data_type, names, .. } = self.settings;
        self.matrices = Matrices::read(names, [batch, pairs, columns], data_type.bytes(), strides)?;
        self.settings.strides = strides;
        Ok(())
    }
}

/// The norms that a selection's weights are made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norms {
    pub(super) input: *const f32,
    pub(super) other: *const f32,
    pub(super) weights: WeightSource,
}

/// Where a selection is written, and read by later launches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected {
    pub(super) indices: *mut u32,
    pub(super) scales: *mut f64,
    pub(super) count: *mut u32,
    pub(super) status: *mut u32,
    pub(super) winners: *mut u64,
}

/// Where kept rows are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptRows {
    pub(super) at: *mut u8,
    pub(super) matrices: Matrices,
}

impl SampleScratch {
    fn new(
        settings: &SampleSettings,
        design: select::Design,
        budget: Budget,
        exchange_words: u32,
        keeps_all: bool,
    ) -> Result<Self, PlanError> {
        // Where all rows are packed, nothing is weighed.
        let batch = if keeps_all { 0 } else { settings.batch as u64 };
        let pairs = settings.pairs as u64;
        let is_predicted = matches!(settings.weights, WeightSource::Predicted { .. });
        let select = kernels::select_scratch_bytes(design, settings.pairs as u32, budget.get() as u32);
        let mut layout = Layout::default();
        Ok(Self {
            norms: layout.part("the norms", &[batch, pairs, 4])?,
            directions: layout.part("the guesses", &[u64::from(is_predicted), batch, pairs, 4])?,
            exchange: layout.part("the scratch of the selection", &[batch, u64::from(exchange_words), 8])?,
            select: layout.part("the scratch of the selection", &[batch, select])?,
            bytes: layout.bytes(),
        })
    }
}
