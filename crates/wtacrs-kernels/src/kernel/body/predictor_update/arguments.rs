//! How the three launches read their arguments and the scratch between them.

use crate::kernel::predictor_update::{Args, Projection};
use wtacrs_simt::memory;

/// In place of the logarithm of a norm that is too small for one.
pub(super) const FAINT: f64 = f64::NEG_INFINITY;
/// In place of the logarithm of zero.
pub(super) const VANISHED: f64 = f64::INFINITY;
/// In place of a distance on the grid, which is bounded.
pub(super) const NOT_CACHED: f64 = f64::INFINITY;

impl Args {
    /// Blocks of the first launch: the most rows that a step learns from.
    #[inline(always)]
    pub(super) fn blocks(&self) -> u32 {
        let most = if self.budget < self.rows_per_update { self.budget } else { self.rows_per_update };
        if most > 1 { most } else { 1 }
    }

    #[inline(always)]
    pub(super) fn projection(&self) -> Projection {
        Projection::new(self.in_features, self.features)
    }

    /// How many rows were selected, and how many of them are learned from.
    ///
    /// # Safety
    ///
    /// `count` is null or leads to a number.
    #[inline(always)]
    pub(super) unsafe fn rows_given_and_chosen(&self) -> (u32, u32) {
        // SAFETY: the caller's promise.
        let given = if self.count.is_null() { self.budget } else { unsafe { memory::load_constant(self.count) } };
        let given = if given < self.budget { given } else { self.budget };
        (given, if given < self.rows_per_update { given } else { self.rows_per_update })
    }
}

/// The address so many bytes into a buffer, for numbers of T.
///
/// # Safety
///
/// It lies in the buffer.
#[inline(always)]
pub(super) unsafe fn at<T>(buffer: *mut u8, bytes: u64) -> *mut T {
    // SAFETY: the caller's promise; buffers are aligned to 16 and offsets to their type.
    unsafe { buffer.add(bytes as usize).cast() }
}
