//! A selection in a caller's memory.

use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{Array, Region, Wanted, check_disjoint};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::ptr;
use wtacrs_core::Selection;

/// Where a selection lies, or is to be written: kept rows and their scales 1/pi.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_selection {
    /// sizeof(wtacrs_selection)
    pub size: usize,
    /// The kept rows, strictly ascending.
    pub indices: *mut u32,
    /// The scale of each. wtacrs_plan_gather does not read it.
    pub scales: *mut f64,
    /// Entries that `indices` and `scales` have room for. Ignored where a selection is read.
    pub capacity: usize,
    /// How many rows are kept: one number.
    pub kept: *mut u64,
    /// How many of them were certain: one number. Ignored where a selection is read.
    pub winners: *mut u64,
}

impl Default for wtacrs_selection {
    fn default() -> Self {
        let (indices, scales, kept, winners) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        Self { size: size_of::<Self>(), indices, scales, capacity: 0, kept, winners }
    }
}

// SAFETY: repr(C), begins with its size, and has numbers and pointers alone.
unsafe impl SizedStruct for wtacrs_selection {}

/// The caller's struct, which must be there.
///
/// # Safety
///
/// `selection` is NULL, or leads to a struct of as many bytes as its first field says.
pub(super) unsafe fn given(selection: *const wtacrs_selection) -> Outcome<wtacrs_selection> {
    Array::new(selection, 1, "selection")?;
    // SAFETY: the caller has it.
    unsafe { options::read(selection, "the selection") }
}

/// Where a selection is to be written on the host, or its counts alone.
pub(super) struct SelectionOutput {
    indices: Array<u32>,
    scales: Array<f64>,
    capacity: usize,
    is_wanted: bool,
    counts: Wanted<u64, 2>,
}

impl SelectionOutput {
    /// # Safety
    ///
    /// As for [`given`].
    pub(super) unsafe fn new(selection: *const wtacrs_selection) -> Outcome<Self> {
        // SAFETY: the caller has it.
        let wtacrs_selection { indices, scales, capacity, kept, winners, .. } = unsafe { given(selection) }?;
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
    pub(super) unsafe fn write(&self, selection: &Selection, inputs: &[Region]) -> Outcome {
        let mut outputs = vec![self.indices.region(), self.scales.region()];
        outputs.extend(self.counts.regions());
        check_disjoint(&outputs, inputs)?;
        if self.is_wanted && self.capacity < selection.len() {
            let message = format!("room for {} pairs where {} are kept", self.capacity, selection.len());
            return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
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
