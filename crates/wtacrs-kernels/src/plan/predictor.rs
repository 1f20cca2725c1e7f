//! The plan by which a norm predictor learns from a step's kept rows.

use super::error::{ExecuteError, PlanError};
use super::kernels;
use super::linear::LinearPlan;
use super::memory::{Layout, Memory, Part, check_pointer};
use super::saved::{PackedPlan, SavedParts};
use crate::kernel::matrix::DataType;
use crate::kernel::predictor_update::{self, MOST_FEATURES, PackedArgs, State};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::guesses::{NormPredictor, Placement, PredictorError, PredictorSettings};
use wtacrs_exact::predictor::state as layout;

/// The launches by which a layer's norm predictor learns, and their memory.
///
/// Its state lies in device memory, begins as [`Self::first_bytes`] of a predictor of wtacrs-core, and moves with
/// every step; its θ ([`Self::theta`]) is the guess of a forward pass whose weights are
/// [`Predicted`](super::WeightSource::Predicted).
///
/// Immutable, `Send` and `Sync`; a state belongs to one call at a time.
#[derive(Clone, Debug)]
pub struct PredictorPlan {
    settings: PredictorSettings,
    in_features: u32,
    budget: u32,
    input: DataType,
    saved: SavedParts,
    packed: Option<PackedPlan>,
    state: State,
    scratch: Part,
    scratch_bytes: u64,
    sums_bytes: u64,
}

/// The arguments of an update.
#[derive(Clone, Copy, Debug)]
pub struct UpdateBuffers {
    /// The memory that the forward pass saved.
    pub saved: Memory,
    /// The norms of all rows of dZ, from the backward pass.
    pub gradient_norms: *const f32,
    /// The cached norms of the forward pass, for all tokens; null if it had none.
    pub cached_norms: *const f32,
    /// The predictor's state.
    pub state: Memory,
    /// The step's sums: [`PredictorPlan::sums_len`] numbers (f64), which may be added over ranks between
    /// [`PredictorPlan::sum`] and [`PredictorPlan::apply`].
    pub sums: Memory,
    /// Receives two words (u32), the outcome: see `status` of [`predictor_update::Args`].
    pub status: *mut u32,
    /// As many bytes as the plan needs.
    pub scratch: Memory,
}

impl PredictorPlan {
    /// The most features that a predictor on a device has.
    pub const MOST_FEATURES: usize = MOST_FEATURES as usize;

    /// The plan for a layer's predictor.
    ///
    /// # Errors
    ///
    /// A batch of layers; more features than the kernels hold; settings out of range.
    pub fn new(layer: &LinearPlan, settings: PredictorSettings) -> Result<Self, PlanError> {
        if layer.settings().batch != 1 {
            return Err(PlanError::Unsupported { what: "a norm predictor for a batch of layers" });
        }
        let most = Self::MOST_FEATURES;
        match settings.features {
            0 => return Err(PlanError::Zero { what: "the number of a predictor's features" }),
            found if found > most => {
                return Err(PlanError::TooLarge { what: "the number of a predictor's features", found, most });
            }
            _ => {}
        }
        if settings.rows_per_update == 0 {
            return Err(PlanError::Zero { what: "the number of rows that a predictor learns from" });
        }
        for (what, found, is_allowed, allowed) in [
            (
                "the forgetting",
                settings.forgetting,
                settings.forgetting > 0.0 && settings.forgetting <= 1.0,
                "above 0 and at most 1",
            ),
            ("the ridge", settings.ridge, settings.ridge > 0.0 && settings.ridge.is_finite(), "positive and finite"),
            ("the clamp", settings.clamp, settings.clamp > 0.0 && settings.clamp <= 20.0, "above 0 and at most 20"),
        ] {
            if !is_allowed {
                return Err(PlanError::OutOfRange { what, found, allowed });
            }
        }
        // The layer's plan has checked that they fit. A layer without tokens has no rows; room for one is enough.
        let (in_features, budget) = (layer.settings().in_features as u32, layer.kept_rows().max(1) as u32);
        let features = settings.features as u32;
        let rows = settings.rows_per_update.min(budget as usize) as u32;
        let mut layout = Layout::default();
        let scratch_bytes = predictor_update::scratch_bytes(budget, rows, in_features, features);
        let scratch = layout.part("the scratch of a predictor's update", &[scratch_bytes])?;
        Ok(Self {
            settings,
            in_features,
            budget,
            input: layer.settings().input,
            saved: *layer.saved(),
            packed: layer.sample.packed,
            state: State::new(in_features, features),
            scratch,
            scratch_bytes: layout.bytes(),
            sums_bytes: predictor_update::sums_bytes(in_features, features),
        })
    }

