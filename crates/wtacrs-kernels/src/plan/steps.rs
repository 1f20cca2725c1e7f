//! A layer's steps one by one, for frameworks that fuse their own: selection, gather, product.

use super::error::{ExecuteError, PlanError};
use super::factors::Factors;
use super::gradient::{KeptOfGradient, gathered_matrices};
use super::kernels;
use super::linear::LinearPlan;
use super::memory::{Layout, Memory, Part, check_pointer};
use super::product::zero;
use super::sample::{DeviceRandomness, KeptRows, Norms, Selected};
use super::saved::Streams;
use super::settings::{Matrices, WeightSource};
use crate::kernel::matrix::Spacing;
use crate::kernel::{row_norms, select};
use crate::launch::Launcher;
use core::ptr;
use wtacrs_core::product::Update;

/// The arguments of a selection.
#[derive(Clone, Copy, Debug)]
pub struct SelectBuffers {
    /// ‖H_i‖ of every token.
    pub input_norms: *const f32,
    /// As many norms of dZ (`Norms`, `Cached`); null otherwise.
    pub guess: *const f32,
    /// Receives the indices: as many as the plan keeps rows.
    pub indices: *mut u32,
    /// Receives as many scales.
    pub scales: *mut f64,
    /// Receives their number.
    pub count: *mut u32,
    /// Receives 0, or 1 + the index of the first invalid norm; the count is then 0.
    pub status: *mut u32,
    /// Receives the number of those that are certain; null if it is not wanted.
    pub winners: *mut u64,
    /// As many bytes as the plan's forward pass needs.
    pub scratch: Memory,
}

/// The arguments of a gather.
#[derive(Clone, Copy, Debug)]
pub struct GatherBuffers {
    /// H.
    pub input: *const u8,
    /// The tokens to copy; rows beyond the count become zero.
    pub indices: *const u32,
    /// How many of them are used.
    pub count: *const u32,
    /// Receives as many rows as the plan keeps.
    pub rows: *mut u8,
    /// Elements from one of them to the next.
    pub row_elements: usize,
}

/// The arguments of a product of rows that the caller keeps.
#[derive(Clone, Copy, Debug)]
pub struct GradientBuffers {
    /// As many unscaled rows of H as the plan keeps.
    pub rows: *const u8,
    /// Elements from one of them to the next.
    pub row_elements: usize,
    /// Their tokens.
    pub indices: *const u32,
    /// Their scales.
    pub scales: *const f64,
    /// How many of them are used.
    pub count: *const u32,
    /// dZ.
    pub gradient: *const u8,
    /// dW.
    pub weight_gradient: *mut u8,
    /// Whether dW is overwritten or added to.
    pub update: Update,
    /// As many bytes as [`LinearPlan::gradient_scratch_bytes`] returns.
    pub scratch: Memory,
}

