//! The selection that a forward pass has saved, for looking at.

use crate::array::{Array, Region, Wanted, block, check_disjoint, device_block};
use crate::guard::{Failure, Outcome, guard};
use crate::plan::{plan, wtacrs_plan};
use crate::status::*;
use core::ffi::c_void;
use wtacrs_core::Selection;

/// Reads the selection in saved memory back: `*kept` indices, ascending, with their scales, of which `*winners` were
/// certain. `indices` and `scales` have room for `capacity` entries, or are NULL with `capacity` 0 to ask for the counts
/// alone; `kept` and `winners` may be NULL where they are not wanted.
///
/// On CUDA only `saved` is the GPU's memory. The call waits for all that was launched in the CUDA context, so it must
/// not be made while a stream is captured; and WTACRS_INVALID_WEIGHTS names a row of H whose norm or guess was no number.
///
/// Errors: WTACRS_BUFFER_TOO_SMALL; as for wtacrs_backward about `saved`; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
/// WTACRS_MISALIGNED, WTACRS_OVERLAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_saved_selection(
    plan: *const wtacrs_plan,
    saved: *const c_void,
    saved_bytes: usize,
    indices: *mut u32,
    scales: *mut f64,
    capacity: usize,
    kept: *mut u64,
    winners: *mut u64,
) -> wtacrs_status {
    guard("wtacrs_saved_selection", || {
        let plan = self::plan(plan)?;
        let (saved, selection) = match plan.on_gpu() {
            Some((gpu, layer)) => {
                let saved = device_block(saved, saved_bytes, plan.sizes.saved, "saved")?;
                // SAFETY: as documented, it is memory of the GPU.
                let selection = unsafe { layer.selection(&plan, gpu, &saved) }?;
                (saved, selection)
            }
            None => {
                let saved = block(saved, saved_bytes, plan.saved.bytes(), "saved")?;
                // SAFETY: checked for size and alignment; nobody writes to it.
                let selection = unsafe { plan.saved.selection(saved.as_ptr()) }?;
                (saved, selection)
            }
        };
        let output = SelectionOutput::new(indices, scales, capacity, kept, winners)?;
        // SAFETY: as documented.
        unsafe { output.write(&selection, &[saved.region()]) }
    })
}

/// Where a selection is to be written, or its counts alone.
pub(crate) struct SelectionOutput {
    indices: Array<u32>,
    scales: Array<f64>,
    capacity: usize,
    is_wanted: bool,
    counts: Wanted<u64, 2>,
}

impl SelectionOutput {
    pub(crate) fn new(
        indices: *mut u32,
        scales: *mut f64,
        capacity: usize,
        kept: *mut u64,
        winners: *mut u64,
    ) -> Outcome<Self> {
        Ok(Self {
            indices: Array::new(indices, capacity, "indices")?,
            scales: Array::new(scales, capacity, "scales")?,
            capacity,
            is_wanted: capacity > 0 || !indices.is_null() || !scales.is_null(),
            counts: Wanted::new([(kept, "kept"), (winners, "winners")])?,
        })
    }

    /// # Safety
    ///
    /// The outputs must be writable and used by nobody else.
    pub(crate) unsafe fn write(&self, selection: &Selection, inputs: &[Region]) -> Outcome {
        let mut outputs = vec![self.indices.region(), self.scales.region()];
        outputs.extend(self.counts.regions());
        check_disjoint(&outputs, inputs)?;
        if self.is_wanted && self.capacity < selection.len() {
            let message = format!("room for {} pairs where {} are kept", self.capacity, selection.len());
            return Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message));
        }
        if self.is_wanted {
            // SAFETY: checked for NULL, alignment and overlap; the caller has the rest.
            let (indices, scales) = unsafe { (self.indices.get_mut(), self.scales.get_mut()) };
            indices[..selection.len()].copy_from_slice(selection.indices());
            scales[..selection.len()].copy_from_slice(selection.scales());
        }
        // SAFETY: as above.
        unsafe { self.counts.set([selection.len() as u64, selection.winners() as u64]) };
        Ok(())
    }
}
