//! A norm predictor whose state lies in a GPU's memory.

use super::{CudaLayer, bytes, memory, unsupported};
use crate::array::{Array, check_disjoint, device_block, regions};
use crate::context::Context;
use crate::device::{DeviceMemory, Gpu};
use crate::guard::{Failure, Outcome};
use crate::plan::Plan;
use crate::status::*;
use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;
use wtacrs_core::Keep;
use wtacrs_core::guesses::{NormPredictor, PredictorSettings};
use wtacrs_kernels::kernel::predictor_update::MOST_FEATURES;
use wtacrs_kernels::plan::{Layout, LinearPlan, LinearSettings, Memory, Part, PredictorPlan, UpdateBuffers};

/// The most rows that are learned from in a step: the scratch for them is the predictor's own.
const MOST_ROWS: usize = 4096;

/// A predictor in device memory. Calls that enqueue work need no lock: the order of streams is the caller's.
#[derive(Debug)]
pub(crate) struct DevicePredictor {
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

impl DevicePredictor {
    /// Takes a predictor to a GPU.
    pub(crate) fn new(context: &Arc<Context>, first: NormPredictor) -> Outcome<Self> {
        let settings = first.settings();
        if settings.features > MOST_FEATURES as usize {
            let message = format!("{} features: on a GPU at most {MOST_FEATURES} are possible", settings.features);
            return Err(Failure::new(WTACRS_INVALID_ARGUMENT, message));
        }
        if settings.rows_per_update > MOST_ROWS {
            let message =
                format!("{} rows in a step: on a GPU at most {MOST_ROWS} are possible", settings.rows_per_update);
            return Err(Failure::new(WTACRS_INVALID_ARGUMENT, message));
        }
        let gpu = context.device.gpu().ok_or_else(|| unsupported("the context is the CPU's"))?;
        let rows = settings.rows_per_update;
        // The layer with the most rows that it can learn from.
        let layer = LinearSettings::new(rows, first.in_features(), 1, Keep::Rows(rows));
        let bare = PredictorPlan::new(&LinearPlan::new(layer, gpu.properties())?, settings)?;
        let state_bytes = PredictorPlan::first_bytes(&first)
            .ok_or_else(|| unsupported("kernels do not hold a predictor of so many features"))?;
        let mut layout = Layout::default();
        let what = "the predictor";
        let state = layout.part(what, &[bare.state_bytes()])?;
        let sums = layout.part(what, &[8, bare.sums_len()])?;
        let status = layout.part(what, &[8])?;
        let scratch = layout.part(what, &[bare.scratch_bytes()])?;
        let memory = DeviceMemory::new(Arc::clone(context), bytes(layout.bytes())?, &state_bytes)?;
        Ok(Self { first, bare, memory, state, sums, status, scratch })
    }

    pub(crate) fn settings(&self) -> PredictorSettings {
        self.first.settings()
    }

    /// Refuses the predictor of another layer.
    pub(crate) fn check_columns(&self, in_features: usize) -> Outcome {
        let found = self.first.in_features();
        if found == in_features {
            return Ok(());
        }
        let message = format!("the predictor is for {found} input features, and the plan has {in_features}");
        Err(Failure::new(WTACRS_SHAPE_MISMATCH, message))
    }

    /// Refuses a plan of another context.
    pub(crate) fn check_context(&self, context: &Arc<Context>) -> Outcome {
        if Arc::ptr_eq(self.memory.context(), context) {
            return Ok(());
        }
        Err(Failure::new(WTACRS_DEVICE_MISMATCH, "the predictor was made with another context than the plan"))
    }

    /// Where θ lies.
    pub(crate) fn theta(&self) -> *const f32 {
        let theta = self.bare.theta();
        self.memory.part(self.state.offset + theta.offset, theta.bytes).at.cast()
    }

    /// Where the numbers lie that place its guesses.
    pub(crate) fn placement(&self) -> *const f64 {
        let placement = self.bare.placement();
        self.memory.part(self.state.offset + placement.offset, placement.bytes).at.cast()
    }

    /// How many numbers a step's sums are.
    pub(crate) fn sums_len(&self) -> usize {
        self.bare.sums_len() as usize
    }

    fn part(&self, part: Part) -> Memory {
        self.memory.part(part.offset, part.bytes)
    }