impl LinearPlan {
    /// Chooses tokens from norms, as a forward pass does between the norms and the gather. A plan of predicted weights uses the
    /// norms of H only.
    ///
    /// `stream` is the item's number in a batch that shares one offset.
    ///
    /// # Errors
    ///
    /// An invalid pointer or size, before anything is launched; or the launcher's error.
    ///
    /// # Safety
    ///
    /// As for [`Self::forward`], with [`SelectBuffers`]. The plan is of one problem.
    pub unsafe fn select<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &SelectBuffers,
        randomness: DeviceRandomness,
        stream: u32,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &SelectBuffers { input_norms, guess, indices, scales, count, status, winners, scratch } = buffers;
        if self.keeps_all() {
            return Err(ExecuteError::Unplanned { what: "a selection" });
        }
        let norms = self.given_norms(input_norms, guess)?;
        if !randomness.further_offset.is_null() {
            check_pointer("the further offset", randomness.further_offset, 8)?;
        }
        let is_empty = self.settings().tokens == 0;
        if !is_empty {
            check_pointer("the indices", indices.cast_const(), 4)?;
            check_pointer("the scales", scales.cast_const(), 8)?;
        }
        check_pointer("the count", count.cast_const(), 4)?;
        check_pointer("the status", status.cast_const(), 4)?;
        if !winners.is_null() {
            check_pointer("the winners", winners.cast_const(), 8)?;
        }
        scratch.check("the scratch of the forward pass", self.forward_scratch_bytes())?;
        if is_empty {
            // SAFETY: the caller's promise: one number each.
            unsafe {
                zero(launcher, count, 1)?;
                zero(launcher, status, 1)?;
                return if winners.is_null() { Ok(()) } else { zero(launcher, winners.cast(), 2) };
            }
        }
        // Without rows the launch only clears the memory by which the selection's blocks exchange values.
        let args = row_norms::Args {
            x: ptr::null(),
            leading: 0,
            spacing: Spacing::even(0),
            rows: 0,
            columns: 1,
            theta: ptr::null(),
            norms: ptr::null_mut(),
            directions: ptr::null_mut(),
            cached: ptr::null(),
            placement: ptr::null(),
            clamp: 0.0,
            exchange: scratch.of(self.sample.scratch.exchange),
            exchange_words: self.sample.exchange_words(),
        };
        let (kernel, shape) = kernels::row_norms(self.settings().input, 1, &args);
        // SAFETY: the exchange is a part of the scratch.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)?;
        let selected = Selected { indices, scales, count, status, winners };
        let streams = Streams { first: stream, step: 0 };
        // SAFETY: the caller's promise.
        unsafe { self.sample.select(launcher, norms, randomness, streams, selected, scratch) }
    }

    /// Writes the weights that [`Self::select`] makes of norms, or NaN for all tokens if a norm is invalid. One launch of one
    /// block, for inspection only.
    ///
    /// # Errors
    ///
    /// As for [`Self::select`].
    ///
    /// # Safety
    ///
    /// As for [`Self::select`]; `weights` has room for one weight of each token. The plan is of one problem.
    pub unsafe fn weights<L: Launcher>(
        &self,
        launcher: &mut L,
        [input_norms, guess]: [*const f32; 2],
        weights: *mut f64,
    ) -> Result<(), ExecuteError<L::Error>> {
        if self.settings().tokens == 0 {
            return Ok(());
        }
        let norms = self.given_norms(input_norms, guess)?;
        // SAFETY: the caller's promise.
        unsafe { self.launch_weights(launcher, norms, weights) }
    }

    /// Writes the weights that the last forward pass has chosen by, from what it left in its scratch: as [`Self::weights`].
    ///
    /// # Errors
    ///
    /// As for [`Self::weights`]; [`ExecuteError::Unplanned`] if all tokens are packed.
    ///
    /// # Safety
    ///
    /// As for [`Self::weights`]; the scratch and the guess are those of a forward pass of this plan, launched before on this
    /// stream, and nobody has written to them since.
    pub unsafe fn weights_of_forward<L: Launcher>(
        &self,
        launcher: &mut L,
        scratch: Memory,
        guess: *const f32,
        weights: *mut f64,
    ) -> Result<(), ExecuteError<L::Error>> {
        if self.keeps_all() {
            return Err(ExecuteError::Unplanned { what: "the weights of tokens that are all packed" });
        }
        if self.settings().tokens == 0 {
            return Ok(());
        }
        scratch.check("the scratch of the forward pass", self.sample.scratch.bytes)?;
        // SAFETY: the caller's promise.
        unsafe { self.launch_weights(launcher, self.sample.norms_of(scratch, guess), weights) }
    }

    /// # Safety
    ///
    /// As for [`Self::weights`].
    unsafe fn launch_weights<L: Launcher>(
        &self,
        launcher: &mut L,
        norms: Norms,
        weights: *mut f64,
    ) -> Result<(), ExecuteError<L::Error>> {
        check_pointer("the weights", weights.cast_const(), 8)?;
        let (source, mix, clamp) = norms.weights.parts();
        let pairs = self.settings().tokens as u32;
        let args = select::WeightsArgs {
            input_norms: norms.input,
            other: norms.other,
            source: source as u32,
            pairs,
            mix,
            clamp,
            weights,
        };
        let (kernel, shape) = kernels::weights(pairs, 1);
        // SAFETY: the caller's promise.
        unsafe { launcher.launch(kernel, shape, &args) }.map_err(ExecuteError::Launch)
    }

    /// The sources of weights where only norms are known.
    fn given_norms<E>(&self, input_norms: *const f32, guess: *const f32) -> Result<Norms, ExecuteError<E>> {
        let weights = match self.settings().weights {
            WeightSource::Predicted { .. } => WeightSource::Input,
            weights => weights,
        };
        if self.settings().tokens > 0 {
            check_pointer("the norms", input_norms, 4)?;
        }
        if weights == WeightSource::Input || self.settings().tokens == 0 {
            return Ok(Norms { input: input_norms, other: ptr::null(), weights });
        }
        check_pointer("the guess", guess, 4)?;
        Ok(Norms { input: input_norms, other: guess, weights })
    }

    /// Copies the selected rows of H, unscaled.
    ///
    /// # Errors
    ///
    /// As for [`Self::select`].
    ///
    /// # Safety
    ///
    /// As for [`Self::forward`], with [`GatherBuffers`]. The plan is of one problem, and the indices lie within H.
    pub unsafe fn gather<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &GatherBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &GatherBuffers { input, indices, count, rows, row_elements } = buffers;
        if self.settings().tokens == 0 || self.settings().in_features == 0 {
            return Ok(());
        }
        let alignment = self.settings().input.bytes();
        check_pointer("the input", input, alignment)?;
        check_pointer("the indices", indices, 4)?;
        check_pointer("the count", count, 4)?;
        check_pointer("the rows", rows.cast_const(), alignment)?;
        let selected = Selected {
            indices: indices.cast_mut(),
            scales: ptr::null_mut(),
            count: count.cast_mut(),
            status: ptr::null_mut(),
            winners: ptr::null_mut(),
        };
        let rows = KeptRows { at: rows, matrices: Matrices::even(row_elements as u64, 0) };
        // SAFETY: the caller's promise.
        unsafe { self.sample.gather(launcher, input, selected, rows) }
    }

    /// Bytes that [`Self::gradient`] needs while it runs.
    ///
    /// # Errors
    ///
    /// More bytes than any memory has.
    pub fn gradient_scratch_bytes(&self) -> Result<u64, PlanError> {
        Ok(self.gradient_parts()?.1)
    }

    /// Where the partial products and the kept rows of dZ, scaled, lie in the scratch; and bytes of both.
    fn gradient_parts(&self) -> Result<([Part; 2], u64), PlanError> {
        let mut layout = Layout::default();
        let partials = self.product.by_kernels().scratch(&mut layout)?;
        let matrices = gathered_matrices(self.settings(), self.kept_rows());
        let sizes = [self.kept_rows() as u64, matrices.row, self.settings().gradient.bytes()];
        let gathered = layout.part("the kept rows of dZ", &sizes)?;
        Ok(([partials, gathered], layout.bytes()))
    }

    /// dW from unscaled rows, by this library's kernels, which read no row beyond the count: the scales go to the rows of
    /// dZ, which are gathered first.
    ///
    /// # Errors
    ///
    /// As for [`Self::select`].
    ///
    /// # Safety
    ///
    /// As for [`Self::backward`], with [`GradientBuffers`]. The plan is of one problem, and the indices lie within dZ.
    pub unsafe fn gradient<L: Launcher>(
        &self,
        launcher: &mut L,
        buffers: &GradientBuffers,
    ) -> Result<(), ExecuteError<L::Error>> {
        let &GradientBuffers { rows, row_elements, indices, scales, count, gradient, weight_gradient, update, scratch } =
            buffers;
        let settings = self.settings();
        if settings.in_features == 0 || settings.out_features == 0 {
            return Ok(());
        }
        if settings.tokens > 0 {
            check_pointer("the rows", rows, settings.input.bytes())?;
            check_pointer("the indices", indices, 4)?;
            check_pointer("the scales", scales, 8)?;
            check_pointer("dZ", gradient, settings.gradient.bytes())?;
        }
        check_pointer("the count", count, 4)?;
        check_pointer("dW", weight_gradient.cast_const(), settings.weight_gradient.bytes())?;
        // No memory has u64::MAX bytes, so the check fails where the size overflows.
        let ([partials, gathered], bytes) = self.gradient_parts().unwrap_or(([Part::default(); 2], u64::MAX));
        scratch.check("the scratch of the product", bytes)?;
        let gathered = scratch.of::<u8>(gathered);
        let kept = KeptOfGradient { indices, count, out: gathered };
        // SAFETY: the caller's promise; the gathered rows are a part of the scratch.
        unsafe { self.gradient_reader().gather(launcher, gradient, &kept, scales) }?;
        let factors = Factors {
            left: rows,
            left_matrices: Matrices::even(row_elements as u64, 0),
            right: gathered,
            right_matrices: gathered_matrices(settings, self.kept_rows()),
            indices: ptr::null(),
            count,
            product: weight_gradient,
            product_matrices: self.dw,
            update,
            partials: scratch.of(partials),
            workspace: ptr::null_mut(),
        };
        // SAFETY: as above.
        unsafe { self.product.by_kernels().run(launcher, &factors, None) }
    }
}
