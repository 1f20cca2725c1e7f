//! A norm predictor whose state lies in a GPU's memory.

use super::gpu::Gpu;
use super::matrices::{bytes, memory, unsupported};
use super::memory::DeviceMemory;
use crate::arguments::{Array, Stream};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use crate::device::{Lesson, NormPredictorObject};
use core::any::Any;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::Keep;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_kernels::kernel::predictor_update::{MOST_FEATURES, Outcome as Learned};
use wtacrs_kernels::plan::{Layout, LinearPlan, LinearSettings, Memory, Part, PredictorPlan, UpdateBuffers};

/// The launches that wrote saved memory, and the GPU that they ran on: what a predictor learns from it with.
#[derive(Debug)]
pub(super) struct SavedByCuda {
    pub(super) gpu: Arc<Gpu>,
    pub(super) linear: LinearPlan,
}

/// The most rows that are learned from in a step: the scratch for them is the predictor's own.
const MOST_ROWS: usize = 4096;

/// A predictor in device memory. Calls that enqueue work need no lock: the order of streams is the caller's.
#[derive(Debug)]
pub(super) struct CudaNormPredictor {
    /// The settings and signs, with what was learned before it came to the GPU.
    first: NormPredictor,
    /// Of no layer, to apply sums.
    bare: PredictorPlan,
    memory: DeviceMemory,
    state: Part,
    sums: Part,
    status: Part,
    scratch: Part,
}

impl CudaNormPredictor {
    /// Moves a predictor to a GPU.
    pub(super) fn new(gpu: &Arc<Gpu>, first: NormPredictor) -> Outcome<Self> {
        let settings = first.settings();
        if settings.features > MOST_FEATURES as usize {
            let message = format!("{} features: on a GPU at most {MOST_FEATURES} are possible", settings.features);
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
        }
        if settings.rows_per_update > MOST_ROWS {
            let message =
                format!("{} rows in a step: on a GPU at most {MOST_ROWS} are possible", settings.rows_per_update);
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
        }
        let rows = settings.rows_per_update;
        // The layer with the most rows that it can learn from.
        let layer = LinearSettings::new(rows, first.in_features(), 1, Keep::Rows(rows));
        let bare = PredictorPlan::new(&LinearPlan::new(layer, gpu.properties())?, settings)?;
        let mut contents = PredictorPlan::first_bytes(&first)
            .ok_or_else(|| unsupported("kernels do not hold a predictor of so many features"))?;
        let mut layout = Layout::default();
        let what = "the predictor";
        let state = layout.part(what, &[bare.state_bytes()])?;
        let sums = layout.part(what, &[8, bare.sums_len()])?;
        let status = layout.part(what, &[8])?;
        let scratch = layout.part(what, &[bare.scratch_bytes()])?;
        // No step so far, so nothing was learned.
        contents.resize(bytes(status.offset)?, 0);
        contents.extend((Learned::Nothing as u32).to_le_bytes());
        let memory = DeviceMemory::zeroed(gpu, bytes(layout.bytes())?, &contents)?;
        Ok(Self { first, bare, memory, state, sums, status, scratch })
    }

    pub(super) fn settings(&self) -> PredictorSettings {
        self.first.settings()
    }

    /// Refuses the predictor of another layer.
    pub(super) fn check_columns(&self, in_features: usize) -> Outcome {
        let found = self.first.in_features();
        if found == in_features {
            return Ok(());
        }
        let message = format!("the predictor is for {found} input features, and the plan has {in_features}");
        Err(Failure::new(WTACRS_STATUS_SHAPE_MISMATCH, message))
    }

