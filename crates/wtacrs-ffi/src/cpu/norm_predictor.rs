//! A norm predictor on the CPU.

use super::kept_block::KeptBlock;
use super::threads;
use crate::arguments::{Array, Stream, heap, known_norms, with_element};
use crate::boundary::status::WTACRS_STATUS_DEVICE_MISMATCH;
use crate::boundary::{Failure, Outcome, poisoned};
use crate::device::{Lesson, NormPredictorObject};
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use ndarray::Array2;
use std::sync::{Arc, RwLock};
use wtacrs_core::guesses::{NormPredictor, StepOutcome, StepStatistics};
use wtacrs_core::parallel::Threads;

/// A predictor behind a lock: forward passes read it, and what changes it waits for them.
pub(super) struct CpuNormPredictor {
    predictor: RwLock<NormPredictor>,
    threads: Arc<dyn Threads>,
    /// Of the last step, as `wtacrs_norm_predictor_outcome` reports it.
    outcome: AtomicU32,
}

impl CpuNormPredictor {
    pub(super) fn new(predictor: NormPredictor, threads: Arc<dyn Threads>) -> Self {
        let outcome = AtomicU32::new(number(StepOutcome::NothingToLearn));
        Self { predictor: RwLock::new(predictor), threads, outcome }
    }

    pub(super) fn get(&self) -> &RwLock<NormPredictor> {
        &self.predictor
    }

    fn learn(&self, predictor: &mut NormPredictor, step: &StepStatistics) -> Outcome {
        let outcome = predictor.apply(step)?;
        self.outcome.store(number(outcome), Ordering::Relaxed);
        Ok(())
    }
}

impl NormPredictorObject for CpuNormPredictor {
    fn statistics_len(&self) -> Outcome<usize> {
        let _entered = threads::enter(&self.threads);
        Ok(no_statistics(&*self.predictor.read().map_err(poisoned)?)?.sums().len())
    }

    unsafe fn update(&self, layout: &dyn Any, lesson: Lesson) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let mut predictor = self.predictor.write().map_err(poisoned)?;
        // SAFETY: the caller has it.
        let step = unsafe { statistics(&predictor, layout, &lesson) }?;
        self.learn(&mut predictor, &step)
    }

    unsafe fn statistics(&self, layout: &dyn Any, lesson: Lesson, sums: &Array<f64>) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let predictor = self.predictor.read().map_err(poisoned)?;
        // SAFETY: the caller has it.
        unsafe {
            let step = statistics(&predictor, layout, &lesson)?;
            sums.get_mut().copy_from_slice(step.sums());
        }
        Ok(())
    }

    unsafe fn apply(&self, sums: &Array<f64>, _stream: Stream) -> Outcome {
        let _entered = threads::enter(&self.threads);
        let mut predictor = self.predictor.write().map_err(poisoned)?;
        let mut step = no_statistics(&predictor)?;
        // SAFETY: the caller has it.
        step.sums_mut().copy_from_slice(unsafe { sums.get() });
        self.learn(&mut predictor, &step)
    }

    fn outcome(&self) -> Outcome<[u32; 2]> {
        Ok([self.outcome.load(Ordering::Relaxed), 0])
    }

    fn fetch(&self) -> Outcome<NormPredictor> {
        let predictor = self.predictor.read().map_err(poisoned)?;
        heap::check("a copy of a predictor", &[(predictor.bytes(), 2)])?;
        Ok(predictor.clone())
    }
}

/// As the header numbers outcomes.
fn number(outcome: StepOutcome) -> u32 {
    match outcome {
        StepOutcome::Learned => 0,
        StepOutcome::NothingToLearn => 1,
        StepOutcome::LevelLost => 2,
    }
}

/// Refuses to learn from a step's rows if there is no memory for that.
fn check_heap(predictor: &NormPredictor, rows: usize) -> Outcome {
    let (inputs, r) = (predictor.in_features(), predictor.features());
    let rows = rows.min(predictor.settings().rows_per_update);
    // Features in 32 bits with some padding; sums of half a square, once more with those of other ranks.
    heap::check("a predictor's step", &[(rows, 4 * r + 256), (r * (r + 16), 8), (inputs, 8)])
}

/// # Safety
///
/// The caller's arrays, as for every call.
unsafe fn statistics(predictor: &NormPredictor, layout: &dyn Any, lesson: &Lesson) -> Outcome<StepStatistics> {
    let block: &KeptBlock = layout.downcast_ref().ok_or_else(|| {
        Failure::new(WTACRS_STATUS_DEVICE_MISMATCH, "the plan is a GPU's, and the predictor is the CPU's")
    })?;
    check_heap(predictor, block.capacity())?;
    // SAFETY: the caller has it.
    let (norms, cached) = unsafe { (lesson.dz_norms.get(), lesson.cached_norms.as_ref().map(|cached| cached.get())) };
    with_element!(block.dtype(), T => {
        // SAFETY: as above; saved memory has the size and alignment of the block.
        let saved = unsafe { block.read::<T>(lesson.saved.as_ptr()) }?;
        let kept = saved.kept();
        let of_kept = |norms: &[f32]| -> Vec<f32> { (0..kept.len()).map(|at| norms[kept.index(at)]).collect() };
        let scales: Vec<f64> = (0..kept.len()).map(|at| kept.scale(at)).collect();
        let cached = cached.map(|cached| known_norms(&of_kept(cached)));
        Ok(predictor.statistics(saved.rows()?, &of_kept(norms), &scales, cached.as_deref())?)
    })
}

/// The statistics of no rows.
fn no_statistics(predictor: &NormPredictor) -> Outcome<StepStatistics> {
    check_heap(predictor, 0)?;
    let rows = Array2::<f32>::zeros((0, predictor.in_features()));
    Ok(predictor.statistics(rows.view(), &[], &[], None)?)
}