    /// Bytes of the state.
    pub fn state_bytes(&self) -> u64 {
        self.state.bytes
    }

    /// A predictor's state as bytes, to be copied to a device; none if it has more than [`Self::MOST_FEATURES`].
    pub fn first_bytes(predictor: &NormPredictor) -> Option<Vec<u8>> {
        let state = state_of(predictor)?;
        let mut bytes = vec![0; state.bytes as usize];
        write(&mut bytes, 0, predictor.state().iter().flat_map(|number| number.to_le_bytes()));
        write(&mut bytes, state.theta, predictor.theta().iter().flat_map(|&theta| (theta as f32).to_le_bytes()));
        write(&mut bytes, state.signs, predictor.sign_words().iter().flat_map(|word| word.to_le_bytes()));
        let Placement { excess, intercept, shift, slope } = predictor.placement();
        let placement = [excess, intercept, shift, slope];
        write(&mut bytes, state.placement, placement.into_iter().flat_map(|number| number.to_le_bytes()));
        Some(bytes)
    }

    /// Restores a predictor from the state that its copy on a device has reached.
    ///
    /// # Errors
    ///
    /// A wrong number of bytes; numbers that are not finite.
    pub fn restore(predictor: &mut NormPredictor, bytes: &[u8]) -> Result<(), PredictorError> {
        let (expected, found) = (state_of(predictor).map_or(0, |state| state.bytes as usize), bytes.len());
        if expected != found {
            return Err(PredictorError::LengthMismatch { what: "the state", expected, found });
        }
        let count = layout::len(predictor.features());
        let (words, _) = bytes[..8 * count].as_chunks::<8>();
        let learned: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
        predictor.restore(&learned)
    }

    /// Where in the state θ lies (in_features numbers, f32).
    pub fn theta(&self) -> Part {
        Part { offset: self.state.theta, bytes: 4 * u64::from(self.in_features) }
    }

    /// Where in the state the placement of its guesses lies: the four numbers of [`ForwardBuffers::placement`].
    ///
    /// [`ForwardBuffers::placement`]: super::ForwardBuffers::placement
    pub fn placement(&self) -> Part {
        Part { offset: self.state.placement, bytes: 4 * 8 }
    }

    /// How many numbers a step's sums have.
    pub fn sums_len(&self) -> u64 {
        self.sums_bytes / 8
    }