    fn gpu(&self) -> Outcome<&Gpu> {
        self.memory.context().device.gpu().ok_or_else(|| unsupported("the context is the CPU's"))
    }

    /// Learns from a step; with `sums`, only sums it up there.
    ///
    /// # Safety
    ///
    /// `saved`, `dz_norms` and `cached` are NULL or as `wtacrs_norm_predictor_update_cached_on` says, and `sums` was given room for
    /// [`Self::sums_len`] numbers.
    pub(crate) unsafe fn learn(
        &self,
        plan: &Plan,
        (saved, saved_bytes): (*const c_void, usize),
        dz_norms: *const f32,
        cached: Option<*const f32>,
        sums: Option<*mut f64>,
        stream: *mut c_void,
    ) -> Outcome {
        let CudaLayer { linear, .. } =
            plan.cuda.as_ref().ok_or_else(|| Failure::new(WTACRS_DEVICE_MISMATCH, "the plan is the CPU's"))?;
        self.check_context(&plan.context)?;
        self.check_columns(plan.in_features)?;
        let saved = device_block(saved, saved_bytes, plan.sizes.saved, "saved")?;
        let norms = Array::new(dz_norms, plan.tokens, "dz_norms")?;
        let cached = cached.map(|cached| Array::new(cached, plan.tokens, "cached_norms")).transpose()?;
        let update = PredictorPlan::new(linear, self.settings())?;
        let to = match sums {
            None => self.part(self.sums),
            Some(sums) => {
                let sums = device_block(sums.cast(), self.sums.bytes as usize, self.sums.bytes as usize, "sums")?;
                let inputs = [Some(saved.region()), Some(norms.region()), cached.as_ref().map(Array::region)];
                check_disjoint(&[sums.region()], &regions(inputs))?;
                memory(&sums)
            }
        };
        let buffers = UpdateBuffers {
            saved: memory(&saved),
            // Without tokens there may be none, and none is read.
            gradient_norms: if plan.tokens > 0 { norms.as_ptr() } else { saved.as_ptr().cast() },
            cached_norms: cached.map_or(ptr::null(), |cached| cached.as_ptr().cast_const()),
            state: self.part(self.state),
            sums: to,
            status: self.part(self.status).at.cast(),
            scratch: self.part(self.scratch),
        };
        let mut launcher = self.gpu()?.on(stream)?;
        // SAFETY: checked for NULL, size and alignment; the caller has the rest.
        unsafe {
            match sums {
                None => Ok(update.update(&mut launcher, &buffers)?),
                Some(_) => Ok(update.sum(&mut launcher, &buffers)?),
            }
        }
    }

    /// Learns from sums over all ranks.
    ///
    /// # Safety
    ///
    /// `sums` is NULL or as `wtacrs_norm_predictor_apply_on` says.
    pub(crate) unsafe fn apply(&self, sums: *const f64, stream: *mut c_void) -> Outcome {
        let sums = device_block(sums.cast(), self.sums.bytes as usize, self.sums.bytes as usize, "sums")?;
        let (state, status) = (self.part(self.state), self.part(self.status).at.cast());
        let mut launcher = self.gpu()?.on(stream)?;
        // SAFETY: checked for NULL, size and alignment; the caller has the rest.
        Ok(unsafe { self.bare.apply_sums(&mut launcher, state, memory(&sums), status) }?)
    }

    /// What it has learned so far, on the host; waits for all that was launched.
    pub(crate) fn fetch(&self) -> Outcome<NormPredictor> {
        let mut state = vec![0; self.state.bytes as usize];
        // SAFETY: the predictor's own memory, of that size.
        unsafe { self.gpu()?.download(self.part(self.state).at, &mut state) }?;
        let mut fetched = self.first.clone();
        PredictorPlan::restore(&mut fetched, &state)?;
        Ok(fetched)
    }

    /// What came of the last step: the two words of the kernels' status; waits for all that was launched.
    pub(crate) fn outcome(&self) -> Outcome<[u32; 2]> {
        let mut words = [0; 8];
        // SAFETY: the predictor's own memory, of that size.
        unsafe { self.gpu()?.download(self.part(self.status).at, &mut words) }?;
        let [a, b, c, d, e, f, g, h] = words;
        Ok([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])])
    }
}