    /// The predictor that a plan of a GPU was given.
    pub(super) fn of<'a>(object: &'a dyn NormPredictorObject, gpu: &Arc<Gpu>) -> Outcome<&'a Self> {
        let object: &dyn Any = object;
        let predictor: &Self = object.downcast_ref().ok_or_else(|| {
            Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, "the predictor is the CPU's, and the plan is a GPU's")
        })?;
        predictor.check_gpu(gpu)?;
        Ok(predictor)
    }

    fn check_gpu(&self, gpu: &Arc<Gpu>) -> Outcome {
        if Arc::ptr_eq(self.memory.gpu(), gpu) {
            return Ok(());
        }
        Err(Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, "the predictor was made with another context than the plan"))
    }

    /// Where θ lies.
    pub(super) fn theta(&self) -> *const f32 {
        let theta = self.bare.theta();
        self.memory.part(self.state.offset + theta.offset, theta.bytes).at.cast()
    }

    /// Where the numbers lie that place its guesses.
    pub(super) fn placement(&self) -> *const f64 {
        let placement = self.bare.placement();
        self.memory.part(self.state.offset + placement.offset, placement.bytes).at.cast()
    }

    fn part(&self, part: Part) -> Memory {
        self.memory.part(part.offset, part.bytes)
    }

    /// The launches and buffers of a step; `sums` is where they leave what the step brings.
    fn step(&self, layout: &dyn Any, lesson: &Lesson, sums: Memory) -> Outcome<(PredictorPlan, UpdateBuffers)> {
        let SavedByCuda { gpu, linear } = layout.downcast_ref().ok_or_else(|| {
            Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, "the plan is the CPU's, and the predictor is a GPU's")
        })?;
        self.check_gpu(gpu)?;
        self.check_columns(linear.settings().in_features)?;
        let buffers = UpdateBuffers {
            saved: memory(&lesson.saved),
            // Without tokens there may be no norms, and none is read.
            gradient_norms: match linear.settings().tokens {
                0 => lesson.saved.as_ptr().cast(),
                _ => lesson.dz_norms.as_ptr(),
            },
            cached_norms: lesson.cached_norms.map_or(ptr::null(), |cached| cached.as_ptr().cast_const()),
            state: self.part(self.state),
            sums,
            status: self.part(self.status).at.cast(),
            scratch: self.part(self.scratch),
        };
        Ok((PredictorPlan::new(linear, self.settings())?, buffers))
    }
}

impl NormPredictorObject for CudaNormPredictor {
    fn statistics_len(&self) -> Outcome<usize> {
        Ok(self.bare.sums_len() as usize)
    }

    unsafe fn update(&self, layout: &dyn Any, lesson: Lesson) -> Outcome {
        let (step, buffers) = self.step(layout, &lesson, self.part(self.sums))?;
        // SAFETY: the caller has it.
        Ok(unsafe { step.update(&mut self.memory.gpu().on(lesson.stream)?, &buffers) }?)
    }

    unsafe fn statistics(&self, layout: &dyn Any, lesson: Lesson, sums: &Array<f64>) -> Outcome {
        let (step, buffers) = self.step(layout, &lesson, numbers(sums))?;
        // SAFETY: the caller has it.
        Ok(unsafe { step.sum(&mut self.memory.gpu().on(lesson.stream)?, &buffers) }?)
    }

    unsafe fn apply(&self, sums: &Array<f64>, stream: Stream) -> Outcome {
        let (state, status) = (self.part(self.state), self.part(self.status).at.cast());
        let mut launcher = self.memory.gpu().on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.bare.apply_sums(&mut launcher, state, numbers(sums), status) }?)
    }

    fn outcome(&self) -> Outcome<[u32; 2]> {
        let mut words = [0; 8];
        // SAFETY: the predictor's own memory, of that size.
        unsafe { self.memory.gpu().download(self.part(self.status).at, &mut words) }?;
        let [a, b, c, d, e, f, g, h] = words;
        Ok([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])])
    }

    fn fetch(&self) -> Outcome<NormPredictor> {
        let mut state = vec![0; self.state.bytes as usize];
        // SAFETY: the predictor's own memory, of that size.
        unsafe { self.memory.gpu().download(self.part(self.state).at, &mut state) }?;
        let mut fetched = self.first.clone();
        PredictorPlan::restore(&mut fetched, &state)?;
        Ok(fetched)
    }
}

/// A caller's statistics as kernels take them.
fn numbers(sums: &Array<f64>) -> Memory {
    let region = sums.region();
    Memory { at: sums.as_ptr().cast(), bytes: region.bytes as u64 }
}