    /// Bytes that an update needs while it runs.
    pub fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    /// Learns from a step: three launches.
    ///
    /// # Errors
    ///
    /// An invalid pointer or size, before anything is launched; or the launcher's error.
    ///
    /// # Safety
    ///
    /// As for [`LinearPlan::backward`], with [`UpdateBuffers`]; the saved memory and the norms are those of the same step.
    pub unsafe fn update<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &UpdateBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        // SAFETY: the caller's promise.
        unsafe {
            self.sum(launcher, buffers)?;
            self.apply(launcher, buffers)
        }
    }

    /// The first two launches: this rank's sums.
    ///
    /// # Errors
    ///
    /// As for [`Self::update`].
    ///
    /// # Safety
    ///
    /// As for [`Self::update`].
    pub unsafe fn sum<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &UpdateBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        let args = self.args(buffers)?;
        if let Some(packed) = self.packed {
            let args = PackedArgs { update: args, packed: packed.rows(buffers.saved, &self.saved) };
            let (kernel, shape) = kernels::predictor_features_packed(&args);
            // SAFETY: the caller's promise; the saved parts lie within the saved memory.
            unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)?;
        } else {
            let (kernel, shape) = kernels::predictor_features(self.input, &args);
            // SAFETY: as above.
            unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)?;
        }
        let (kernel, shape) = kernels::predictor_sums(&args);
        // SAFETY: as above.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// The last launch: the state moves by the sums, of this rank or of all of them.
    ///
    /// # Errors
    ///
    /// As for [`Self::update`].
    ///
    /// # Safety
    ///
    /// As for [`Self::update`], after [`Self::sum`].
    pub unsafe fn apply<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &UpdateBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        let args = self.args(buffers)?;
        let (kernel, shape) = kernels::predictor_apply();
        // SAFETY: the caller's promise.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// [`Self::apply`] for sums of several ranks, without the buffers of a step.
    ///
    /// # Errors
    ///
    /// As for [`Self::update`].
    ///
    /// # Safety
    ///
    /// As for [`Self::update`], with the state, the sums and the two words of [`UpdateBuffers::status`].
    pub unsafe fn apply_sums<L: Launcher>(
        &self,
        launcher: &mut L,
        state: Memory,
        sums: Memory,
        status: *mut u32,
    ) -> Result<(), ExecuteError<L::Error>> {
        let args = self.apply_args(state, sums, status)?;
        let (kernel, shape) = kernels::predictor_apply();
        // SAFETY: the caller's promise; the kernel reads neither rows nor scratch.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    fn args<E>(&self, buffers: &UpdateBuffers) -> Result<predictor_update::Args, ExecuteError<E>> {
        let &UpdateBuffers { saved, gradient_norms, cached_norms, state, sums, status, scratch } = buffers;
        saved.check("the saved memory", self.saved.bytes)?;
        check_pointer("the norms of dZ", gradient_norms, 4)?;
        if !cached_norms.is_null() {
            check_pointer("the cached norms", cached_norms, 4)?;
        }
        scratch.check("the scratch of a predictor's update", self.scratch_bytes)?;
        let is_chosen = !self.packed.is_some_and(|packed| packed.keeps_all);
        Ok(predictor_update::Args {
            rows: if self.packed.is_some() { ptr::null() } else { saved.of::<u8>(self.saved.rows).cast_const() },
            count: if is_chosen { saved.of(self.saved.count) } else { ptr::null_mut() },
            indices: if is_chosen { saved.of(self.saved.indices) } else { ptr::null_mut() },
            dz_norms: gradient_norms,
            cached_norms,
            scales: if is_chosen { saved.of(self.saved.scales) } else { ptr::null_mut() },
            scratch: scratch.of(self.scratch),
            ..self.apply_args(state, sums, status)?
        })
    }

    /// Arguments without a step's rows.
    fn apply_args<E>(
        &self,
        state: Memory,
        sums: Memory,
        status: *mut u32,
    ) -> Result<predictor_update::Args, ExecuteError<E>> {
        state.check("the predictor's state", self.state.bytes)?;
        sums.check("the predictor's sums", self.sums_bytes)?;
        check_pointer("the predictor's status", status.cast_const(), 4)?;
        let PredictorSettings { features, forgetting, ridge, clamp, rows_per_update, .. } = self.settings;
        Ok(predictor_update::Args {
            rows: ptr::null(),
            leading: self.saved.row_elements,
            in_features: self.in_features,
            features: features as u32,
            budget: self.budget,
            rows_per_update: rows_per_update.min(self.budget as usize) as u32,
            count: ptr::null(),
            indices: ptr::null(),
            dz_norms: ptr::null(),
            cached_norms: ptr::null(),
            scales: ptr::null(),
            forgetting,
            ridge,
            clamp,
            state: state.at,
            scratch: ptr::null_mut(),
            sums: sums.at.cast(),
            status,
        })
    }
}

/// The layout of a predictor's state; none if it has too many features.
fn state_of(predictor: &NormPredictor) -> Option<State> {
    let in_features = u32::try_from(predictor.in_features()).ok()?;
    let features = u32::try_from(predictor.features()).ok().filter(|r| *r <= MOST_FEATURES)?;
    Some(State::new(in_features, features))
}

fn write(bytes: &mut [u8], first: u64, values: impl Iterator<Item = u8>) {
    bytes[first as usize..].iter_mut().zip(values).for_each(|(to, from)| *to = from);
}
