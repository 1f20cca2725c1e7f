//! A norm predictor on a device, and what it learns from.

use crate::arguments::{Array, Stream};
use crate::boundary::Outcome;
use core::any::Any;
use wtacrs_core::guesses::NormPredictor;

/// What a norm predictor learns from: a forward pass's saved memory and norms for each of its tokens.
pub(crate) struct Lesson {
    pub(crate) saved: Array<u8>,
    pub(crate) dz_norms: Array<f32>,
    pub(crate) cached_norms: Option<Array<f32>>,
    pub(crate) stream: Stream,
}

/// A norm predictor whose state lies on one device. Plans of that device find their own type by downcasting, and so does a
/// predictor the layout of their saved memory ([`LinearPlan::saved_layout`](super::LinearPlan::saved_layout)).
pub(crate) trait NormPredictorObject: Any + Send + Sync {
    /// How many numbers a step's statistics are.
    fn statistics_len(&self) -> Outcome<usize>;

    /// Learns from a step.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn update(&self, layout: &dyn Any, lesson: Lesson) -> Outcome;

    /// Writes what a step brings, without learning.
    ///
    /// # Safety
    ///
    /// See the module; `sums` has as many numbers as the statistics.
    unsafe fn statistics(&self, layout: &dyn Any, lesson: Lesson, sums: &Array<f64>) -> Outcome;

    /// Learns from statistics.
    ///
    /// # Safety
    ///
    /// As for [`Self::statistics`].
    unsafe fn apply(&self, sums: &Array<f64>, stream: Stream) -> Outcome;

    /// What came of the last step: see `wtacrs_norm_predictor_outcome`.
    fn outcome(&self) -> Outcome<[u32; 2]>;

    /// Settings and state, on the host.
    fn fetch(&self) -> Outcome<NormPredictor>;
}
